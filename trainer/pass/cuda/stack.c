// A block's stacks of linear maps. W goes from its stored form into one buffer just before it is multiplied with; the stream keeps the next one from
// overwriting it. The factors of the adapter join by products of their own, which add onto the first one's sums.
#include "trainer/pass/cuda/private.h"

// The matrices of each stack, first and last.
static const sd_proj first_of[SD_STACKS] = {SD_WQ, SD_WO, SD_WGATE, SD_WDOWN},
                     last_of[SD_STACKS] = {SD_WV, SD_WO, SD_WUP, SD_WDOWN};

sd_cuda_stack sd_cuda_stack_of(const sd_cuda_train *t, int layer, int stack) {
    const int first = layer * t->lay.linears + t->lay.first[stack],
              end = layer * t->lay.linears + t->lay.first[stack + 1];
    sd_cuda_stack l = {.layer = layer, .stack = stack, .in = t->m->linear[first].w.cols};
    for (int i = first; i < end; i++) {
        const sd_lora_slot *s = &t->lay.slot[i];
        if (s->r > 0 && !l.R) l.a = s->a;
        l.part[l.n_parts].row = l.out, l.part[l.n_parts].rows = s->out;
        l.part[l.n_parts].r = s->r, l.part[l.n_parts].u = l.R;
        l.part[l.n_parts].s = (float)s->scale, l.part[l.n_parts].b = s->b;
        l.n_parts++;
        l.out += s->out;
        l.R += s->r;
    }
    return l;
}

// ---- products

// Value i of an array of T.
static const void *at(const sd_cuda_train *t, const void *p, size_t i) {
    return (const char *)p + i * sd_cuda_real_bytes(t->type);
}
static void *at_mutable(const sd_cuda_train *t, void *p, size_t i) {
    return (char *)p + i * sd_cuda_real_bytes(t->type);
}

static sd_status multiply(sd_cuda_train *t, sd_cuda_product p, sd_error *err) {
    p.type = t->type;
    return sd_cuda_status(t->dev, t->dev->blas_multiply(t->blas, &p, t->stream), "a matrix product",
                          err);
}

static sd_status dequantise(sd_cuda_train *t, const sd_cuda_stack *l, sd_error *err) {
    sd_status st = SD_OK;
    char *to = t->mem.W;
    for (int p = (int)first_of[l->stack]; p <= (int)last_of[l->stack]; p++) {
        const sd_cuda_weight *w = &t->weights.layer[l->layer].w[p];
        CUDA_TRY(t->dev->dequantise(to, w, 0, w->M, t->type, t->stream), "dequantising");
        to += (size_t)w->M * (size_t)w->K * sd_cuda_real_bytes(t->type);
    }
out:
    return st;
}

sd_status sd_cuda_stack_forward(sd_cuda_train *t, const sd_cuda_stack *l, float *y, void *u,
                                const void *x, bool add, sd_error *err) {
    sd_status st = SD_OK;
    const int N = t->rows.N;
    SD_TRY(dequantise(t, l, err));
    SD_TRY(multiply(t,
                    (sd_cuda_product){.m = N,
                                      .n = l->out,
                                      .k = l->in,
                                      .tb = true,
                                      .alpha = 1,
                                      .a = x,
                                      .lda = l->in,
                                      .b = t->mem.W,
                                      .ldb = l->in,
                                      .add = add,
                                      .c = y,
                                      .ldc = l->out,
                                      .type_c = SD_CUDA_F32},
                    err));
    if (!l->R) goto out;
    SD_TRY(multiply(t,
                    (sd_cuda_product){.m = N,
                                      .n = l->R,
                                      .k = l->in,
                                      .tb = true,
                                      .alpha = 1,
                                      .a = x,
                                      .lda = l->in,
                                      .b = at(t, t->mem.factors, l->a),
                                      .ldb = l->in,
                                      .c = u,
                                      .ldc = l->R,
                                      .type_c = t->type},
                    err));
    for (int i = 0; i < l->n_parts; i++) {
        if (!l->part[i].r) continue;
        SD_TRY(multiply(t,
                        (sd_cuda_product){.m = N,
                                          .n = l->part[i].rows,
                                          .k = l->part[i].r,
                                          .tb = true,
                                          .alpha = l->part[i].s,
                                          .a = at(t, u, (size_t)l->part[i].u),
                                          .lda = l->R,
                                          .b = at(t, t->mem.factors, l->part[i].b),
                                          .ldb = l->part[i].r,
                                          .add = true,
                                          .c = y + l->part[i].row,
                                          .ldc = l->out,
                                          .type_c = SD_CUDA_F32},
                        err));
    }
out:
    return st;
}

