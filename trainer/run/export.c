// The exports of a run: each is loaded again and run beside the trainer's own parameters.
#include "base/files/path.h"
#include "base/memory.h"
#include "model/adapter/chat_template.h"
#include "model/chat.h"
#include "model/infer/compare_logits.h"
#include "model/infer/forward.h"
#include "trainer/run/end.h"

#include <math.h>
#include <string.h>

// ---- verification

static sd_status note(sd_run_end *e, const char *name, const sd_logit_difference *d, json_t *entry,
                      sd_error *err) {
    bool kept = json_object_set_new(entry, "positions", json_integer(d->positions)) == 0 &&
                json_object_set_new(entry, "mean_kl", json_real(d->mean_kl)) == 0 &&
                json_object_set_new(entry, "max_kl", json_real(d->max_kl)) == 0 &&
                json_object_set_new(entry, "top1", json_real(d->top1)) == 0;
    if (!kept) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_run_say(e->in->o, "%s: loaded again, %d positions: mean KL %.2g, same best token %.2f %%",
               name, d->positions, d->mean_kl, 100 * d->top1);
    return SD_OK;
}

/// An adapter that was loaded again, against the trained parameters.
static sd_status compare(sd_run_end *e, const char *name, const char *path, const sd_adapter *again,
                         json_t *entry, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = e->in->base->model;
    sd_run_verification *v = e->verified;
    double max_kl = e->in->recipe->verify.max_kl, top1 = e->in->recipe->verify.top1;
    sd_logit_difference d;
    SD_TRY(sd_compare_logits(&d, m, e->own, m, again, e->text->token, e->text->n, e->in->base->pool,
                             err));
    SD_TRY(note(e, name, &d, entry, err));
    v->artefacts++;
    v->worst_kl = fmax(v->worst_kl, d.mean_kl);
    v->worst_top1 = fmin(v->worst_top1, d.top1);
    SD_CHECK(
        d.mean_kl <= max_kl && d.top1 >= top1, err, SD_EMISMATCH,
        "%s: loaded again it differs from the trained parameters: mean KL %.3g (at most %.3g), "
        "same best token %.4f (at least %.4f); the file is not good, please report it",
        path, d.mean_kl, max_kl, d.top1, top1);
out:
    return st;
}

/// The mean loss of the verification text as the training pass sees it, against the inference
/// forward with the adapter loaded again: the two implementations must mean the same adapter.
static sd_status forward_loss(double *mean, const sd_run_text *text, const sd_run_base *base,
                              const sd_adapter *a, sd_error *err) {
    enum { CHUNK = 32 };
    sd_status st = SD_OK;
    sd_context *cx = NULL;
    sd_kv *kv = NULL;
    size_t V = (size_t)base->model->hp.V;
    float *logits = sd_alloc(CHUNK, V * sizeof *logits);
    double sum = 0;
    SD_CHECK_ALLOC(logits, err);
    SD_TRY(sd_context_open(&cx, base->model, base->pool,
                           &(sd_context_options){.max_rows = CHUNK, .compute = SD_COMPUTE_FP32},
                           err));
    SD_TRY(sd_kv_open(&kv, cx, text->ctx, err));
    for (int from = 0; from < text->n; from += CHUNK) {
        sd_row rows[CHUNK];
        int n = text->n - from < CHUNK ? text->n - from : CHUNK;
        for (int i = 0; i < n; i++)
            rows[i] = (sd_row){.token = text->token[from + i],
                               .pos = from + i,
                               .kv = kv,
                               .adapter = a,
                               .want_logits = true};
        SD_TRY(sd_forward(cx, rows, n, logits, err));
        kv->len = from + n;
        for (int i = 0; i < n && from + i + 1 < text->n; i++) {
            const float *row = logits + (size_t)i * V;
            sum += sd_log_sum_exp(row, (int)V, NULL) - (double)row[text->token[from + i + 1]];
        }
    }
    *mean = sum / (text->n - 1);
out:
    sd_kv_close(kv);
    sd_context_close(cx);
    free(logits);
    return st;
}

static sd_status compare_passes(sd_run_end *e, const sd_adapter *again, sd_error *err) {
    sd_status st = SD_OK;
    sd_run_verification *v = e->verified;
    SD_TRY(forward_loss(&v->reloaded_loss, e->text, e->in->base, again, err));
    double off = fabs(v->trainer_loss - v->reloaded_loss);
    sd_run_say(e->in->o,
               "loss of that text: %.5f in the trainer, %.5f with the adapter loaded again",
               v->trainer_loss, v->reloaded_loss);
    // bf16 keeps 8 bits: 2 % of a loss is far above its noise and far below a wrong adapter.
    SD_CHECK(off <= 0.02 * fmax(1, v->trainer_loss), err, SD_EMISMATCH,
             "the adapter loaded again has loss %.5f where the trainer has %.5f; please report it",
             v->reloaded_loss, v->trainer_loss);
out:
    return st;
}

// ---- artefacts

