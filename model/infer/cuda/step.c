// What a step's launches read beside weights and activations: tokens, positions, each row's pages in every window,
// adapters, the rows that read keys together, and how tokens are picked. All of it is written into one piece of host
// memory and copied to the device at once.
//
// Pages go along in every step, up to the longest row's: 4 bytes for 64 positions, so 32 rows at 32k positions are 64 KB
// beside the gigabytes of weights that the step reads. Nothing on the device can be out of date then.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { PARTIAL_BYTES = 64 << 20 }; // of attention, unless a single tile of rows needs more
enum { STEADY_ROWS = 64 };         // of a step that is recorded, at most

// ---- the piece of memory: sized in a first pass, written in a second

typedef struct {
    char *host, *device; // host NULL: only sized
    size_t at;
} writer;

// Room for count elements, and what it will be on the device.
static void *room(writer *w, const void **device, size_t count, size_t size) {
    const size_t at = (w->at + 15) / 16 * 16;
    w->at = at + count * size;
    if (!w->host) {
        *device = NULL;
        return NULL;
    }
    *device = w->device + at;
    return w->host + at;
}

static void write_ints(writer *w, const int32_t **device, const sd_context *cx,
                       const sd_row *const *row, int n,
                       int32_t (*value)(const sd_context *cx, const sd_row *r)) {
    const void *p;
    int32_t *to = room(w, &p, (size_t)n, sizeof *to);
    *device = p;
    for (int i = 0; to && i < n; i++) to[i] = value(cx, row[i]);
}
static int32_t token_of(const sd_context *cx, const sd_row *r) {
    (void)cx;
    return r->token;
}
static int32_t pos_of(const sd_context *cx, const sd_row *r) {
    (void)cx;
    return r->pos;
}
static int32_t place_of(const sd_context *cx, const sd_row *r) {
    if (!r->adapter) return -1;
    for (int i = 0; i < cx->n_used; i++)
        if (cx->used[i]->generation == r->adapter->generation) return cx->used[i]->place;
    return -1;
}

static void write_table(writer *w, const int32_t **device, const sd_row *const *row, int n, int ld,
                        int layer) {
    const void *p;
    int32_t *to = room(w, &p, (size_t)n * (size_t)ld, sizeof *to);
    *device = p;
    for (int i = 0; to && i < n; i++) {
        // Rows that read keys together go by the first one's, so it has those of the last one too.
        const int pages = row[i]->kv->pages < ld ? row[i]->kv->pages : ld;
        memcpy(to + (size_t)i * (size_t)ld, sd_kv_table(row[i]->kv, layer),
               (size_t)pages * sizeof *to);
    }
}

// ---- chunks and tiles

static int beyond_of(const sd_context *cx, const sd_row *r) {
    const sd_hparams *hp = &cx->model->hp;
    for (int i = 0; i < hp->ropes; i++)
        if (hp->rope[i].scaling == SD_ROPE_LONG && r->kv->ctx > hp->rope[i].orig_ctx) return 1;
    return 0;
}

static const sd_cuda_pages *pages_of(const sd_row *r) {
    return (const sd_cuda_pages *)(const void *)r->kv->pool->memory;
}

static size_t partial_bytes(const sd_context *cx, int n, int longest) {
    const sd_hparams *hp = &cx->model->hp;
    return cx->dev->attention_floats(n, hp->H, hp->D, longest) * sizeof(float);
}

static bool joins(const sd_context *cx, const sd_cuda_chunk *c, const sd_row *r, int rows,
                  int longest) {
    if (c->pages != pages_of(r) || c->beyond != beyond_of(cx, r)) return false;
    if (longest < c->longest) longest = c->longest;
    return partial_bytes(cx, c->n + rows, longest) <= PARTIAL_BYTES;
}

// 512 positions times a power of two: as few lengths as steady steps have.
static int rounded(int longest) {
    int to = SD_CUDA_SPLIT;
    while (to < longest && to < 1 << 30) to *= 2;
    return to;
}

