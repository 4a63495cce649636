// The attention of many query rows of one sequence, over vectors that the including file defines:
//
//     vec, LANES, VEC(op)                          the type, its floats, the intrinsic of a name
//     cached(c, i, type)                         floats i.. of a cache
//     sum_of_4(a, b, c, d), sum_of(v), largest_of(v), exp_of(v), load_part(p, n)
//
// A block of 64 keys is met by all rows while it is in L1 or L2, then the block of values. The
// heads of a kv head go together, up to three at a time, so that each key and value is widened once
// for them. Codes of int8 are used as they are: a position's scale is one factor of its score, and
// of its weight before the values.
//
// Per block and row: scores four positions at a time, their maximum against the running one, exp in
// vectors, the running sums rescaled once, then the values in strips of four vectors. What a row
// does is the same in any company. Blocks are counted from position 0 and follow each other in
// ascending order (arXiv:2205.14135); the first that a row sees begins where its window does.
#pragma once

#include "kernels/cpu/inline.h"
#include "kernels/cpu/simd_exp.h"
#include "kernels/cpu/vec_avx2.h"

#include <math.h>

enum { HEADS = 3 };

// score [n][SD_KEY_BLOCK] <- scale q.k of the block's positions.
SD_INLINE void scores(float *score, const float *q, const void *k, int count, int D, float scale,
                      sd_kv_type type, int n) {
    for (int t = 0; t < count; t += 4) {
        size_t at[4];
        for (int j = 0; j < 4; j++) // beyond the end: any valid position, not stored
            at[j] = (size_t)(t + j < count ? t + j : t) * (size_t)D;
        vec s[HEADS][4];
        SD_UNROLL for (int h = 0; h < n; h++) {
            SD_UNROLL for (int j = 0; j < 4; j++) s[h][j] = VEC(setzero_ps)();
        }
        for (int i = 0; i < D; i += LANES) {
            SD_UNROLL for (int j = 0; j < 4; j++) {
                vec key = cached(k, at[j] + i, type);
                SD_UNROLL for (int h = 0; h < n; h++) s[h][j] =
                    VEC(fmadd_ps)(VEC(loadu_ps)(q + h * D + i), key, s[h][j]);
            }
        }
        SD_UNROLL for (int h = 0; h < n; h++) {
            __m128 v = sum_of_4(s[h][0], s[h][1], s[h][2], s[h][3]);
            _mm_storeu_ps(score + h * SD_KEY_BLOCK + t, _mm_mul_ps(v, _mm_set1_ps(scale)));
        }
    }
}

// acc [n][each], strip of `width` vectors at i: acc <- keep * acc + sum_t p_t v_t. keep 0: acc is
// not read, it may be anything.
SD_INLINE void values(float *acc, size_t each, const float *p, const float *keep, const void *v,
                      int count, int D, int i, sd_kv_type type, int n, int width) {
    vec s[HEADS][4];
    SD_UNROLL for (int h = 0; h < n; h++) {
        SD_UNROLL for (int j = 0; j < width; j++) {
            s[h][j] = VEC(setzero_ps)();
            if (keep[h] != 0)
                s[h][j] = VEC(mul_ps)(VEC(loadu_ps)(acc + h * each + i + LANES * j),
                                      VEC(set1_ps)(keep[h]));
        }
    }
    for (int t = 0; t < count; t++) {
        size_t at = (size_t)t * (size_t)D + (size_t)i;
        SD_UNROLL for (int j = 0; j < width; j++) {
            vec x = cached(v, at + LANES * j, type);
            SD_UNROLL for (int h = 0; h < n; h++) s[h][j] =
                VEC(fmadd_ps)(VEC(set1_ps)(p[h * SD_KEY_BLOCK + t]), x, s[h][j]);
        }
    }
    SD_UNROLL for (int h = 0; h < n; h++) {
        SD_UNROLL for (int j = 0; j < width; j++)
            VEC(storeu_ps)(acc + h * each + i + LANES * j, s[h][j]);
    }
}

// score <- exp(score - top); returns their sum. count is padded to whole vectors by -inf.
static float exp_sum(float *score, int count, float top) {
    vec total = VEC(setzero_ps)();
    for (int t = 0; t < count; t += LANES) {
        vec e = exp_of(VEC(sub_ps)(VEC(loadu_ps)(score + t), VEC(set1_ps)(top)));
        VEC(storeu_ps)(score + t, e);
        total = VEC(add_ps)(total, e);
    }
    return sum_of(total);
}

// w [count] <- each by its position's scale.
static void rescale(float *w, const float *scale, int count) {
    for (int t = 0; t < count; t += LANES) {
        vec s = count - t < LANES ? load_part(scale + t, count - t) : VEC(loadu_ps)(scale + t);
        VEC(storeu_ps)(w + t, VEC(mul_ps)(VEC(loadu_ps)(w + t), s));
    }
}

static float largest(const float *score, int count, float top) {
    vec m = VEC(set1_ps)(top);
    for (int t = 0; t < count; t += LANES) m = VEC(max_ps)(m, VEC(loadu_ps)(score + t));
    return largest_of(m);
}

// What the heads [h, h + n) of one row carry from block to block.
typedef struct {
    float *score;   // [n][SD_KEY_BLOCK]
    float *keep;    // [n] the factor of the sums so far
    const float *q; // [n][D]
    float *partial; // [n][each]
    size_t each;
    const void *k, *v;              // [count, D] of the block: what the row sees
    const float *k_scale, *v_scale; // of these positions under SD_KV_INT8
    int count, D;
    float scale;
    bool begins; // the first block of the split of which the row sees some
} row_heads;

