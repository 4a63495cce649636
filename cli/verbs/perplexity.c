// specdec perplexity: exp of the mean negative log-likelihood of a text, by the procedure of
// llama.cpp's perplexity tool, so that figures compare:
//
//   The text (special tokens not recognised) is cut into windows of `ctx` tokens; what is left over
//   at the end is dropped. Each window starts from an empty cache; where the model begins documents
//   with a BOS token, that replaces the window's first token. Only the second half of a window is
//   scored: positions ctx/2 ... ctx-2 predict tokens ctx/2+1 ... ctx-1.
//
// A text shorter than one window is one window of its own length.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/memory.h"
#include "cli/open_model.h"
#include "cli/verbs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCORED_ROWS = 64 };

typedef struct {
    sd_model_args common;
    const char *adapter;
    int64_t ctx, windows;
    bool json;
} args;

static const sd_option rows[] = {SD_COMMON_ROWS(args),
                                 {.name = "adapter",
                                  .letter = 'a',
                                  .type = SD_OPT_STRING,
                                  .offset = offsetof(args, adapter),
                                  .value = "ADAPTER",
                                  .help = "PEFT folder, GGUF-LoRA file or run"},
                                 {.name = "ctx",
                                  .type = SD_OPT_INT,
                                  .offset = offsetof(args, ctx),
                                  .def = "512",
                                  .min = 8,
                                  .max = 1 << 20,
                                  .unit = "tokens",
                                  .help = "length of a window"},
                                 {.name = "windows",
                                  .type = SD_OPT_INT,
                                  .offset = offsetof(args, windows),
                                  .def = "0",
                                  .min = 0,
                                  .max = 1e9,
                                  .help = "score this many windows at most; 0: all"},
                                 SD_JSON_ROW(args, json, "one JSON object"),
                                 {0}};

typedef struct {
    double nll, nll2; // sums of -log p and of its square
    int64_t n;
} score;

typedef struct {
    const float *logits; // [n, V]
    const int32_t *next; // [n]
    double *nll;         // [n]
    int V;
} score_job;

static void score_row(void *ctx, int task, int worker) {
    (void)worker;
    score_job *j = ctx;
    const float *l = j->logits + (size_t)task * j->V;
    float top = l[0];
    for (int i = 1; i < j->V; i++)
        if (l[i] > top) top = l[i];
    double sum = 0;
    for (int i = 0; i < j->V; i++) sum += (double)expf(l[i] - top);
    j->nll[task] = log(sum) + (double)top - (double)l[j->next[task]];
}

typedef struct {
    sd_row *row;
    float *logits; // [SCORED_ROWS, V]
    sd_kv *kv;
} buffers;

// One window: its first half in chunks without logits, the second in pieces of SCORED_ROWS.
static sd_status run_window(const sd_run_model *r, const buffers *b, const int32_t *id, int ctx,
                            int chunk, score *s, sd_error *err) {
    sd_status st = SD_OK;
    int first = ctx / 2;
    b->kv->len = 0;
    for (int at = 0; at < ctx - 1;) {
        bool scored = at >= first;
        int limit = scored ? ctx - 1 : first, most = scored ? SCORED_ROWS : chunk;
        int n = limit - at < most ? limit - at : most;
        for (int i = 0; i < n; i++)
            b->row[i] = (sd_row){.token = id[at + i],
                                 .pos = at + i,
                                 .kv = b->kv,
                                 .adapter = r->adapter,
                                 .want_logits = scored};
        SD_TRY(sd_forward(r->cx, b->row, n, b->logits, err));
        b->kv->len = at += n;
        if (!scored) continue;
        double nll[SCORED_ROWS];
        score_job j = {b->logits, id + at - n + 1, nll, r->model->hp.V};
        sd_pool_run(r->pool, n, score_row, &j);
        for (int i = 0; i < n; i++, s->n++) s->nll += nll[i], s->nll2 += nll[i] * nll[i];
        SD_CHECK(isfinite(s->nll), err, SD_EIO,
                 "the model's logits are not finite numbers; check the model and the adapter for "
                 "NaN or infinite weights");
    }
out:
    return st;
}

