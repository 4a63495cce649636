// The attention of a step. Its rows are cut into chunks: a few rows of one sequence, which read a key
// while it is in the processor's cache. A task is one chunk and kv head. When that gives too few
// tasks (decoding a sequence or two), a task is one split of the positions of a chunk and kv head,
// and the splits are merged afterwards: the same merges in the same order, so the same bits.
#include "model/infer/private.h"

#include "base/memory.h"

#include <math.h>

enum { CHUNK_ROWS = 16, TASKS_PER_THREAD = 2 };

static sd_attention_shape shape_of(const sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    return (sd_attention_shape){.H = hp->H,
                                .G = hp->G,
                                .D = hp->D,
                                .scale = (float)(1 / sqrt((double)hp->D)),
                                .kv = cx->kv};
}

static size_t head_part(const sd_context *cx) {
    return sd_attention_partial(&(sd_attention_shape){.D = cx->model->hp.D});
}

static int spans_of(const sd_context *cx, const sd_chunk *c) {
    return sd_attention_splits(cx->len[c->n0 + c->n - 1]);
}

// Parts of all chunks when a task is a span.
static size_t parts_of(const sd_context *cx) {
    size_t parts = 0;
    for (int i = 0; i < cx->chunks; i++)
        parts += (size_t)(spans_of(cx, &cx->chunk[i]) * cx->chunk[i].n * cx->model->hp.H);
    return parts;
}

static void choose_tasks(sd_context *cx, bool by_span) {
    int G = cx->model->hp.G;
    const sd_chunk *last = &cx->chunk[cx->chunks - 1];
    cx->by_span = by_span;
    cx->attention_tasks = by_span ? last->first_task + spans_of(cx, last) * G : cx->chunks * G;
}

void sd_attention_plan(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    int threads = sd_pool_threads(cx->pool), tasks = 0;
    int most = cx->n * hp->G / (TASKS_PER_THREAD * threads);
    if (most > CHUNK_ROWS) most = CHUNK_ROWS;
    cx->chunks = 0;
    for (int n = 0; n < cx->n; n++) {
        sd_chunk *c = cx->chunks ? &cx->chunk[cx->chunks - 1] : NULL;
        cx->len[n] = cx->row[n].pos + 1;
        if (c && c->n < most && cx->row[n].kv == cx->row[c->n0].kv)
            c->n++;
        else
            cx->chunk[cx->chunks++] = (sd_chunk){n, 1, 0};
    }
    for (int i = 0; i < cx->chunks; i++) {
        cx->chunk[i].first_task = tasks;
        tasks += spans_of(cx, &cx->chunk[i]) * hp->G;
    }
    choose_tasks(cx, cx->chunks * hp->G < TASKS_PER_THREAD * threads && threads > 1);
}

void sd_attention_replan(sd_context *cx) {
    if (cx->n == 0) return;
    sd_attention_plan(cx);
    // Memory was reserved for the rows at the step's begin; fewer rows can make more splits.
    if (cx->by_span && parts_of(cx) > cx->cap_parts) choose_tasks(cx, false);
}

sd_status sd_attention_reserve(sd_context *cx, sd_error *err) {
    size_t heads = (size_t)(cx->model->hp.H / cx->model->hp.G);
    size_t parts = cx->by_span ? parts_of(cx) : 0;
    if (!cx->att_scratch) { // two parts of a chunk, and what the kernel wants
        sd_attention_shape s = shape_of(cx);
        cx->att_each =
            2 * CHUNK_ROWS * heads * head_part(cx) + cx->ops->attention_scratch(&s, CHUNK_ROWS);
        cx->att_each = (cx->att_each + 15) / 16 * 16;
        cx->att_scratch =
            sd_alloc((size_t)sd_pool_threads(cx->pool) * cx->att_each, sizeof *cx->att_scratch);
        if (!cx->att_scratch) return sd_fail(err, SD_ENOMEM, "out of memory for attention");
    }
    if (parts > cx->cap_parts) {
        float *p = sd_alloc(parts, head_part(cx) * sizeof *p);
        if (!p)
            return sd_fail(err, SD_ENOMEM, "out of memory for attention; use a shorter context");
        free(cx->parts);
        cx->parts = p;
        cx->cap_parts = parts;
    }
    return SD_OK;
}