// Whether the step is one of a kind that comes again and again (graph.c): every row picks its token on the device, and all read
// one memory of pages.
static bool is_steady(const sd_context *cx, const sd_row *rows, int n, int longest) {
    if (cx->no_graphs || n > STEADY_ROWS || n > cx->logit_rows || !sd_cuda_steady_adapters(cx) ||
        partial_bytes(cx, n, rounded(longest)) > PARTIAL_BYTES)
        return false;
    for (int i = 0; i < n; i++) {
        const sd_row *r = &rows[i];
        if (!r->pick || r->want_logits || !sd_cuda_picks(r->pick) ||
            pages_of(r) != pages_of(rows) || beyond_of(cx, r) != beyond_of(cx, rows))
            return false;
    }
    return true;
}

// to->chunk <- the chunks of `row`, and their tiles into the memory of w.
static void cut(writer *w, const sd_context *cx, sd_cuda_rows *to, const sd_row *const *row) {
    const sd_hparams *hp = &cx->model->hp;
    const int most = cx->dev->attention_rows(hp->H, hp->G);
    const void *p;
    sd_cuda_row_tile *tile = room(w, &p, (size_t)to->n, sizeof *tile);
    to->tile = p;
    to->chunks = 0;
    int tiles = 0;
    for (int n0 = 0, n; n0 < to->n; n0 += n) {
        for (n = 1; n < most && n0 + n < to->n && row[n0 + n]->kv == row[n0]->kv;) n++;
        const int longest = row[n0 + n - 1]->pos + 1; // positions ascend
        sd_cuda_chunk *c = to->chunks ? &to->chunk[to->chunks - 1] : NULL;
        if (!c || !joins(cx, c, row[n0], n, longest)) {
            c = &to->chunk[to->chunks++];
            *c = (sd_cuda_chunk){.n0 = n0,
                                 .tile0 = tiles,
                                 .pages = pages_of(row[n0]),
                                 .beyond = beyond_of(cx, row[n0])};
        }
        if (tile) tile[tiles] = (sd_cuda_row_tile){n0 - c->n0, n};
        tiles++;
        c->n += n, c->tiles++;
        if (longest > c->longest) c->longest = longest;
    }
    if (!cx->steady) return;
    // A steady step is told by its rows alone: as many tiles, the last ones without any.
    to->chunk[0].longest = rounded(to->chunk[0].longest);
    to->chunk[0].tiles = to->n;
    for (; tile && tiles < to->n; tiles++) tile[tiles] = (sd_cuda_row_tile){0, 0};
}

// ---- how tokens are picked

static const uint32_t *write_set(writer *w, const uint32_t *set, int V) {
    const void *p;
    const size_t words = ((size_t)V + 31) / 32;
    if (!set) return NULL;
    uint32_t *to = room(w, &p, words, sizeof *to);
    if (to) memcpy(to, set, words * sizeof *to);
    return p;
}

// Rows that want none, or one from the host, are picked from greedily and forgotten.
static void write_picks(writer *w, sd_context *cx) {
    const void *p;
    const int V = cx->model->hp.V;
    bool any = false;
    cx->pick = NULL;
    for (int i = 0; i < cx->kept.n; i++) {
        const sd_pick *pick = cx->kept_row[i]->pick;
        cx->host_pick[i] = pick && !sd_cuda_picks(pick);
        any |= pick && !cx->host_pick[i];
    }
    if (!any) return;
    sd_cuda_pick *to = room(w, &p, (size_t)cx->kept.n, sizeof *to);
    for (int i = 0; i < cx->kept.n; i++) {
        const sd_row *r = cx->kept_row[i];
        sd_cuda_pick one = {.top_p = 1};
        if (r->pick && !cx->host_pick[i]) {
            const sd_shaping *s = r->pick->shaping;
            one = sd_cuda_pick_of(r);
            one.allowed = write_set(w, s ? s->allowed : NULL, V);
            one.also_allowed = write_set(w, s ? s->also_allowed : NULL, V);
        }
        if (to) to[i] = one;
    }
    cx->pick = p;
}

// ---- the plan

