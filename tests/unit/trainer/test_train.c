// The float pass: what it must not depend on (threads, packing, cuts into micro-batches, recompute,
// the stored type of equal values), what it refuses, and that its plan tells the truth.
#include "trainer/pass/pass.h"

#include "base/memory.h"
#include "tests/unit/trainer/support_gradcheck.h"
#include "tests/unit/trainer/support_train.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    sd_model *m;
    sd_lora_layout lay;
    float *theta, *grad;
    train_data data;
    sd_train_sum sum;
} run;

static void make_run(run *r, sd_model *m, const char *which) {
    *r = (run){.m = m};
    train_layout(&r->lay, m, which, 7, 4, false);
    r->theta = calloc(r->lay.n_params, sizeof(float));
    r->grad = calloc(r->lay.n_params, sizeof(float));
    gradcheck_fill_f32(r->theta, r->lay.n_params, 5, 0, 0.3);
    train_batch(&r->data, m->hp.V); // its batch points into r
}

static void free_run(run *r) {
    free(r->theta), free(r->grad);
    sd_lora_layout_free(&r->lay);
    sd_model_release(r->m);
}

static void accumulate(run *r, const sd_train_batch *b, int threads, sd_recompute recompute) {
    sd_error err;
    sd_pool *pool = NULL;
    sd_train *t;
    cr_assert_eq(sd_pool_open(&pool, threads, &err), SD_OK);
    sd_train_options o = {.max_tokens = 128, .compute = SD_TRAIN_FP32, .recompute = recompute};
    cr_assert_eq(sd_train_open(&t, r->m, &r->lay, pool, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_train_accumulate(t, r->theta, r->grad, b, &r->sum, &err), SD_OK, "%s",
                 err.message);
    sd_train_close(t);
    sd_pool_close(pool);
}

static double relative(const float *a, const float *b, size_t n) {
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        s += (double)b[i] * (double)b[i];
    }
    return sqrt(d / s);
}

Test(train, bytes_do_not_depend_on_the_number_of_threads) {
    for (int a = 0; sd_arch_at(a); a++) {
        run one;
        make_run(&one, train_model(sd_arch_at(a), 3), "qkvogud");
        accumulate(&one, &one.data.batch, 1, SD_RECOMPUTE_NONE);
        for (int threads = 2; threads <= 3; threads++) {
            run r;
            make_run(&r, train_model(sd_arch_at(a), 3), "qkvogud");
            accumulate(&r, &r.data.batch, threads, SD_RECOMPUTE_NONE);
            cr_assert_eq(memcmp(r.grad, one.grad, r.lay.n_params * sizeof(float)), 0);
            cr_assert_eq(memcmp(&r.sum, &one.sum, sizeof r.sum), 0);
            free_run(&r);
        }
        free_run(&one);
    }
}

Test(train, bytes_do_not_depend_on_recompute) {
    run one;
    make_run(&one, train_model(&sd_arch_qwen3, 4), "qkvogud");
    accumulate(&one, &one.data.batch, 2, SD_RECOMPUTE_NONE);
    for (int k = SD_RECOMPUTE_ATTN; k <= SD_RECOMPUTE_BLOCK; k++) {
        run r;
        make_run(&r, train_model(&sd_arch_qwen3, 4), "qkvogud");
        accumulate(&r, &r.data.batch, 2, (sd_recompute)k);
        cr_assert_eq(memcmp(r.grad, one.grad, r.lay.n_params * sizeof(float)), 0);
        free_run(&r);
    }
    free_run(&one);
}

// Buffers live as long as the pass: what a batch left in them must not reach the next.
Test(train, a_pass_leaves_nothing_behind_for_the_next_batch) {
    run fresh, used;
    make_run(&fresh, train_model(&sd_arch_qwen3, 14), "qkvogud");
    make_run(&used, train_model(&sd_arch_qwen3, 14), "qkvogud");
    sd_train *t;
    sd_train_options o = {.max_tokens = 128, .compute = SD_TRAIN_FP32};
    cr_assert_eq(sd_train_open(&t, used.m, &used.lay, NULL, &o, NULL), SD_OK);
    cr_assert_eq(sd_train_accumulate(t, used.theta, used.grad, &used.data.batch, &used.sum, NULL),
                 SD_OK);
    memset(used.grad, 0, used.lay.n_params * sizeof(float));
    used.sum = (sd_train_sum){0};
    for (run *r = &fresh; r; r = r == &fresh ? &used : NULL) {
        for (int i = 0; i < TRAIN_ROWS * TRAIN_T; i++) // other rows are supervised, fewer are run
            r->data.label[i] = r->data.label[i] < 0 ? r->data.token[i] : -100;
        r->data.batch.rows = 2;
    }
    accumulate(&fresh, &fresh.data.batch, 1, SD_RECOMPUTE_NONE);
    cr_assert_eq(sd_train_accumulate(t, used.theta, used.grad, &used.data.batch, &used.sum, NULL),
                 SD_OK);
    cr_assert_eq(memcmp(used.grad, fresh.grad, fresh.lay.n_params * sizeof(float)), 0);
    cr_assert_eq(used.sum.loss, fresh.sum.loss);
    sd_train_close(t);
    free_run(&fresh), free_run(&used);
}

