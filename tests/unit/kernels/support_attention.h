// Attention of a table of operations against double, and its rows against each other.
#pragma once

#include "base/memory.h"
#include "kernels/ops.h"
#include "tests/unit/support/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static void fill(float *x, int n, float size) {
    for (int i = 0; i < n; i++) x[i] = uniform() * size;
}

// Scores err by D 2^-24 of the sum of |q k| times the scale (here below 40), an error e of a score
// moves its weight by a factor 1 + e; the weighted mean errs by twice that and len 2^-24 at most.
// Where caches are bf16 or int8 a table may round queries, which these here stand, and weights: by
// 2^-8.
static double att_tolerance(int D, int len, sd_kv_type kv) {
    return 2 * 40 * D * 0x1p-24 + len * 0x1p-24 +
           (kv == SD_KV_BF16 || kv == SD_KV_INT8 ? 0x1p-8 + 0x1p-16 : 0);
}

typedef struct {
    sd_attention_shape s;
    float *q;     // [ATT_MOST_ROWS][H*D]
    float *of[2]; // keys, values [CTX][D] as the cache holds them
    char *pages;  // the same in the cache's type, in no order
    size_t page_bytes, at[2], scale_at[2];
    int32_t page[(2 * SD_KV_SPLIT + 90 + SD_KV_PAGE - 1) / SD_KV_PAGE];
} att_case;
enum { ATT_CTX = 2 * SD_KV_SPLIT + 90, ATT_ROWS = 5, ATT_MOST_ROWS = 64 };
enum { ATT_PAGES = (ATT_CTX + SD_KV_PAGE - 1) / SD_KV_PAGE };

static void *att_at(const att_case *a, int i, int t) { // key (i 0) or value of position t
    return a->pages + (size_t)a->page[t / SD_KV_PAGE] * a->page_bytes + a->at[i] +
           (size_t)(t % SD_KV_PAGE * a->s.D) * sd_kv_value_bytes(a->s.kv);
}
static float *att_scale(const att_case *a, int i, int t) {
    char *page = a->pages + (size_t)a->page[t / SD_KV_PAGE] * a->page_bytes;
    return (float *)(page + a->scale_at[i]) + t % SD_KV_PAGE;
}

// Stores x [D], and makes it what reads back.
static void stored(void *cache, float *scale, float *x, int D, sd_kv_type kv) {
    if (kv == SD_KV_INT8) *scale = sd_ops_named("plain")->quantize_i8(cache, x, D);
    for (int i = 0; i < D; i++) {
        if (kv == SD_KV_INT8) x[i] = *scale * (float)((int8_t *)cache)[i];
        if (kv == SD_KV_F16)
            x[i] = sd_half_to_float(((uint16_t *)cache)[i] = sd_float_to_half(x[i]));
        if (kv == SD_KV_BF16)
            x[i] = sd_bf16_to_float(((uint16_t *)cache)[i] = sd_float_to_bf16(x[i]));
        if (kv == SD_KV_F32) ((float *)cache)[i] = x[i];
    }
}

static att_case make_att_case(int H, int G, int D, sd_kv_type kv) {
    att_case a = {.s = {H, G, D, 1 / sqrtf((float)D), kv, 0}};
    a.q = sd_alloc((size_t)(ATT_MOST_ROWS * H * D), 4);
    fill(a.q, ATT_MOST_ROWS * H * D, 3);
    for (int i = 0; i < ATT_MOST_ROWS * H * D; i++)
        a.q[i] = sd_bf16_to_float(sd_float_to_bf16(a.q[i]));
    size_t scales = SD_KV_PAGE * sizeof(float), each = SD_KV_PAGE * D * sd_kv_value_bytes(kv);
    a.page_bytes = 2 * (scales + each);
    a.pages = sd_alloc(ATT_PAGES, a.page_bytes);
    for (int i = 0; i < ATT_PAGES; i++)
        a.page[i] = i * 7 % ATT_PAGES; // 7 and ATT_PAGES are coprime
    for (int i = 0; i < 2; i++) {
        a.scale_at[i] = (size_t)i * scales;
        a.at[i] = 2 * scales + (size_t)i * each;
        a.of[i] = sd_alloc((size_t)(ATT_CTX * D), 4);
        fill(a.of[i], ATT_CTX * D, i ? 1 : 3);
        for (int t = 0; t < ATT_CTX; t++)
            stored(att_at(&a, i, t), att_scale(&a, i, t), a.of[i] + t * D, D, kv);
    }
    return a;
}
static void drop_att_case(att_case *a) {
    free(a->q);
    free(a->pages);
    for (int i = 0; i < 2; i++) free(a->of[i]);
}