static void write_rows(writer *w, sd_context *cx, sd_cuda_rows *to, const sd_row *const *row) {
    to->which = NULL;
    write_ints(w, &to->token, cx, row, to->n, token_of);
    write_ints(w, &to->pos, cx, row, to->n, pos_of);
    if (cx->n_used) write_ints(w, &to->which, cx, row, to->n, place_of);
    to->table_ld = 1;
    for (int i = 0; i < to->n; i++) {
        const int pages = row[i]->pos / SD_KV_PAGE + 1;
        if (pages > to->table_ld) to->table_ld = pages;
    }
    if (cx->steady) to->table_ld = rounded(to->table_ld * SD_KV_PAGE) / SD_KV_PAGE;
    for (int i = 0; i < cx->windows; i++)
        write_table(w, &to->table[i], row, to->n, to->table_ld, cx->first_layer[i]);
    cut(w, cx, to, row);
}

static void write_all(writer *w, sd_context *cx) {
    write_rows(w, cx, &cx->all, cx->row);
    if (cx->kept.n && cx->kept.n < cx->all.n) write_rows(w, cx, &cx->kept, cx->kept_row);
    write_picks(w, cx);
}

static sd_status take_adapters(sd_context *cx, const sd_row *rows, int n, sd_error *err) {
    sd_status st = SD_OK;
    cx->n_used = 0;
    sd_cuda_adapters_reap(cx);
    for (int i = 0; i < n; i++) {
        const sd_adapter *a = rows[i].adapter;
        bool known = !a || (i > 0 && rows[i - 1].adapter == a);
        for (int k = 0; !known && k < cx->n_used; k++)
            known = cx->used[k]->generation == a->generation;
        if (known) continue;
        SD_TRY(sd_cuda_take_adapter(cx, a, err));
        SD_TRY(sd_cuda_adapters_get(&cx->used[cx->n_used], cx, a, err));
        cx->n_used++;
    }
out:
    return st;
}

// cos and sin of positions below `positions`, in each table of the model: [tables, 2, positions, rope_dim / 2].
static void fill_turns(float *out, const sd_hparams *hp, int positions, double *inv) {
    const size_t half = (size_t)hp->rope_dim / 2, all = (size_t)positions * half;
    for (int i = 0; i < hp->ropes; i++)
        for (int beyond = 0; beyond < (hp->rope[i].scaling == SD_ROPE_LONG ? 2 : 1); beyond++) {
            double scale;
            sd_rope_frequencies(&hp->rope[i], hp->rope_dim, beyond ? INT_MAX : hp->rope[i].orig_ctx,
                                inv, &scale);
            for (size_t pos = 0; pos < (size_t)positions; pos++)
                for (size_t k = 0; k < half; k++) {
                    const double angle = (double)pos * inv[k];
                    out[pos * half + k] = (float)(cos(angle) * scale);
                    out[all + pos * half + k] = (float)(sin(angle) * scale);
                }
            out += 2 * all;
        }
}

static int turn_positions(int longest) {
    int positions = 256;
    while (positions < longest) positions *= 2;
    return positions;
}
static size_t turn_bytes(const sd_hparams *hp, int positions) {
    return (size_t)sd_cuda_turn_tables(hp) * 2 * (size_t)positions * ((size_t)hp->rope_dim / 2) *
           sizeof(float);
}

static sd_status reserve_turns(sd_context *cx, int longest, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const int positions = turn_positions(longest);
    const size_t bytes = turn_bytes(hp, positions);
    sd_cuda_upload up = {0};
    float *all = NULL;
    double *inv = NULL;
    if (positions <= cx->turn_positions || !bytes) goto out;
    cx->turn_positions = 0;
    all = sd_alloc(bytes, 1);
    inv = sd_alloc((size_t)hp->rope_dim, sizeof *inv);
    SD_CHECK_ALLOC(all && inv, err);
    fill_turns(all, hp, positions, inv);
    SD_TRY(sd_cuda_grow(cx, &cx->turn, bytes, true, false, "rotations", err));
    SD_TRY(sd_cuda_upload_open(&up, cx->dev, cx->stream, 1 << 20, err));
    SD_TRY(sd_cuda_upload_copy(&up, cx->turn.device, all, bytes, err));
    CUDA_TRY(cx->dev->stream_wait(cx->stream), "copying rotations");
    cx->turn_positions = positions;
out:
    sd_cuda_upload_close(&up);
    free(all);
    free(inv);
    return st;
}