// Each segment of the packed batch as a row of its own.
static void unpack(train_data *d, const train_data *from, int row, int segment) {
    for (int i = 0, n = 0; i < TRAIN_ROWS * TRAIN_T; i++) {
        d->segment[i] = -1;
        if (i / TRAIN_T != row || from->segment[i] != segment) continue;
        d->token[n] = from->token[i], d->label[n] = from->label[i], d->segment[n++] = 0;
    }
    d->batch = (sd_train_batch){
        .rows = 1, .T = TRAIN_T, .token = d->token, .label = d->label, .segment = d->segment};
}

// Sums of about 40 rows in another order: a few 2^-24 of the whole.
Test(train, packed_rows_give_what_their_segments_give_one_by_one) {
    run packed;
    make_run(&packed, train_model(&sd_arch_llama, 5), "qkvogud");
    run single;
    make_run(&single, train_model(&sd_arch_llama, 5), "qkvogud");
    accumulate(&packed, &packed.data.batch, 2, SD_RECOMPUTE_NONE);
    for (int row = 0; row < TRAIN_ROWS; row++) {
        for (int s = 0; s < 3; s++) {
            train_data d;
            unpack(&d, &packed.data, row, s);
            accumulate(&single, &d.batch, 1, SD_RECOMPUTE_NONE);
        }
    }
    cr_assert_eq(packed.sum.tokens, single.sum.tokens);
    cr_assert_eq(packed.sum.supervised, single.sum.supervised);
    cr_assert_float_eq(packed.sum.loss, single.sum.loss, 5e-6 * single.sum.loss);
    cr_assert_leq(relative(packed.grad, single.grad, packed.lay.n_params), 5e-6);
    free_run(&packed), free_run(&single);
}

enum { SEGMENTS = 7 }; // of train_batch

Test(train, weights_of_one_change_no_bit) {
    static const float ones[SEGMENTS] = {1, 1, 1, 1, 1, 1, 1};
    run plain, weighted;
    make_run(&plain, train_model(&sd_arch_qwen3, 11), "qkvogud");
    make_run(&weighted, train_model(&sd_arch_qwen3, 11), "qkvogud");
    cr_assert_eq(sd_train_segments(&plain.data.batch), SEGMENTS);
    weighted.data.batch.weight = ones;
    accumulate(&plain, &plain.data.batch, 2, SD_RECOMPUTE_NONE);
    accumulate(&weighted, &weighted.data.batch, 2, SD_RECOMPUTE_NONE);
    cr_assert_eq(memcmp(plain.grad, weighted.grad, plain.lay.n_params * sizeof(float)), 0);
    cr_assert_eq(memcmp(&plain.sum, &weighted.sum, sizeof plain.sum), 0);
    free_run(&plain), free_run(&weighted);
}

// A term carries three roundings of values below 100, and a sum of n terms n more of the sum: below
// 40 * 4 * 100 * 2^-53. A segment run alone differs as its packed rows do.
Test(train, log_probabilities_are_of_their_segments_and_sum_to_minus_the_loss) {
    run r, alone;
    make_run(&r, train_model(&sd_arch_llama, 12), "qkvogud");
    make_run(&alone, train_model(&sd_arch_llama, 12), "qkvogud");
    double logp[SEGMENTS] = {1, 2, 3, 4, 5, 6, 7}, sum = 0;
    r.data.batch.logp = logp;
    accumulate(&r, &r.data.batch, 2, SD_RECOMPUTE_NONE);
    for (int i = 0; i < SEGMENTS; i++) {
        train_data d;
        unpack(&d, &r.data, i / 3, i % 3);
        alone.sum = (sd_train_sum){0};
        accumulate(&alone, &d.batch, 1, SD_RECOMPUTE_NONE);
        cr_assert_float_eq(logp[i], -alone.sum.loss, 5e-6 * (1 + alone.sum.loss), "segment %d", i);
        sum += logp[i];
    }
    cr_assert_float_eq(sum, -r.sum.loss, 2e-12);
    for (int i = 0; i < TRAIN_ROWS * TRAIN_T; i++) r.data.label[i] = -100;
    accumulate(&r, &r.data.batch, 1, SD_RECOMPUTE_NONE);
    for (int i = 0; i < SEGMENTS; i++) cr_assert_eq(logp[i], 0, "nothing is supervised");
    free_run(&r), free_run(&alone);
}

