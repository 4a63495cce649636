// Norm, rotation, activation function, attention and argmax of every table against double.
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"

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
typedef struct {
    sd_attention_shape s;
    float *q;        // [ROWS][H*D]
    float *of[2];    // keys, values [CTX][D] as the cache holds them
    void *cache[2];  // the same in the cache's type
    float *scale[2]; // [CTX] under SD_KV_INT8
} att_case;
enum { ATT_CTX = 2 * SD_KEY_SPAN + 90, ATT_ROWS = 5, KV_TYPES = 3 };
static const char *const kv_names[KV_TYPES] = {"f16", "int8", "f32"};

// What is stored of x [CTX][D], and x as it reads back.
static void *stored(float *x, float *scale, int D, sd_kv_type kv) {
    void *cache = sd_alloc((size_t)(ATT_CTX * D), sd_kv_value_bytes(kv));
    for (int i = 0; i < ATT_CTX * D; i++) {
        if (kv == SD_KV_INT8 && i % D == 0)
            scale[i / D] = sd_ops_named("plain")->codes((int8_t *)cache + i, x + i, D);
        if (kv == SD_KV_INT8) x[i] = scale[i / D] * (float)((int8_t *)cache)[i];
        if (kv == SD_KV_F16)
            x[i] = sd_half_to_float(((uint16_t *)cache)[i] = sd_float_to_half(x[i]));
        if (kv == SD_KV_F32) ((float *)cache)[i] = x[i];
    }
    return cache;
}

static att_case make_att_case(int H, int G, int D, sd_kv_type kv) {
    att_case a = {.s = {H, G, D, 1 / sqrtf((float)D), kv}};
    a.q = sd_alloc((size_t)(ATT_ROWS * H * D), 4);
    fill(a.q, ATT_ROWS * H * D, 3);
    for (int i = 0; i < 2; i++) {
        a.of[i] = sd_alloc((size_t)(ATT_CTX * D), 4);
        a.scale[i] = kv == SD_KV_INT8 ? sd_alloc(ATT_CTX, 4) : NULL;
        fill(a.of[i], ATT_CTX * D, i ? 1 : 3);
        a.cache[i] = stored(a.of[i], a.scale[i], D, kv);
    }
    return a;
}
static void drop_att_case(att_case *a) {
    free(a->q);
    for (int i = 0; i < 2; i++) free(a->of[i]), free(a->cache[i]), free(a->scale[i]);
}

// out [N][H/G * D] of kv head g, rows first to first + N of the case, as the forward composes it.
static void attend(const sd_ops *ops, const att_case *a, int first, const int *len, int N, int g,
                   float *out) {
    int heads = a->s.H / a->s.G, D = a->s.D;
    size_t each = sd_attention_part(&a->s), parts = (size_t)(N * heads) * each;
    float *total = sd_alloc(parts, 4), *part = sd_alloc(parts, 4),
          *scratch = sd_alloc(sd_attention_scratch(&a->s, N), 4);
    for (int span = 0; span < sd_attention_spans(len[N - 1]); span++) {
        int skip = 0;
        while (len[skip] <= span * SD_KEY_SPAN) skip++;
        sd_attention_rows r = {a->q + (size_t)((first + skip) * a->s.H * D),
                               len + skip,
                               N - skip,
                               g,
                               a->cache[0],
                               a->cache[1],
                               a->scale[0],
                               a->scale[1]};
        ops->attention(span ? part : total, &r, span, &a->s, scratch);
        for (int i = 0; span && i < (N - skip) * heads; i++)
            sd_attention_merge(total + (size_t)(skip * heads + i) * each, part + (size_t)i * each,
                               D);
    }
    for (int i = 0; i < N * heads; i++)
        sd_attention_finish(out + (size_t)i * D, total + (size_t)i * each, D);
    free(total), free(part), free(scratch);
}

static const int att_shapes[][3] = {{9, 3, 64}, {12, 2, 128}, {4, 4, 32}, {14, 2, 64}, {6, 2, 20}};

