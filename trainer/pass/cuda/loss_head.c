// The last norm and the loss head, on the supervised rows only: they are taken out of the residual stream, and their gradients put back, other rows'
// being 0. The head's weights are dequantised a chunk of classes at a time, once for the loss and once for the gradient.
#include "trainer/pass/cuda/private.h"

static sd_cuda_head head_of(const sd_cuda_train *t) {
    return (sd_cuda_head){.N = t->rows.n_supervised,
                          .C = t->m->hp.C,
                          .V = t->m->hp.V,
                          .h = t->mem.h,
                          .label = t->mem.there[t->at].label,
                          .weight = t->weight ? t->mem.there[t->at].weight : NULL,
                          .max = t->mem.max,
                          .sum = t->mem.sum,
                          .target = t->mem.target,
                          .loss = t->mem.loss,
                          .total = t->mem.total,
                          .partial = t->mem.partial,
                          .type = t->type};
}

// Statistics of all chunks, or gradients.
static sd_status walk(sd_cuda_train *t, const sd_cuda_head *h, bool gradient, sd_error *err) {
    sd_status st = SD_OK;
    for (int v0 = 0; v0 < h->V; v0 += t->mem.head_chunk) {
        const int n_v = h->V - v0 < t->mem.head_chunk ? h->V - v0 : t->mem.head_chunk;
        CUDA_TRY(t->dev->dequantise(t->mem.head_W, &t->weights.head, v0, n_v, t->type, t->stream),
                 "dequantising");
        CUDA_TRY(gradient ? t->dev->head_gradient(t->mem.dh, t->mem.slopes, h, t->mem.head_W, v0,
                                                  n_v, t->stream)
                          : t->dev->head_chunk(h, t->mem.head_W, v0, n_v, t->stream),
                 "the loss head");
    }
out:
    return st;
}

sd_status sd_cuda_train_head(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const sd_cuda_train_memory *m = &t->mem;
    const sd_cuda_head h = head_of(t);
    const float *x = m->acts[hp->L].x, *w = t->weights.out_norm;
    CUDA_TRY(t->dev->take_rows(m->rows_x, x, m->there[t->at].row, h.N, h.C, t->stream), "rows");
    CUDA_TRY(t->dev->rmsnorm(m->h, m->rows_x, w, h.N, h.C, hp->eps, t->type, t->stream), "a norm");
    SD_TRY(walk(t, &h, false, err));
    CUDA_TRY(t->dev->head_loss(&h, t->stream), "the loss");
    if (!t->backward) goto out;
    SD_TRY(walk(t, &h, true, err));
    CUDA_TRY(t->dev->rmsnorm_backward(m->rows_d, m->dh, m->rows_x, w, h.N, h.C, hp->eps, false,
                                      SD_CUDA_F32, t->stream),
             "a norm");
    CUDA_TRY(t->dev->take_rows(m->dx, m->rows_d, m->there[t->at].place, t->rows.N, h.C, t->stream),
             "rows");
out:
    return st;
}