// The first position that a row sees.
static int att_first(const att_case *a, int len) {
    return a->s.window && len > a->s.window ? len - a->s.window : 0;
}

// out [N][H/G * D] of kv head g, rows first to first + N of the case, as the forward composes it.
static void attend_rows(const sd_ops *ops, const att_case *a, int first, const int *len, int N,
                        int g, float *out) {
    int heads = a->s.H / a->s.G, D = a->s.D;
    size_t each = sd_attention_partial(&a->s), parts = (size_t)(N * heads) * each;
    float *total = sd_alloc(parts, 4), *partial = sd_alloc(parts, 4),
          *scratch = sd_alloc(ops->attention_scratch(&a->s, N), 4);
    for (int split = 0; split < sd_attention_splits(len[N - 1]); split++) {
        int skip = 0, end = N;
        while (len[skip] <= split * SD_KV_SPLIT) skip++;
        while (end > skip && att_first(a, len[end - 1]) >= (split + 1) * SD_KV_SPLIT) end--;
        if (skip == end) continue;
        sd_attention_rows r = {.q = a->q + (size_t)((first + skip) * a->s.H * D),
                               .len = len + skip,
                               .N = end - skip,
                               .g = g,
                               .layer = a->pages,
                               .page_bytes = a->page_bytes,
                               .page = a->page,
                               .k = a->at[0],
                               .v = a->at[1],
                               .k_scale = a->scale_at[0],
                               .v_scale = a->scale_at[1]};
        ops->attention(partial, &r, split, &a->s, scratch);
        for (int i = 0; i < (end - skip) * heads; i++) {
            float *to = total + (size_t)(skip * heads + i) * each, *from = partial + i * each;
            if (att_first(a, len[skip + i / heads]) / SD_KV_SPLIT == split)
                memcpy(to, from, each * sizeof *to);
            else
                sd_attention_merge(to, from, D);
        }
    }
    for (int i = 0; i < N * heads; i++)
        sd_attention_finish(out + (size_t)i * D, total + (size_t)i * each, D);
    free(total), free(partial), free(scratch);
}

// Sizes of common models, Gemma 3 (256) and Phi (96, 80) among them.
static const int att_shapes[][3] = {{9, 3, 64}, {12, 2, 128}, {4, 4, 32}, {14, 2, 64},
                                    {6, 2, 20}, {4, 1, 256},  {3, 3, 96}, {4, 2, 80}};
enum { ATT_SHAPES = sizeof att_shapes / sizeof att_shapes[0] };

// The first row of the case, of len positions and kv head g, against softmax in double.
static void row_equals_double(const sd_ops *ops, const att_case *a, int len, int g) {
    int heads = a->s.H / a->s.G, D = a->s.D, first = att_first(a, len);
    float *out = sd_alloc((size_t)(heads * D), 4);
    attend_rows(ops, a, 0, &len, 1, g, out);
    for (int h = 0; h < heads; h++) {
        double p[ATT_CTX], top = -1e30, total = 0;
        for (int t = first; t < len; t++) {
            p[t] = 0;
            for (int i = 0; i < D; i++)
                p[t] += (double)a->q[(g * heads + h) * D + i] * a->of[0][t * D + i];
            p[t] *= a->s.scale;
            top = fmax(top, p[t]);
        }
        for (int t = first; t < len; t++) total += p[t] = exp(p[t] - top);
        for (int i = 0; i < D; i++) {
            double want = 0;
            for (int t = first; t < len; t++) want += p[t] / total * a->of[1][t * D + i];
            cr_assert_float_eq(out[h * D + i], want, att_tolerance(D, len, a->s.kv),
                               "%s %s D %d len %d window %d: %g, want %g", ops->name,
                               sd_kv_name(a->s.kv), D, len, a->s.window, (double)out[h * D + i],
                               want);
        }
    }
    free(out);
}

