// The attention of a step. Its rows are cut into chunks: a few rows of one sequence, which read a key
// while it is in the processor's cache. A task is one chunk and kv head. When that gives too few
// tasks (decoding a sequence or two), a task is one split of the positions of a chunk and kv head,
// and the splits are merged afterwards: the same merges in the same order, so the same bits.
//
// A layer with a window has only the splits that its rows see some of; a row's result begins with the
// first of them.
#include "model/infer/cpu/private.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { CHUNK_ROWS = 16, TASKS_PER_THREAD = 2 };

// The positions that a row of the running layer attends to; 0: all below it.
static int window_of(const sd_context *cx) {
    return cx->model->layer[cx->l].window;
}

// The widest window of all layers.
static int widest_window(const sd_context *cx) {
    int widest = cx->model->layer[0].window;
    for (int l = 0; l < cx->model->hp.L && widest > 0; l++) {
        int w = cx->model->layer[l].window;
        if (w == 0 || w > widest) widest = w;
    }
    return widest;
}

static sd_attention_shape shape_of(const sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    return (sd_attention_shape){.H = hp->H,
                                .G = hp->G,
                                .D = hp->D,
                                .scale = (float)sd_attention_scale(hp),
                                .kv = cx->kv,
                                .window = cx->window};
}

static size_t head_part(const sd_context *cx) {
    return sd_attention_partial(&(sd_attention_shape){.D = cx->model->hp.D});
}

// ---- spans

// The spans [first, end) of positions.
typedef struct {
    int first, end;
} spans;

static spans spans_of_rows(const sd_context *cx, int first_row, int last_row) {
    return (spans){sd_attention_first(cx->window, cx->len[first_row]) / SD_KV_SPLIT,
                   sd_attention_splits(cx->len[last_row])};
}

// Those that row n sees.
static spans spans_of_row(const sd_context *cx, int n) {
    return spans_of_rows(cx, n, n);
}

// From the first to the last that a row of c sees.
static spans spans_of(const sd_context *cx, const sd_chunk *c) {
    return spans_of_rows(cx, c->n0, c->n0 + c->n - 1);
}

static int count_spans(const sd_context *cx, const sd_chunk *c) {
    spans s = spans_of(cx, c);
    return s.end - s.first;
}

// ---- the plan

// Parts of all chunks when a task is a span.
static size_t parts_of(const sd_context *cx) {
    size_t parts = 0;
    for (int i = 0; i < cx->chunks; i++)
        parts += (size_t)(count_spans(cx, &cx->chunk[i]) * cx->chunk[i].n * cx->model->hp.H);
    return parts;
}

// Counts the tasks of a layer with that window.
static void count_tasks(sd_context *cx, int window) {
    const int G = cx->model->hp.G, threads = sd_pool_threads(cx->pool);
    int tasks = 0;
    cx->window = window;
    for (int i = 0; i < cx->chunks; i++) {
        cx->chunk[i].first_task = tasks;
        tasks += count_spans(cx, &cx->chunk[i]) * G;
    }
    cx->by_span = cx->chunks * G < TASKS_PER_THREAD * threads && threads > 1;
    cx->attention_tasks = cx->by_span ? tasks : cx->chunks * G;
}

static void cut_chunks(sd_context *cx) {
    int most = cx->n * cx->model->hp.G / (TASKS_PER_THREAD * sd_pool_threads(cx->pool));
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
}

void sd_attention_plan(sd_context *cx) {
    cut_chunks(cx);
    count_tasks(cx, widest_window(cx));
}

void sd_attention_replan(sd_context *cx) {
    if (cx->n == 0) return;
    cut_chunks(cx);
    count_tasks(cx, window_of(cx));
    // Memory was reserved for the rows at the step's begin; fewer rows can make more splits.
    if (cx->by_span && parts_of(cx) > cx->cap_parts) {
        cx->by_span = false;
        cx->attention_tasks = cx->chunks * cx->model->hp.G;
    }
}

// ---- memory

