// What a context takes: the sizes by which context.c takes it, so that what is counted before anything
// is read is what is there afterwards.
#include "model/infer/cpu/private.h"

#include "base/memory.h"
#include "model/infer/weight_cache/row_sums.h"

enum { DEFAULT_ROWS = 512, MAX_ROWS = 1 << 16 };
enum { OWN_ROWS = 128, OWN_LEAST = 16, OWN_MOST = 64 }; // OWN_ROWS: of all threads

sd_status sd_cpu_configure(sd_context *cx, const sd_model *m, const sd_context_options *o,
                           sd_error *err) {
    sd_status st = SD_OK;
    cx->max_rows = o->max_rows ? o->max_rows : DEFAULT_ROWS;
    cx->compute = o->compute;
    cx->ops = o->isa ? sd_ops_named(o->isa) : sd_ops_best();
    SD_CHECK(cx->ops, err, SD_EINVAL, "instruction set '%s' is not available here; use plain",
             o->isa);
    cx->kv = o->kv;
    if (cx->kv == SD_KV_AUTO) cx->kv = cx->compute == SD_COMPUTE_FP32 ? SD_KV_F32 : cx->ops->kv;
    cx->linears = m->n_linears / m->hp.L;
    SD_CHECK(cx->max_rows > 0 && cx->max_rows <= MAX_ROWS, err, SD_EINVAL,
             "%d rows a step, 1 to %d are allowed", cx->max_rows, MAX_ROWS);
out:
    return st;
}

// The head first: it is the largest, and a late start of packing it would leave the other threads waiting.
const sd_weight *sd_cpu_weight_at(const sd_model *m, int i) {
    return i == 0 ? &m->head : &m->layer[(i - 1) / SD_PROJ_COUNT].w[(i - 1) % SD_PROJ_COUNT];
}

int sd_cpu_widest(const sd_hparams *hp) {
    int K = hp->C > hp->F ? hp->C : hp->F;
    return hp->H * hp->D > K ? hp->H * hp->D : K;
}

int sd_cpu_own_rows(int threads) {
    const int most = OWN_ROWS / threads;
    return most > OWN_MOST ? OWN_MOST : most < OWN_LEAST ? OWN_LEAST : most;
}

static size_t place(size_t *total, size_t rows, size_t cols, size_t size) {
    size_t at = *total;
    *total += (rows * cols * size + 63) / 64 * 64;
    return at;
}

size_t sd_cpu_lay_out(sd_context *cx, char *base) {
    const sd_hparams *hp = &cx->model->hp;
    size_t N = (size_t)cx->max_rows, half = (size_t)hp->rope_dim / 2, total = 0;
    const struct {
        float **p;
        size_t cols;
    } rows[] = {{&cx->x, (size_t)hp->C},
                {&cx->shared_input.xn, (size_t)hp->C},
                {&cx->y, (size_t)hp->C},
                {&cx->q, (size_t)hp->H * hp->D},
                {&cx->att, (size_t)hp->H * hp->D},
                {&cx->k, (size_t)hp->G * hp->D},
                {&cx->v, (size_t)hp->G * hp->D},
                {&cx->gate, (size_t)hp->F},
                {&cx->up, (size_t)hp->F},
                {&cx->cos_n, (size_t)hp->ropes * half},
                {&cx->sin_n, (size_t)hp->ropes * half}};
    enum { COUNT = sizeof rows / sizeof rows[0] };
    size_t at[COUNT];
    for (int i = 0; i < COUNT; i++) at[i] = place(&total, N, rows[i].cols, sizeof(float));
    size_t at_row = place(&total, N, 1, sizeof(sd_row)),
           at_inv = place(&total, (size_t)hp->ropes * 2 * half, 1, sizeof(double)),
           at_len = place(&total, N, 1, sizeof(int)),
           at_chunk = place(&total, N, 1, sizeof(sd_chunk)),
           at_segment = place(&total, N, 1, sizeof(sd_lora_segment));
    if (!base) return total;
    for (int i = 0; i < COUNT; i++) *rows[i].p = (float *)(void *)(base + at[i]);
    cx->row = (sd_row *)(void *)(base + at_row);
    cx->inv = (double *)(void *)(base + at_inv);
    cx->len = (int *)(void *)(base + at_len);
    cx->chunk = (sd_chunk *)(void *)(base + at_chunk);
    cx->segment = (sd_lora_segment *)(void *)(base + at_segment);
    return total;
}