Test(train, padding_and_what_stands_in_it_change_nothing) {
    run a;
    make_run(&a, train_model(&sd_arch_qwen2, 6), "qkvogud");
    run b;
    make_run(&b, train_model(&sd_arch_qwen2, 6), "qkvogud");
    for (int i = 0; i < TRAIN_ROWS * TRAIN_T; i++)
        if (b.data.segment[i] < 0) b.data.token[i] = -7, b.data.label[i] = 1 << 30;
    accumulate(&a, &a.data.batch, 1, SD_RECOMPUTE_NONE);
    accumulate(&b, &b.data.batch, 1, SD_RECOMPUTE_NONE);
    cr_assert_eq(memcmp(a.grad, b.grad, a.lay.n_params * sizeof(float)), 0);
    free_run(&a), free_run(&b);
}

Test(train, a_segment_does_not_feel_its_neighbours_in_the_row) {
    run a;
    make_run(&a, train_model(&sd_arch_llama, 7), "qkvogud");
    run b;
    make_run(&b, train_model(&sd_arch_llama, 7), "qkvogud");
    for (int i = 0; i < TRAIN_ROWS * TRAIN_T;
         i++) { // only the second segment of row 1 is supervised
        bool mine = i / TRAIN_T == 1 && a.data.segment[i] == 1;
        a.data.label[i] = b.data.label[i] = mine ? a.data.token[i] : -100;
        if (!mine && b.data.segment[i] >= 0) b.data.token[i] = (b.data.token[i] + 13) % a.m->hp.V;
    }
    accumulate(&a, &a.data.batch, 1, SD_RECOMPUTE_NONE);
    accumulate(&b, &b.data.batch, 1, SD_RECOMPUTE_NONE);
    cr_assert_eq(a.sum.supervised, 11); // 12 places, the first is not predicted from anything
    cr_assert_float_eq(a.sum.loss, b.sum.loss, 1e-6 * a.sum.loss);
    cr_assert_leq(relative(b.grad, a.grad, a.lay.n_params), 5e-6);
    free_run(&a), free_run(&b);
}

Test(train, a_quantised_base_trains_as_its_dequantised_values) {
    static const sd_dtype types[] = {SD_Q8_0, SD_Q4_0, SD_Q4_1, SD_Q5_0, SD_BF16, SD_F16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        sd_model *q = train_model_quantised(&sd_arch_llama, 8, types[i]);
        run a, b;
        make_run(&a, q, "qkvogud");
        make_run(&b, train_model_dequantised(q), "qkvogud");
        accumulate(&a, &a.data.batch, 2, SD_RECOMPUTE_NONE);
        accumulate(&b, &b.data.batch, 2, SD_RECOMPUTE_NONE);
        cr_assert_eq(memcmp(a.grad, b.grad, a.lay.n_params * sizeof(float)), 0, "%s",
                     sd_dtype_name(types[i]));
        free_run(&b), free_run(&a);
    }
}

Test(train, every_factor_has_a_gradient_once_b_is_not_zero) {
    run r;
    make_run(&r, train_model(&sd_arch_qwen3, 9), "qkvogud");
    sd_lora_init(r.theta, &r.lay, 42);
    accumulate(&r, &r.data.batch, 1, SD_RECOMPUTE_NONE);
    for (int step = 0; step < 2; step++) {
        int a_moves = 0, b_moves = 0;
        for (int i = 0; i < r.lay.n_linears; i++) {
            const sd_lora_slot *s = &r.lay.slot[i];
            double a = 0, b = 0;
            for (int k = 0; k < s->r * s->in; k++) a += fabs((double)r.grad[s->a + k]);
            for (int k = 0; k < s->r * s->out; k++) b += fabs((double)r.grad[s->b + k]);
            a_moves += a > 0, b_moves += b > 0;
        }
        cr_assert_eq(b_moves, r.lay.n_linears);
        cr_assert_eq(a_moves, step == 0 ? 0 : r.lay.n_linears); // B = 0 hides A at first
        for (size_t i = 0; i < r.lay.n_params; i++) r.theta[i] -= 1e-3f * r.grad[i];
        memset(r.grad, 0, r.lay.n_params * sizeof(float));
        accumulate(&r, &r.data.batch, 1, SD_RECOMPUTE_NONE);
    }
    free_run(&r);
}

