// The values follow from four counts: records, tokens, the longest record, the model's parameters.
// Each printed value says why, so that a reader can disagree with it.
#include "trainer/recipe/starter.h"

#include "base/files/cleanup.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "datasets/build/prepare.h"
#include "datasets/dataset.h"
#include "model/chat.h"
#include "trainer/recipe/table.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_ROW = 16384 };

typedef struct {
    sd_prepare_report report;
    char format[32];
    int row; // sequence_len that was read with
} counts;

static sd_status count(counts *c, const char *data, sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_dataset *d = NULL;
    json_t *sources = NULL;
    char *dir = NULL, *path = NULL;
    sd_pool *pool = NULL;
    SD_TRY(sd_scratch_open(&dir, "specdec-init", err));
    path = sd_path_join(dir, "data.h5");
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_pool_open(&pool, 0, err));
    c->row = m->hp.ctx_train < LONGEST_ROW ? m->hp.ctx_train : LONGEST_ROW;
    sd_data_source source = {data, SD_FORMAT_AUTO};
    sd_prepare_options o = {.source = &source,
                            .n_sources = 1,
                            .sequence_len = c->row,
                            .train_on_eot = true,
                            .overlong = SD_OVERLONG_SKIP,
                            .packing = true,
                            .skip_empty_labels = true,
                            .pool = pool};
    SD_TRY(sd_dataset_prepare(path, &o, m, &c->report, err));
    SD_TRY(sd_dataset_open(&d, path, err));
    const char *listed = sd_dataset_sources(d);
    SD_TRY(sd_json_load(&sources, listed, strlen(listed), 0, NULL, err));
    const char *format = json_string_value(json_object_get(json_array_get(sources, 0), "format"));
    snprintf(c->format, sizeof c->format, "%s", format ? format : "auto");
out:
    json_decref(sources);
    sd_dataset_close(d);
    sd_pool_close(pool);
    sd_scratch_close(dir);
    free(path);
    return st;
}

typedef struct {
    int64_t sequence_len, epochs, batch_tokens, steps, checkpoint;
    double val_size, learning_rate;
} choice;

static int64_t clamp(int64_t v, int64_t lo, int64_t hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

static choice choose(const counts *c, const sd_model *m) {
    const sd_prepare_report *r = &c->report;
    choice k = {0};
    k.sequence_len = clamp((r->longest + 63) / 64 * 64, 64, c->row);
    k.epochs = r->records < 1000 ? 3 : r->records < 5000 ? 2 : 1;
    k.val_size = r->records < 100 ? 0 : r->records < 1000 ? 0.05 : 0.02;
    // At least 100 steps where the data allow it, and at least a few records in each step.
    int64_t few = 4 * (r->tokens / r->records);
    k.batch_tokens = clamp(r->tokens * k.epochs / 100, few > 512 ? few : 512, 16384);
    if (k.batch_tokens < r->longest) k.batch_tokens = r->longest;
    k.batch_tokens = (k.batch_tokens + 127) / 128 * 128;
    k.steps = (r->tokens + k.batch_tokens - 1) / k.batch_tokens * k.epochs;
    k.checkpoint = clamp(k.steps / 10, 10, 100);
    k.learning_rate = m->n_params < 300000000 ? 1e-3 : m->n_params < 1000000000 ? 5e-4 : 2e-4;
    return k;
}

/// name <- the data's file name without folder and endings, in letters that a run's name may have.
static void name_of(char name[65], const char *data) {
    const char *base = sd_path_name(data);
    size_t n = 0;
    for (; base[n] && base[n] != '.' && n < 40; n++) {
        char c = base[n];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
        name[n] = (char)(ok ? c : '-');
    }
    if (n == 0) name[n++] = 'x';
    name[n] = '\0';
}

static bool print(sd_buf *out, const counts *c, const choice *k, const char *data,
                  const sd_model *m, const char *chat_template) {
    const sd_prepare_report *r = &c->report;
    char name[65];
    name_of(name, data);
    bool ok = sd_buf_printf(
        out,
        "# %lld records, %lld tokens (%lld supervised), longest %lld; %lld parameters in the "
        "base.\n"
        "# About %lld steps. See what it needs with: specdec train THIS.yaml --plan\n"
        "recipe: 1\nname: %s             # the run's folder is runs/%s\nseed: 42\nbase:\n  model: ",
        (long long)r->records, (long long)r->tokens, (long long)r->supervised,
        (long long)r->longest, (long long)m->n_params, (long long)k->steps, name, name);
    ok = ok && sd_recipe_add_text(out, m->path) &&
         sd_buf_printf(
             out, "\nadapter:\n  r: 16                # rank; 8 for style, 32 and more for new "
                  "knowledge\n  alpha: 32            # scale: alpha / r\n"
                  "  target_modules: all-linear\ndata:\n  train:\n    - path: ");
    ok = ok && sd_recipe_add_text(out, data) &&
         sd_buf_printf(out, "\n      format: %s\n", c->format);
    if (chat_template)
        ok = ok && sd_buf_adds(out, "  chat_template: ") &&
             sd_recipe_add_text(out, chat_template) && sd_buf_addc(out, '\n');
    if (r->skipped)
        ok = ok && sd_buf_printf(out,
                                 "  # %lld records are longer than %d tokens or have nothing to "
                                 "learn; they would be left out:\n  overlong: skip\n"
                                 "  on_empty_labels: skip\n",
                                 (long long)r->skipped, c->row);
    ok = ok && sd_buf_printf(
                   out,
                   "  sequence_len: %lld    # holds the longest record\n"
                   "  val_size: %g       # share held out, chosen by hash%s\n"
                   "train:\n  epochs: %lld\n  batch_tokens: %lld   # of one step\n"
                   "  learning_rate: %g  # small models bear more\n  lr_scheduler: cosine\n"
                   "  warmup_ratio: 0.05\neval:\n  every: 4/epoch\n  keep_best: true\n"
                   "checkpoint:\n  every: %lld           # steps; a killed run goes on from there\n"
                   "log:\n  sinks: [tty, csv, plot]\nexport: [peft]          # also: gguf-lora, "
                   "merged\n"
                   "device:\n  kind: auto           # a CUDA device where one can be used, else "
                   "the CPU\n",
                   (long long)k->sequence_len, k->val_size,
                   k->val_size > 0 ? "" : "; too few to spare any", (long long)k->epochs,
                   (long long)k->batch_tokens, k->learning_rate, (long long)k->checkpoint);
    return ok;
}

sd_status sd_recipe_init(sd_buf *out, const char *data, const char *model,
                         const char *chat_template, sd_error *err) {
    sd_status st = SD_OK;
    counts c = {0};
    sd_model *m = NULL;
    SD_TRY(sd_model_open(&m, model, err));
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: has no tokenizer; give a model with one", model);
    if (chat_template) {
        sd_template *t;
        SD_TRY(sd_chat_template_read(&t, chat_template, err));
        SD_TRY(sd_model_take_template(m, t, err));
    }
    SD_TRY(count(&c, data, m, err));
    choice k = choose(&c, m);
    SD_CHECK(print(out, &c, &k, data, m, chat_template), err, SD_ENOMEM, "out of memory");
out:
    sd_model_release(m);
    return st;
}
