// The float build of the training operations: its exp, its GEMM, and that the same work gives the
// same bytes in any thread.
#include "base/pool.h"
#include "kernels/train/ops.h"

#include "tests/unit/trainer/support_gradcheck.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

Test(exponential, stays_within_two_units_in_the_last_place) {
    for (int i = -86999; i < 88000; i++) {
        float x = (float)i * 1e-3f, y;
        sd_exp_rows(&y, &x, 0, 1);
        double want = exp((double)x);
        cr_assert_leq(fabs((double)y - want), 2 * 0x1p-24 * 2 * want, "x %g: %g, want %g", x, y,
                      want);
    }
}

Test(exponential, is_the_same_in_every_lane) {
    float x[40], y[40], one;
    gradcheck_fill_f32(x, 40, 1, 0, 20);
    sd_exp_rows(y, x, 0.5f, 40);
    for (int i = 0; i < 40; i++) {
        sd_exp_rows(&one, x + i, 0.5f, 1);
        cr_assert_eq(memcmp(&one, y + i, sizeof one), 0);
    }
}

Test(exponential, of_far_negative_scores_is_next_to_nothing) {
    float x = -1e30f, y;
    sd_exp_rows(&y, &x, 0, 1);
    cr_assert(y >= 0 && y < 2e-38f);
}

// gelu and its slope in double. v is off by 4 roundings (5 where -v is an argument of exp), which the
// quotient multiplies by at most |v|; the slope's terms cancel, so that its error counts by their size.
static void gelu_of(double g, double *gelu, double *slope, double *size) {
    double k = 2 * sqrt(2 / acos(-1)), v = k * (g + 0.044715 * g * g * g);
    double s = 1 / (1 + exp(-v)), dv = k * (1 + 3 * 0.044715 * g * g);
    *gelu = g * s;
    *slope = s + g * s * (1 - s) * dv;
    *size = s + fabs(g * s * dv);
}

Test(geglu, float_equals_double_forward_and_backward) {
    enum { N = 3, F = 333 };
    static float gu[N * 2 * F], y[N * F], again[N * F], dy[N * F], dgu[N * 2 * F];
    gradcheck_fill_f32(gu, N * 2 * F, 6, 0, 9);
    gradcheck_fill_f32(dy, N * F, 7, 0, 1);
    gu[0] = -200, gu[1] = 200, gu[2] = 0, gu[3] = -1e-3f;
    sd_geglu(y, gu, N, F);
    sd_geglu_backward(dgu, again, dy, gu, N, F);
    for (int n = 0; n < N; n++)
        for (int f = 0; f < F; f++) {
            size_t at = (size_t)(n * 2 * F + f);
            double g = gu[at], up = gu[at + F], d = dy[n * F + f], gelu, slope, size;
            gelu_of(g, &gelu, &slope, &size);
            double roundings = (12 + 5 * fabs(g) * (1.6 + 0.072 * g * g)) * 0x1p-24;
            cr_assert_float_eq(y[n * F + f], gelu * up, fabs(gelu * up) * roundings + 1e-28);
            cr_assert_float_eq(again[n * F + f], gelu * up, fabs(gelu * up) * roundings + 1e-28);
            cr_assert_float_eq(dgu[at + F], d * gelu, fabs(d * gelu) * roundings + 1e-28);
            cr_assert_float_eq(dgu[at], d * up * slope, fabs(d * up) * size * roundings + 1e-28,
                               "slope at %g: %g, want %g", g, (double)dgu[at], d * up * slope);
        }
}

// Scores of order one err by D 2^-24, their weights as much; a mean of at most T values as much again.
Test(attention, float_in_a_window_equals_double) {
    enum { T = 150, D = 8, LD = 3 * D };
    static const int windows[] = {0, 1, 9, 64, 100, 149};
    static float qkv[T * LD], out[T * D], lse[T], scratch[2 * 64 * T];
    gradcheck_fill_f32(qkv, T * LD, 8, 0, 1);
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        sd_causal a = {.H = 1, .G = 1, .D = D, .scale = 0.5f, .window = windows[w]};
        sd_causal_forward(out, lse, qkv, T, 0, 1, &a, scratch);
        for (int t = 0; t < T; t++) {
            int first = a.window && t >= a.window ? t - a.window + 1 : 0;
            double sum = 0, want[D] = {0};
            for (int s = first; s <= t; s++) {
                double p = 0;
                for (int i = 0; i < D; i++)
                    p += 0.5 * qkv[t * LD + i] * (double)qkv[s * LD + D + i];
                sum += p = exp(p);
                for (int i = 0; i < D; i++) want[i] += p * qkv[s * LD + 2 * D + i];
            }
            for (int i = 0; i < D; i++)
                cr_assert_float_eq(out[t * D + i], want[i] / sum, (4 * D + T) * 0x1p-24);
            cr_assert_float_eq(lse[t], log(sum), (4 * D + T) * 0x1p-24);
        }
    }
}

// A float dot of k terms of order one carries at most k * 2^-24 relative to the sum of magnitudes.
Test(gemm, equals_double_precision_in_all_four_forms) {
    enum { M = 33, N = 21, K = 70, LDA = 80, LDB = 81, LDC = 25 };
    static float a[K * LDA], b[K * LDB], c[M * LDC];
    gradcheck_fill_f32(a, K * LDA, 2, 0, 1);
    gradcheck_fill_f32(b, K * LDB, 3, 0, 1);
    for (int form = 0; form < 4; form++) {
        bool ta = form & 1, tb = form & 2;
        for (int i = 0; i < M * LDC; i++) c[i] = 1;
        sd_gemm(ta, tb, M, N, K, 0.5f, a, LDA, b, LDB, 2, c, LDC);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < LDC; j++) {
                double want = 2, size = 2;
                for (int k = 0; k < K && j < N; k++) {
                    double t = 0.5 * (double)(ta ? a[k * LDA + i] : a[i * LDA + k]) *
                               (double)(tb ? b[j * LDB + k] : b[k * LDB + j]);
                    want += t, size += fabs(t);
                }
                if (j >= N) want = 1; // beyond the tile: untouched
                cr_assert_leq(fabs((double)c[i * LDC + j] - want), K * 0x1p-24 * size);
            }
        }
    }
}

typedef struct {
    const float *a, *b;
    float *c;
} product;
enum { TILES = 12, TM = 48, TN = 64, TK = 300 };
static void tile(void *ctx, int task, int worker) {
    (void)worker;
    const product *p = ctx;
    sd_gemm(false, true, TM, TN, TK, 1, p->a + (size_t)task * TM * TK, TK, p->b, TK, 0,
            p->c + (size_t)task * TM * TN, TN);
}

Test(gemm, gives_the_same_bytes_for_any_number_of_threads) {
    size_t na = (size_t)TILES * TM * TK, nb = (size_t)TN * TK, nc = (size_t)TILES * TM * TN;
    float *a = malloc(na * 4), *b = malloc(nb * 4), *c = malloc(nc * 4), *first = malloc(nc * 4);
    gradcheck_fill_f32(a, na, 4, 0, 1);
    gradcheck_fill_f32(b, nb, 5, 0, 1);
    for (int threads = 1; threads <= 3; threads++) {
        sd_pool *pool;
        cr_assert_eq(sd_pool_open(&pool, threads, NULL), SD_OK);
        product p = {a, b, threads == 1 ? first : c};
        sd_pool_run(pool, TILES, tile, &p);
        sd_pool_close(pool);
        if (threads > 1) cr_assert_eq(memcmp(c, first, nc * 4), 0);
    }
    free(a), free(b), free(c), free(first);
}