Test(train, gradients_are_added_and_unsupervised_batches_add_nothing) {
    run r;
    make_run(&r, train_model(&sd_arch_llama, 10), "qv");
    accumulate(&r, &r.data.batch, 1, SD_RECOMPUTE_NONE);
    float *once = malloc(r.lay.n_params * sizeof(float));
    memcpy(once, r.grad, r.lay.n_params * sizeof(float));
    accumulate(&r, &r.data.batch, 1, SD_RECOMPUTE_NONE);
    for (size_t i = 0; i < r.lay.n_params; i++)
        cr_assert_leq(fabs((double)r.grad[i] - 2 * (double)once[i]),
                      1e-5 * fabs((double)once[i]) + 1e-6);
    memcpy(once, r.grad, r.lay.n_params * sizeof(float));
    sd_train_sum before = r.sum;
    for (int i = 0; i < TRAIN_ROWS * TRAIN_T; i++) r.data.label[i] = -100;
    accumulate(&r, &r.data.batch, 1, SD_RECOMPUTE_NONE);
    cr_assert_eq(memcmp(once, r.grad, r.lay.n_params * sizeof(float)), 0);
    cr_assert_eq(r.sum.supervised, before.supervised);
    cr_assert_eq(r.sum.tokens, before.tokens + before.tokens / 2);
    free(once);
    free_run(&r);
}

// ---- refusals

Test(train, a_batch_outside_the_vocabulary_or_too_large_is_refused_by_place) {
    run r;
    make_run(&r, train_model(&sd_arch_llama, 11), "qv");
    sd_train *t;
    sd_error err;
    sd_train_options o = {.max_tokens = 64};
    cr_assert_eq(sd_train_open(&t, r.m, &r.lay, NULL, &o, &err), SD_OK);
    cr_assert_eq(sd_train_loss(t, r.theta, &r.data.batch, &r.sum, &err), SD_ELIMIT);
    cr_assert(strstr(err.message, "64 tokens"), "%s", err.message);
    r.data.batch.rows = 1;
    r.data.token[3] = r.m->hp.V;
    cr_assert_eq(sd_train_loss(t, r.theta, &r.data.batch, &r.sum, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "row 0, place 3"), "%s", err.message);
    r.data.token[3] = 1, r.data.label[4] = -5;
    cr_assert_eq(sd_train_loss(t, r.theta, &r.data.batch, &r.sum, &err), SD_EINVAL);
    r.data.label[4] = -100, r.data.segment[5] = -2;
    cr_assert_eq(sd_train_loss(t, r.theta, &r.data.batch, &r.sum, &err), SD_EINVAL);
    sd_train_close(t);
    free_run(&r);
}

Test(layout, ranks_and_alphas_out_of_range_are_refused) {
    sd_model *m = train_model(&sd_arch_llama, 1);
    int rank[3 * SD_PROJ_COUNT] = {0};
    double alpha[3 * SD_PROJ_COUNT] = {0};
    sd_lora_layout lay;
    sd_error err;
    cr_assert_eq(sd_lora_layout_init(&lay, m, rank, alpha, false, &err), SD_EINVAL);
    rank[9] = SD_MAX_RANK + 1, alpha[9] = 1;
    cr_assert_eq(sd_lora_layout_init(&lay, m, rank, alpha, false, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "layer 1, v_proj"), "%s", err.message);
    rank[9] = 4, alpha[9] = NAN;
    cr_assert_eq(sd_lora_layout_init(&lay, m, rank, alpha, false, &err), SD_EINVAL);
    alpha[9] = 8;
    cr_assert_eq(sd_lora_layout_init(&lay, m, rank, alpha, false, &err), SD_OK);
    cr_assert_float_eq(lay.slot[9].scale, 2, 0);
    sd_lora_layout_free(&lay);
    cr_assert_eq(sd_lora_layout_init(&lay, m, rank, alpha, true, &err), SD_OK);
    cr_assert_float_eq(lay.slot[9].scale, 4, 0);
    sd_lora_layout_free(&lay);
    sd_model_release(m);
}

