// What every matmul must do, whatever table it stands in: values against a sum in double, no
// saturation, and the same bits of a row whatever stands beside it.
#pragma once

#include "base/memory.h"
#include "kernels/dequantize.h"
#include "kernels/ops.h"
#include "tests/unit/support/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const sd_dtype types[] = {SD_F32,  SD_F16,  SD_BF16, SD_Q4_0, SD_Q4_1, SD_Q5_0,
                                 SD_Q5_1, SD_Q8_0, SD_Q4_K, SD_Q5_K, SD_Q6_K, SD_IQ4_NL};
enum { TYPES = sizeof types / sizeof types[0] };

static float *random_floats(size_t n) {
    float *x = sd_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = uniform() + 0.3f * uniform();
    return x;
}

// A weight of any type: floats where they can be stored, else random codes under sane scales.
static sd_weight random_weight(sd_dtype t, int M, int K) {
    size_t stride = sd_row_bytes(t, K), bytes = (size_t)M * stride;
    uint8_t *data = sd_alloc(bytes, 1);
    float *x = random_floats((size_t)M * K);
    bool written = true;
    for (int m = 0; m < M && written; m++)
        written = sd_quantise(data + m * stride, t, x + (size_t)m * K, K);
    if (!written) {
        for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)((int)(uniform() * 128) + 128);
        int size = sd_dtype_block_bytes(t);
        for (size_t b = 0; b < bytes; b += size) {
            uint16_t d = sd_float_to_half(0.01f * uniform()),
                     m = sd_float_to_half(0.02f * uniform());
            memcpy(data + b + (t == SD_Q6_K ? 208 : 0), &d, 2);
            if (t != SD_Q6_K) memcpy(data + b + 2, &m, 2);
        }
    }
    free(x);
    return (sd_weight){.dtype = t, .rows = M, .cols = K, .data = data};
}
static void free_weight(sd_weight *w) {
    union {
        const void *c;
        void *v;
    } u = {w->data};
    free(u.v);
}

// The int8 activation of one value, as sd_quant_rows holds it.
static double act_value(const sd_quant_rows *a, int n, int k) {
    return (double)a->scale[sd_quant_rows_at(a, n, k / 32)] *
           sd_quant_rows_codes(a, n, k / 32)[k % 32];
}

// Rows ready for a weight of type t.
static void make_rows(sd_quant_rows *a, const sd_ops *ops, sd_dtype t, const float *x, int N,
                      int K) {
    sd_quant_rows_shape(a, N, K, sd_quant_rows_group(t));
    ops->quantize_rows(a, x, 0, N);
}

// The number of outputs that miss the sum in double over the very activations the kernel reads.
// Each of the K/32 blocks adds at most 5 rounded terms (scale product, integer dot, minimum,
// offset, sum) to a chain of K/32 sums; fp32 paths have a chain of at most K. 2^-24 each, relative
// to the sum of sizes, where the sizes count codes before they are centred (at most twice the size,
// plus the minimum's).
static int matmul_errors(const sd_ops *ops, sd_dtype t, sd_compute compute, int M, int K, int N) {
    sd_weight w = random_weight(t, M, K);
    float *x = random_floats((size_t)N * K), *y = sd_alloc((size_t)N * M, sizeof *y);
    float *row = sd_alloc(K, sizeof *row);
    sd_packed_weight p;
    sd_quant_rows a;
    cr_assert_eq(ops->pack(&p, &w, compute, NULL, NULL), SD_OK);
    cr_assert_eq(sd_quant_rows_init(&a, N, K, compute, NULL), SD_OK);
    make_rows(&a, ops, t, x, N, K);
    bool int8 = compute == SD_COMPUTE_AUTO && sd_dtype_quantised(t);
    int errors = 0;
    int cut = M > SD_TILE_M ? SD_TILE_M : M;
    ops->matmul(y, M, &p, &a, N, 0, cut);
    if (cut < M) ops->matmul(y, M, &p, &a, N, cut, M);
    for (int m = 0; m < M; m++) {
        sd_dequantise(row, t, (const uint8_t *)w.data + m * sd_row_bytes(t, K), K);
        for (int n = 0; n < N; n++) {
            double s = 0, size = 0;
            for (int k = 0; k < K; k++) {
                double v = int8 ? act_value(&a, n, k) : x[(size_t)n * K + k];
                s += v * row[k];
                size += fabs(v * row[k]);
            }
            double terms = int8 ? K / 32 * 5 + 8 : K + 8;
            double limit = 2 * size * terms * 0x1p-24 + 1e-30;
            double e = fabs(s - y[(size_t)n * M + m]);
            if (e <= limit) continue;
            if (errors++ == 0)
                printf("# %s %s %s M %d K %d N %d: output %d of row %d is %g, want %g +- %g\n",
                       ops->name, sd_dtype_name(t), compute ? "fp32" : "auto", M, K, N, m, n,
                       (double)y[(size_t)n * M + m], s, limit);
        }
    }
    sd_packed_weight_free(&p);
    sd_quant_rows_free(&a);
    free(x), free(y), free(row);
    free_weight(&w);
    return errors;
}
static void check_matmul(const sd_ops *ops, sd_dtype t, sd_compute compute, int M, int K, int N) {
    cr_assert_eq(matmul_errors(ops, t, compute, M, K, N), 0, "%s %s: wrong outputs", ops->name,
                 sd_dtype_name(t));
}

