// One build's steps, for in_turns.c: it is linked with that build's whole library into a shared object, so that two
// builds stand in one process. Compiled against each checkout's own headers.
#if __has_include("model/infer/forward.h")
#include "model/infer/forward.h"
#else // 0.4
#include "model/forward.h"
#endif

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROWS = 192 };
static sd_model *model;
static sd_pool *pool;
static sd_context *cx;
static sd_kv *kv;
static float *logits;

static void must(sd_status st, const sd_error *err) {
    if (st == SD_OK) return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

void open_side(const char *path, int threads, int ctx, int kv_type);
void run_step(int depth, int n, int want);

void open_side(const char *path, int threads, int ctx, int kv_type) {
    sd_error err = {0};
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
