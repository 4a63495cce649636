// The end of a run. Every artefact is written, loaded again and run beside the trainer's own
// parameters before the manifest names it; the manifest comes last and makes the run a finished
// one. Everything before it is written so that a second time gives the same bytes.
#include "base/files/file.h"
#include "base/json.h"
#include "datasets/corpus/corpus_index.h"
#include "model/infer/compare_logits.h"
#include "model/infer/forward.h"
#include "trainer/run/private.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VERIFY_TOKENS = 256 }; // of all prompts together: a few seconds in fp32

typedef struct {
    sd_run *r;
    const float *theta; // what is exported
    sd_adapter *own;    // from theta
    int32_t *text;      // [n] pieces of the training records
    int n;
    json_t *artefacts;
} finish;

static bool wants(const sd_run *r, const char *name) {
    for (int i = 0; i < r->recipe.exports.n; i++)
        if (strcmp(r->recipe.exports.item[i], name) == 0) return true;
    return false;
}

// ---- verification

/// Pieces of records around the first learnt token, so that the compared positions are those the
/// training changed.
static sd_status collect_text(finish *f, sd_error *err) {
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

static sd_status note(finish *f, const char *name, const sd_logit_difference *d, json_t *entry,
                      sd_error *err) {
    bool kept = json_object_set_new(entry, "positions", json_integer(d->positions)) == 0 &&
                json_object_set_new(entry, "mean_kl", json_real(d->mean_kl)) == 0 &&
                json_object_set_new(entry, "max_kl", json_real(d->max_kl)) == 0 &&
                json_object_set_new(entry, "top1", json_real(d->top1)) == 0;
    if (!kept) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_run_say(f->r, "%s: loaded again, %d positions: mean KL %.2g, same best token %.2f %%", name,
               d->positions, d->mean_kl, 100 * d->top1);
    return SD_OK;
}

/// An adapter that was loaded again, against the trained parameters.
static sd_status compare(finish *f, const char *name, const char *path, const sd_adapter *again,
                         json_t *entry, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    sd_logit_difference d;
    SD_TRY(sd_compare_logits(&d, r->model, f->own, r->model, again, f->text, f->n, r->pool, err));
    SD_TRY(note(f, name, &d, entry, err));
    r->report->verified++;
    r->report->worst_kl = fmax(r->report->worst_kl, d.mean_kl);
    r->report->worst_top1 = fmin(r->report->worst_top1, d.top1);
    SD_CHECK(
        d.mean_kl <= r->recipe.verify.max_kl && d.top1 >= r->recipe.verify.top1, err, SD_EMISMATCH,
        "%s: loaded again it differs from the trained parameters: mean KL %.3g (at most %.3g), "
        "same best token %.4f (at least %.4f); the file is not good, please report it",
        path, d.mean_kl, r->recipe.verify.max_kl, d.top1, r->recipe.verify.top1);
out:
    return st;
}

/// The mean loss of the verification text as the training pass sees it, against the inference
/// forward with the adapter loaded again: the two implementations must mean the same adapter.
static double text_loss(const float *logits, int V, int32_t next) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++)
        if ((double)logits[i] > max) max = (double)logits[i];
    for (int i = 0; i < V; i++) sum += exp((double)logits[i] - max);
    return max + log(sum) - (double)logits[next];
}

static sd_status forward_loss(double *mean, finish *f, const sd_adapter *a, sd_error *err) {
    enum { CHUNK = 32 };
    sd_status st = SD_OK;
    sd_run *r = f->r;
    sd_context *cx = NULL;
    sd_kv *kv = NULL;
    size_t V = (size_t)r->model->hp.V;
    float *logits = sd_alloc(CHUNK, V * sizeof *logits);
    double sum = 0;
    SD_CHECK_ALLOC(logits, err);
    SD_TRY(sd_context_open(&cx, r->model, r->pool,
                           &(sd_context_options){.max_rows = CHUNK, .compute = SD_COMPUTE_FP32},
                           err));
    SD_TRY(sd_kv_open(&kv, cx, f->n, err));
    for (int from = 0; from < f->n; from += CHUNK) {
        sd_row rows[CHUNK];
        int n = f->n - from < CHUNK ? f->n - from : CHUNK;
        for (int i = 0; i < n; i++) rows[i] = (sd_row){f->text[from + i], from + i, kv, a, true};
        SD_TRY(sd_forward(cx, rows, n, logits, err));
        kv->len = from + n;
        for (int i = 0; i < n && from + i + 1 < f->n; i++)
            sum += text_loss(logits + (size_t)i * V, (int)V, f->text[from + i + 1]);
    }
    *mean = sum / (f->n - 1);
out:
    sd_kv_close(kv);
    sd_context_close(cx);
    free(logits);
    return st;
}