// An artefact bears its name only when it is verified. It is written as NAME.unverified, which a
// kill or a failure leaves. A file that bears the name already was left by an end that was killed
// before the manifest.
typedef struct {
    char *tmp, *path;
} artefact;

static sd_status artefact_begin(artefact *a, const sd_run_end *e, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    a->path = sd_path_join(e->in->dir, name);
    a->tmp = a->path ? sd_sprintf("%s.unverified", a->path) : NULL;
    SD_CHECK_ALLOC(a->tmp, err);
    SD_TRY(sd_remove_tree(a->tmp, err));
out:
    return st;
}

// A folder has its defaults in it before it gets its name; beside a file they can only stand after.
static sd_status artefact_publish(const artefact *a, const sd_defaults *d, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, a->tmp, err));
    if (kind == SD_PATH_FOLDER) SD_TRY(sd_defaults_write_beside(d, a->tmp, err));
    SD_TRY(sd_remove_tree(a->path, err));
    SD_TRY(sd_rename_new(a->tmp, a->path, err));
    if (kind != SD_PATH_FOLDER) SD_TRY(sd_defaults_write_beside(d, a->path, err));
out:
    return st;
}

static void artefact_free(artefact *a) {
    free(a->tmp);
    free(a->path);
}

/// The template beside the adapter, for the manifest; none where the base's own was learnt.
static sd_status name_template(sd_run_end *e, sd_error *err) {
    sd_status st = SD_OK;
    const sd_model *m = e->in->base->model;
    json_t *entry;
    sd_sha256 hash;
    if (!sd_model_template_is_taken(m)) return SD_OK;
    const char *source = sd_template_source(m->chat);
    SD_TRY(sd_sha256_of(&hash, source, strlen(source), err));
    SD_TRY(
        sd_run_add_artefact(&entry, e, "chat_template", "adapter/" SD_TEMPLATE_FILE, &hash, err));
out:
    return st;
}

sd_status sd_run_write_peft(sd_run_end *e, sd_sha256 *hash, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = e->in->base->model;
    sd_adapter *again = NULL;
    json_t *entry;
    artefact dir = {0};
    SD_TRY(artefact_begin(&dir, e, "adapter", err));
    SD_TRY(sd_adapter_write_peft(dir.tmp, e->own, m, NULL, err));
    SD_TRY(sd_adapter_open(&again, dir.tmp, m, false, err));
    *hash = again->sha256;
    SD_TRY(
        sd_run_add_artefact(&entry, e, "adapter", "adapter/adapter_model.safetensors", hash, err));
    SD_TRY(name_template(e, err));
    if (e->text->n) {
        SD_TRY(compare(e, "adapter", dir.tmp, again, entry, err));
        SD_TRY(compare_passes(e, again, err));
    }
    SD_TRY(artefact_publish(&dir, &e->defaults, err));
out:
    sd_adapter_release(again);
    artefact_free(&dir);
    return st;
}

sd_status sd_run_write_gguf(sd_run_end *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = e->in->base->model;
    sd_adapter *again = NULL;
    json_t *entry;
    artefact file = {0};
    SD_TRY(artefact_begin(&file, e, "adapter.gguf", err));
    SD_TRY(sd_adapter_write_gguf(file.tmp, e->own, m, err));
    SD_TRY(sd_adapter_open(&again, file.tmp, m, false, err));
    SD_TRY(sd_run_add_artefact(&entry, e, "gguf-lora", "adapter.gguf", &again->sha256, err));
    if (e->text->n) SD_TRY(compare(e, "adapter.gguf", file.tmp, again, entry, err));
    SD_TRY(artefact_publish(&file, &e->defaults, err));
out:
    sd_adapter_release(again);
    artefact_free(&file);
    return st;
}

sd_status sd_run_write_merged(sd_run_end *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = e->in->base->model;
    sd_model *again = NULL;
    sd_merge_report merge;
    sd_logit_difference d;
    const char *name = sd_model_is_gguf(m) ? "merged.gguf" : "merged";
    artefact file = {0};
    json_t *entry;
    sd_sha256 hash;
    SD_TRY(artefact_begin(&file, e, name, err));
    SD_TRY(sd_adapter_write_merged(file.tmp, e->own, m, err));
    SD_TRY(sd_model_open(&again, file.tmp, err));
    SD_TRY(sd_model_sha256(again, &hash, err));
    SD_TRY(sd_verify_merged(&merge, &d, again, e->own, m, e->text->token, e->text->n,
                            e->in->base->pool, err));
    SD_TRY(sd_run_add_artefact(&entry, e, "merged", name, &hash, err));
    SD_CHECK(json_object_set_new(entry, "delta_survived", json_real(merge.survived)) == 0, err,
             SD_ENOMEM, "out of memory");
    sd_run_say(e->in->o, "%s: %.1f %% of the delta is in the file, after rounding to its types",
               name, 100 * merge.survived);
    if (e->text->n) SD_TRY(note(e, name, &d, entry, err));
    SD_TRY(artefact_publish(&file, &e->defaults, err));
out:
    sd_model_release(again);
    artefact_free(&file);
    return st;
}
