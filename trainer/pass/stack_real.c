// A block's stacks of linear maps: their weights dequantised and packed, and the regions of work
// that compute with them.
//
// A step of a small model is 2000 tokens; nothing in it is worth less than a few milliseconds, so a
// region's tasks are tiles of tokens (their size depends on N and the kernel) and what is
// independent of them runs beside them: the next stack's dequantisation, the parameter gradients.
#include "trainer/pass/state.h"

// ---- weights

void sd_train_dequantise(real *y, const sd_weight *w, int m, float *room) {
    const char *stored = (const char *)w->data + (size_t)m * sd_row_bytes(w->dtype, w->cols);
#if SD_REAL_IS_DOUBLE
    sd_dequantise(room, w->dtype, stored, w->cols);
    for (int k = 0; k < w->cols; k++) y[k] = (real)room[k];
#else
    (void)room;
    sd_dequantise(y, w->dtype, stored, w->cols);
#endif
}

void sd_train_pack(const sd_train *t, int worker, void *forward, void *backward, int m0, int count,
                   int M, int K) {
    const float *rows = t->mem.worker[worker].rows;
#if SD_REAL_IS_DOUBLE
    (void)backward, (void)M;
    real *to = (real *)forward + (size_t)m0 * (size_t)K;
    for (size_t i = 0; i < (size_t)count * (size_t)K; i++) to[i] = (real)rows[i];
#else
    if (forward) sd_gemm_pack_forward(t->gemm, forward, rows, m0, count, M, K);
    if (backward) sd_gemm_pack_backward(t->gemm, backward, rows, m0, count, M, K);
#endif
}

sd_linear_stack sd_train_stack(const sd_train *t, int layer, int stack, int worker) {
    const int first = layer * t->lay.linears + t->lay.first[stack],
              end = layer * t->lay.linears + t->lay.first[stack + 1];
    void *W = t->mem.W[stack & 1];
    sd_linear_stack l = {.in = t->m->linear[first].w.cols};
#if SD_REAL_IS_DOUBLE
    (void)worker;
    l.W.rows = W;
#else
    bool back = t->in_W[stack & 1].back;
    l.W = (sd_frozen){.by_rows = back ? NULL : W,
                      .by_columns = back ? W : NULL,
                      .gemm = t->gemm,
                      .scratch = t->mem.worker[worker].gemm_scratch};
#endif
    for (int i = first; i < end; i++) {
        const sd_lora_slot *s = &t->lay.slot[i];
        if (s->r > 0 && !l.A) l.A = t->theta + s->a;
        l.part[l.n_parts++] = (sd_linear_part){.row = l.out,
                                               .rows = s->out,
                                               .r = s->r,
                                               .u = l.R,
                                               .s = (real)s->scale,
                                               .B = t->theta + s->b};
        l.out += s->out;
        l.R += s->r;
    }
    return l;
}

static int stack_rows(const sd_train *t, sd_stack_id id) {
    int n = 0, at = id.layer * t->lay.linears;
    for (int i = t->lay.first[id.stack]; i < t->lay.first[id.stack + 1]; i++)
        n += t->lay.slot[at + i].out;
    return n;
}

static int dequant_tasks(const sd_train *t, sd_stack_id id) {
    return id.layer < 0 ? 0 : (stack_rows(t, id) + SD_GEMM_PACK_ROWS - 1) / SD_GEMM_PACK_ROWS;
}

// SD_GEMM_PACK_ROWS rows of the stack, whichever of its matrices they belong to.
static void dequant_task(sd_train *t, sd_stack_id id, int task, int worker) {
    const sd_linear *linear = &t->m->linear[id.layer * t->lay.linears + t->lay.first[id.stack]];
    int M = stack_rows(t, id), K = linear->w.cols, m0 = task * SD_GEMM_PACK_ROWS, first = 0;
    int count = M - m0 < SD_GEMM_PACK_ROWS ? M - m0 : SD_GEMM_PACK_ROWS;
    for (int i = 0; i < count; i++) {
        while (m0 + i - first >= linear->w.rows) first += linear++->w.rows;
        const sd_weight *w = &linear->w;
        sd_dequantise(t->mem.worker[worker].rows + (size_t)i * K, w->dtype,
                      (const char *)w->data + (size_t)(m0 + i - first) * sd_row_bytes(w->dtype, K),
                      K);
    }
    void *W = t->mem.W[id.stack & 1];
    bool rows = SD_REAL_IS_DOUBLE || !id.back;
    sd_train_pack(t, worker, rows ? W : NULL, rows ? NULL : W, m0, count, M, K);
}

// ---- regions

// Sixteen tiles, of whole runs of the rows that a kernel takes.
int sd_train_tile_rows(const sd_train *t, int N) {
    int step = t->gemm->rows, least = (36 + step - 1) / step * step;
    int rows = ((N + 15) / 16 + step - 1) / step * step;
    return rows < least ? least : rows > SD_TRAIN_TILE ? SD_TRAIN_TILE : rows;
}

static void region_task(void *ctx, int task, int worker) {
    const sd_train_work *w = ctx;
    if (task < w->tiles) {
        int n0 = task * w->tile_rows, n1 = n0 + w->tile_rows;
        w->tile(w->t, w->layer, n0, n1 < w->t->mem.rows.N ? n1 : w->t->mem.rows.N, worker);
    } else if (task - w->tiles < w->n_extra) {
        w->extra(w->t, w->layer, task - w->tiles, worker);
    } else {
        dequant_task(w->t, w->next, task - w->tiles - w->n_extra, worker);
    }
}

static bool is_in_buffer(const sd_train *t, sd_stack_id id) {
    sd_stack_id in = t->in_W[id.stack & 1];
    return in.layer == id.layer && in.stack == id.stack &&
           (in.back == id.back || SD_REAL_IS_DOUBLE);
}

void sd_train_run(sd_train_work *w) {
    sd_train *t = w->t;
    w->tile_rows = sd_train_tile_rows(t, t->mem.rows.N);
    w->tiles = w->tile ? (t->mem.rows.N + w->tile_rows - 1) / w->tile_rows : 0;
    if (w->next.layer >= 0 && is_in_buffer(t, w->next)) w->next.layer = -1;
    if (w->next.layer >= 0) t->in_W[w->next.stack & 1] = w->next;
    sd_pool_run(t->pool, w->tiles + w->n_extra + dequant_tasks(t, w->next), region_task, w);
}

void sd_train_need(sd_train *t, sd_stack_id id) {
    sd_train_run(&(sd_train_work){.t = t, .layer = id.layer, .next = id});
}
