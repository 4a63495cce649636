// LoRA, not merged: u = A x for the rows of one adapter, then y += B u on the columns of a task.
#include "model/infer/private.h"

#include <sched.h>

// Neighbouring rows of one adapter go together.
sd_status sd_lora_segments(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    cx->runs = 0;
    for (int n = 0; n < cx->n; n++) {
        const sd_adapter *a = cx->row[n].adapter;
        if (!a) continue;
        if (n > 0 && cx->row[n - 1].adapter == a) {
            cx->run[cx->runs - 1].n++;
            continue;
        }
        sd_lora_run *run = &cx->run[cx->runs];
        *run = (sd_lora_run){.n0 = n, .n = 1};
        SD_TRY(sd_lora_table_get(&run->weights, cx->lora, a, cx->model, err));
        cx->runs++;
    }
out:
    return st;
}

// Where A x of the run's rows begins: they stand r apart.
static float *lora_u(const sd_context *cx, const sd_lora_run *run, sd_proj p) {
    return cx->u + ((size_t)p * cx->max_rows + run->n0) * cx->cap_r;
}

// u of projection p for the rows [n0, n1).
void sd_lora_a(sd_context *cx, const sd_ready *in, sd_proj p, int n0, int n1) {
    const float *x = cx->in.norm ? in->xn : cx->in.x;
    const int K = cx->in.K;
    for (int i = 0; i < cx->runs; i++) {
        const sd_lora_run *run = &cx->run[i];
        int first = run->n0 > n0 ? run->n0 : n0,
            end = run->n0 + run->n < n1 ? run->n0 + run->n : n1;
        if (first >= end) continue;
        const sd_lora_packed *l = &run->weights->of[cx->l * SD_PROJ_COUNT + p];
        sd_quant_rows rows = {.compute = SD_COMPUTE_FP32, .K = K, .x = x + (size_t)first * K};
        if (l->r)
            cx->ops->matmul(lora_u(cx, run, p) + (size_t)(first - run->n0) * l->r, l->r, &l->A,
                            &rows, end - first, 0, l->r);
    }
}

// The first tasks of a region over columns are the shrinks of what it reads, so that threads share
// them; whoever is to expand waits for those still running.
static void wait_for_shrinks(sd_context *cx) {
    for (int i = 0; atomic_load_explicit(&cx->shrinks_left, memory_order_acquire) > 0; i++)
        if ((i & 1023) == 1023) sched_yield();
}

void sd_lora_b(sd_context *cx, sd_proj p, float *y, int M, int m0, int m1) {
    if (cx->runs) wait_for_shrinks(cx);
    for (int i = 0; i < cx->runs; i++) {
        const sd_lora_run *run = &cx->run[i];
        const sd_lora_packed *l = &run->weights->of[cx->l * SD_PROJ_COUNT + p];
        sd_quant_rows u = {.compute = SD_COMPUTE_FP32, .K = l->r, .x = lora_u(cx, run, p)};
        if (l->r) cx->ops->matmul_add(y + (size_t)run->n0 * M, M, &l->B, &u, run->n, m0, m1);
    }
}