// Floats of a thread: two parts of a chunk, and what the kernel wants.
static size_t scratch_of_thread(const sd_context *cx) {
    const size_t heads = (size_t)(cx->model->hp.H / cx->model->hp.G);
    sd_attention_shape s = shape_of(cx);
    size_t n = 2 * CHUNK_ROWS * heads * head_part(cx) + cx->ops->attention_scratch(&s, CHUNK_ROWS);
    return (n + 15) / 16 * 16;
}

size_t sd_attention_bytes(const sd_context *cx, int threads) {
    return (size_t)threads * scratch_of_thread(cx) * sizeof(float);
}

sd_status sd_attention_open(sd_context *cx, sd_error *err) {
    cx->att_each = scratch_of_thread(cx);
    cx->att_scratch = sd_alloc(sd_attention_bytes(cx, sd_pool_threads(cx->pool)), 1);
    return cx->att_scratch ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory for attention");
}

size_t sd_attention_parts(const sd_context *cx) {
    return cx->cap_parts * head_part(cx) * sizeof(float);
}

// Spans are tasks where there are fewer chunks than count_tasks wants; each sees the widest window.
size_t sd_attention_most_parts(const sd_context *cx, int threads, int ctx) {
    const int G = cx->model->hp.G, tasks = TASKS_PER_THREAD * threads, w = widest_window(cx);
    int64_t rows = (int64_t)CHUNK_ROWS * ((tasks - 1) / G), pieces = sd_attention_splits(ctx);
    if (threads == 1) return 0;
    if (rows > cx->max_rows) rows = cx->max_rows;
    if (w > 0 && w < ctx && sd_attention_splits(w + CHUNK_ROWS) + 1 < pieces)
        pieces = sd_attention_splits(w + CHUNK_ROWS) + 1;
    return (size_t)(rows * pieces) * cx->model->hp.H * head_part(cx) * sizeof(float);
}

