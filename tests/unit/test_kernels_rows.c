// Norm, rotation, activation function, attention, adapter and argmax of every table against double.
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const table_names[] = {"plain", "avx2", "avx512"};

static void each_table(void (*fn)(const sd_ops *ops)) {
    for (int i = 0; i < 3; i++) {
        const sd_ops *ops = sd_ops_named(table_names[i]);
        if (ops)
            fn(ops);
        else
            printf("# %s: this processor or build lacks it\n", table_names[i]);
    }
}

static uint64_t seed = 11;
static float uniform(void) {
    seed += 0x9e3779b97f4a7c15u;
    uint64_t x = seed;
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return (float)((x ^ x >> 31) >> 40) * 0x1p-23f - 1;
}
static void fill(float *x, int n, float size) {
    for (int i = 0; i < n; i++) x[i] = uniform() * size;
}

// fp32 partial sums of C squares err by at most C 2^-24 relative; the root halves it; four more
// roundings follow.
static void norm_equals_double(const sd_ops *ops) {
    enum { N = 3, MAX = 900 };
    static const int sizes[] = {1, 7, 8, 33, 576, 900};
    float x[N * MAX], w[MAX], y[N * MAX], z[MAX];
    for (int s = 0; s < 6; s++) {
        int C = sizes[s];
        fill(x, N * C, 3), fill(w, C, 2);
        ops->rmsnorm(y, x, w, N, C, 1e-5f);
        for (int n = 0; n < N; n++) {
            double sum = 0;
            for (int c = 0; c < C; c++) sum += (double)x[n * C + c] * x[n * C + c];
            double r = 1 / sqrt(sum / C + 1e-5f);
            for (int c = 0; c < C; c++) {
                double want = x[n * C + c] * r * w[c];
                cr_assert_float_eq(y[n * C + c], want, fabs(want) * (C / 2 + 4) * 0x1p-24 + 1e-30);
            }
            memcpy(z, x + n * C, C * sizeof *z);
            ops->rmsnorm(z, z, w, 1, C, 1e-5f); // in place and alone: the same bits
            cr_assert_eq(memcmp(z, y + n * C, C * sizeof *z), 0);
        }
    }
}
Test(kernels_rows, rmsnorm_equals_double_and_keeps_rows_apart) {
    each_table(norm_equals_double);
}

static void rope_rotates(const sd_ops *ops) {
    static const int shapes[][2] = {{64, 64}, {128, 128}, {80, 40}, {12, 6}};
    for (int s = 0; s < 4; s++)
        for (int interleaved = 0; interleaved < 2; interleaved++) {
            int D = shapes[s][0], rot = shapes[s][1];
            float x[128], y[128], c[64], n[64];
            fill(x, D, 2);
            memcpy(y, x, sizeof y);
            for (int i = 0; i < rot / 2; i++)
                c[i] = cosf((float)i + 0.3f), n[i] = sinf((float)i + 0.3f);
            ops->rope(y, c, n, D, rot, interleaved);
            for (int i = 0; i < rot / 2; i++) {
                int a = interleaved ? 2 * i : i, b = interleaved ? a + 1 : a + rot / 2;
                cr_assert_float_eq(y[a], (double)x[a] * c[i] - (double)x[b] * n[i], 1e-6);
                cr_assert_float_eq(y[b], (double)x[a] * n[i] + (double)x[b] * c[i], 1e-6);
            }
            cr_assert_eq(memcmp(x + rot, y + rot, (D - rot) * sizeof *x), 0);
        }
}
Test(kernels_rows, rope_rotates_pairs_and_leaves_the_rest) {
    each_table(rope_rotates);
}

// exp within 4 ulp, one sum, one quotient, two products.
static void swiglu_equals_double(const sd_ops *ops) {
    enum { MAX = 600 };
    float gate[MAX], up[MAX], y[MAX];
    for (int n = 1; n <= MAX; n += 37) {
        fill(gate, n, n % 2 ? 12.0f : 100.0f), fill(up, n, 3);
        if (n > 9) gate[5] = -200, gate[6] = 200, gate[7] = 0, gate[8] = -88.5f;
        ops->swiglu(y, gate, up, n);
        for (int i = 0; i < n; i++) {
            double want = gate[i] / (1 + exp(-(double)gate[i])) * up[i];
            cr_assert_float_eq(y[i], want, fabs(want) * 10 * 0x1p-23 + 1e-30, "%s: %g, want %g",
                               ops->name, (double)y[i], want);
        }
        memcpy(y, gate, n * sizeof *y);
        ops->swiglu(y, y, up, n);
        ops->add(y, up, n);
        cr_assert_float_eq(y[0], gate[0] / (1 + exp(-(double)gate[0])) * up[0] + up[0], 1e-4);
    }
}
Test(kernels_rows, swiglu_and_add_equal_double) {
    each_table(swiglu_equals_double);
}

