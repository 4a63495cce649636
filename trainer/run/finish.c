// The end of a run. Every artefact is written, loaded again and run beside the trainer's own
// parameters before the manifest names it; the manifest comes last and makes the run a finished
// one. Everything before it is written so that a second time gives the same bytes.
#include "trainer/run/end.h"

#include <string.h>

enum { VERIFY_TOKENS = 256 }; // of all prompts together: a few seconds in fp32

static bool wants(const sd_run *r, const char *name) {
    for (int i = 0; i < r->recipe.exports.n; i++)
        if (strcmp(r->recipe.exports.item[i], name) == 0) return true;
    return false;
}

/// Pieces of records around the first learnt token, so that the compared positions are those the
/// training changed.
static sd_status collect_text(sd_run_end *f, sd_error *err) {
    sd_status st = SD_OK;
    const sd_run *r = f->r;
    const sd_rows *rows = r->eval_data ? &r->eval : &r->train;
    int64_t prompts = r->recipe.verify.prompts < rows->n ? r->recipe.verify.prompts : rows->n;
    int limit = r->model->hp.ctx_train < VERIFY_TOKENS ? r->model->hp.ctx_train : VERIFY_TOKENS;
    f->text = sd_alloc(VERIFY_TOKENS, sizeof *f->text);
    SD_CHECK_ALLOC(f->text, err);
    for (int64_t i = 0; i < prompts; i++) {
        sd_dataset_row row;
        int room = (int)((limit - f->n) / (prompts - i)), first = 0;
        SD_TRY(sd_dataset_read(rows->data, i * rows->n / prompts, &row, err));
        while (first < row.used && row.label[first] == SD_NO_LABEL) first++;
        int from = first > room / 2 ? first - room / 2 : 0;
        for (int t = from; t < row.used && t < from + room; t++) f->text[f->n++] = row.token[t];
    }
out:
    return st;
}

/// The trainer's side of that comparison; afterwards its memory is free for the verification.
static sd_status trainer_loss(sd_run_end *f, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    sd_train_sum sum = {0};
    int32_t *segment = NULL;
    if (f->n > r->pass.max_tokens) f->n = r->pass.max_tokens;
    if (f->n < 2) f->n = 0;
    if (f->n) {
        segment = sd_alloc((size_t)f->n, sizeof *segment);
        SD_CHECK_ALLOC(segment, err);
        sd_train_batch b = {1, f->n, f->text, f->text, segment};
        SD_TRY(sd_train_loss(r->trainer, f->theta, &b, &sum, err));
        r->report->trainer_loss = sum.loss / (double)sum.supervised;
    }
    sd_train_close(r->trainer);
    r->trainer = NULL;
out:
    free(segment);
    return st;
}

sd_status sd_run_finish(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    bool best = r->recipe.eval.keep_best && r->c.state.has_best;
    sd_sha256 adapter = {{0}};
    sd_run_end f = {.r = r, .theta = best ? r->c.best : r->c.theta, .artefacts = json_object()};
    SD_CHECK_ALLOC(f.artefacts, err);
    if (best && r->c.state.best_step != r->c.state.step)
        sd_run_say(r, "the adapter is that of step %lld, whose eval loss %.4f was the lowest",
                   (long long)r->c.state.best_step, r->c.state.best_loss);
    SD_TRY(collect_text(&f, err));
    SD_TRY(trainer_loss(&f, err));
    SD_TRY(sd_lora_to_adapter(&f.own, r->recipe.name, f.theta, &r->layout, r->model, err));
    SD_TRY(sd_run_write_peft(&f, &adapter, err));
    if (wants(r, "gguf-lora")) SD_TRY(sd_run_write_gguf(&f, err));
    if (wants(r, "merged")) SD_TRY(sd_run_write_merged(&f, err));
    if (r->recipe.draft.index) SD_TRY(sd_run_write_index(&f, &adapter, err));
    SD_TRY(sd_run_write_manifest(&f, err));
out:
    sd_adapter_release(f.own);
    json_decref(f.artefacts);
    free(f.text);
    return st;
}