static void matmul_of_every_type(const sd_ops *ops) {
    seed = 1;
    for (int i = 0; i < TYPES; i++)
        for (int c = SD_COMPUTE_AUTO; c <= SD_COMPUTE_FP32; c++) {
            check_matmul(ops, types[i], c, 16, 256, 1);
            check_matmul(ops, types[i], c, 40, 768, 7);
            check_matmul(ops, types[i], c, 37, 512, 19); // the last tile is not full
            if (sd_dtype_block(types[i]) == 1) check_matmul(ops, types[i], c, 21, 45, 5);
            if (sd_dtype_block(types[i]) == 32) check_matmul(ops, types[i], c, 33, 96, 35);
        }
}

// Activations and weights at the ends of their ranges: nothing may saturate on the way.
static void matmul_of_extremes(const sd_ops *ops) {
    static const uint8_t fills[] = {0x00, 0xff, 0x7f, 0x80, 0xf0, 0x0f};
    for (int i = 0; i < TYPES; i++) {
        sd_dtype t = types[i];
        if (!sd_dtype_quantised(t)) continue;
        for (size_t f = 0; f < sizeof fills; f++) {
            enum { M = 16, K = 512, N = 33 };
            size_t stride = sd_row_bytes(t, K);
            int size = sd_dtype_block_bytes(t);
            uint8_t *data = sd_alloc(M, stride);
            memset(data, fills[f], M * stride);
            uint16_t one = sd_float_to_half(1), half = sd_float_to_half(0.5f);
            for (size_t b = 0; b < M * stride; b += size) {
                memcpy(data + b + (t == SD_Q6_K ? 208 : 0), &one, 2);
                if (sd_dtype_has_min(t)) memcpy(data + b + 2, &half, 2);
            }
            sd_weight w = {.dtype = t, .rows = M, .cols = K, .data = data};
            float x[N * K], y[N * M], row[K];
            for (int k = 0; k < N * K; k++) x[k] = k / K % 2 ? -127.0f : 127.0f;
            sd_packed_weight p;
            sd_quant_rows a;
            cr_assert_eq(ops->pack(&p, &w, SD_COMPUTE_AUTO, NULL, NULL), SD_OK);
            cr_assert_eq(sd_quant_rows_init(&a, N, K, SD_COMPUTE_AUTO, NULL), SD_OK);
            make_rows(&a, ops, t, x, N, K);
            ops->matmul(y, M, &p, &a, N, 0, M);
            sd_dequantise(row, t, data, K);
            double s = 0, sizes = 0;
            for (int k = 0; k < K; k++)
                s += 127.0 * row[k], sizes += 127 * (fabs((double)row[k]) + 1);
            for (int m = 0; m < N * M; m++) {
                double want = m / M % 2 ? -s : s;
                cr_assert_float_eq(y[m], want, sizes * 1e-5, "%s %s fill %02x: %g, want %g",
                                   ops->name, sd_dtype_name(t), fills[f], (double)y[m], want);
            }
            sd_packed_weight_free(&p);
            sd_quant_rows_free(&a);
            free(data);
        }
    }
}

