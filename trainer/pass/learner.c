// The CPU's learner. The caller's arrays are the parameters, so reading them is nothing to do.
#include "trainer/pass/learner.h"

#include "base/memory.h"

#include <string.h>

typedef struct {
    sd_train *pass;
    sd_pool *pool;
    size_t n;
    sd_learner_arrays a; // the caller's
    float *grad;         // [n]
    bool begins;         // the gradient is that of the step before
    double scale;        // of the gradient, clipping included
    sd_train_sum sum;
} learner;

static sd_status attach(void *ctx, const sd_learner_arrays *a, sd_error *err) {
    learner *l = ctx;
    (void)err;
    l->a = *a;
    l->begins = true;
    l->sum = (sd_train_sum){0};
    return SD_OK;
}

static sd_status read_arrays(void *ctx, bool state, sd_error *err) {
    (void)ctx, (void)state, (void)err;
    return SD_OK;
}

static sd_status accumulate(void *ctx, const sd_train_batch *b, sd_error *err) {
    learner *l = ctx;
    if (l->begins) memset(l->grad, 0, l->n * sizeof *l->grad);
    l->begins = false;
    return sd_train_accumulate(l->pass, l->a.theta, l->grad, b, &l->sum, err);
}

static sd_status loss(void *ctx, const sd_train_batch *b, sd_error *err) {
    learner *l = ctx;
    return sd_train_loss(l->pass, l->a.theta, b, &l->sum, err);
}

static sd_status finish(void *ctx, sd_train_sum *sum, sd_error *err) {
    learner *l = ctx;
    (void)err;
    *sum = l->sum;
    l->sum = (sd_train_sum){0};
    l->begins = true;
    return SD_OK;
}

static sd_status norm(void *ctx, double *out, double scale, double max_norm, sd_error *err) {
    learner *l = ctx;
    (void)err;
    *out = sd_grad_norm(l->grad, l->n, scale, l->pool);
    l->scale = scale * sd_clip_factor(*out, max_norm);
    return SD_OK;
}

static sd_status update(void *ctx, const sd_learner_update *u, sd_error *err) {
    learner *l = ctx;
    (void)err;
    for (int i = 0; i < u->ranges; i++) {
        const size_t at = u->range[i].at;
        sd_adamw_step(l->a.theta + at, l->a.m + at, l->a.v + at, l->grad + at, u->range[i].n,
                      l->scale, u->lr * u->range[i].ratio, u->step, &u->adamw, l->pool);
    }
    return SD_OK;
}

static void close_cpu(void *ctx) {
    learner *l = ctx;
    if (!l) return;
    sd_train_close(l->pass);
    free(l->grad);
    free(l);
}

sd_status sd_learner_open_cpu(sd_learner *out, sd_model *m, const sd_lora_layout *lay,
                              sd_pool *pool, const sd_train_options *o, sd_error *err) {
    sd_status st = SD_OK;
    learner *l = sd_alloc(1, sizeof *l);
    *out = (sd_learner){0};
    SD_CHECK_ALLOC(l, err);
    *l = (learner){.pool = pool, .n = lay->n_params};
    l->grad = sd_alloc(l->n, sizeof *l->grad);
    SD_CHECK_ALLOC(l->grad, err);
    SD_TRY(sd_train_open(&l->pass, m, lay, pool, o, err));
    *out = (sd_learner){.ctx = l,
                        .attach = attach,
                        .read = read_arrays,
                        .accumulate = accumulate,
                        .loss = loss,
                        .finish = finish,
                        .norm = norm,
                        .update = update,
                        .close = close_cpu};
    l = NULL;
out:
    close_cpu(l);
    return st;
}

void sd_learner_close(sd_learner *l) {
    if (l->close) l->close(l->ctx);
    *l = (sd_learner){0};
}