static sd_status reserve_partial(sd_context *cx, sd_error *err) {
    size_t most = 0;
    for (int k = 0; k < 2; k++) {
        const sd_cuda_rows *r = k ? &cx->kept : &cx->all;
        for (int i = 0; i < r->chunks; i++) {
            const size_t bytes = partial_bytes(cx, r->chunk[i].n, r->chunk[i].longest);
            if (bytes > most) most = bytes;
        }
    }
    return sd_cuda_grow(cx, &cx->partial, most, true, false, "attention", err);
}

static void keep_wanted(sd_context *cx, const sd_row *rows, int n) {
    int kept = 0;
    for (int i = 0; i < n; i++) {
        cx->row[i] = &rows[i];
        if (rows[i].want_logits || rows[i].pick) cx->kept_row[kept++] = &rows[i];
    }
    cx->all =
        (sd_cuda_rows){.n = n, .x = cx->x, .q = cx->q, .chunk = cx->chunk, .table = cx->table};
    cx->kept = (sd_cuda_rows){.n = kept,
                              .x = cx->kept_x,
                              .q = cx->kept_q,
                              .chunk = cx->chunk + cx->max_rows,
                              .table = cx->table + cx->windows};
}

sd_status sd_cuda_plan_step(sd_context *cx, const sd_row *rows, int n, sd_error *err) {
    sd_status st = SD_OK;
    writer w = {0};
    int longest = 0;
    for (int i = 0; i < n; i++) longest = rows[i].pos + 1 > longest ? rows[i].pos + 1 : longest;
    keep_wanted(cx, rows, n);
    SD_TRY(take_adapters(cx, rows, n, err));
    cx->steady = is_steady(cx, rows, n, longest);
    write_all(&w, cx);
    if (w.at > cx->plan.bytes)
        SD_TRY(sd_cuda_grow(cx, &cx->plan, w.at + w.at / 2, true, true, "a step's rows", err));
    SD_TRY(reserve_partial(cx, err));
    SD_TRY(reserve_turns(cx, longest, err));
    w = (writer){.host = cx->plan.host, .device = cx->plan.device};
    write_all(&w, cx);
    CUDA_TRY(cx->dev->copy(cx->plan.device, cx->plan.host, w.at, cx->stream), "a step's rows");
    // What all rows want, they want as they are.
    if (cx->kept.n == n) {
        const sd_cuda_rows all = cx->all;
        cx->kept = all;
    }
out:
    return st;
}

// ---- sums

size_t sd_cuda_plan_sum(const sd_context *cx, int ctx) {
    const size_t N = (size_t)cx->max_rows, pages = (size_t)sd_kv_pages(rounded(ctx)),
                 words = ((size_t)cx->model->hp.V + 31) / 32,
                 row = 4 * sizeof(int32_t) + sizeof(sd_cuda_row_tile) +
                       (size_t)cx->windows * pages * sizeof(int32_t);
    const size_t ends = 1024; // of arrays: each begins at a multiple of 16
    const size_t most = ends + 2 * N * row + N * sizeof(sd_cuda_pick) +
                        2 * (size_t)cx->max_picked * words * sizeof(uint32_t);
    return 2 * (most + most / 2); // here and on the device
}

size_t sd_cuda_partial_sum(const sd_context *cx, const sd_cuda_device *dev, int ctx) {
    const sd_hparams *hp = &cx->model->hp;
    const int tile = dev->attention_rows(hp->H, hp->G);
    size_t one =
               dev->attention_floats(tile < cx->max_rows ? tile : cx->max_rows, hp->H, hp->D, ctx) *
               sizeof(float),
           all = dev->attention_floats(cx->max_rows, hp->H, hp->D, ctx) * sizeof(float);
    const int steady_rows = cx->max_rows < STEADY_ROWS ? cx->max_rows : STEADY_ROWS;
    const size_t steady =
        dev->attention_floats(steady_rows, hp->H, hp->D, rounded(ctx)) * sizeof(float);
    if (steady > all) all = steady;
    if (all > PARTIAL_BYTES) all = PARTIAL_BYTES;
    return one > all ? one : all;
}

size_t sd_cuda_turn_sum(const sd_hparams *hp, int ctx) {
    return turn_bytes(hp, turn_positions(ctx));
}
