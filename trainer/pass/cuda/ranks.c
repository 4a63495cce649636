// Several devices that learn together. Each has all weights and parameters and runs every n-th micro-batch of a step; then their gradients go to all of
// them, and each adds them in the order of the micro-batches. So all devices have the same sums, AdamW moves their parameters alike, and the bytes are
// those of one device that ran the same micro-batches one after the other. n gradients come to each device where a sum made on the way would need two:
// of an adapter that is milliseconds in a step of seconds, and on a stream of their own, beside the next forward pass.
#include "trainer/pass/cuda/private.h"

_Static_assert((int)SD_CUDA_TRAIN_DEVICES == (int)SD_CUDA_MOST_RANKS,
               "more devices than NCCL is asked for");

sd_status sd_cuda_ranks_open(sd_cuda_ranks *out, sd_model *m, const sd_lora_layout *lay,
                             sd_pool *pool, const sd_train_options *o, int device, int n,
                             sd_error *err) {
    sd_status st = SD_OK;
    int devices[SD_CUDA_MOST_RANKS];
    *out = (sd_cuda_ranks){0};
    for (int r = 0; r < n; r++) {
        devices[r] = device + r;
        SD_TRY(sd_cuda_train_open(&out->rank[r], m, lay, pool, o, device + r, n, err));
        out->n++;
    }
    if (n > 1)
        SD_CUDA_TRY(out->rank[0]->dev, out->rank[0]->dev->comm_open(&out->comm, n, devices),
                    "opening NCCL");
out:
    return st;
}

void sd_cuda_ranks_close(sd_cuda_ranks *l) {
    // A gather ends when all of them have come to it.
    for (int r = 0; l->comm && r < l->n; r++)
        (void)l->rank[r]->dev->stream_wait(l->rank[r]->meeting);
    if (l->comm) l->rank[0]->dev->comm_close(l->comm);
    for (int r = 0; r < l->n; r++) sd_cuda_train_close(l->rank[r]);
    *l = (sd_cuda_ranks){0};
}

static sd_status add_alone(sd_cuda_train *t, bool begins, sd_error *err) {
    return sd_cuda_status(t->dev,
                          t->dev->gradient_add(t->mem.grad_sum, t->mem.grad, t->lay.n_params, 0, 1,
                                               begins, t->stream),
                          "adding gradients", err);
}

// Parameters [at, at + n) of all.
static sd_status add_piece(const sd_cuda_ranks *l, size_t at, size_t n, int micro_batches,
                           bool begins, sd_error *err) {
    sd_status st = SD_OK;
    float *to[SD_CUDA_MOST_RANKS];
    const float *from[SD_CUDA_MOST_RANKS];
    sd_cuda_stream *stream[SD_CUDA_MOST_RANKS];
    for (int r = 0; r < l->n; r++) {
        to[r] = l->rank[r]->mem.gathered;
        from[r] = l->rank[r]->mem.grad + at;
        stream[r] = l->rank[r]->meeting;
    }
    SD_CUDA_TRY(l->rank[0]->dev, l->rank[0]->dev->comm_gather(l->comm, to, from, n, stream),
                "gathering gradients");
    for (int r = 0; r < l->n; r++) {
        sd_cuda_train *t = l->rank[r];
        CUDA_TRY(t->dev->choose(t->device), "choosing the device");
        CUDA_TRY(t->dev->gradient_add(t->mem.grad_sum + at, t->mem.gathered, n, n, micro_batches,
                                      begins, t->meeting),
                 "adding gradients");
    }
out:
    return st;
}

sd_status sd_cuda_ranks_add(const sd_cuda_ranks *l, int micro_batches, bool begins, sd_error *err) {
    sd_status st = SD_OK;
    if (l->n == 1) return add_alone(l->rank[0], begins, err);
    for (int r = 0; r < l->n; r++) {
        sd_cuda_train *t = l->rank[r];
        CUDA_TRY(t->dev->event_record(t->there, t->stream), "an event");
        CUDA_TRY(t->dev->stream_follow(t->meeting, t->there), "a micro-batch");
    }
    const size_t all = l->rank[0]->lay.n_params, bucket = l->rank[0]->mem.bucket;
    for (size_t at = 0; at < all; at += bucket)
        SD_TRY(add_piece(l, at, all - at < bucket ? all - at : bucket, micro_batches, begins, err));
    for (int r = 0; r < l->n; r++) {
        sd_cuda_train *t = l->rank[r];
        CUDA_TRY(t->dev->event_record(t->added, t->meeting), "an event");
    }
out:
    return st;
}

sd_status sd_cuda_ranks_settle(const sd_cuda_ranks *l, sd_error *err) {
    sd_status st = SD_OK;
    for (int r = 0; l->n > 1 && r < l->n; r++) {
        sd_cuda_train *t = l->rank[r];
        CUDA_TRY(t->dev->stream_follow(t->stream, t->added), "a sum of gradients");
    }
out:
    return st;
}
