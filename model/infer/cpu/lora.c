// LoRA, not merged: u = A x for the rows of one adapter ("shrink"), then y += B u on the columns of a
// task ("expand").
#include "model/infer/cpu/private.h"

#include <sched.h>

sd_status sd_lora_segments(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    cx->n_segments = 0;
    for (int n = 0; n < cx->n; n++) {
        const sd_adapter *a = cx->row[n].adapter;
        if (!a) continue;
        if (n > 0 && cx->row[n - 1].adapter == a) {
            cx->segment[cx->n_segments - 1].n++;
            continue;
        }
        sd_lora_segment *segment = &cx->segment[cx->n_segments];
        *segment = (sd_lora_segment){.n0 = n, .n = 1};
        SD_TRY(sd_lora_table_get(&segment->weights, cx->lora, a, cx->model, err));
        cx->n_segments++;
    }
out:
    return st;
}

// The factors of linear map i of the running layer.
static const sd_lora_packed *packed_of(const sd_context *cx, const sd_lora_segment *segment,
                                       int i) {
    return &segment->weights->of[cx->l * cx->linears + i];
}

// Where A x of the segment's rows begins: they stand r apart.
static float *lora_u(const sd_context *cx, const sd_lora_segment *segment, int i) {
    return cx->u + ((size_t)i * cx->max_rows + segment->n0) * cx->cap_r;
}

void sd_lora_a(sd_context *cx, const sd_prepared_input *in, int i, int n0, int n1) {
    for (int s = 0; s < cx->n_segments; s++) {
        const sd_lora_segment *segment = &cx->segment[s];
        int first = segment->n0 > n0 ? segment->n0 : n0,
            end = segment->n0 + segment->n < n1 ? segment->n0 + segment->n : n1;
        if (first >= end) continue;
        const sd_lora_packed *l = packed_of(cx, segment, i);
        sd_quant_rows rows = sd_quant_rows_from(&in->act, first);
        if (l->r)
            cx->ops->matmul(lora_u(cx, segment, i) + (size_t)(first - segment->n0) * l->r, l->r,
                            &l->A, &rows, end - first, 0, l->r);
    }
}

// LoRA-A products run as the first tasks of a region over columns, so that threads share them; the
// column tasks wait for those that still run.
static void wait_for_lora_a(sd_context *cx) {
    for (int i = 0; atomic_load_explicit(&cx->lora_a_left, memory_order_acquire) > 0; i++)
        if ((i & 1023) == 1023) sched_yield();
}

void sd_lora_b(sd_context *cx, sd_proj p, float *y, int M, int m0, int m1) {
    const int i = cx->linear_of[p], part = cx->part_of[p];
    if (cx->n_segments) wait_for_lora_a(cx);
    for (int s = 0; s < cx->n_segments; s++) {
        const sd_lora_segment *segment = &cx->segment[s];
        const sd_lora_packed *l = packed_of(cx, segment, i);
        sd_quant_rows u = {.compute = SD_COMPUTE_FP32, .K = l->r, .x = lora_u(cx, segment, i)};
        if (l->r)
            cx->ops->matmul_add(y + (size_t)segment->n0 * M, M, &l->B[part], &u, segment->n, m0,
                                m1);
    }
}