// Scores err by D 2^-24 of the sum of |q k| times the scale (here below 40), an error e of a score
// moves its weight by a factor 1 + e; the weighted mean errs by twice that and len 2^-24 at most.
static void attention_equals_double(const sd_ops *ops) {
    static const int shapes[][3] = {{9, 3, 64}, {12, 2, 128}, {4, 4, 32}, {14, 2, 64}, {6, 2, 20}};
    static const int lengths[] = {1, 2, 7, 63, 64, 65, 128, 200, 333};
    enum { CTX = 340 };
    for (int s = 0; s < 5; s++)
        for (int f16 = 0; f16 < 2; f16++) {
            int H = shapes[s][0], G = shapes[s][1], D = shapes[s][2], heads = H / G;
            sd_attention_shape shape = {H, G, D, 1 / sqrtf((float)D), f16, CTX};
            float *q = sd_alloc(H * D, 4), *k = sd_alloc(CTX * D, 4), *v = sd_alloc(CTX * D, 4);
            float *out = sd_alloc(H * D, 4),
                  *scratch = sd_alloc(sd_attention_scratch(&shape, CTX), 4);
            uint16_t *kh = sd_alloc(CTX * D, 2), *vh = sd_alloc(CTX * D, 2);
            fill(q, H * D, 3), fill(k, CTX * D, 3), fill(v, CTX * D, 1);
            for (int i = 0; i < CTX * D; i++) {
                kh[i] = sd_float_to_half(k[i]), vh[i] = sd_float_to_half(v[i]);
                if (f16) k[i] = sd_half_to_float(kh[i]), v[i] = sd_half_to_float(vh[i]);
            }
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
                int len = lengths[l], g = (int)l % G;
                ops->attention(out, q, f16 ? (void *)kh : k, f16 ? (void *)vh : v, g, len, &shape,
                               scratch);
                for (int h = g * heads; h < (g + 1) * heads; h++) {
                    double p[CTX], top = -1e30, total = 0;
                    for (int t = 0; t < len; t++) {
                        p[t] = 0;
                        for (int i = 0; i < D; i++) p[t] += (double)q[h * D + i] * k[t * D + i];
                        p[t] *= shape.scale;
                        top = fmax(top, p[t]);
                    }
                    for (int t = 0; t < len; t++) total += p[t] = exp(p[t] - top);
                    for (int i = 0; i < D; i++) {
                        double want = 0;
                        for (int t = 0; t < len; t++) want += p[t] / total * v[t * D + i];
                        cr_assert_float_eq(out[h * D + i], want,
                                           2 * 40 * D * 0x1p-24 + len * 0x1p-24,
                                           "%s D %d len %d: %g, want %g", ops->name, D, len,
                                           (double)out[h * D + i], want);
                    }
                }
            }
            free(q), free(k), free(v), free(out), free(scratch), free(kh), free(vh);
        }
}
Test(kernels_rows, attention_equals_softmax_in_double) {
    each_table(attention_equals_double);
}

static void lora_equals_double(const sd_ops *ops) {
    enum { K = 100, M = 50 };
    static const int ranks[] = {1, 3, 4, 8, 16, 17, 64};
    float A[64 * K], B[M * 64], x[K], u[64], y[M], y0[M];
    for (int i = 0; i < 7; i++) {
        int R = ranks[i];
        fill(A, R * K, 1), fill(B, M * R, 1), fill(x, K, 1), fill(y, M, 1);
        memcpy(y0, y, sizeof y);
        ops->lora_shrink(u, A, x, R, K);
        for (int r = 0; r < R; r++) {
            double s = 0;
            for (int k = 0; k < K; k++) s += (double)A[r * K + k] * x[k];
            cr_assert_float_eq(u[r], s, K * K * 0x1p-24);
        }
        ops->lora_expand(y, B, u, 0.5f, R, 0, 16);
        ops->lora_expand(y, B, u, 0.5f, R, 16, M);
        for (int m = 0; m < M; m++) {
            double s = 0, size = 1;
            for (int r = 0; r < R; r++) s += (double)B[m * R + r] * u[r], size += fabs(u[r]);
            cr_assert_float_eq(y[m], y0[m] + 0.5 * s, size * (R + 3) * 0x1p-24);
        }
    }
}
Test(kernels_rows, an_adapter_adds_b_times_a_x) {
    each_table(lora_equals_double);
}

static void argmax_of_everything(const sd_ops *ops) {
    enum { MAX = 1000 };
    float x[MAX];
    for (int n = 1; n < MAX; n += 13) {
        fill(x, n, 5);
        int want = 0;
        for (int i = 1; i < n; i++)
            if (x[i] > x[want]) want = i;
        cr_assert_eq(ops->argmax(x, n), want);
        if (n < 20) continue;
        x[n - 1] = x[9] = x[17] = 6; // a tie goes to the lowest
        cr_assert_eq(ops->argmax(x, n), 9);
        x[0] = x[9] = NAN, x[3] = -INFINITY;
        cr_assert_eq(ops->argmax(x, n), 17);
    }
    for (int i = 0; i < 40; i++) x[i] = -INFINITY;
    cr_assert_eq(ops->argmax(x, 40), 0);
    x[0] = NAN;
    cr_assert_eq(ops->argmax(x, 40), 1);
    for (int i = 0; i < 40; i++) x[i] = NAN;
    cr_assert_eq(ops->argmax(x, 40), 0);
}
Test(kernels_rows, argmax_takes_the_first_of_the_largest_and_never_nan) {
    each_table(argmax_of_everything);
}
