// Whole tiny models: the gradient of all adapters at once against central differences in double
// (h = 1e-4 along directions of unit length, 32 of them), for each architecture, each choice of
// adapted maps and each kind of recompute.
#define SD_REAL_DOUBLE
#include "trainer/pass/pass.h"

#include "tests/unit/support/sanitized.h"
#include "tests/unit/trainer/support_gradcheck.h"
#include "tests/unit/trainer/support_train.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#define TOLERANCE 1e-6

typedef struct {
    sd_train *t;
    const sd_train_batch *batch;
} probe;

static double loss_at(const double *theta, void *ctx) {
    const probe *p = ctx;
    sd_train_sum sum = {0};
    cr_assert_eq(sd_train_loss(p->t, theta, p->batch, &sum, NULL), SD_OK);
    return sum.loss;
}

static double model_error(const sd_arch *arch, const char *which, unsigned layers, bool rslora,
                          sd_recompute recompute) {
    sd_error err;
    sd_model *m = train_model(arch, 1 + (uint64_t)arch);
    sd_lora_layout lay;
    train_layout(&lay, m, which, layers, 2, rslora);
    train_data d;
    train_batch(&d, m->hp.V);
    sd_train *t;
    sd_train_options o = {.max_tokens = 100, .recompute = recompute};
    cr_assert_eq(sd_train_open(&t, m, &lay, NULL, &o, &err), SD_OK, "%s", err.message);
    double *theta = calloc(lay.n_params, sizeof *theta), *grad = calloc(lay.n_params, sizeof *grad);
    gradcheck_fill(theta, lay.n_params, 5, 0.3);
    sd_train_sum sum = {0};
    cr_assert_eq(sd_train_accumulate(t, theta, grad, &d.batch, &sum, NULL), SD_OK);
    probe p = {t, &d.batch};
    double error = gradcheck_error(theta, grad, lay.n_params, loss_at, &p);
    free(theta), free(grad);
    sd_train_close(t);
    sd_lora_layout_free(&lay);
    sd_model_release(m);
    return error;
}

// ---- weights of segments

enum { SEGMENTS = 7 };
static const float weights[SEGMENTS] = {2, 0.5f, -1, 0, 1, 3, -0.25f};

static double weighted_loss_at(const double *theta, void *ctx) {
    const probe *p = ctx;
    double logp[SEGMENTS], loss = 0;
    sd_train_batch b = *p->batch;
    sd_train_sum sum = {0};
    b.logp = logp;
    cr_assert_eq(sd_train_loss(p->t, theta, &b, &sum, NULL), SD_OK);
    for (int i = 0; i < SEGMENTS; i++) loss -= (double)weights[i] * logp[i];
    return loss;
}

typedef struct {
    sd_model *m;
    sd_lora_layout lay;
    train_data data;
    sd_train *t;
    double *theta;
} setup;

static void set_up(setup *s, const sd_arch *arch) {
    sd_error err;
    sd_train_options o = {.max_tokens = 100};
    s->m = train_model(arch, 31);
    train_layout(&s->lay, s->m, "qkvogud", 7, 2, false);
    train_batch(&s->data, s->m->hp.V);
    cr_assert_eq(sd_train_open(&s->t, s->m, &s->lay, NULL, &o, &err), SD_OK, "%s", err.message);
    s->theta = calloc(s->lay.n_params, sizeof *s->theta);
    gradcheck_fill(s->theta, s->lay.n_params, 5, 0.3);
}

static double *gradient(const setup *s) {
    double *grad = calloc(s->lay.n_params, sizeof *grad);
    sd_train_sum sum = {0};
    cr_assert_eq(sd_train_accumulate(s->t, s->theta, grad, &s->data.batch, &sum, NULL), SD_OK);
    return grad;
}

static void tear_down(setup *s) {
    free(s->theta);
    sd_train_close(s->t);
    sd_lora_layout_free(&s->lay);
    sd_model_release(s->m);
}

Test(train, a_weight_scales_the_gradient_of_its_segment) {
    for (int a = 0; sd_arch_at(a); a += SD_SANITIZED ? 3 : 1) {
        setup s;
        set_up(&s, sd_arch_at(a));
        s.data.batch.weight = weights;
        double *grad = gradient(&s);
        probe p = {s.t, &s.data.batch};
        double error = gradcheck_error(s.theta, grad, s.lay.n_params, weighted_loss_at, &p);
        cr_assert_leq(error, TOLERANCE);
        free(grad);
        tear_down(&s);
    }
}