// The rows of c from the first that sees the span.
static sd_attention_rows rows_of(const sd_context *cx, const sd_chunk *c, int g, int span) {
    const sd_hparams *hp = &cx->model->hp;
    int n0 = c->n0, end = c->n0 + c->n;
    while (n0 < end && cx->len[n0] <= span * SD_KV_SPLIT) n0++;
    sd_attention_rows r = {
        .q = cx->q + (size_t)n0 * hp->H * hp->D, .len = cx->len + n0, .N = end - n0};
    sd_kv_locate(&r, cx, cx->row[c->n0].kv, g);
    return r;
}

static float *out_of(const sd_context *cx, int n, int g) {
    const sd_hparams *hp = &cx->model->hp;
    return cx->att + ((size_t)n * hp->H + (size_t)(g * (hp->H / hp->G))) * hp->D;
}

// A chunk and kv head, span after span.
static void whole_chunk(void *ctx, int task, int worker) {
    sd_context *cx = ctx;
    const sd_hparams *hp = &cx->model->hp;
    const sd_chunk *c = &cx->chunk[task % cx->chunks];
    int g = task / cx->chunks, heads = hp->H / hp->G, D = hp->D;
    size_t each = head_part(cx), row = (size_t)heads * each;
    sd_attention_shape shape = shape_of(cx);
    float *total = cx->att_scratch + (size_t)worker * cx->att_each;
    float *part = total + CHUNK_ROWS * row, *scratch = part + CHUNK_ROWS * row;
    for (int span = 0; span < spans_of(cx, c); span++) {
        sd_attention_rows r = rows_of(cx, c, g, span);
        cx->ops->attention(span ? part : total, &r, span, &shape, scratch);
        float *to = total + (size_t)(c->n - r.N) * row;
        for (int i = 0; span && i < r.N * heads; i++)
            sd_attention_merge(to + (size_t)i * each, part + (size_t)i * each, D);
    }
    for (int n = 0; n < c->n; n++)
        for (int h = 0; h < heads; h++)
            sd_attention_finish(out_of(cx, c->n0 + n, g) + (size_t)h * D,
                                total + ((size_t)n * (size_t)heads + (size_t)h) * each, D);
}

// Where the parts of (chunk, span, kv head) stand: [chunk][span][g][rows][H/G].
static float *part_at(const sd_context *cx, int chunk, int span, int g) {
    const sd_hparams *hp = &cx->model->hp;
    size_t at = 0;
    for (int i = 0; i < chunk; i++)
        at += (size_t)(spans_of(cx, &cx->chunk[i]) * cx->chunk[i].n * hp->H);
    at += (size_t)((span * hp->G + g) * cx->chunk[chunk].n * (hp->H / hp->G));
    return cx->parts + at * head_part(cx);
}

static void one_span(void *ctx, int task, int worker) {
    sd_context *cx = ctx;
    int i = cx->chunks - 1, G = cx->model->hp.G;
    while (cx->chunk[i].first_task > task) i--;
    const sd_chunk *c = &cx->chunk[i];
    int span = (task - c->first_task) / G, g = (task - c->first_task) % G;
    sd_attention_shape shape = shape_of(cx);
    sd_attention_rows r = rows_of(cx, c, g, span);
    cx->ops->attention(part_at(cx, i, span, g), &r, span, &shape,
                       cx->att_scratch + (size_t)worker * cx->att_each);
}

static void merge_spans(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    int heads = hp->H / hp->G, D = hp->D;
    size_t each = head_part(cx);
    for (int i = 0; i < cx->chunks; i++)
        for (int g = 0; g < hp->G; g++)
            for (int n = 0; n < cx->chunk[i].n; n++)
                for (int h = 0; h < heads; h++) {
                    int row = cx->chunk[i].n0 + n;
                    float *total = part_at(cx, i, 0, g) + (size_t)(n * heads + h) * each;
                    for (int span = 1; span < sd_attention_splits(cx->len[row]); span++) {
                        // Rows that end before the span have no part in it.
                        int r = n - (cx->chunk[i].n - rows_of(cx, &cx->chunk[i], g, span).N);
                        sd_attention_merge(
                            total, part_at(cx, i, span, g) + (size_t)(r * heads + h) * each, D);
                    }
                    sd_attention_finish(out_of(cx, row, g) + (size_t)h * D, total, D);
                }
}

void sd_attention_run(sd_context *cx) {
    sd_pool_run(cx->pool, cx->attention_tasks, cx->by_span ? one_span : whole_chunk, cx);
    if (cx->by_span) merge_spans(cx);
}
