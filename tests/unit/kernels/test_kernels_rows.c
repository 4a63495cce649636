// Norm, rotation, activation function and attention of every table against double.
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"
#include "tests/unit/kernels/support_window.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const table_names[] = {"plain", "avx2", "avx512", "amx", "neon"};

static void each_table(void (*fn)(const sd_ops *ops)) {
    for (size_t i = 0; i < sizeof table_names / sizeof table_names[0]; i++) {
        const sd_ops *ops = sd_ops_named(table_names[i]);
        if (ops)
            fn(ops);
        else
            printf("# %s: this processor or build lacks it\n", table_names[i]);
    }
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
    static const int shapes[][2] = {{64, 64}, {128, 128}, {80, 40}, {12, 6},  {256, 256},
                                    {96, 96}, {96, 72},   {80, 32}, {128, 96}};
    for (int s = 0; s < 9; s++)
        for (int interleaved = 0; interleaved < 2; interleaved++) {
            int D = shapes[s][0], rot = shapes[s][1];
            float x[256], y[256], c[128], n[128];
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

// The gate x (1 + tanh(u)) / 2 as x / (1 + e^-v): v is off by 4 roundings, which move the quotient by
// at most |v| times as much where v is negative and by less than one of its own where it is positive;
// exp, sum, quotient and products as swiglu's.
static void geglu_equals_double(const sd_ops *ops) {
    enum { MAX = 600 };
    float gate[MAX], up[MAX], y[MAX], cut[MAX];
    for (int n = 1; n <= MAX; n += 37) {
        fill(gate, n, n % 2 ? 3.0f : 12.0f), fill(up, n, 3);
        if (n > 12) gate[5] = -200, gate[6] = 200, gate[7] = 0, gate[8] = -8.9f, gate[9] = 3e9f;
        if (n > 12) gate[10] = -3e9f, gate[11] = -1e-3f;
        ops->geglu(y, gate, up, n);
        for (int i = 0; i < n; i++) {
            double g = gate[i], v = 2 * sqrt(2 / acos(-1)) * (g + 0.044715 * g * g * g);
            double want = g / (1 + exp(-v)) * up[i];
            double roundings = 10 + 4 * (v < 0 ? -v : 1);
            cr_assert_float_eq(y[i], want, fabs(want) * roundings * 0x1p-23 + 1e-28,
                               "%s: gelu of %g by %g: %g, want %g", ops->name, g, (double)up[i],
                               (double)y[i], want);
            if (fabs(g) < 2) // the form in which PyTorch writes it
                cr_assert_float_eq(y[i], g / 2 * (1 + tanh(v / 2)) * up[i], 1e-6);
        }
        for (int i = 0; i < n; i += 1 + i % 13) { // cut anywhere
            int end = i + 1 + i % 13 < n ? i + 1 + i % 13 : n;
            ops->geglu(cut + i, gate + i, up + i, end - i);
        }
        cr_assert_eq(memcmp(cut, y, (size_t)n * sizeof *y), 0, "%s: cut otherwise", ops->name);
        memcpy(cut, gate, (size_t)n * sizeof *cut);
        ops->geglu(cut, cut, up, n);
        cr_assert_eq(memcmp(cut, y, (size_t)n * sizeof *y), 0, "%s: in place", ops->name);
    }
}
Test(kernels_rows, geglu_equals_double) {
    each_table(geglu_equals_double);
}

static void attention_of_every_type(const sd_ops *ops) {
    for (int kv = SD_KV_F16; kv < SD_KV_TYPES; kv++) attention_equals_double(ops, (sd_kv_type)kv);
}
Test(kernels_rows, attention_equals_softmax_in_double) {
    each_table(attention_of_every_type);
}
static void attention_rows_of_every_type(const sd_ops *ops) {
    for (int kv = SD_KV_F16; kv < SD_KV_TYPES; kv++)
        attention_rows_are_invariant(ops, (sd_kv_type)kv);
}
Test(kernels_rows, attention_of_a_row_does_not_depend_on_the_others) {
    each_table(attention_rows_of_every_type);
}

static void windows_of_every_type(const sd_ops *ops) {
    for (int kv = SD_KV_F16; kv < SD_KV_TYPES; kv++) {
        window_equals_double(ops, (sd_kv_type)kv);
        wide_window_is_none(ops, (sd_kv_type)kv);
    }
}
Test(kernels_rows, attention_in_a_window_equals_double_and_reads_nothing_outside) {
    each_table(windows_of_every_type);
}
static void window_rows_of_every_type(const sd_ops *ops) {
    const bool by_row = ops->attention == sd_ops_plain.attention; // and slow
    for (int kv = by_row ? SD_KV_INT8 : SD_KV_F16; kv < SD_KV_TYPES; kv++)
        window_rows_are_invariant(ops, (sd_kv_type)kv);
}
Test(kernels_rows, a_row_in_a_window_does_not_depend_on_the_others) {
    each_table(window_rows_of_every_type);
}

static void halves_are_to_nearest(const sd_ops *ops) {
    float x[19];
    uint16_t y[19];
    fill(x, 19, 9);
    x[3] = 1e-8f, x[4] = 70000, x[5] = 1 + 0x1p-11f, x[6] = 1 + 3 * 0x1p-11f, x[18] = -6e-8f;
    ops->to_f16(y, x, 19);
    for (int i = 0; i < 19; i++)
        cr_assert_eq(y[i], sd_float_to_half(x[i]), "%s: %a", ops->name, (double)x[i]);
    x[5] = 1 + 0x1p-8f, x[6] = 1 + 3 * 0x1p-8f, x[7] = NAN, x[17] = -INFINITY;
    ops->to_bf16(y, x, 19);
    for (int i = 0; i < 19; i++)
        cr_assert_eq(y[i], sd_float_to_bf16(x[i]), "%s: %a", ops->name, (double)x[i]);
}
Test(kernels_rows, fp16_and_bf16_are_rounded_to_the_nearest) {
    each_table(halves_are_to_nearest);
}

// Half a step of the scale, and one rounding of the product; nothing is written beyond n.
static void codes_are_to_nearest(const sd_ops *ops) {
    static const int sizes[] = {1, 7, 8, 20, 64, 80, 128};
    float x[128];
    int8_t q[129], plain[128];
    for (int s = 0; s < 7; s++) {
        int n = sizes[s];
        float top = 0;
        fill(x, n, s % 2 ? 1e-3f : 40);
        for (int i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
        q[n] = 99;
        float scale = ops->quantize_i8(q, x, n);
        cr_assert_float_eq(scale, top / 127, top * 1e-7);
        for (int i = 0; i < n; i++) {
            cr_assert_leq(fabs(scale * (double)q[i] - x[i]), scale * (0.5 + 127 * 0x1p-22));
            cr_assert_neq(q[i], -128);
        }
        cr_assert_eq(q[n], 99, "%s: %d codes", ops->name, n);
        cr_assert_eq(scale, sd_ops_named("plain")->quantize_i8(plain, x, n));
        cr_assert_eq(memcmp(q, plain, (size_t)n), 0, "%s: the plain table's codes", ops->name);
        x[n - 1] = s % 2 ? NAN : -INFINITY;
        cr_assert(isnan(ops->quantize_i8(q, x, n)), "%s: what is not finite stays so", ops->name);
        for (int i = 0; i < n; i++) x[i] = 1e-31f;
        cr_assert_eq(ops->quantize_i8(q, x, n), 0);
        for (int i = 0; i < n; i++) cr_assert_eq(q[i], 0);
    }
}
Test(kernels_rows, codes_are_rounded_to_the_nearest_step_of_their_scale) {
    each_table(codes_are_to_nearest);
}
