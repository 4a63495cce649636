// The end of a run. Every artefact is written, loaded again and run beside the trainer's own
// parameters before the manifest names it; the manifest comes last and makes the run a finished
// one. Everything before it is written so that a second time gives the same bytes.
#include "trainer/run/end.h"

#include <math.h>
#include <string.h>

enum { VERIFY_TOKENS = 256 }; // of all prompts together: a few seconds in fp32

static bool wants(const sd_recipe *r, const char *name) {
    for (int i = 0; i < r->exports.n; i++)
        if (strcmp(r->exports.item[i], name) == 0) return true;
    return false;
}

/// The best parameters are exported; otherwise the last.
static bool takes_best(const sd_run_trained *in) {
    return in->recipe->eval.keep_best && in->c->state.has_best;
}

static float *exported(const sd_run_trained *in) {
    return takes_best(in) ? in->c->best : in->c->theta;
}

/// Pieces of records around the first learnt token, so that the compared positions are those the
/// training changed.
static sd_status collect(sd_run_text *out, const sd_run_trained *in, sd_error *err) {
    sd_status st = SD_OK;
    const sd_rows *rows = in->data->eval_set ? &in->data->eval : &in->data->train;
    int64_t wanted = in->recipe->verify.prompts, prompts = wanted < rows->n ? wanted : rows->n;
    int ctx = in->base->model->hp.ctx_train, limit = ctx < VERIFY_TOKENS ? ctx : VERIFY_TOKENS;
    out->token = sd_alloc(VERIFY_TOKENS, sizeof *out->token);
    SD_CHECK_ALLOC(out->token, err);
    for (int64_t i = 0; i < prompts; i++) {
        sd_dataset_row row;
        int room = (int)((limit - out->n) / (prompts - i)), first = 0;
        SD_TRY(sd_dataset_read(rows->data, i * rows->n / prompts, &row, err));
        while (first < row.used && row.label[first] == SD_NO_LABEL) first++;
        int from = first > room / 2 ? first - room / 2 : 0;
        for (int t = from; t < row.used && t < from + room; t++)
            out->token[out->n++] = row.token[t];
    }
out:
    return st;
}

sd_status sd_run_collect_text(sd_run_text *out, const sd_run_trained *in, const sd_learner *learner,
                              int max_tokens, sd_error *err) {
    sd_status st = SD_OK;
    sd_train_sum sum = {0};
    int32_t *segment = NULL;
    *out = (sd_run_text){.loss = NAN, .ctx = (int)in->recipe->data.sequence_len};
    SD_TRY(collect(out, in, err));
    if (out->n > max_tokens) out->n = max_tokens;
    if (out->n < 2) out->n = 0;
    if (out->ctx < out->n) out->ctx = out->n;
    if (out->n == 0) goto out;
    segment = sd_alloc((size_t)out->n, sizeof *segment);
    SD_CHECK_ALLOC(segment, err);
    sd_train_batch b = {
        .rows = 1, .T = out->n, .token = out->token, .label = out->token, .segment = segment};
    SD_TRY(learner->attach(learner->ctx, &(sd_learner_arrays){.theta = exported(in)}, err));
    SD_TRY(learner->loss(learner->ctx, &b, err));
    SD_TRY(learner->finish(learner->ctx, &sum, err));
    out->loss = sum.loss / (double)sum.supervised;
out:
    free(segment);
    return st;
}

sd_status sd_run_finish(sd_run_verification *out, const sd_run_trained *in, const sd_run_text *text,
                        sd_error *err) {
    sd_status st = SD_OK;
    const sd_recipe *r = in->recipe;
    const sd_train_state *s = &in->c->state;
    bool best = takes_best(in);
    sd_adapter *own = NULL;
    sd_sha256 adapter = {{0}};
    sd_run_end e = {.in = in, .text = text, .artefacts = json_object(), .verified = out};
    *out = (sd_run_verification){.worst_top1 = 1, .trainer_loss = text->loss, .reloaded_loss = NAN};
    SD_CHECK_ALLOC(e.artefacts, err);
    if (best && s->best_step != s->step)
        sd_run_say(in->o, "the adapter is that of step %lld, whose eval loss %.4f was the lowest",
                   (long long)s->best_step, s->best_loss);
    SD_TRY(
        sd_lora_to_adapter(&own, r->name, exported(in), &in->base->layout, in->base->model, err));
    e.own = own;
    SD_TRY(sd_run_judged(&e.defaults, in->o, in->data, err));
    SD_TRY(sd_run_write_peft(&e, &adapter, err));
    if (wants(r, "gguf-lora")) SD_TRY(sd_run_write_gguf(&e, err));
    if (wants(r, "merged")) SD_TRY(sd_run_write_merged(&e, err));
    if (r->draft.index) SD_TRY(sd_run_write_index(&e, &adapter, err));
    SD_TRY(sd_run_write_manifest(&e, best ? s->best_step : s->step, err));
out:
    sd_adapter_release(own);
    json_decref(e.artefacts);
    sd_defaults_free(&e.defaults);
    return st;
}
