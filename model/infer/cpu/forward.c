// One step of inference: embed the tokens, run the layers (block.c), multiply with the head.
//
// Nothing here reduces over rows or splits an inner product, so a row's bits are those that the
// kernels give it (kernels/ops.h), whatever else runs in the step.
#include "model/infer/cpu/private.h"

#include "base/memory.h"
#include "model/infer/weight_cache/row_sums.h"

#include <math.h>
#include <string.h>

// cos and sin of rotation i for row n.
static void turn(sd_context *cx, int i, int n) {
    const int half = cx->model->hp.rope_dim / 2;
    const size_t at = ((size_t)i * cx->max_rows + n) * half;
    const int beyond = cx->row[n].kv->ctx > cx->model->hp.rope[i].orig_ctx;
    const double *inv = cx->inv + (size_t)(2 * i + beyond) * half,
                 scale = cx->attn_scale[i][beyond];
    for (int k = 0; k < half; k++) {
        double angle = cx->row[n].pos * inv[k];
        cx->cos_n[at + k] = (float)(cos(angle) * scale);
        cx->sin_n[at + k] = (float)(sin(angle) * scale);
    }
}

static void embed(sd_context *cx, int n0, int n1) {
    const sd_weight *e = &cx->model->embedding;
    const sd_hparams *hp = &cx->model->hp;
    size_t stride = sd_row_bytes(e->dtype, e->cols);
    for (int n = n0; n < n1; n++) {
        const sd_row *r = &cx->row[n];
        const void *row = (const char *)e->data + (size_t)r->token * stride;
        void *copy = cx->y + (size_t)n * hp->C; // no type has more than four bytes a value
        if (cx->embedding && !(sd_map_read(copy, cx->embedding, row, stride) &&
                               sd_row_sum(copy, stride) == cx->row_sum[r->token]))
            atomic_store_explicit(&cx->lost, true, memory_order_relaxed);
        sd_dequantise(cx->x + (size_t)n * hp->C, e->dtype, cx->embedding ? copy : row, hp->C);
        if (hp->embedding_scale != 0)
            for (int c = 0; c < hp->C; c++) cx->x[(size_t)n * hp->C + c] *= hp->embedding_scale;
        for (int i = 0; i < hp->ropes; i++) turn(cx, i, n);
    }
}

typedef struct {
    sd_context *cx;
    float *logits;
    int width;
} head_job;
static void head_task(void *ctx, int task, int worker) {
    head_job *j = ctx;
    int V = j->cx->model->hp.V, m0 = task * j->width, m1 = m0 + j->width;
    j->cx->ops->matmul(j->logits, V, &j->cx->packed[0], &sd_prepared_input_of(j->cx, worker)->act,
                       j->cx->n, m0, m1 < V ? m1 : V);
}

static void run_head(sd_context *cx, float *logits) {
    const sd_hparams *hp = &cx->model->hp;
    sd_read_from(cx, (sd_input){.x = cx->x,
                                .norm = cx->model->out_norm,
                                .K = hp->C,
                                .group = sd_quant_rows_group(cx->packed[0].w.dtype)});
    int parts = sd_pool_threads(cx->pool) * SD_TASKS_PER_THREAD * 4;
    int width = ((hp->V + parts - 1) / parts + SD_TILE_M - 1) / SD_TILE_M * SD_TILE_M;
    head_job j = {cx, logits, width};
    sd_pool_run(cx->pool, (hp->V + width - 1) / width, head_task, &j);
}

// Rows that are wanted themselves are given; those that want no more are done.
static void give_hidden(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    int kept = 0;
    for (int n = 0; n < cx->n; n++) {
        const float *x = cx->x + (size_t)n * hp->C;
        if (cx->row[n].hidden)
            cx->ops->rmsnorm(cx->row[n].hidden, x, cx->model->out_norm, 1, hp->C, hp->eps);
        if (!cx->row[n].want_logits && !cx->row[n].pick) continue;
        if (kept != n) {
            cx->row[kept] = cx->row[n];
            memcpy(cx->x + (size_t)kept * hp->C, x, (size_t)hp->C * sizeof *x);
        }
        kept++;
    }
    cx->n = kept;
}

// ---- the step

static sd_status reserve_rank(sd_context *cx, int r, sd_error *err) {
    if (r <= cx->cap_r) return SD_OK;
    float *p = sd_alloc((size_t)cx->max_rows * cx->linears * r, sizeof *p);
    if (!p) return sd_fail(err, SD_ENOMEM, "out of memory for an adapter of rank %d", r);
    free(cx->u);
    cx->u = p;
    cx->cap_r = r;
    return SD_OK;
}

// Grows what depends on the rows: both only ever grow, so a steady state allocates nothing.
static sd_status reserve(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < cx->n_segments && st == SD_OK; i++)
        st = reserve_rank(cx, cx->row[cx->segment[i].n0].adapter->max_r, err);
    return st == SD_OK ? sd_attention_reserve(cx, err) : st;
}

sd_status sd_cpu_prepare_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    const sd_lora_weights *weights;
    return sd_lora_table_get(&weights, cx->lora, a, cx->model, err);
}

sd_status sd_cpu_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    sd_status st = sd_cpu_prepare_adapter(cx, a, err);
    return st == SD_OK ? reserve_rank(cx, a->max_r, err) : st;
}

sd_status sd_cpu_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                         sd_picked *picked, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    SD_TRY(sd_pick_check(cx, rows, n, err));
    memcpy(cx->row, rows, (size_t)n * sizeof *rows);
    cx->n = n;
    sd_attention_plan(cx);
    SD_TRY(sd_lora_segments(cx, err));
    SD_TRY(reserve(cx, err));
    atomic_store_explicit(&cx->lost, false, memory_order_relaxed);
    sd_by_rows(cx, embed, hp->C);
    SD_CHECK(
        !atomic_load_explicit(&cx->lost, memory_order_relaxed), err, SD_EIO,
        "%s: its embedding cannot be read any more, or is not what was loaded; restore the file "
        "or start again with what it is now",
        cx->model->path);
    const atomic_bool *stop = cx->stop;
    for (cx->l = 0; cx->l < hp->L; cx->l++) {
        SD_CHECK(!stop || !atomic_load_explicit(stop, memory_order_relaxed), err, SD_EINTERRUPTED,
                 "interrupted");
        sd_run_layer(cx);
    }
    give_hidden(cx);
    if (cx->n) {
        float *all = sd_pick_logits(cx, logits);
        run_head(cx, all);
        sd_pick_tokens(cx, all, logits, picked);
    }
out:
    return st;
}