static sd_status run(score *s, int64_t *done, const sd_run_model *r, const args *a, sd_ids *ids,
                     int ctx, sd_error *err) {
    sd_status st = SD_OK;
    int chunk = (int)a->common.prefill_chunk;
    int most = chunk > SCORED_ROWS ? chunk : SCORED_ROWS;
    buffers b = {.row = sd_alloc((size_t)most, sizeof(sd_row)),
                 .logits = sd_alloc(SCORED_ROWS, (size_t)r->model->hp.V * sizeof(float))};
    int32_t bos = -1;
    int64_t windows = ids->n / ctx;
    double start = sd_now_s();
    SD_CHECK_ALLOC(b.row, err);
    SD_CHECK_ALLOC(b.logits, err);
    SD_TRY(sd_kv_open(&b.kv, r->cx, ctx, err));
    // What an empty text begins with is the BOS token of models that want one.
    sd_ids empty = {0};
    SD_TRY(sd_tokenizer_encode(r->model->tokenizer, "", 0, SD_TOK_ADD_BOS, &empty, err));
    if (empty.n > 0) bos = empty.id[0];
    sd_ids_free(&empty);
    if (a->windows > 0 && windows > a->windows) windows = a->windows;
    for (*done = 0; *done < windows && !sd_interrupted; ++*done) {
        int32_t *id = ids->id + *done * ctx;
        if (bos >= 0) id[0] = bos;
        SD_TRY(run_window(r, &b, id, ctx, chunk, s, err));
        sd_progress("windows", *done + 1, windows, sd_now_s() - start);
    }
    SD_CHECK(!sd_interrupted, err, SD_EINTERRUPTED, "interrupted after %lld windows",
             (long long)*done);
out:
    sd_kv_close(b.kv);
    free(b.row);
    free(b.logits);
    return st;
}

static void report(const score *s, int64_t windows, int ctx, int tokens, double seconds,
                   bool json) {
    double n = (double)s->n, mean = s->nll / n, ppl = exp(mean);
    double variance = s->nll2 / n - mean * mean;
    double se = n > 1 && variance > 0 ? sqrt(variance / (n - 1)) * ppl : 0;
    if (json)
        printf("{\"perplexity\": %.6f, \"standard_error\": %.6f, \"nll\": %.8f, \"scored\": %lld, "
               "\"tokens\": %d, \"windows\": %lld, \"ctx\": %d, \"seconds\": %.3f}\n",
               ppl, se, mean, (long long)s->n, tokens, (long long)windows, ctx, seconds);
    else
        printf("perplexity %.4f +/- %.4f over %lld tokens (%lld windows of %d), %.1f s\n", ppl, se,
               (long long)s->n, (long long)windows, ctx, seconds);
}

sd_status sd_verb_perplexity(int argc, char **argv, sd_error *err) {
    if (sd_verb_help("perplexity -m MODEL [-a ADAPTER] FILE",
                     "Scores the second half of each window of FILE, as llama.cpp's tool does.",
                     rows, argc, argv))
        return SD_OK;
    enum { MAX_TEXT = 1 << 30 };
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    sd_run_model r = {0};
    sd_ids ids = {0};
    score s = {0};
    char *text = NULL;
    size_t len;
    int64_t windows = 0;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 1, err, SD_EINVAL, "one FILE is wanted, not %d", rest.n);
    SD_TRY(sd_stream_read(&text, &len, strcmp(rest.item[0], "-") ? rest.item[0] : "/dev/stdin",
                          MAX_TEXT, err));
    sd_catch_interrupts();
    int chunk = (int)a.common.prefill_chunk;
    SD_TRY(sd_run_model_open(&r, &a.common, a.adapter, chunk > SCORED_ROWS ? chunk : SCORED_ROWS,
                             err));
    SD_TRY(sd_need_tokenizer(r.model, err));
    SD_TRY(sd_tokenizer_encode(r.model->tokenizer, text, len, SD_TOK_ADD_BOS, &ids, err));
    SD_CHECK(ids.n >= 8, err, SD_EINVAL, "%s: has %d tokens, at least 8 are needed", rest.item[0],
             ids.n);
    int ctx = ids.n < a.ctx ? ids.n : (int)a.ctx;
    double start = sd_now_s();
    SD_TRY(run(&s, &windows, &r, &a, &ids, ctx, err));
    report(&s, windows, ctx, ids.n, sd_now_s() - start, a.json);
out:
    free(text);
    sd_ids_free(&ids);
    sd_run_model_close(&r);
    return st;
}