/// The trainer's side of that comparison; afterwards its memory is free for the verification.
static sd_status trainer_loss(finish *f, sd_error *err) {
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

static sd_status compare_passes(finish *f, const sd_adapter *again, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    SD_TRY(forward_loss(&r->report->reloaded_loss, f, again, err));
    double off = fabs(r->report->trainer_loss - r->report->reloaded_loss);
    sd_run_say(r, "loss of that text: %.5f in the trainer, %.5f with the adapter loaded again",
               r->report->trainer_loss, r->report->reloaded_loss);
    // bf16 keeps 8 bits: 2 % of a loss is far above its noise and far below a wrong adapter.
    SD_CHECK(off <= 0.02 * fmax(1, r->report->trainer_loss), err, SD_EMISMATCH,
             "the adapter loaded again has loss %.5f where the trainer has %.5f; please report it",
             r->report->reloaded_loss, r->report->trainer_loss);
out:
    return st;
}

// ---- artefacts

// An artefact bears its name only when it is verified: it is written as NAME.unverified, which is
// what a kill or a failure leaves. What bears the name already is of an end that was killed before
// the manifest.
typedef struct {
    char *tmp, *path;
} artefact;

static sd_status artefact_begin(artefact *a, const finish *f, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    a->path = sd_run_path(f->r, name);
    a->tmp = a->path ? sd_sprintf("%s.unverified", a->path) : NULL;
    SD_CHECK_ALLOC(a->tmp, err);
    SD_TRY(sd_remove_tree(a->tmp, err));
out:
    return st;
}

static sd_status artefact_publish(const artefact *a, sd_error *err) {
    sd_status st = sd_remove_tree(a->path, err);
    return st == SD_OK ? sd_rename_new(a->tmp, a->path, err) : st;
}

static void artefact_free(artefact *a) {
    free(a->tmp);
    free(a->path);
}

static sd_status add_entry(json_t **entry, finish *f, const char *name, const char *file,
                           const sd_sha256 *hash, sd_error *err) {
    sd_status st = SD_OK;
    *entry = json_pack("{s:s, s:s}", "file", file, "sha256", hash->hex);
    SD_CHECK_ALLOC(*entry, err);
    SD_CHECK(json_object_set_new(f->artefacts, name, *entry) == 0, err, SD_ENOMEM, "out of memory");
out:
    return st;
}

/// adapter/ is always written: it is the run's result.
static sd_status write_peft(finish *f, sd_sha256 *hash, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    sd_adapter *again = NULL;
    json_t *entry;
    artefact dir = {0};
    SD_TRY(artefact_begin(&dir, f, "adapter", err));
    SD_TRY(sd_adapter_write_peft(dir.tmp, f->own, r->model, err));
    SD_TRY(sd_adapter_open(&again, dir.tmp, r->model, err));
    *hash = again->sha256;
    SD_TRY(add_entry(&entry, f, "adapter", "adapter/adapter_model.safetensors", hash, err));
    if (f->n) {
        SD_TRY(compare(f, "adapter", dir.tmp, again, entry, err));
        SD_TRY(compare_passes(f, again, err));
    }
    SD_TRY(artefact_publish(&dir, err));
out:
    sd_adapter_release(again);
    artefact_free(&dir);
    return st;
}

static sd_status write_gguf(finish *f, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    sd_adapter *again = NULL;
    json_t *entry;
    artefact file = {0};
    SD_TRY(artefact_begin(&file, f, "adapter.gguf", err));
    SD_TRY(sd_adapter_write_gguf(file.tmp, f->own, r->model, err));
    SD_TRY(sd_adapter_open(&again, file.tmp, r->model, err));
    SD_TRY(add_entry(&entry, f, "gguf-lora", "adapter.gguf", &again->sha256, err));
    if (f->n) SD_TRY(compare(f, "adapter.gguf", file.tmp, again, entry, err));
    SD_TRY(artefact_publish(&file, err));
out:
    sd_adapter_release(again);
    artefact_free(&file);
    return st;
}

static sd_status write_merged(finish *f, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    sd_model *again = NULL;
    sd_merge_report merge;
    sd_logit_difference d;
    const char *name = r->model->is_gguf ? "merged.gguf" : "merged";
    artefact file = {0};
    json_t *entry;
    sd_sha256 hash;
    SD_TRY(artefact_begin(&file, f, name, err));
    SD_TRY(sd_adapter_write_merged(file.tmp, f->own, r->model, err));
    SD_TRY(sd_model_open(&again, file.tmp, err));
    SD_TRY(sd_model_sha256(again, &hash, err));
    SD_TRY(sd_verify_merged(&merge, &d, again, f->own, r->model, f->text, f->n, r->pool, err));
    SD_TRY(add_entry(&entry, f, "merged", name, &hash, err));
    SD_CHECK(json_object_set_new(entry, "delta_survived", json_real(merge.survived)) == 0, err,
             SD_ENOMEM, "out of memory");
    sd_run_say(r, "%s: %.1f %% of the delta is in the file, after rounding to its types", name,
               100 * merge.survived);
    if (f->n) SD_TRY(note(f, name, &d, entry, err));
    SD_TRY(artefact_publish(&file, err));
out:
    sd_model_release(again);
    artefact_free(&file);
    return st;
}

// ---- the draft index

/// Each run of learnt tokens of the training records, followed by -1. Of all of them, also where
/// max_steps or patience ended the run before it had seen each: the index is a draft from the
/// domain's text, every draft is verified, and a completion that was not learnt is as likely a
/// pattern of the answers as one that was. Held-out records stay out, so that what is measured on
/// them is honest.
static sd_status completions(int32_t **out, int64_t *n, const sd_rows *rows, sd_error *err) {
    sd_status st = SD_OK;
    size_t cap = (size_t)rows->labelled * 2 + 1; // at worst every token ends a run
    int32_t *p = sd_alloc(cap, sizeof *p);
    *out = NULL;
    *n = 0;
    SD_CHECK_ALLOC(p, err);
    for (int64_t i = 0; i < rows->n; i++) {
        sd_dataset_row row;
        SD_TRY(sd_dataset_read(rows->data, i, &row, err));
        for (int t = 0; t < row.used; t++) {
            if (row.label[t] == SD_NO_LABEL) continue;
            p[(*n)++] = row.token[t];
            bool goes_on = t + 1 < row.used && row.label[t + 1] != SD_NO_LABEL &&
                           row.segment[t + 1] == row.segment[t];
            if (!goes_on) p[(*n)++] = -1;
        }
    }
    *out = p, p = NULL;
out:
    free(p);
    return st;
}

static sd_status write_index(finish *f, const sd_sha256 *adapter, sd_error *err) {
    sd_status st = SD_OK;
    sd_run *r = f->r;
    int32_t *tokens = NULL;
    int64_t n;
    json_t *entry;
    sd_sha256 hash;
    char *dir = sd_run_path(r, "draft"), *path = sd_run_path(r, "draft/corpus.idx");
    SD_CHECK_ALLOC(dir, err);
    SD_CHECK_ALLOC(path, err);
    SD_TRY(completions(&tokens, &n, &r->train, err));
    if (n == 0) goto out;
    SD_TRY(sd_mkdirs(dir, err));
    SD_TRY(sd_corpus_write(path, tokens, n, sd_tokenizer_fingerprint(r->model->tokenizer), adapter,
                           err));
    SD_TRY(sd_sha256_of_file(&hash, path, err));
    SD_TRY(add_entry(&entry, f, "draft", "draft/corpus.idx", &hash, err));
    SD_CHECK(json_object_set_new(entry, "tokens", json_integer((json_int_t)n)) == 0, err, SD_ENOMEM,
             "out of memory");
out:
    free(tokens);
    free(dir);
    free(path);
    return st;
}

// ---- the manifest

static bool set_number(json_t *j, const char *name, double v) {
    return json_object_set_new(j, name, isfinite(v) ? json_real(v) : json_null()) == 0;
}

static sd_status write_manifest(finish *f, sd_error *err) {
    sd_status st = SD_OK;
    const sd_run *r = f->r;
    const sd_train_state *s = &r->c.state;
    char *path = sd_run_path(r, "manifest.json"), *text = NULL;
    bool best = r->recipe.eval.keep_best && s->has_best;
    sd_sha256 recipe = {{0}};
    SD_TRY(sd_sha256_of(&recipe, r->resolved_text.data, r->resolved_text.len, err));
    json_t *j = json_pack(
        "{s:i, s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s, s:I, s:I, s:I}, s:s, s:I, s:I, s:I, s:I, s:O}",
        "specdec_run", 1, "name", r->recipe.name, "version", SPECDEC_VERSION, "base", "path",
        r->model->path, "sha256", r->base_sha256.hex, "data", "sha256",
        sd_dataset_sha256(r->train_data)->hex, "made_from",
        sd_dataset_made_from(r->train_data)->hex, "records",
        (json_int_t)sd_dataset_records(r->train_data), "tokens", (json_int_t)r->train.total,
        "supervised_tokens", (json_int_t)r->train.labelled, "recipe_sha256", recipe.hex, "steps",
        (json_int_t)s->step, "adapter_of_step", (json_int_t)(best ? s->best_step : s->step),
        "tokens_seen", (json_int_t)s->tokens, "supervised_tokens_seen", (json_int_t)s->supervised,
        "artefacts", f->artefacts);
    SD_CHECK_ALLOC(j, err);
    bool kept = set_number(j, "last_loss", r->report->last_loss) &&
                set_number(j, "best_eval_loss", r->report->best_eval) &&
                set_number(j, "wall_s", s->wall_s) &&
                set_number(j, "trainer_loss_of_verified_text", r->report->trainer_loss) &&
                set_number(j, "reloaded_loss_of_verified_text", r->report->reloaded_loss);
    st = kept ? sd_json_dump(&text, j, JSON_INDENT(2) | JSON_REAL_PRECISION(9), err)
              : sd_fail(err, SD_ENOMEM, "out of memory");
    json_decref(j);
    if (st != SD_OK) goto out;
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_file_write(path, text, strlen(text), err));
out:
    free(text);
    free(path);
    return st;
}

sd_status sd_run_finish(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    bool best = r->recipe.eval.keep_best && r->c.state.has_best;
    sd_sha256 adapter = {{0}};
    finish f = {.r = r, .theta = best ? r->c.best : r->c.theta, .artefacts = json_object()};
    SD_CHECK_ALLOC(f.artefacts, err);
    if (best && r->c.state.best_step != r->c.state.step)
        sd_run_say(r, "the adapter is that of step %lld, whose eval loss %.4f was the lowest",
                   (long long)r->c.state.best_step, r->c.state.best_loss);
    SD_TRY(collect_text(&f, err));
    SD_TRY(trainer_loss(&f, err));
    SD_TRY(sd_lora_to_adapter(&f.own, r->recipe.name, f.theta, &r->layout, r->model, err));
    SD_TRY(write_peft(&f, &adapter, err));
    if (wants(r, "gguf-lora")) SD_TRY(write_gguf(&f, err));
    if (wants(r, "merged")) SD_TRY(write_merged(&f, err));
    if (r->recipe.draft.index) SD_TRY(write_index(&f, &adapter, err));
    SD_TRY(write_manifest(&f, err));
out:
    sd_adapter_release(f.own);
    json_decref(f.artefacts);
    free(f.text);
    return st;
}