Test(layout, every_parameter_belongs_to_one_factor_and_init_is_pefts) {
    sd_model *m = train_model(&sd_arch_llama, 1);
    sd_lora_layout lay;
    train_layout(&lay, m, "qkvogud", 5, 4, false);
    float *theta = malloc(lay.n_params * sizeof(float));
    int *owner = calloc(lay.n_params, sizeof(int));
    sd_lora_init(theta, &lay, 1);
    for (int i = 0; i < lay.n_linears; i++) {
        const sd_lora_slot *s = &lay.slot[i];
        double sum = 0, squares = 0, n = (double)s->r * s->in, bound = 1 / sqrt((double)s->in);
        for (int k = 0; k < s->r * s->in; k++) {
            double a = (double)theta[s->a + k];
            owner[s->a + k]++;
            cr_assert_leq(fabs(a), bound);
            sum += a, squares += a * a;
        }
        for (int k = 0; k < s->r * s->out; k++) {
            owner[s->b + k]++;
            cr_assert_eq(theta[s->b + k], 0);
        }
        if (n == 0) continue;
        cr_assert_leq(fabs(sum / n), 5 * bound / sqrt(3 * n)); // five standard errors of the mean
        cr_assert_float_eq(squares / n, bound * bound / 3, 0.5 * bound * bound / 3);
    }
    for (size_t i = 0; i < lay.n_params; i++) cr_assert_eq(owner[i], 1);
    free(theta), free(owner);
    sd_lora_layout_free(&lay);
    sd_model_release(m);
}

Test(plan, recompute_is_chosen_by_the_limit_and_too_little_is_refused) {
    run r;
    make_run(&r, train_model(&sd_arch_llama, 12), "qkvogud");
    sd_train_plan_report none, attn, block, picked;
    sd_error err;
    sd_train_options o = {.max_tokens = 4096, .recompute = SD_RECOMPUTE_NONE};
    cr_assert_eq(sd_train_plan(&none, r.m, &r.lay, &o, 2, &err), SD_OK);
    o.recompute = SD_RECOMPUTE_ATTN;
    cr_assert_eq(sd_train_plan(&attn, r.m, &r.lay, &o, 2, &err), SD_OK);
    o.recompute = SD_RECOMPUTE_BLOCK;
    cr_assert_eq(sd_train_plan(&block, r.m, &r.lay, &o, 2, &err), SD_OK);
    cr_assert(none.total > attn.total && attn.total > block.total);
    o.recompute = SD_RECOMPUTE_AUTO;
    cr_assert_eq(sd_train_plan(&picked, r.m, &r.lay, &o, 2, &err), SD_OK);
    cr_assert_eq(picked.recompute, SD_RECOMPUTE_NONE);
    o.memory_limit = attn.total;
    cr_assert_eq(sd_train_plan(&picked, r.m, &r.lay, &o, 2, &err), SD_OK);
    cr_assert_eq(picked.recompute, SD_RECOMPUTE_ATTN);
    o.memory_limit = block.total;
    cr_assert_eq(sd_train_plan(&picked, r.m, &r.lay, &o, 2, &err), SD_OK);
    cr_assert_eq(picked.recompute, SD_RECOMPUTE_BLOCK);
    o.memory_limit = block.total - 1;
    cr_assert_eq(sd_train_plan(&picked, r.m, &r.lay, &o, 2, &err), SD_ELIMIT);
    cr_assert(strstr(err.message, "micro_batch_tokens"), "%s", err.message);
    size_t total = 0;
    for (int i = 0; i < block.n; i++) total += block.row[i].bytes;
    cr_assert_eq(total, block.total);
    free_run(&r);
}

static size_t resident_bytes(void) {
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

// What the pass itself adds to the process: the plan's parts without the mapped weights, the
// optimiser's and the program's.
Test(plan, the_process_grows_by_what_the_plan_says) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("a sanitizer's shadow memory is not in the plan");
#endif
    run r;
    make_run(&r, train_model(&sd_arch_qwen2, 13), "qkvogud");
    sd_train_plan_report plan;
    sd_error err;
    sd_train_options o = {.max_tokens = 20000, .recompute = SD_RECOMPUTE_ATTN};
    cr_assert_eq(sd_train_plan(&plan, r.m, &r.lay, &o, 1, &err), SD_OK);
    size_t promised = 0, before = resident_bytes();
    for (int i = 0; i < plan.n; i++)
        if (!strstr(plan.row[i].part, "mapped") && !strstr(plan.row[i].part, "optimiser") &&
            !strstr(plan.row[i].part, "libraries"))
            promised += plan.row[i].bytes;
    sd_train *t;
    cr_assert_eq(sd_train_open(&t, r.m, &r.lay, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_train_accumulate(t, r.theta, r.grad, &r.data.batch, &r.sum, &err), SD_OK);
    size_t grown = resident_bytes() - before;
    cr_assert_geq(grown, promised * 95 / 100, "%zu of %zu bytes", grown, promised);
    cr_assert_leq(grown, promised + ((size_t)32 << 20), "%zu of %zu bytes", grown, promised);
    sd_train_close(t);
    free_run(&r);
}
