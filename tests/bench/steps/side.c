// One build's steps, answers and training passes, for in_turns.c: it is linked with that build's whole library into a shared object, so that two
// builds stand in one process. Compiled against each checkout's own headers.
#if __has_include("decode/engine/engine.h")
#include "decode/engine/engine.h"
#include "trainer/pass/pass.h"
#define MAPS_OF(model) model
#else // 0.4
#include "decode/engine.h"
#include "model/train_pass.h"
#define MAPS_OF(model) &(model)->hp
#endif

#include "datasets/dataset.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROWS = 192, PERIOD = 29, MAX_TOKENS = 4096, MAX_MAPS = 4096, RANK = 16 };
static sd_model *model;
static sd_pool *pool;
static sd_context *cx;
static sd_kv *kv;
static float *logits;
static sd_engine *engine;
static int of_threads;
static sd_train *train;
static sd_lora_layout layout;
static float *theta, *grad;

static void must(sd_status st, const sd_error *err) {
    if (st == SD_OK) return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

void open_side(const char *path, int threads, int ctx, int kv_type);
void run_step(int depth, int n, int want);
void run_answers(int streams, int tokens, int spec);
void run_training(int rows, int tokens, int unused);

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

static void open_training(int tokens) {
    static int rank[MAX_MAPS];
    static double alpha[MAX_MAPS];
    sd_error err = {0};
    sd_train_options o = {.max_tokens = tokens};
    for (int i = 0; i < MAX_MAPS; i++) rank[i] = RANK, alpha[i] = 2 * RANK;
    must(sd_lora_layout_init(&layout, MAPS_OF(model), rank, alpha, false, &err), &err);
    must(sd_train_open(&train, model, &layout, pool, &o, &err), &err);
    theta = malloc((size_t)layout.n_params * sizeof *theta);
    grad = calloc((size_t)layout.n_params, sizeof *grad);
    if (!theta || !grad) exit(1);
    sd_lora_init(theta, &layout, 1);
}

// Loss and gradients of a micro-batch: so many rows of so many tokens, the second half of each supervised.
void run_training(int rows, int tokens, int unused) {
    static int32_t token[MAX_TOKENS], label[MAX_TOKENS], segment[MAX_TOKENS];
    sd_error err = {0};
    sd_train_sum sum = {0};
    (void)unused;
    if (rows * tokens > MAX_TOKENS) exit(2);
    if (!train) open_training(rows * tokens);
    for (int i = 0; i < rows * tokens; i++) {
        token[i] = (i * 7919 + 1) % model->hp.V;
        label[i] = i % tokens < tokens / 2 ? SD_NO_LABEL : token[i];
        segment[i] = i / tokens;
    }
    const sd_train_batch b = {
        .rows = rows, .T = tokens, .token = token, .label = label, .segment = segment};
    must(sd_train_accumulate(train, theta, grad, &b, &sum, &err), &err);
}
