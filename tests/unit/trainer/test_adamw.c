// P4a: AdamW in fp32 against the same formula in double, 200 steps, lr 1e-2, decay 0.1. A step's
// rounding is about 2^-24 of a parameter and errors add up like a walk: 200 steps stay below 1e-6
// of the parameters' norm; a missing bias correction or a coupled decay is off by more than 1e-3.
#include "base/memory.h"
#include "base/rng.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/schedule.h"

#include <criterion/criterion.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 40000, STEPS = 200 };
static const sd_adamw_options TORCH = {0.9, 0.999, 1e-8, 0.1};

static float gradient(int64_t step, int i) {
    uint32_t w[4];
    sd_philox(w, 5, (uint64_t)step, (uint64_t)i);
    float size = powf(10.0f, -4.0f * sd_uniform((uint32_t)i * 2654435761u)); // four decades
    return size * (2 * sd_uniform(w[0]) - 1);
}

typedef enum { EXACT, NO_BIAS_CORRECTION, COUPLED_DECAY } variant;

static void reference_step(double *p, double *m, double *v, const float *g, int n, double lr,
                           int64_t t, variant kind) {
    for (int i = 0; i < n; i++) {
        double gi = g[i];
        if (kind == COUPLED_DECAY) gi += TORCH.weight_decay * p[i];
        if (kind != COUPLED_DECAY) p[i] *= 1 - lr * TORCH.weight_decay;
        m[i] = 0.9 * m[i] + 0.1 * gi;
        v[i] = 0.999 * v[i] + 0.001 * gi * gi;
        double c1 = kind == NO_BIAS_CORRECTION ? 1 : 1 - pow(0.9, (double)t);
        double c2 = kind == NO_BIAS_CORRECTION ? 1 : 1 - pow(0.999, (double)t);
        p[i] -= lr / c1 * m[i] / (sqrt(v[i]) / sqrt(c2) + 1e-8);
    }
}

static double relative_error(variant kind) {
    float *p = sd_alloc(N, 4), *m = sd_alloc(N, 4), *v = sd_alloc(N, 4), *g = sd_alloc(N, 4);
    double *P = sd_alloc(N, 8), *M = sd_alloc(N, 8), *V = sd_alloc(N, 8);
    for (int i = 0; i < N; i++) P[i] = p[i] = gradient(0, i);
    for (int64_t t = 1; t <= STEPS; t++) {
        for (int i = 0; i < N; i++) g[i] = gradient(t, i);
        sd_adamw_step(p, m, v, g, N, 1, 1e-2, t, &TORCH, NULL);
        reference_step(P, M, V, g, N, 1e-2, t, kind);
    }
    double off = 0, size = 0;
    for (int i = 0; i < N; i++) off += (p[i] - P[i]) * (p[i] - P[i]), size += P[i] * P[i];
    free(p), free(m), free(v), free(g), free(P), free(M), free(V);
    return sqrt(off / size);
}

Test(adamw, two_hundred_steps_equal_a_double_reference) {
    double e = relative_error(EXACT);
    cr_assert(e <= 1e-6, "relative error %g", e);
}

Test(adamw, the_tolerance_tells_planted_errors_apart) {
    cr_assert(relative_error(NO_BIAS_CORRECTION) > 1e-3);
    cr_assert(relative_error(COUPLED_DECAY) > 1e-3);
}

Test(adamw, the_bytes_do_not_depend_on_threads) {
    float *p[2], *m[2], *v[2], *g = sd_alloc(N, 4);
    double norm[2];
    for (int i = 0; i < N; i++) g[i] = gradient(1, i);
    for (int k = 0; k < 2; k++) {
        sd_pool *pool;
        cr_assert_eq(sd_pool_open(&pool, k ? 3 : 1, NULL), SD_OK);
        p[k] = sd_alloc(N, 4), m[k] = sd_alloc(N, 4), v[k] = sd_alloc(N, 4);
        norm[k] = sd_grad_norm(g, N, 0.25, pool);
        for (int64_t t = 1; t <= 3; t++)
            sd_adamw_step(p[k], m[k], v[k], g, N, 0.25, 1e-3, t, &TORCH, pool);
        sd_pool_close(pool);
    }
    cr_assert_eq(norm[0], norm[1]);
    cr_assert_eq(memcmp(p[0], p[1], N * 4), 0);
    for (int k = 0; k < 2; k++) free(p[k]), free(m[k]), free(v[k]);
    free(g);
}