static void attention_equals_double(const sd_ops *ops) {
    static const int lengths[] = {1, 2, 7, 63, 64, 65, 128, 200, 333, 512, 513, 1100};
    for (int s = 0; s < 5; s++)
        for (int kv = 0; kv < KV_TYPES; kv++) {
            int H = att_shapes[s][0], G = att_shapes[s][1], D = att_shapes[s][2], heads = H / G;
            att_case a = make_att_case(H, G, D, (sd_kv_type)kv);
            float *out = sd_alloc((size_t)(heads * D), 4);
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
                int len = lengths[l], g = (int)l % G;
                attend(ops, &a, 0, &len, 1, g, out);
                for (int h = 0; h < heads; h++) {
                    double p[ATT_CTX], top = -1e30, total = 0;
                    for (int t = 0; t < len; t++) {
                        p[t] = 0;
                        for (int i = 0; i < D; i++)
                            p[t] += (double)a.q[(g * heads + h) * D + i] * a.of[0][t * D + i];
                        p[t] *= a.s.scale;
                        top = fmax(top, p[t]);
                    }
                    for (int t = 0; t < len; t++) total += p[t] = exp(p[t] - top);
                    for (int i = 0; i < D; i++) {
                        double want = 0;
                        for (int t = 0; t < len; t++) want += p[t] / total * a.of[1][t * D + i];
                        cr_assert_float_eq(out[h * D + i], want,
                                           2 * 40 * D * 0x1p-24 + len * 0x1p-24,
                                           "%s %s D %d len %d: %g, want %g", ops->name,
                                           kv_names[kv], D, len, (double)out[h * D + i], want);
                    }
                }
            }
            free(out);
            drop_att_case(&a);
        }
}
Test(kernels_rows, attention_equals_softmax_in_double) {
    each_table(attention_equals_double);
}

// Rows together against each alone, across the ends of blocks and spans.
static void attention_rows_are_invariant(const sd_ops *ops) {
    static const int first[] = {1, 60, 62, 125, 510, 511, 600, 1022, 1100};
    for (int s = 0; s < 5; s++)
        for (int kv = 0; kv < KV_TYPES; kv++) {
            int H = att_shapes[s][0], G = att_shapes[s][1], D = att_shapes[s][2];
            int one = H / G * D, len[ATT_ROWS];
            att_case a = make_att_case(H, G, D, (sd_kv_type)kv);
            float *all = sd_alloc((size_t)(ATT_ROWS * one), 4), *alone = sd_alloc((size_t)one, 4);
            for (size_t l = 0; l < sizeof first / sizeof first[0]; l++) {
                for (int n = 0; n < ATT_ROWS; n++) len[n] = first[l] + n * (l % 2 ? 1 : 2);
                attend(ops, &a, 0, len, ATT_ROWS, (int)l % G, all);
                for (int n = 0; n < ATT_ROWS; n++) {
                    attend(ops, &a, n, &len[n], 1, (int)l % G, alone);
                    cr_assert_eq(memcmp(alone, all + n * one, (size_t)one * 4), 0,
                                 "%s %s D %d: row %d of len %d", ops->name, kv_names[kv], D, n,
                                 len[n]);
                }
            }
            free(all), free(alone);
            drop_att_case(&a);
        }
}
Test(kernels_rows, attention_of_a_row_does_not_depend_on_the_others) {
    each_table(attention_rows_are_invariant);
}

static void halves_are_to_nearest(const sd_ops *ops) {
    float x[19];
    uint16_t y[19];
    fill(x, 19, 9);
    x[3] = 1e-8f, x[4] = 70000, x[5] = 1 + 0x1p-11f, x[6] = 1 + 3 * 0x1p-11f, x[18] = -6e-8f;
    ops->halves(y, x, 19);
    for (int i = 0; i < 19; i++)
        cr_assert_eq(y[i], sd_float_to_half(x[i]), "%s: %a", ops->name, (double)x[i]);
}
Test(kernels_rows, halves_are_rounded_to_the_nearest) {
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
        float scale = ops->codes(q, x, n);
        cr_assert_float_eq(scale, top / 127, top * 1e-7);
        for (int i = 0; i < n; i++) {
            cr_assert_leq(fabs(scale * (double)q[i] - x[i]), scale * (0.5 + 127 * 0x1p-22));
            cr_assert_neq(q[i], -128);
        }
        cr_assert_eq(q[n], 99, "%s: %d codes", ops->name, n);
        cr_assert_eq(scale, sd_ops_named("plain")->codes(plain, x, n));
        cr_assert_eq(memcmp(q, plain, (size_t)n), 0, "%s: the plain table's codes", ops->name);
        x[n - 1] = s % 2 ? NAN : -INFINITY;
        cr_assert(isnan(ops->codes(q, x, n)), "%s: what is not finite stays so", ops->name);
        for (int i = 0; i < n; i++) x[i] = 1e-31f;
        cr_assert_eq(ops->codes(q, x, n), 0);
        for (int i = 0; i < n; i++) cr_assert_eq(q[i], 0);
    }
}
Test(kernels_rows, codes_are_rounded_to_the_nearest_step_of_their_scale) {
    each_table(codes_are_to_nearest);
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
