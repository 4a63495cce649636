// The training pass on models as they are opened, against the inference forward: two programs over
// the same weights, whose losses must agree, and one model in two formats.
#include "base/memory.h"
#include "model/infer/forward.h"
#include "tests/unit/support/tiny/model.h"
#include "tests/unit/trainer/support_gradcheck.h"
#include "tests/unit/trainer/support_train.h"
#include "trainer/pass/pass.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 37 };

typedef struct {
    int32_t token[T], label[T], segment[T];
    sd_train_batch batch;
} sequence;

static void make_sequence(sequence *s, int V) {
    for (int t = 0; t < T; t++) {
        s->token[t] = s->label[t] = (t * 53 + 7) % V;
        s->segment[t] = 0;
    }
    s->batch = (sd_train_batch){
        .rows = 1, .T = T, .token = s->token, .label = s->label, .segment = s->segment};
}

static double training_loss(sd_model *m, const sd_lora_layout *lay, const float *theta, float *grad,
                            const sequence *s) {
    sd_train *t;
    sd_error err;
    sd_train_options o = {.max_tokens = T, .compute = SD_TRAIN_FP32};
    sd_train_sum sum = {0};
    cr_assert_eq(sd_train_open(&t, m, lay, NULL, &o, &err), SD_OK, "%s", err.message);
    if (grad)
        cr_assert_eq(sd_train_accumulate(t, theta, grad, &s->batch, &sum, &err), SD_OK);
    else
        cr_assert_eq(sd_train_loss(t, theta, &s->batch, &sum, &err), SD_OK);
    sd_train_close(t);
    cr_assert_eq(sum.supervised, T - 1);
    return sum.loss;
}

static double inference_loss(sd_model *m, const sd_adapter *a, const sequence *s) {
    sd_context *cx;
    sd_kv *kv;
    sd_error err;
    sd_context_options o = {.max_rows = T, .compute = SD_COMPUTE_FP32};
    cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, T, &err), SD_OK);
    sd_row rows[T];
    int V = m->hp.V;
    float *logits = malloc(sizeof(float) * (size_t)T * (size_t)V);
    for (int t = 0; t < T; t++) rows[t] = (sd_row){s->token[t], t, kv, a, true, NULL, NULL};
    cr_assert_eq(sd_forward(cx, rows, T, logits, &err), SD_OK, "%s", err.message);
    double loss = 0;
    for (int t = 0; t + 1 < T; t++) {
        double sum = 0;
        for (int v = 0; v < V; v++) sum += exp((double)logits[(size_t)t * V + v]);
        loss += log(sum) - (double)logits[(size_t)t * V + s->token[t + 1]];
    }
    free(logits);
    sd_kv_close(kv);
    sd_context_close(cx);
    return loss;
}

// Logits agree to a few 1e-6 (P2 allows 1e-4); a mean of 36 of them agrees better.
Test(train_models, loss_equals_that_of_the_inference_forward_with_the_same_adapter) {
    for (int a = 0; sd_arch_at(a); a++) {
        for (int gguf = 0; gguf < 2; gguf++) {
            sd_tiny_model tiny = sd_tiny_default(sd_arch_at(a));
            sd_model *m = sd_tiny_open(&tiny, gguf == 1);
            cr_assert_not_null(m);
            sd_lora_layout lay;
            train_layout(&lay, m, "qkvogud", 3, 4, false);
            float *theta = malloc(lay.n_params * sizeof(float));
            gradcheck_fill_f32(theta, lay.n_params, 3, 0, 0.3);
            sequence s;
            make_sequence(&s, m->hp.V);
            sd_adapter *adapter;
            sd_error err;
            cr_assert_eq(sd_lora_to_adapter(&adapter, "x", theta, &lay, m, &err), SD_OK, "%s",
                         err.message);
            double want = inference_loss(m, adapter, &s), base = inference_loss(m, NULL, &s);
            double got = training_loss(m, &lay, theta, NULL, &s);
            cr_assert_float_eq(got, want, 1e-5 * want, "%s: %.9g, want %.9g",
                               sd_arch_name(sd_arch_at(a)), got, want);
            cr_assert_gt(fabs(base - want), 1e-3 * want); // the adapter does something
            sd_adapter_release(adapter);
            free(theta);
            sd_lora_layout_free(&lay);
            sd_model_release(m);
        }
    }
}

// A llama GGUF holds q and k permuted; everything but the rows of their B's is the same model.
Test(train_models, a_gguf_and_a_folder_of_the_same_weights_train_the_same) {
    sd_tiny_model tiny = sd_tiny_default(&sd_arch_llama);
    float *grad[2], *theta[2];
    double loss[2];
    size_t n = 0;
    for (int gguf = 0; gguf < 2; gguf++) {
        sd_model *m = sd_tiny_open(&tiny, gguf == 1);
        cr_assert_not_null(m);
        sd_lora_layout lay;
        train_layout(&lay, m, "vogud", 3, 4, false);
        n = lay.n_params;
        theta[gguf] = malloc(n * sizeof(float));
        grad[gguf] = calloc(n, sizeof(float));
        gradcheck_fill_f32(theta[gguf], n, 3, 0, 0.15);
        sequence s;
        make_sequence(&s, m->hp.V);
        loss[gguf] = training_loss(m, &lay, theta[gguf], grad[gguf], &s);
        sd_lora_layout_free(&lay);
        sd_model_release(m);
    }
    double d = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        d += pow((double)grad[0][i] - (double)grad[1][i], 2);
        size += pow((double)grad[0][i], 2);
    }
    cr_assert_float_eq(loss[0], loss[1], 1e-6 * loss[0]);
    cr_assert_leq(sqrt(d / size), 5e-6);
    for (int i = 0; i < 2; i++) free(grad[i]), free(theta[i]);
}