Test(adamw, clipping_is_torchs) {
    float g[2] = {3, 4};
    double norm = sd_grad_norm(g, 2, 2, NULL);
    cr_assert_float_eq(norm, 10, 1e-12);
    cr_assert_float_eq(sd_clip_factor(norm, 1), 1 / (10 + 1e-6), 1e-15);
    cr_assert_eq(sd_clip_factor(0.5, 1), 1);
    cr_assert_eq(sd_clip_factor(norm, 0), 1);
    g[1] = NAN;
    cr_assert(!isfinite(sd_grad_norm(g, 2, 1, NULL)));
}

// The factor is of the order of 1 and has a few roundings in double, in another order than there.
Test(schedule, every_step_has_the_rate_that_transformers_gives_it) {
    static const char *const kinds[] = {"cosine", "linear", "constant"};
    json_t *root = json_load_file(TEST_DATA "/schedule_golden.json", 0, NULL), *c;
    size_t n;
    cr_assert(root);
    json_array_foreach(json_object_get(root, "cases"), n, c) {
        const char *name, *kind;
        int warmup, steps, k = 0;
        double min;
        json_t *lr, *v;
        size_t i;
        cr_assert_eq(json_unpack(c, "{s:s, s:i, s:i, s:F, s:o}", "kind", &name, "warmup", &warmup,
                                 "steps", &steps, "min", &min, "lr", &lr),
                     0);
        kind = name;
        while (k < 3 && strcmp(kinds[k], kind) != 0) k++;
        sd_schedule s = {(sd_schedule_kind)k, 1, min, warmup, steps, false};
        cr_assert_eq(json_array_size(lr), (size_t)steps);
        json_array_foreach(lr, i, v) {
            double got = sd_schedule_lr(&s, (int64_t)i), want = json_number_value(v);
            cr_expect(fabs(got - want) <= 4 * DBL_EPSILON, "%s, %d of %d, min %g: step %d: %g, %g",
                      kind, warmup, steps, min, (int)i, got, want);
        }
    }
    cr_assert_gt(n, 30);
    json_decref(root);
}

Test(schedule, a_run_of_version_0_4_keeps_its_rates) {
    sd_schedule s = {SD_SCHEDULE_COSINE, 1e-3, 0, 20, 100, true};
    for (int64_t i = 0; i < 100; i++) {
        double warm = fmin(1, (double)(i + 1) / 20);
        double want = 1e-3 * warm * 0.5 * (1 + cos(M_PI * (double)i / 100));
        cr_assert_float_eq(sd_schedule_lr(&s, i), want, 1e-18);
    }
}

Test(schedule, linear_and_constant_end_where_they_should) {
    sd_schedule s = {SD_SCHEDULE_LINEAR, 1, 0.1, 0, 10, false};
    cr_assert_float_eq(sd_schedule_lr(&s, 0), 1, 1e-15);
    cr_assert_float_eq(sd_schedule_lr(&s, 5), 0.1 + 0.9 * 0.5, 1e-15);
    cr_assert_float_eq(sd_schedule_lr(&s, 10), 0.1, 1e-15);
    s.kind = SD_SCHEDULE_CONSTANT;
    cr_assert_eq(sd_schedule_lr(&s, 9), 1);
    cr_assert_eq(sd_warmup(0, 0.03, 62), 2);
    cr_assert_eq(sd_warmup(20, 0.03, 62), 20);
}