// ---- sums

static size_t step_bytes(const sd_context *cx, size_t scratch, int max_picked, int threads) {
    const sd_hparams *hp = &cx->model->hp;
    const int K = sd_cpu_widest(hp), own = sd_cpu_own_rows(threads);
    const size_t each = sizeof(sd_prepared_input) + (size_t)own * hp->C * sizeof(float) +
                        sd_quant_rows_bytes(own, K, cx->compute);
    size_t sum = scratch + sd_quant_rows_bytes(cx->max_rows, K, cx->compute) +
                 (size_t)threads * each + sd_pick_bytes(max_picked, hp->V, threads) +
                 sd_attention_bytes(cx, threads);
    if (cx->kv == SD_KV_INT8) sum += sd_key_scales(hp) * sizeof(float);
    return sum;
}

// Products of adapters of ranks up to r with the rows of a step.
static size_t product_bytes(const sd_context *cx, int r) {
    return (size_t)cx->max_rows * cx->linears * r * sizeof(float);
}

void sd_cpu_memory(const sd_context *cx, sd_context_memory *out) {
    const sd_hparams *hp = &cx->model->hp;
    *out = (sd_context_memory){
        .weights = cx->packed_bytes + (cx->row_sum ? (size_t)hp->V * sizeof *cx->row_sum : 0),
        .steps = step_bytes(cx, cx->scratch_bytes, cx->max_picked, sd_pool_threads(cx->pool)),
        .adapters = sd_lora_table_bytes(cx->lora) + product_bytes(cx, cx->cap_r),
        .splits = sd_attention_parts(cx)};
}

sd_status sd_cpu_plan(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                      int threads, int ctx, const int *const *rank, int n_adapters, sd_error *err) {
    sd_status st = SD_OK;
    struct { // a context that is only measured, of a model that is only looked at
        sd_context cx;
        sd_model seen;
    } * p;
    int most = 0;
    *out = (sd_context_plan){0};
    p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->seen = *m;
    sd_context *cx = &p->cx;
    cx->model = &p->seen;
    SD_TRY(sd_cpu_configure(cx, m, o, err));
    threads = sd_pool_count(threads);
    sd_context_memory *sum = &out->memory;
    for (int i = 0; i <= m->hp.L * SD_PROJ_COUNT; i++) {
        const sd_weight *w = sd_cpu_weight_at(m, i);
        sum->weights += cx->ops->layout ? cx->ops->pack_bytes(w)
                                        : (size_t)w->rows * sd_row_bytes(w->dtype, w->cols);
    }
    if (sd_model_row_file(m)) sum->weights += (size_t)m->hp.V * sizeof(uint64_t);
    sum->steps = step_bytes(cx, sd_cpu_lay_out(cx, NULL), o->max_picked, threads);
    for (int k = 0; k < n_adapters; k++) {
        sum->adapters += sd_lora_weights_bytes(rank[k], m, cx->ops, cx->compute);
        for (int i = 0; i < m->n_linears; i++) most = rank[k][i] > most ? rank[k][i] : most;
    }
    sum->adapters += product_bytes(cx, most);
    sum->splits = sd_attention_most_parts(cx, threads, ctx);
    out->kv = cx->kv;
    out->kv_bytes = sd_cpu_kv_bytes(cx);
out:
    free(p);
    return st;
}