// The bits of row r alone, against the same row among n others, for all n, and cut in tiles.
static void rows_of_all_numbers_are_invariant(const sd_ops *ops) {
    static const int sizes[] = {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 31, 33, 64};
    enum { M = 48, K = 512, MAX = 64 };
    seed = 2;
    for (int i = 0; i < TYPES; i++)
        for (int c = SD_COMPUTE_AUTO; c <= SD_COMPUTE_FP32; c++) {
            sd_weight w = random_weight(types[i], M, K);
            float *x = random_floats(MAX * K), alone[MAX * M], together[MAX * M];
            sd_packed_weight p;
            sd_quant_rows one, all;
            cr_assert_eq(ops->pack(&p, &w, c, NULL, NULL), SD_OK);
            cr_assert_eq(sd_quant_rows_init(&one, 1, K, c, NULL), SD_OK);
            cr_assert_eq(sd_quant_rows_init(&all, MAX, K, c, NULL), SD_OK);
            for (int n = 0; n < MAX; n++) {
                make_rows(&one, ops, types[i], x + n * K, 1, K);
                ops->matmul(alone + n * M, M, &p, &one, 1, 0, M);
            }
            for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
                int n = sizes[s];
                make_rows(&all, ops, types[i], x, n, K);
                memset(together, 0xff, sizeof together);
                ops->matmul(together, M, &p, &all, n, 16, M);
                ops->matmul(together, M, &p, &all, n, 0, 16);
                cr_assert_eq(memcmp(alone, together, (size_t)n * M * 4), 0,
                             "%s %s: a row of %d differs from the same row alone", ops->name,
                             sd_dtype_name(types[i]), n);
            }
            sd_packed_weight_free(&p);
            sd_quant_rows_free(&one);
            sd_quant_rows_free(&all);
            free(x);
            free_weight(&w);
        }
}

// The same for a K at which a kernel takes few rows at a time.
static void rows_of_long_inputs_are_invariant(const sd_ops *ops) {
    enum { M = 16, K = 12288, N = 81 };
    static const sd_dtype of[] = {SD_Q4_1, SD_Q4_K, SD_Q5_K, SD_Q6_K};
    seed = 4;
    float *x = random_floats((size_t)N * K), alone[M], together[N * M];
    sd_quant_rows one, all;
    cr_assert_eq(sd_quant_rows_init(&one, 1, K, SD_COMPUTE_AUTO, NULL), SD_OK);
    cr_assert_eq(sd_quant_rows_init(&all, N, K, SD_COMPUTE_AUTO, NULL), SD_OK);
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        sd_weight w = random_weight(of[i], M, K);
        sd_packed_weight p;
        cr_assert_eq(ops->pack(&p, &w, SD_COMPUTE_AUTO, NULL, NULL), SD_OK);
        make_rows(&all, ops, of[i], x, N, K);
        ops->matmul(together, M, &p, &all, N, 0, M);
        for (int n = 0; n < N; n++) {
            make_rows(&one, ops, of[i], x + (size_t)n * K, 1, K);
            ops->matmul(alone, M, &p, &one, 1, 0, M);
            cr_assert_eq(memcmp(alone, together + n * M, sizeof alone), 0,
                         "%s %s: row %d differs from the same row alone", ops->name,
                         sd_dtype_name(of[i]), n);
        }
        sd_packed_weight_free(&p);
        free_weight(&w);
    }
    sd_quant_rows_free(&one);
    sd_quant_rows_free(&all);
    free(x);
}

static void rows_are_invariant(const sd_ops *ops) {
    rows_of_all_numbers_are_invariant(ops);
    rows_of_long_inputs_are_invariant(ops);
}

