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
