// A micro-batch: its arrays and the parameters go to the device in two copies, the blocks upwards, the head, the blocks downwards to the lowest
// adapted one, and the losses and gradients come back. The host waits once.
#include "trainer/pass/cuda/private.h"

#include <string.h>

// ---- what goes there

static void write_batch(sd_cuda_train *t) {
    const sd_train_rows *r = &t->rows;
    t->tiles = 0;
    for (int i = 0; i < r->n_segments; i++)
        t->tiles += t->dev->flash_tiles(t->mem.here.tile + t->tiles, r->segment[i].start,
                                        r->segment[i].len);
    for (int n = 0; n < r->N; n++) t->mem.here.place[n] = -1;
    for (int i = 0; i < r->n_supervised; i++) {
        t->mem.here.place[r->row[i]] = i;
        if (t->weight) t->mem.here.weight[i] = t->weight[sd_train_segment_of(r, r->row[i])];
    }
}

static sd_status send(sd_cuda_train *t, const float *theta, sd_error *err) {
    sd_status st = SD_OK;
    const size_t n = t->lay.n_params;
    write_batch(t);
    CUDA_TRY(t->dev->copy(t->mem.batch_there, t->mem.batch_here, t->mem.batch_bytes, t->stream),
             "a copy to the device");
    memcpy(t->mem.staging, theta, n * sizeof *theta);
    CUDA_TRY(t->dev->copy(t->mem.theta, t->mem.staging, n * sizeof *theta, t->stream),
             "a copy to the device");
    if (t->type == SD_CUDA_BF16)
        CUDA_TRY(t->dev->round(t->mem.factors, t->mem.theta, n, t->stream), "rounding");
out:
    return st;
}

// ---- what comes back

static void take_losses(sd_cuda_train *t, sd_train_sum *sum) {
    const sd_train_rows *r = &t->rows;
    sum->loss += *t->mem.total_here;
    for (int i = 0; t->logp && i < r->n_supervised; i++)
        t->logp[sd_train_segment_of(r, r->row[i])] -= (double)t->mem.loss_here[i];
}

static sd_status receive(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_train_memory *m = &t->mem;
    CUDA_TRY(t->dev->copy(m->total_here, m->total, sizeof *m->total, t->stream),
             "a copy from the device");
    CUDA_TRY(t->dev->copy(m->loss_here, m->loss, (size_t)t->rows.n_supervised * sizeof *m->loss,
                          t->stream),
             "a copy from the device");
    if (t->backward) // behind the copy of theta, which reads the same memory
        CUDA_TRY(t->dev->copy(m->staging, m->grad, t->lay.n_params * sizeof *m->grad, t->stream),
                 "a copy from the device");
out:
    return st;
}

// ---- the pass

static sd_status queue(sd_cuda_train *t, const float *theta, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const float scale = hp->embedding_scale != 0 ? hp->embedding_scale : 1;
    SD_TRY(send(t, theta, err));
    CUDA_TRY(t->dev->embedding(t->mem.acts[0].x, &t->weights.embedding, t->mem.there.token,
                               t->rows.N, scale, t->stream),
             "the embedding");
    for (int l = 0; l < hp->L; l++) SD_TRY(sd_cuda_block_forward(t, l, err));
    SD_TRY(sd_cuda_train_head(t, err));
    for (int l = hp->L - 1; t->backward && l >= t->lowest; l--) {
        SD_TRY(sd_cuda_block_recompute(t, l, err));
        SD_TRY(sd_cuda_block_backward(t, l, err));
    }
    SD_TRY(receive(t, err));
out:
    return st;
}

static sd_status run_pass(sd_cuda_train *t, const float *theta, float *grad,
                          const sd_train_batch *b, sd_train_sum *sum, sd_error *err) {
    sd_status st = SD_OK;
    sd_train_rows *rows = &t->rows;
    SD_TRY(sd_train_compact(rows, b, t->m->hp.V, t->o.max_tokens, err));
    if (b->logp) memset(b->logp, 0, sizeof *b->logp * (size_t)rows->n_segments);
    if (rows->n_supervised > 0) {
        t->weight = b->weight, t->logp = b->logp, t->backward = grad != NULL;
        CUDA_TRY(t->dev->choose(t->device), "choosing the device");
        st = queue(t, theta, err);
        // Whatever was queued is over before the host's memory is written again.
        const int waited = t->dev->stream_wait(t->stream);
        SD_TRY(st);
        CUDA_TRY(waited, "a micro-batch");
        take_losses(t, sum);
        for (size_t i = 0; grad && i < t->lay.n_params; i++) grad[i] += t->mem.staging[i];
    }
    sum->tokens += rows->N;
    sum->supervised += rows->n_supervised;
out:
    return st;
}

sd_status sd_cuda_train_accumulate(sd_cuda_train *t, const float *theta, float *grad,
                                   const sd_train_batch *b, sd_train_sum *sum, sd_error *err) {
    return run_pass(t, theta, grad, b, sum, err);
}

sd_status sd_cuda_train_loss(sd_cuda_train *t, const float *theta, const sd_train_batch *b,
                             sd_train_sum *sum, sd_error *err) {
    return run_pass(t, theta, NULL, b, sum, err);
}