// Half a step of the group's scale, and one rounding of the product.
static void check_rounding(const sd_ops *ops, int K, int group) {
    enum { N = 3 };
    seed = 3;
    float *x = random_floats((size_t)N * K);
    for (int k = 0; k < 32; k++) x[k] = 0;
    x[40] = 1e-35f, x[K + 70] = 55;
    sd_quant_rows a;
    cr_assert_eq(sd_quant_rows_init(&a, N, K, SD_COMPUTE_AUTO, NULL), SD_OK);
    sd_quant_rows_shape(&a, N, K, group);
    ops->quantize_rows(&a, x, 0, 2);
    ops->quantize_rows(&a, x, 2, N);
    cr_assert_eq(a.x, x);
    for (int n = 0; n < N; n++)
        for (int b = 0; b < K / 32; b++) {
            size_t at = sd_quant_rows_at(&a, n, b);
            const float *v = x + n * K, scale = a.scale[at];
            const int8_t *q = sd_quant_rows_codes(&a, n, b);
            float top = 0;
            int sum = 0, low = 0;
            for (int k = b * 32 / group * group; k < K && k / group == b * 32 / group; k++)
                top = fmaxf(top, fabsf(v[k]));
            for (int i = 0; i < 32; i++) {
                sum += q[i];
                if (i < 16) low += q[i];
                cr_assert_leq(fabs(scale * (double)q[i] - v[b * 32 + i]),
                              scale * (0.5 + 127 * 0x1p-22));
                cr_assert_neq(q[i], -128);
            }
            cr_assert_float_eq(scale, top / 127, top * 1e-7);
            cr_assert_eq(*sd_quant_rows_isum(&a, n, b), sum);
            cr_assert_eq(a.isum16[2 * at], low);
            cr_assert_eq(a.isum16[2 * at + 1], sum - low);
            cr_assert_float_eq(a.sum[at], scale * (float)sum, 1e-6);
        }
    x[33] = NAN, x[K] = INFINITY;
    ops->quantize_rows(&a, x, 0, N);
    cr_assert(isnan(a.scale[sd_quant_rows_at(&a, 0, 1)]) &&
              isnan(a.scale[sd_quant_rows_at(&a, 1, 0)]) &&
              !isnan(a.scale[sd_quant_rows_at(&a, 2, 0)]));
    cr_assert_eq(isnan(a.scale[0]), group > 32, "a scale is of its own group alone");
    sd_quant_rows_free(&a);
    free(x);
}
static void activations_round_to_nearest(const sd_ops *ops) {
    check_rounding(ops, 160, SD_QBLOCK);
    check_rounding(ops, 512, SD_QSUPER);
    check_rounding(ops, 416, SD_QSUPER); // the last group is not whole
}

// y += B u in two pieces, rows together and each alone.
static void check_added(const sd_ops *ops, sd_dtype t, int M, int R, int N) {
    sd_error err = {0};
    sd_packed_weight p;
    sd_weight B = random_weight(t, M, R);
    float *b = sd_alloc((size_t)R, sizeof *b), *u = random_floats((size_t)N * R),
          *y0 = random_floats((size_t)N * M), *y = sd_alloc((size_t)N * M, sizeof *y),
          *alone = sd_alloc((size_t)M, sizeof *alone);
    memcpy(y, y0, (size_t)N * M * sizeof *y);
    cr_assert_eq(ops->pack(&p, &B, SD_COMPUTE_AUTO, NULL, &err), SD_OK, "%s", err.message);
    sd_quant_rows x = {.compute = SD_COMPUTE_FP32, .K = R, .x = u};
    ops->matmul_add(y, M, &p, &x, N, 0, SD_TILE_M);
    ops->matmul_add(y, M, &p, &x, N, SD_TILE_M, M);
    for (int m = 0; m < M; m++) {
        sd_dequantise(b, t, (const char *)B.data + (size_t)m * sd_row_bytes(t, R), R);
        for (int n = 0; n < N; n++) {
            double sum = y0[n * M + m], size = fabs(sum);
            for (int r = 0; r < R; r++)
                sum += (double)b[r] * u[n * R + r], size += fabs((double)b[r] * u[n * R + r]);
            cr_assert_float_eq(y[n * M + m], sum, size * (R + 2) * 0x1p-24, "%s %s R %d: %g, %g",
                               ops->name, sd_dtype_name(t), R, (double)y[n * M + m], sum);
        }
    }
    for (int n = 0; n < N; n++) {
        sd_quant_rows one = {.compute = SD_COMPUTE_FP32, .K = R, .x = u + n * R};
        memcpy(alone, y0 + n * M, (size_t)M * sizeof *y);
        ops->matmul_add(alone, M, &p, &one, 1, 0, M);
        cr_assert(memcmp(alone, y + n * M, (size_t)M * sizeof *y) == 0, "%s %s R %d: row %d",
                  ops->name, sd_dtype_name(t), R, n);
    }
    sd_packed_weight_free(&p);
    free_weight(&B);
    free(b), free(u), free(y0), free(y), free(alone);
}
static void products_are_added(const sd_ops *ops) {
    static const int ranks[] = {1, 3, 4, 8, 16, 17, 64};
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 7; i++) check_added(ops, types[t], 50, ranks[i], 15);
}
