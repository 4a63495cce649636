// One build's steps and answers, for in_turns.c: it is linked with that build's whole library into a shared object, so that two
// builds stand in one process. Compiled against each checkout's own headers.
#if __has_include("decode/engine/engine.h")
#include "decode/engine/engine.h"
#else // 0.4
#include "decode/engine.h"
#endif

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROWS = 192, MAX_STREAMS = 64, PERIOD = 29 };
static sd_model *model;
static sd_pool *pool;
static sd_context *cx;
static sd_kv *kv;
static float *logits;
static sd_engine *engine;
static int of_threads;

static void must(sd_status st, const sd_error *err) {
    if (st == SD_OK) return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

void open_side(const char *path, int threads, int ctx, int kv_type);
void run_step(int depth, int n, int want);
void run_answers(int streams, int tokens, int spec);

void open_side(const char *path, int threads, int ctx, int kv_type) {
    sd_error err = {0};
    of_threads = threads;
    must(sd_model_open(&model, path, &err), &err);
    must(sd_pool_open(&pool, threads, &err), &err);
    sd_context_options o = {.max_rows = MAX_ROWS, .kv = (sd_kv_type)kv_type};
    must(sd_context_open(&cx, model, pool, &o, &err), &err);
    must(sd_kv_open(&kv, cx, ctx, &err), &err);
    logits = malloc((size_t)MAX_ROWS * (size_t)model->hp.V * sizeof *logits);
    if (!logits) exit(1);
}

// n rows at `depth`, logits of the last `want`.
void run_step(int depth, int n, int want) {
    sd_error err = {0};
    sd_row row[MAX_ROWS];
    for (int i = 0; i < n; i++)
        row[i] = (sd_row){.token = (i * 7919 + depth) % model->hp.V,
                          .pos = depth + i,
                          .kv = kv,
                          .want_logits = i >= n - want};
    must(sd_forward(cx, row, n, want ? logits : NULL, &err), &err);
}

static void drop_event(void *ctx, const sd_event *event) {
    (void)ctx, (void)event;
}

// So many requests at once, `tokens` in and out of each. Their prompts repeat themselves, so that drafts are taken.
void run_answers(int streams, int tokens, int spec) {
    sd_error err = {0};
    int32_t prompt[4096];
    sd_engine_options o = {.ctx = 2 * tokens, .slots = streams, .threads = of_threads};
    if (!engine) must(sd_engine_open(&engine, model, &o, &err), &err);
    for (int i = 0; i < streams; i++) {
        for (int t = 0; t < tokens; t++)
            prompt[t] = 1000 + (7919 * (t % PERIOD) + 104729 * i) % 30000 % (model->hp.V - 1000);
        sd_request r = {.prompt = prompt,
                        .n_prompt = tokens,
                        .max_tokens = tokens - 1,
                        .sampling = {.top_p = 1},
                        .ignore_end = true,
                        .logprobs = -1,
                        .spec = spec ? SD_SPEC_AUTO : SD_SPEC_OFF,
                        .on_event = drop_event};
        must(sd_engine_submit(engine, &r, NULL, &err), &err);
    }
    while (sd_engine_step(engine)) {
    }
}