sd_status sd_attention_reserve(sd_context *cx, sd_error *err) {
    size_t parts = cx->by_span ? parts_of(cx) : 0;
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

// ---- a layer

// The rows [n0, n1) of a step.
typedef struct {
    int n0, n1;
} row_range;

// The rows of c that see a position of the span. They ascend, and so do their windows.
static row_range rows_of(const sd_context *cx, const sd_chunk *c, int span) {
    row_range r = {c->n0, c->n0 + c->n};
    while (r.n0 < r.n1 && spans_of_row(cx, r.n0).end <= span) r.n0++;
    while (r.n1 > r.n0 && spans_of_row(cx, r.n1 - 1).first > span) r.n1--;
    return r;
}

static void attend(const sd_context *cx, float *partial, row_range rows, int g, int span,
                   float *scratch) {
    const sd_hparams *hp = &cx->model->hp;
    sd_attention_shape shape = shape_of(cx);
    sd_attention_rows r = {.q = cx->q + (size_t)rows.n0 * hp->H * hp->D,
                           .len = cx->len + rows.n0,
                           .N = rows.n1 - rows.n0};
    sd_kv_locate(&r, cx, cx->row[rows.n0].kv, g);
    cx->ops->attention(partial, &r, span, &shape, scratch);
}

static float *out_of(const sd_context *cx, int n, int g) {
    const sd_hparams *hp = &cx->model->hp;
    return cx->att + ((size_t)n * hp->H + (size_t)(g * (hp->H / hp->G))) * hp->D;
}

// Row n's total of all heads of g <- it and `part` of a later span; its first span's is the total.
static void add_part(const sd_context *cx, float *total, const float *part, int n, int span) {
    const sd_hparams *hp = &cx->model->hp;
    const int heads = hp->H / hp->G;
    const size_t each = head_part(cx);
    if (spans_of_row(cx, n).first == span) {
        memcpy(total, part, (size_t)heads * each * sizeof *total);
        return;
    }
    for (int h = 0; h < heads; h++)
        sd_attention_merge(total + (size_t)h * each, part + (size_t)h * each, hp->D);
}

static void finish_row(const sd_context *cx, const float *total, int n, int g) {
    const sd_hparams *hp = &cx->model->hp;
    const size_t each = head_part(cx);
    for (int h = 0; h < hp->H / hp->G; h++)
        sd_attention_finish(out_of(cx, n, g) + (size_t)h * hp->D, total + (size_t)h * each, hp->D);
}

// A chunk and kv head, span after span.
static void whole_chunk(void *ctx, int task, int worker) {
    sd_context *cx = ctx;
    const sd_hparams *hp = &cx->model->hp;
    const sd_chunk *c = &cx->chunk[task % cx->chunks];
    int g = task / cx->chunks;
    size_t row = (size_t)(hp->H / hp->G) * head_part(cx);
    float *total = cx->att_scratch + (size_t)worker * cx->att_each;
    float *part = total + CHUNK_ROWS * row, *scratch = part + CHUNK_ROWS * row;
    spans s = spans_of(cx, c);
    for (int span = s.first; span < s.end; span++) {
        row_range r = rows_of(cx, c, span);
        if (r.n0 == r.n1) continue;
        float *to = total + (size_t)(r.n0 - c->n0) * row;
        bool begins = spans_of_row(cx, r.n0).first == span; // and so do the rows after it
        attend(cx, begins ? to : part, r, g, span, scratch);
        for (int n = r.n0; !begins && n < r.n1; n++)
            add_part(cx, to + (size_t)(n - r.n0) * row, part + (size_t)(n - r.n0) * row, n, span);
    }
    for (int n = 0; n < c->n; n++) finish_row(cx, total + (size_t)n * row, c->n0 + n, g);
}

// Where the parts of (chunk, span, kv head) stand: [chunk][span][g][rows][H/G].
static float *part_at(const sd_context *cx, int chunk, int span, int g) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_chunk *c = &cx->chunk[chunk];
    size_t at = 0;
    for (int i = 0; i < chunk; i++)
        at += (size_t)(count_spans(cx, &cx->chunk[i]) * cx->chunk[i].n * hp->H);
    span -= spans_of(cx, c).first;
    at += (size_t)((span * hp->G + g) * c->n * (hp->H / hp->G));
    return cx->parts + at * head_part(cx);
}

static void one_span(void *ctx, int task, int worker) {
    sd_context *cx = ctx;
    int i = cx->chunks - 1, G = cx->model->hp.G;
    while (cx->chunk[i].first_task > task) i--;
    const sd_chunk *c = &cx->chunk[i];
    int span = spans_of(cx, c).first + (task - c->first_task) / G, g = (task - c->first_task) % G;
    row_range r = rows_of(cx, c, span);
    if (r.n0 < r.n1) // else the rows before end before it, and those behind begin behind it
        attend(cx, part_at(cx, i, span, g), r, g, span,
               cx->att_scratch + (size_t)worker * cx->att_each);
}

static void merge_chunk(const sd_context *cx, int chunk, int g) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_chunk *c = &cx->chunk[chunk];
    const size_t row = (size_t)(hp->H / hp->G) * head_part(cx);
    for (int n = c->n0; n < c->n0 + c->n; n++) {
        spans s = spans_of_row(cx, n);
        float *total = NULL;
        for (int span = s.first; span < s.end; span++) {
            float *part = part_at(cx, chunk, span, g) + (size_t)(n - rows_of(cx, c, span).n0) * row;
            if (!total)
                total = part;
            else
                add_part(cx, total, part, n, span);
        }
        finish_row(cx, total, n, g);
    }
}

void sd_attention_run(sd_context *cx) {
    if (cx->window != window_of(cx)) count_tasks(cx, window_of(cx));
    sd_pool_run(cx->pool, cx->attention_tasks, cx->by_span ? one_span : whole_chunk, cx);
    for (int i = 0; cx->by_span && i < cx->chunks; i++)
        for (int g = 0; g < cx->model->hp.G; g++) merge_chunk(cx, i, g);
}