static void attention_equals_double(const sd_ops *ops, sd_kv_type kv) {
    static const int lengths[] = {1, 2, 7, 63, 64, 65, 128, 200, 333, 512, 513, 1100};
    for (int s = 0; s < ATT_SHAPES; s++) {
        att_case a = make_att_case(att_shapes[s][0], att_shapes[s][1], att_shapes[s][2], kv);
        for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
            row_equals_double(ops, &a, lengths[l], (int)l % a.s.G);
        drop_att_case(&a);
    }
}

// Keys and values of position t become NaN; returns what they were.
typedef struct {
    uint8_t value[2][4 * 256];
    float scale[2];
} att_position;
static size_t att_bytes(const att_case *a) {
    return (size_t)a->s.D * sd_kv_value_bytes(a->s.kv);
}
static att_position poison(att_case *a, int t) {
    att_position kept;
    for (int i = 0; i < 2; i++) {
        uint8_t *at = att_at(a, i, t);
        memcpy(kept.value[i], at, att_bytes(a));
        if (a->s.kv == SD_KV_INT8)
            kept.scale[i] = *att_scale(a, i, t), *att_scale(a, i, t) = NAN;
        else
            memset(at, 0xff, att_bytes(a)); // as fp16, bf16 and fp32
    }
    return kept;
}
static void restore(att_case *a, const att_position *kept, int t) {
    for (int i = 0; i < 2; i++) {
        memcpy(att_at(a, i, t), kept->value[i], att_bytes(a));
        if (a->s.kv == SD_KV_INT8) *att_scale(a, i, t) = kept->scale[i];
    }
}

// Rows together against each alone, across the ends of blocks and spans.
static void attention_rows_are_invariant(const sd_ops *ops, sd_kv_type kv) {
    static const int first[] = {1, 60, 62, 125, 510, 511, 600, 1022, 1100};
    for (int s = 0; s < ATT_SHAPES; s++) {
        int H = att_shapes[s][0], G = att_shapes[s][1], D = att_shapes[s][2];
        int one = H / G * D, len[ATT_ROWS];
        att_case a = make_att_case(H, G, D, kv);
        float *all = sd_alloc((size_t)(ATT_ROWS * one), 4), *alone = sd_alloc((size_t)one, 4);
        for (size_t l = 0; l < sizeof first / sizeof first[0]; l++) {
            for (int n = 0; n < ATT_ROWS; n++) len[n] = first[l] + n * (l % 2 ? 1 : 2);
            // What the last row alone sees is not a number there.
            att_position kept = poison(&a, len[ATT_ROWS - 1] - 1);
            attend_rows(ops, &a, 0, len, ATT_ROWS, (int)l % G, all);
            for (int i = 0; i < one; i++) cr_assert(isnan(all[(ATT_ROWS - 1) * one + i]));
            restore(&a, &kept, len[ATT_ROWS - 1] - 1);
            attend_rows(ops, &a, ATT_ROWS - 1, &len[ATT_ROWS - 1], 1, (int)l % G,
                        all + (ATT_ROWS - 1) * one);
            for (int n = 0; n < ATT_ROWS; n++) {
                attend_rows(ops, &a, n, &len[n], 1, (int)l % G, alone);
                cr_assert_eq(memcmp(alone, all + n * one, (size_t)one * 4), 0,
                             "%s %s D %d: row %d of len %d", ops->name, sd_kv_name(kv), D, n,
                             len[n]);
            }
        }
        free(all), free(alone);
        drop_att_case(&a);
    }
}
