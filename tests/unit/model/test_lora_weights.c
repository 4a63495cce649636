// The packed factors of adapters belong to a context's table: made once, freed with their adapter
// or with the table, whichever goes first and on whichever thread (the sanitizers see the rest).
#include "kernels/dequantize.h"
#include "model/infer/cpu/lora_weights.h"
#include "model/infer/forward.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

static sd_adapter *make_adapter(const sd_model *m, int r) {
    int slots = m->n_linears;
    sd_lora *lora = sd_alloc((size_t)slots, sizeof *lora);
    float *values = sd_alloc((size_t)r * 1024, sizeof *values);
    for (int i = 0; i < r * 1024; i++) values[i] = 0.01f * (float)(i % 7 - 3);
    for (int i = 0; i < slots; i++) {
        int cols = m->linear[i].w.cols;
        lora[i] = (sd_lora){.r = r, .A = values, .B = values + r * cols, .scale = 1};
    }
    sd_adapter *a;
    sd_error err = {0};
    cr_assert_eq(sd_adapter_from_factors(&a, "x", lora, m, &err), SD_OK, "%s", err.message);
    free(values);
    free(lora);
    return a;
}

static sd_model *make_model(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

static const sd_lora_weights *get(sd_lora_table *t, const sd_adapter *a, const sd_model *m) {
    const sd_lora_weights *w;
    sd_error err = {0};
    cr_assert_eq(sd_lora_table_get(&w, t, a, m, &err), SD_OK, "%s", err.message);
    return w;
}

static sd_lora_table *make_table(sd_compute compute) {
    sd_lora_table *t;
    cr_assert_eq(sd_lora_table_open(&t, sd_ops_best(), compute, NULL), SD_OK);
    return t;
}

Test(lora_weights, are_made_once_for_each_adapter_and_table) {
    sd_model *m = make_model();
    sd_adapter *a = make_adapter(m, 4), *b = make_adapter(m, 7);
    sd_lora_table *t = make_table(SD_COMPUTE_AUTO), *exact = make_table(SD_COMPUTE_FP32);
    const sd_lora_weights *of_a = get(t, a, m), *of_b = get(t, b, m);
    cr_assert_neq(of_a, of_b);
    for (int i = 0; i < 3; i++) cr_assert(get(t, a, m) == of_a && get(t, b, m) == of_b);
    cr_assert_eq(sd_lora_table_count(t), 2);
    cr_assert_eq(of_a->of[SD_WQ].r, 4);
    cr_assert_eq(of_a->of[SD_WQ].A.w.dtype,
                 sd_dtype_quantised(m->linear[SD_WQ].w.dtype) ? SD_Q8_0 : SD_BF16);
    cr_assert_eq(of_a->of[SD_WQ].B[0].w.dtype, SD_BF16);
    cr_assert_eq(get(exact, a, m)->of[SD_WQ].A.w.dtype, SD_F32);
    sd_lora_table_close(t);
    sd_lora_table_close(exact);
    sd_adapter_release(a);
    sd_adapter_release(b);
    sd_model_release(m);
}

Test(lora_weights, go_with_their_adapter) {
    sd_model *m = make_model();
    sd_adapter *a = make_adapter(m, 4), *b = make_adapter(m, 7);
    sd_lora_table *t = make_table(SD_COMPUTE_AUTO);
    get(t, a, m);
    const sd_lora_weights *of_b = get(t, b, m);
    sd_adapter_acquire(a);
    sd_adapter_release(a);
    cr_assert_eq(sd_lora_table_count(t), 2, "somebody holds it still");
    sd_adapter_release(a);
    cr_assert_eq(sd_lora_table_count(t), 1);
    cr_assert(get(t, b, m) == of_b);
    sd_adapter *c = make_adapter(m, 4); // perhaps where a was
    get(t, c, m);
    cr_assert_eq(sd_lora_table_count(t), 2);
    sd_lora_table_close(t);
    sd_adapter_release(b);
    sd_adapter_release(c);
    sd_model_release(m);
}

Test(lora_weights, of_a_context_go_before_or_after_it) {
    sd_model *m = make_model();
    sd_adapter *a = make_adapter(m, 4), *b = make_adapter(m, 4);
    sd_pool *pool;
    sd_context *cx[2];
    sd_error err = {0};
    cr_assert_eq(sd_pool_open(&pool, 1, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(sd_context_open(&cx[i], m, pool, &(sd_context_options){.max_rows = 4}, &err),
                     SD_OK, "%s", err.message);
        cr_assert_eq(sd_context_take_adapter(cx[i], a, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_context_take_adapter(cx[i], b, &err), SD_OK, "%s", err.message);
    }
    sd_context_close(cx[0]);
    sd_adapter_release(a);
    sd_context_close(cx[1]);
    sd_adapter_release(b);
    sd_pool_close(pool);
    sd_model_release(m);
}

typedef struct {
    sd_adapter *a[16];
} batch;

static void *release_all(void *of) {
    batch *b = of;
    for (int i = 0; i < 16; i++) sd_adapter_release(b->a[i]);
    return NULL;
}

Test(lora_weights, may_go_on_one_thread_while_others_are_made_on_another) {
    sd_model *m = make_model();
    sd_lora_table *t = make_table(SD_COMPUTE_AUTO);
    sd_adapter *stays = make_adapter(m, 2);
    batch b[2];
    pthread_t thread[2];
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 16; i++) {
            b[k].a[i] = make_adapter(m, 2);
            get(t, b[k].a[i], m);
        }
        cr_assert_eq(pthread_create(&thread[k], NULL, release_all, &b[k]), 0);
    }
    const sd_lora_weights *w = get(t, stays, m);
    for (int k = 0; k < 2; k++) pthread_join(thread[k], NULL);
    cr_assert_eq(sd_lora_table_count(t), 1);
    cr_assert(get(t, stays, m) == w);
    sd_lora_table_close(t);
    sd_adapter_release(stays);
    sd_model_release(m);
}