// Sums get zeros in between, so they are cut elsewhere: a chain of some 1e4 double operations, each
// off by 2^-53 of the whole at most.
Test(train, a_weight_of_zero_is_a_batch_without_the_segment) {
    static const float without[SEGMENTS] = {1, 1, 1, 1, 0, 1, 1}; // row 1, segment 1
    setup s;
    set_up(&s, &sd_arch_qwen3);
    s.data.batch.weight = without;
    double *weighted = gradient(&s), difference = 0, norm = 0;
    s.data.batch.weight = NULL;
    for (int i = TRAIN_T; i < 2 * TRAIN_T; i++)
        if (s.data.segment[i] == 1) s.data.segment[i] = -1;
    cr_assert_eq(sd_train_segments(&s.data.batch), SEGMENTS - 1);
    double *removed = gradient(&s);
    for (size_t i = 0; i < s.lay.n_params; i++) {
        difference = fmax(difference, fabs(weighted[i] - removed[i]));
        norm = fmax(norm, fabs(removed[i]));
    }
    cr_assert(norm > 0 && difference <= 1e-12 * norm, "%g of %g", difference, norm);
    free(weighted), free(removed);
    tear_down(&s);
}

// ---- whole models

Test(train, gradient_of_a_llama_equals_central_differences) {
    cr_assert_leq(model_error(&sd_arch_llama, "qkvogud", 7, false, SD_RECOMPUTE_NONE), TOLERANCE);
}

Test(train, gradient_of_a_qwen2_with_bias_equals_central_differences) {
    cr_assert_leq(model_error(&sd_arch_qwen2, "qkvogud", 7, false, SD_RECOMPUTE_NONE), TOLERANCE);
}

Test(train, gradient_of_a_qwen3_with_qk_norm_equals_central_differences) {
    cr_assert_leq(model_error(&sd_arch_qwen3, "qkvogud", 7, true, SD_RECOMPUTE_NONE), TOLERANCE);
}

Test(train, gradient_of_a_gemma3_with_windows_and_post_norms_equals_central_differences) {
    cr_assert_leq(model_error(&sd_arch_gemma3, "qkvogud", 7, false, SD_RECOMPUTE_NONE), TOLERANCE);
    cr_assert_leq(model_error(&sd_arch_gemma3, "qkvogud", 7, true, SD_RECOMPUTE_NONE), TOLERANCE);
}

Test(train, gradient_of_a_phi3_with_fused_maps_equals_central_differences) {
    cr_assert_leq(model_error(&sd_arch_phi3, "qogd", 7, false, SD_RECOMPUTE_NONE), TOLERANCE);
    cr_assert_leq(model_error(&sd_arch_phi3, "qogd", 7, true, SD_RECOMPUTE_NONE), TOLERANCE);
}

Test(train, gradient_holds_under_recompute) {
    for (int a = 0; sd_arch_at(a); a += SD_SANITIZED ? 3 : 1)
        for (int r = SD_RECOMPUTE_ATTN; r <= SD_RECOMPUTE_BLOCK; r++)
            cr_assert_leq(model_error(sd_arch_at(a), "qkvogud", 7, false, (sd_recompute)r),
                          TOLERANCE);
}

Test(train, gradient_holds_for_every_choice_of_adapted_maps) {
    static const char *const choices[] = {"qv", "q", "k", "v", "o", "g", "u", "d", "ou", "kd"};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i += SD_SANITIZED ? 2 : 1)
        cr_assert_leq(model_error(&sd_arch_qwen3, choices[i], 7, false, SD_RECOMPUTE_NONE),
                      TOLERANCE, "%s", choices[i]);
    for (size_t i = SD_SANITIZED; i < sizeof choices / sizeof *choices; i += SD_SANITIZED ? 2 : 1)
        cr_assert_leq(model_error(&sd_arch_gemma3, choices[i], 7, false, SD_RECOMPUTE_NONE),
                      TOLERANCE, "gemma3 %s", choices[i]);
    static const char *const fused[] = {"q", "o", "g", "d", "qg", "od"};
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++)
        cr_assert_leq(model_error(&sd_arch_phi3, fused[i], 7, false, SD_RECOMPUTE_NONE), TOLERANCE,
                      "phi3 %s", fused[i]);
}

// The backward pass stops at the lowest adapted map; blocks below it keep nothing.
Test(train, gradient_holds_when_only_some_layers_are_adapted) {
    for (unsigned layers = 1; layers < 8; layers += SD_SANITIZED ? 3 : 1)
        for (int r = SD_RECOMPUTE_NONE; r <= SD_RECOMPUTE_BLOCK; r++)
            cr_assert_leq(model_error(&sd_arch_llama, layers & 1 ? "od" : "qg", layers, false,
                                      (sd_recompute)r),
                          TOLERANCE, "layers %u", layers);
}
