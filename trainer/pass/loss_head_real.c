// The last norm and the loss head, on the supervised rows only: with loss on the assistant's words
// that is less than half of the head's work. A chunk of the vocabulary is dequantised while the one
// before it is computed.
#include "trainer/pass/state.h"

#include <math.h>
#include <string.h>

typedef struct {
    sd_train *t;
    int tile_rows, tiles;
    int chunk, next; // the chunk that tiles compute and the one dequantised beside them; -1: none
} head_work;

static sd_head_rows state_of(const sd_train *t, int n0) {
    size_t at = (size_t)n0 * (size_t)t->m->hp.C;
    return (sd_head_rows){.max = t->mem.max + n0,
                          .sum = t->mem.sum + n0,
                          .target = t->mem.target + n0,
                          .acc = t->grad ? t->mem.acc + at : NULL,
                          .dh = t->grad ? t->mem.dh + at : NULL};
}

static int chunk_rows(const sd_train *t, int chunk) {
    int left = t->m->hp.V - chunk * t->mem.head_chunk;
    return left < t->mem.head_chunk ? left : t->mem.head_chunk;
}

static int tile_end(const head_work *w, int task) {
    int end = (task + 1) * w->tile_rows, n = w->t->mem.rows.n_supervised;
    return end < n ? end : n;
}

// dh <- the label's row of the head, at the values that the products use.
static void label_row(sd_train *t, int n, int worker) {
    real *row = t->mem.dh + (size_t)n * t->m->hp.C;
    sd_train_dequantise(row, &t->m->head, t->mem.rows.label[n], t->mem.worker[worker].rows);
    if (!t->gemm->bf16) return;
    for (int c = 0; c < t->m->hp.C; c++)
        row[c] = (real)sd_bf16_to_float(sd_float_to_bf16((float)row[c]));
}

static void gather_tile(void *ctx, int task, int worker) {
    const head_work *w = ctx;
    sd_train *t = w->t;
    int C = t->m->hp.C, n0 = task * w->tile_rows, n1 = tile_end(w, task);
    sd_head_rows s = state_of(t, n0);
    sd_head_begin(&s, n1 - n0, C);
    for (int n = n0; n < n1 && s.dh; n++) label_row(t, n, worker);
    for (int n = n0; n < n1; n++)
        sd_rmsnorm(t->mem.h + (size_t)n * C, t->mem.rstd_h + n,
                   t->mem.acts[t->m->hp.L].x + (size_t)t->mem.rows.row[n] * C, t->m->out_norm, 1, C,
                   (real)t->m->hp.eps);
}

static void chunk_task(void *ctx, int task, int worker) {
    const head_work *w = ctx;
    sd_train *t = w->t;
    int C = t->m->hp.C;
    if (w->chunk >= 0 && task < w->tiles) {
        int n0 = task * w->tile_rows, n1 = tile_end(w, task);
        sd_head_rows s = state_of(t, n0);
        void *const *W = t->mem.head_W[w->chunk & 1];
#if SD_REAL_IS_DOUBLE
        sd_frozen frozen = {.rows = W[0]};
#else
        sd_frozen frozen = {.by_rows = W[0],
                            .by_columns = W[1],
                            .gemm = t->gemm,
                            .scratch = t->mem.worker[worker].gemm_scratch};
#endif
        sd_head_chunk(&s, t->mem.h + (size_t)n0 * C, t->mem.rows.label + n0, n1 - n0, C, &frozen,
                      w->chunk * t->mem.head_chunk, chunk_rows(t, w->chunk),
                      t->mem.worker[worker].logits);
        return;
    }
    int m0 = (task - (w->chunk >= 0 ? w->tiles : 0)) * SD_GEMM_PACK_ROWS,
        M = chunk_rows(t, w->next);
    int count = M - m0 < SD_GEMM_PACK_ROWS ? M - m0 : SD_GEMM_PACK_ROWS;
    const char *stored = (const char *)t->m->head.data;
    size_t bytes = sd_row_bytes(t->m->head.dtype, C),
           first = (size_t)w->next * (size_t)t->mem.head_chunk + (size_t)m0;
    for (int i = 0; i < count; i++)
        sd_dequantise(t->mem.worker[worker].rows + (size_t)i * C, t->m->head.dtype,
                      stored + (first + (size_t)i) * bytes, C);
    void *const *W = t->mem.head_W[w->next & 1];
    sd_train_pack(t, worker, W[0], t->grad ? W[1] : NULL, m0, count, M, C);
}

// dlogits times the segment's weight, after the product with the head that is linear in them.
static void weigh_row(sd_train *t, int n) {
    real *dh = t->mem.dh + (size_t)n * t->m->hp.C;
    real weight = (real)t->weight[sd_train_segment_of(&t->mem.rows, t->mem.rows.row[n])];
    for (int c = 0; c < t->m->hp.C; c++) dh[c] *= weight;
}

// Back through the last norm, onto the rows that were gathered; every other row's gradient is 0.
static void scatter_tile(void *ctx, int task, int worker) {
    (void)worker;
    const head_work *w = ctx;
    sd_train *t = w->t;
    int C = t->m->hp.C;
    for (int n = task * w->tile_rows; n < tile_end(w, task); n++) {
        size_t row = (size_t)t->mem.rows.row[n] * (size_t)C;
        if (t->weight) weigh_row(t, n);
        sd_rmsnorm_backward(t->mem.dx + row, t->mem.dh + (size_t)n * C,
                            t->mem.acts[t->m->hp.L].x + row, t->m->out_norm, t->mem.rstd_h + n, 1,
                            C);
    }
}

static void add_logp(sd_train *t) {
    const sd_train_rows *r = &t->mem.rows;
    for (int n = 0; n < r->n_supervised; n++)
        t->logp[sd_train_segment_of(r, r->row[n])] +=
            t->mem.target[n] - t->mem.max[n] - log(t->mem.sum[n]);
}

double sd_train_loss_head(sd_train *t) {
    int n = t->mem.rows.n_supervised, C = t->m->hp.C;
    int chunks = (t->m->hp.V + t->mem.head_chunk - 1) / t->mem.head_chunk;
    head_work w = {.t = t, .tile_rows = sd_train_tile_rows(t, n)};
    w.tiles = (n + w.tile_rows - 1) / w.tile_rows;
    sd_pool_run(t->pool, w.tiles, gather_tile, &w);
    for (int c = -1; c < chunks; c++) {
        w.chunk = c;
        w.next = c + 1 < chunks ? c + 1 : -1;
        int tasks = c >= 0 ? w.tiles : 0;
        if (w.next >= 0)
            tasks += (chunk_rows(t, w.next) + SD_GEMM_PACK_ROWS - 1) / SD_GEMM_PACK_ROWS;
        sd_pool_run(t->pool, tasks, chunk_task, &w);
    }
    double loss = 0;
    for (int i = 0; i < w.tiles; i++) {
        sd_head_rows s = state_of(t, i * w.tile_rows);
        loss += sd_head_finish(&s, tile_end(&w, i) - i * w.tile_rows, C);
    }
    if (t->logp) add_logp(t);
    if (t->grad) {
        memset(t->mem.dx, 0, sizeof(real) * (size_t)t->mem.rows.N * (size_t)C);
        sd_pool_run(t->pool, w.tiles, scatter_tile, &w);
    }
    return loss;
}