SD_INLINE void softmax_block(const row_heads *x, sd_kv_type type, int n) {
    int D = x->D;
    scores(x->score, x->q, x->k, x->count, D, x->scale, type, n);
    for (int h = 0; h < n; h++) {
        float *s = x->score + h * SD_KEY_BLOCK, *partial = x->partial + (size_t)h * x->each;
        if (type == SD_KV_INT8) rescale(s, x->k_scale, x->count);
        for (int t = x->count; t % LANES; t++) s[t] = -INFINITY;
        float top = x->begins ? -INFINITY : partial[D + 1], now = largest(s, x->count, top);
        x->keep[h] = x->begins ? 0 : _mm256_cvtss_f32(sd_exp8(_mm256_set1_ps(top - now)));
        partial[D] = (x->begins ? 0 : partial[D] * x->keep[h]) + exp_sum(s, x->count, now);
        partial[D + 1] = now;
        if (type == SD_KV_INT8) rescale(s, x->v_scale, x->count);
    }
}

SD_INLINE void accumulate_v(const row_heads *x, sd_kv_type type, int n) {
    int i = 0, D = x->D;
    for (; i + 4 * LANES <= D; i += 4 * LANES)
        values(x->partial, x->each, x->score, x->keep, x->v, x->count, D, i, type, n, 4);
    for (; i < D; i += LANES)
        values(x->partial, x->each, x->score, x->keep, x->v, x->count, D, i, type, n, 1);
}

#define ATTENTION_HEADS_OF(type, n)                                                                \
    static __attribute__((noinline)) void softmax_block_##type##_##n(const row_heads *x) {         \
        softmax_block(x, SD_KV_##type, n);                                                         \
    }                                                                                              \
    static __attribute__((noinline)) void accumulate_v_##type##_##n(const row_heads *x) {          \
        accumulate_v(x, SD_KV_##type, n);                                                          \
    }
#define ATTENTION_HEADS_OF_TYPE(type)                                                              \
    ATTENTION_HEADS_OF(type, 1) ATTENTION_HEADS_OF(type, 2) ATTENTION_HEADS_OF(type, 3)
ATTENTION_HEADS_OF_TYPE(F16)
ATTENTION_HEADS_OF_TYPE(BF16)
ATTENTION_HEADS_OF_TYPE(INT8)
ATTENTION_HEADS_OF_TYPE(F32)

typedef void (*heads_fn)(const row_heads *x);
#define ATTENTION_ROW(fn, type) [SD_KV_##type] = {fn##_##type##_1, fn##_##type##_2, fn##_##type##_3}
static const heads_fn softmax_block_of[SD_KV_TYPES][HEADS] = {
    ATTENTION_ROW(softmax_block, F16), ATTENTION_ROW(softmax_block, BF16),
    ATTENTION_ROW(softmax_block, INT8), ATTENTION_ROW(softmax_block, F32)};
static const heads_fn accumulate_v_of[SD_KV_TYPES][HEADS] = {
    ATTENTION_ROW(accumulate_v, F16), ATTENTION_ROW(accumulate_v, BF16),
    ATTENTION_ROW(accumulate_v, INT8), ATTENTION_ROW(accumulate_v, F32)};

// One pass over the rows that see the block at t0: the heads of each in groups.
static void each_row(const sd_attention_rows *r, const sd_attention_shape *s, const heads_fn *fn,
                     float *partial, float *scratch, int t0, bool begins) {
    int heads = s->H / s->G;
    size_t each = sd_attention_partial(s), value = sd_kv_value_bytes(s->kv);
    float *keep = scratch + (size_t)r->N * (size_t)heads * SD_KEY_BLOCK;
    for (int row = 0; row < r->N; row++) {
        int first = sd_attention_first(s->window, r->len[row]), from = first > t0 ? first - t0 : 0;
        int count = r->len[row] - t0 < SD_KEY_BLOCK ? r->len[row] - t0 : SD_KEY_BLOCK;
        if (count <= from) continue;
        const char *page = sd_attention_page(r, t0);
        const size_t skip = (size_t)from * (size_t)s->D * value, scales = from * sizeof(float);
        const float *q = r->q + ((size_t)row * s->H + (size_t)(r->g * heads)) * s->D;
        for (int h = 0, n; h < heads; h += n) {
            int left = heads - h;
            n = left == 4 ? 2 : left < HEADS ? left : HEADS;
            size_t at = (size_t)row * (size_t)heads + (size_t)h;
            row_heads x = {.score = scratch + at * SD_KEY_BLOCK,
                           .keep = keep + at,
                           .q = q + (size_t)h * s->D,
                           .partial = partial + at * each,
                           .each = each,
                           .k = page + r->k + skip,
                           .v = page + r->v + skip,
                           .k_scale = (const float *)(const void *)(page + r->k_scale + scales),
                           .v_scale = (const float *)(const void *)(page + r->v_scale + scales),
                           .count = count - from,
                           .D = s->D,
                           .scale = s->scale,
                           .begins = begins || first >= t0};
            fn[n - 1](&x);
        }
    }
}

static void attend(float *partial, const sd_attention_rows *r, int split,
                   const sd_attention_shape *s, float *scratch) {
    int begin = split * SD_KV_SPLIT, end = r->len[r->N - 1]; // the last row sees furthest,
    int first = sd_attention_first(s->window, r->len[0]);    // the first one back
    if (end > begin + SD_KV_SPLIT) end = begin + SD_KV_SPLIT;
    int t0 = first > begin ? first / SD_KEY_BLOCK * SD_KEY_BLOCK : begin;
    for (; t0 < end; t0 += SD_KEY_BLOCK) {
        each_row(r, s, softmax_block_of[s->kv], partial, scratch, t0, t0 == begin);
        each_row(r, s, accumulate_v_of[s->kv], partial, scratch, t0, t0 == begin);
    }
}
