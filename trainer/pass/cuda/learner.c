// What the loop sees of training on a device. A micro-batch leaves its gradient where the next one writes its own, so it is added to the step's as
// soon as it is there.
#include "trainer/pass/cuda/private.h"

#include "base/memory.h"

typedef struct {
    sd_cuda_train *t;
    sd_learner_arrays a; // the caller's
    bool begins;         // mem.grad_sum is that of the step before
    sd_train_sum sum;    // its counts
    sd_cuda_losses losses;
} learner;

static void forget(learner *l) {
    l->begins = true;
    l->sum = (sd_train_sum){0};
    l->losses.n = 0;
}

static sd_status attach(void *ctx, const sd_learner_arrays *a, sd_error *err) {
    learner *l = ctx;
    l->a = *a;
    forget(l);
    return sd_cuda_train_load(l->t, a->theta, a->m, a->v, err);
}

static sd_status read_arrays(void *ctx, bool state, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    SD_TRY(sd_cuda_train_read(l->t, l->a.theta, l->t->mem.theta, err));
    if (!state) goto out;
    SD_TRY(sd_cuda_train_read(l->t, l->a.m, l->t->mem.m, err));
    SD_TRY(sd_cuda_train_read(l->t, l->a.v, l->t->mem.v, err));
out:
    return st;
}

static sd_status accumulate(void *ctx, const sd_train_batch *b, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    sd_cuda_train *t = l->t;
    bool queued;
    SD_TRY(sd_cuda_train_run(t, b, true, &queued, &l->sum, &l->losses, err));
    if (!queued) goto out;
    CUDA_TRY(t->dev->gradient_add(t->mem.grad_sum, t->mem.grad, t->lay.n_params, 0, 1, l->begins,
                                  t->stream),
             "adding gradients");
    l->begins = false;
out:
    return st;
}

static sd_status loss(void *ctx, const sd_train_batch *b, sd_error *err) {
    learner *l = ctx;
    bool queued;
    return sd_cuda_train_run(l->t, b, false, &queued, &l->sum, &l->losses, err);
}

static sd_status finish(void *ctx, sd_train_sum *sum, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = ctx;
    for (int i = 0; i < 2; i++) SD_TRY(sd_cuda_train_collect(l->t, i, &l->losses, err));
    *sum = l->sum;
    for (size_t i = 0; i < l->losses.n; i++) sum->loss += l->losses.of[i];
    forget(l);
out:
    return st;
}

static sd_status norm(void *ctx, double *out, double scale, double max_norm, sd_error *err) {
    return sd_cuda_train_norm(((learner *)ctx)->t, out, scale, max_norm, err);
}

static sd_status update(void *ctx, const sd_learner_update *u, sd_error *err) {
    return sd_cuda_train_update(((learner *)ctx)->t, u, err);
}

static void close_learner(void *ctx) {
    learner *l = ctx;
    if (!l) return;
    sd_cuda_train_close(l->t);
    free(l->losses.of);
    free(l);
}

sd_status sd_cuda_learner_open(sd_learner *out, sd_model *m, const sd_lora_layout *lay,
                               sd_pool *pool, const sd_train_options *o, int device,
                               sd_error *err) {
    sd_status st = SD_OK;
    learner *l = sd_alloc(1, sizeof *l);
    *out = (sd_learner){0};
    SD_CHECK_ALLOC(l, err);
    *l = (learner){0};
    SD_TRY(sd_cuda_train_open(&l->t, m, lay, pool, o, device, err));
    *out = (sd_learner){.ctx = l,
                        .attach = attach,
                        .read = read_arrays,
                        .accumulate = accumulate,
                        .loss = loss,
                        .finish = finish,
                        .norm = norm,
                        .update = update,
                        .close = close_learner};
    l = NULL;
out:
    close_learner(l);
    return st;
}

sd_status sd_cuda_learner_gradient(const sd_learner *l, float *grad, sd_error *err) {
    sd_cuda_train *t = ((learner *)l->ctx)->t;
    return sd_cuda_train_read(t, grad, t->mem.grad_sum, err);
}