sd_status sd_cuda_stack_down(sd_cuda_train *t, const sd_cuda_stack *l, const void *dy,
                             sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < l->n_parts; i++) {
        if (!l->part[i].r) continue;
        SD_TRY(multiply(t,
                        (sd_cuda_product){.m = t->rows.N,
                                          .n = l->part[i].r,
                                          .k = l->part[i].rows,
                                          .alpha = l->part[i].s,
                                          .a = at(t, dy, (size_t)l->part[i].row),
                                          .lda = l->out,
                                          .b = at(t, t->mem.factors, l->part[i].b),
                                          .ldb = l->part[i].r,
                                          .c = at_mutable(t, t->mem.du, (size_t)l->part[i].u),
                                          .ldc = l->R,
                                          .type_c = t->type},
                        err));
    }
out:
    return st;
}

sd_status sd_cuda_stack_backward(sd_cuda_train *t, const sd_cuda_stack *l, float *dx,
                                 const void *dy, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(dequantise(t, l, err));
    SD_TRY(multiply(t,
                    (sd_cuda_product){.m = t->rows.N,
                                      .n = l->in,
                                      .k = l->out,
                                      .alpha = 1,
                                      .a = dy,
                                      .lda = l->out,
                                      .b = t->mem.W,
                                      .ldb = l->in,
                                      .c = dx,
                                      .ldc = l->in,
                                      .type_c = SD_CUDA_F32},
                    err));
    if (!l->R) goto out;
    SD_TRY(multiply(t,
                    (sd_cuda_product){.m = t->rows.N,
                                      .n = l->in,
                                      .k = l->R,
                                      .alpha = 1,
                                      .a = t->mem.du,
                                      .lda = l->R,
                                      .b = at(t, t->mem.factors, l->a),
                                      .ldb = l->in,
                                      .add = true,
                                      .c = dx,
                                      .ldc = l->in,
                                      .type_c = SD_CUDA_F32},
                    err));
out:
    return st;
}

// Each factor has one stack, and each stack one turn in a backward pass: gradients are written, not added.
sd_status sd_cuda_stack_grads(sd_cuda_train *t, const sd_cuda_stack *l, const void *dy,
                              const void *x, const void *u, sd_error *err) {
    sd_status st = SD_OK;
    if (!l->R) goto out;
    SD_TRY(multiply(t,
                    (sd_cuda_product){.m = l->R,
                                      .n = l->in,
                                      .k = t->rows.N,
                                      .ta = true,
                                      .alpha = 1,
                                      .a = t->mem.du,
                                      .lda = l->R,
                                      .b = x,
                                      .ldb = l->in,
                                      .c = t->mem.grad + l->a,
                                      .ldc = l->in,
                                      .type_c = SD_CUDA_F32},
                    err));
    for (int i = 0; i < l->n_parts; i++) {
        if (!l->part[i].r) continue;
        SD_TRY(multiply(t,
                        (sd_cuda_product){.m = l->part[i].rows,
                                          .n = l->part[i].r,
                                          .k = t->rows.N,
                                          .ta = true,
                                          .alpha = l->part[i].s,
                                          .a = at(t, dy, (size_t)l->part[i].row),
                                          .lda = l->out,
                                          .b = at(t, u, (size_t)l->part[i].u),
                                          .ldb = l->R,
                                          .c = t->mem.grad + l->part[i].b,
                                          .ldc = l->part[i].r,
                                          .type_c = SD_CUDA_F32},
                        err));
    }
out:
    return st;
}
