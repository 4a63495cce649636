// A step reads 16 bytes and writes 12 for each of a few million parameters: memory-bound, cut into
// chunks for the pool. The scale (1 / supervised tokens, times the clipping factor) is folded into
// the read of the gradient. The state is fp32 and the arithmetic between load and store double: the
// constants 0.999 and 1 - lr wd, rounded to fp32, alone put 200 steps off by 2e-6.
#include "trainer/optim/adamw.h"

#include "base/memory.h"

#include <math.h>

enum { CHUNK = 1 << 14 };

typedef struct {
    const float *grad;
    size_t n;
    double scale;
    double *partial; // [chunks]
} norm_job;

static void norm_chunk(void *ctx, int task, int worker) {
    norm_job *j = ctx;
    (void)worker;
    size_t begin = (size_t)task * CHUNK, end = begin + CHUNK < j->n ? begin + CHUNK : j->n;
    double sum = 0;
    for (size_t i = begin; i < end; i++) {
        double g = j->scale * (double)j->grad[i];
        sum += g * g;
    }
    j->partial[task] = sum;
}

double sd_grad_norm(const float *grad, size_t n, double scale, sd_pool *pool) {
    enum { GROUP = 4096 }; // chunks of one region: 64 Mi parameters
    double partial[GROUP], sum = 0;
    for (size_t at = 0; at < n;) {
        size_t len = n - at < (size_t)GROUP * CHUNK ? n - at : (size_t)GROUP * CHUNK;
        int tasks = (int)((len + CHUNK - 1) / CHUNK);
        norm_job job = {grad + at, len, scale, partial};
        sd_pool_run(pool, tasks, norm_chunk, &job);
        for (int i = 0; i < tasks; i++) sum += partial[i]; // ascending, whoever computed them
        at += len;
    }
    return sqrt(sum);
}

double sd_clip_factor(double norm, double max_norm) {
    if (max_norm == 0) return 1;
    double factor = max_norm / (norm + 1e-6);
    return factor < 1 ? factor : 1;
}

typedef struct {
    float *theta, *m, *v;
    const float *grad;
    size_t n;
    double scale, keep, beta1, beta2, step_size, root2, epsilon;
} step_job;

static void step_chunk(void *ctx, int task, int worker) {
    const step_job j = *(const step_job *)ctx;
    (void)worker;
    size_t begin = (size_t)task * CHUNK, end = begin + CHUNK < j.n ? begin + CHUNK : j.n;
    for (size_t i = begin; i < end; i++) {
        double g = j.scale * (double)j.grad[i];
        double m = (double)j.m[i] + (1 - j.beta1) * (g - (double)j.m[i]);
        double v = j.beta2 * (double)j.v[i] + (1 - j.beta2) * g * g;
        double update = j.step_size * m / (sqrt(v) / j.root2 + j.epsilon);
        j.m[i] = (float)m;
        j.v[i] = (float)v;
        j.theta[i] = (float)(j.keep * (double)j.theta[i] - update);
    }
}

void sd_adamw_step(float *theta, float *m, float *v, const float *grad, size_t n, double scale,
                   double lr, int64_t step, const sd_adamw_options *o, sd_pool *pool) {
    double t = (double)step;
    step_job job = {.theta = theta,
                    .m = m,
                    .v = v,
                    .grad = grad,
                    .n = n,
                    .scale = scale,
                    .keep = 1 - lr * o->weight_decay,
                    .beta1 = o->beta1,
                    .beta2 = o->beta2,
                    .step_size = lr / (1 - pow(o->beta1, t)),
                    .root2 = sqrt(1 - pow(o->beta2, t)),
                    .epsilon = o->epsilon};
    sd_pool_run(pool, (int)((n + CHUNK - 1) / CHUNK), step_chunk, &job);
}
