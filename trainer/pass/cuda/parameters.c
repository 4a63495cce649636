// Parameters and AdamW's state on the device. They cross at a run's beginning and when a checkpoint is written, a piece at a time and waited for:
// between these a step moves them where they lie.
#include "trainer/pass/cuda/private.h"

#include <string.h>

static size_t piece(const sd_cuda_train *t, size_t at) {
    const size_t left = t->lay.n_params - at;
    return left < t->mem.n_staging ? left : t->mem.n_staging;
}

static sd_status write_array(sd_cuda_train *t, float *to, const float *from, sd_error *err) {
    sd_status st = SD_OK;
    for (size_t at = 0, n; at < t->lay.n_params; at += n) {
        n = piece(t, at);
        memcpy(t->mem.staging, from + at, n * sizeof *from);
        CUDA_TRY(t->dev->copy(to + at, t->mem.staging, n * sizeof *to, t->stream),
                 "a copy to the device");
        CUDA_TRY(t->dev->stream_wait(t->stream), "a copy to the device");
    }
out:
    return st;
}

sd_status sd_cuda_train_read(sd_cuda_train *t, float *to, const float *from, sd_error *err) {
    sd_status st = SD_OK;
    CUDA_TRY(t->dev->choose(t->device), "choosing the device");
    for (size_t at = 0, n; at < t->lay.n_params; at += n) {
        n = piece(t, at);
        CUDA_TRY(t->dev->copy(t->mem.staging, from + at, n * sizeof *to, t->stream),
                 "a copy from the device");
        CUDA_TRY(t->dev->stream_wait(t->stream), "a copy from the device");
        memcpy(to + at, t->mem.staging, n * sizeof *to);
    }
out:
    return st;
}

// What products take of the parameters.
static sd_status round_factors(sd_cuda_train *t, sd_error *err) {
    if (t->type != SD_CUDA_BF16) return SD_OK;
    return sd_cuda_status(t->dev,
                          t->dev->round(t->mem.factors, t->mem.theta, t->lay.n_params, t->stream),
                          "rounding", err);
}

sd_status sd_cuda_train_load(sd_cuda_train *t, const float *theta, const float *m, const float *v,
                             sd_error *err) {
    sd_status st = SD_OK;
    CUDA_TRY(t->dev->choose(t->device), "choosing the device");
    SD_TRY(write_array(t, t->mem.theta, theta, err));
    if (m) SD_TRY(write_array(t, t->mem.m, m, err));
    if (v) SD_TRY(write_array(t, t->mem.v, v, err));
    SD_TRY(round_factors(t, err));
out:
    return st;
}

sd_status sd_cuda_train_norm(sd_cuda_train *t, double *wanted, double scale, double max_norm,
                             sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_train_memory *m = &t->mem;
    CUDA_TRY(t->dev->choose(t->device), "choosing the device");
    CUDA_TRY(t->dev->grad_norm(m->norm, m->norm + 1, m->norm_partial, m->grad_sum, t->lay.n_params,
                               scale, max_norm, t->stream),
             "the gradient's norm");
    if (!wanted) goto out;
    CUDA_TRY(t->dev->copy(m->norm_here, m->norm, sizeof *m->norm, t->stream),
             "a copy from the device");
    CUDA_TRY(t->dev->stream_wait(t->stream), "the gradient's norm");
    *wanted = *m->norm_here;
out:
    return st;
}

sd_status sd_cuda_train_update(sd_cuda_train *t, const sd_learner_update *u, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_train_memory *m = &t->mem;
    const sd_cuda_adamw_options o = {u->adamw.beta1, u->adamw.beta2, u->adamw.epsilon,
                                     u->adamw.weight_decay};
    CUDA_TRY(t->dev->choose(t->device), "choosing the device");
    for (int i = 0; i < u->ranges; i++) {
        const sd_learner_range *r = &u->range[i];
        CUDA_TRY(t->dev->adamw(m->theta + r->at, m->m + r->at, m->v + r->at, m->grad_sum + r->at,
                               r->n, m->norm + 1, u->lr * r->ratio, u->step, &o, t->stream),
                 "AdamW's step");
    }
    SD_TRY(round_factors(t, err));
out:
    return st;
}
