#include "base/clock.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/common.h"
#include "cli/verbs/data.h"
#include "datasets/build/prepare.h"
#include "model/chat.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *model, *out, *chat_template;
    int64_t sequence_len, max_records, threads;
    int format, loss_on, overlong;
    bool train_on_eot, packing, skip_empty_labels, json;
} args;

static const sd_option rows[] = {
    SD_MODEL_ROW(args, model,
                 "whose tokenizer and chat template: GGUF file or Hugging Face folder"),
    SD_CHAT_TEMPLATE_ROW(args, chat_template, "the model's own"),
    SD_OUTPUT_ROW(args, out, "FILE", true,
                  "the HDF5 file to write; FILE.manifest.json is written beside it"),
    {.name = "format",
     .type = SD_OPT_ENUM,
     .offset = offsetof(args, format),
     .def = "auto",
     .value = SD_DATA_FORMATS,
     .help = "what the records are; auto: what their fields say, the same all through a file"},
    {.name = "sequence-len",
     .type = SD_OPT_INT,
     .offset = offsetof(args, sequence_len),
     .def = "2048",
     .min = 2,
     .max = 1 << 20,
     .unit = "tokens",
     .help = "length of a row"},
    {.name = "loss-on",
     .type = SD_OPT_ENUM,
     .offset = offsetof(args, loss_on),
     .def = "assistant",
     .value = SD_LOSS_ON,
     .help = "which tokens are supervised: every answer, the last answer, everything"},
    {.name = "train-on-eot",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, train_on_eot),
     .def = "true",
     .help = "supervise the end-of-turn token"},
    {.name = "overlong",
     .type = SD_OPT_ENUM,
     .offset = offsetof(args, overlong),
     .def = "error",
     .value = SD_OVERLONG,
     .help = "records longer than a row"},
    {.name = "packing",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, packing),
     .def = "true",
     .help = "several records in a row, each attending to itself alone; else one record a row"},
    {.name = "max-records",
     .type = SD_OPT_INT,
     .offset = offsetof(args, max_records),
     .def = "0",
     .min = 0,
     .max = 1e15,
     .help = "stop after so many; 0: all"},
    {.name = "skip-empty-labels",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, skip_empty_labels),
     .help = "leave out records without a supervised token instead of failing"},
    SD_THREADS_ROW(args, threads, "one per processor"),
    SD_JSON_ROW(args, json, "the report as one JSON object"),
    {0}};

static void on_progress(void *ctx, int64_t records, int64_t bytes, int64_t total) {
    (void)records;
    sd_progress("preparing (bytes)", bytes < total ? bytes : total, total,
                sd_now_s() - *(const double *)ctx);
}

static void report_text(const char *out, const sd_prepare_report *r, int64_t sequence_len,
                        double seconds) {
    printf("%s: %lld records, %lld tokens (%lld supervised) in %lld rows of %lld, %.1f %% full\n",
           out, (long long)r->records, (long long)r->tokens, (long long)r->supervised,
           (long long)r->rows, (long long)sequence_len, 100 * r->efficiency);
    if (r->skipped)
        printf("skipped %lld records: %lld too long, %lld without a supervised token\n",
               (long long)r->skipped, (long long)r->overlong, (long long)r->empty);
    if (r->truncated)
        printf("cut %lld records to %lld tokens\n", (long long)r->truncated,
               (long long)sequence_len);
    printf("longest record %lld tokens; %.2f s, %.0f tokens/s\n", (long long)r->longest, seconds,
           (double)r->tokens / seconds);
}

static sd_status report_json(const char *out, const sd_prepare_report *r, double seconds,
                             sd_error *err) {
    json_t *j =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "file", out,
                  "records", (json_int_t)r->records, "skipped", (json_int_t)r->skipped, "overlong",
                  (json_int_t)r->overlong, "empty", (json_int_t)r->empty, "truncated",
                  (json_int_t)r->truncated, "tokens", (json_int_t)r->tokens, "supervised",
                  (json_int_t)r->supervised, "rows", (json_int_t)r->rows, "longest",
                  (json_int_t)r->longest, "efficiency", r->efficiency, "seconds", seconds);
    sd_status st = sd_json_print(stdout, j, JSON_COMPACT, err);
    if (st == SD_OK) putchar('\n');
    json_decref(j);
    return st;
}

static sd_status check_sources(const sd_strings *files, sd_error *err) {
    if (files->n == 0)
        return sd_fail(err, SD_EINVAL, "data prepare: no file is given; name at least one");
    for (int i = 0; i < files->n; i++) {
        size_t n = strlen(files->item[i]);
        if (n > 5 && (strcmp(files->item[i] + n - 5, ".yaml") == 0 ||
                      strcmp(files->item[i] + n - 4, ".yml") == 0))
            return sd_fail(err, SD_EINVAL,
                           "data prepare: %s is a recipe; specdec train prepares its data itself",
                           files->item[i]);
    }
    return SD_OK;
}

sd_status sd_data_prepare(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    args a = {0};
    sd_strings files;
    sd_model *m = NULL;
    sd_pool *pool = NULL;
    sd_data_source source[SD_MAX_LIST];
    if (sd_verb_help("data prepare FILES... -m MODEL -o OUT",
                     "Reads .jsonl, .json, .csv, .tsv, .txt and .md, plain or in .gz .zst .xz .tar "
                     ".tar.* .zip.",
                     rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&files, rows, &a, argc, argv, err));
    SD_TRY(check_sources(&files, err));
    for (int i = 0; i < files.n; i++)
        source[i] = (sd_data_source){files.item[i], (sd_data_format)a.format};
    for (int i = 0; i < files.n; i++) SD_TRY(sd_keep_private(files.item[i], err));
    SD_TRY(sd_check_writable_whole(a.out, err));
    SD_TRY(sd_model_open(&m, a.model, err));
    if (a.chat_template) {
        sd_template *t;
        SD_TRY(sd_keep_private(a.chat_template, err));
        SD_TRY(sd_chat_template_read(&t, a.chat_template, err));
        SD_TRY(sd_model_take_template(m, t, err));
    }
    SD_TRY(sd_pool_open(&pool, (int)a.threads, err));
    double begin = sd_now_s();
    sd_prepare_report r;
    sd_prepare_options o = {.source = source,
                            .n_sources = files.n,
                            .sequence_len = (int)a.sequence_len,
                            .loss_on = (sd_loss_on)a.loss_on,
                            .train_on_eot = a.train_on_eot,
                            .overlong = (sd_overlong)a.overlong,
                            .packing = a.packing,
                            .max_records = a.max_records,
                            .skip_empty_labels = a.skip_empty_labels,
                            .pool = pool,
                            .progress = on_progress,
                            .progress_ctx = &begin};
    SD_TRY(sd_dataset_prepare(a.out, &o, m, &r, err));
    double seconds = sd_now_s() - begin;
    if (a.json)
        SD_TRY(report_json(a.out, &r, seconds, err));
    else
        report_text(a.out, &r, a.sequence_len, seconds);
out:
    sd_pool_close(pool);
    sd_model_release(m);
    return st;
}
