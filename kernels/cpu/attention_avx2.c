// Attention of one query row: the heads of a kv head go together, up to three at a time, so that
// each key and value is read (and widened from fp16) once for them while it is in L1.
//
// Per block of 64 positions: scores four positions at a time, their maximum against the running
// one, exp in vectors, the running sums rescaled once, then the values in strips of 32 floats.
// Blocks are counted from position 0 and follow each other in ascending order (arXiv:2205.14135).
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vec_avx2.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
enum { HEADS = 3 };

INLINE __m256 cached(const void *c, size_t i, bool f16) {
    if (f16) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)c + i)));
    return _mm256_loadu_ps((const float *)c + i);
}

// score [n][SD_KEY_BLOCK] <- scale q.k of the block's positions.
INLINE void scores(float *score, const float *q, const void *k, size_t first, int count, int D,
                   float scale, bool f16, int n) {
    for (int t = 0; t < count; t += 4) {
        size_t at[4];
        for (int j = 0; j < 4; j++) // beyond the end: any valid position, not stored
            at[j] = (first + (t + j < count ? t + j : t)) * (size_t)D;
        __m256 s[HEADS][4];
        UNROLL for (int h = 0; h < n; h++) {
            UNROLL for (int j = 0; j < 4; j++) s[h][j] = _mm256_setzero_ps();
        }
        for (int i = 0; i < D; i += 8) {
            UNROLL for (int j = 0; j < 4; j++) {
                __m256 key = cached(k, at[j] + i, f16);
                UNROLL for (int h = 0; h < n; h++) s[h][j] =
                    _mm256_fmadd_ps(_mm256_loadu_ps(q + h * D + i), key, s[h][j]);
            }
        }
        UNROLL for (int h = 0; h < n; h++) {
            __m128 v = sd_sum8x4(s[h][0], s[h][1], s[h][2], s[h][3]);
            _mm_storeu_ps(score + h * SD_KEY_BLOCK + t, _mm_mul_ps(v, _mm_set1_ps(scale)));
        }
    }
}

// acc [n][D], strip of 8 * width floats at i: acc <- keep * acc + sum_t p_t v_t.
INLINE void values(float *acc, const float *p, const float *keep, const void *v, size_t first,
                   int count, int D, int i, bool f16, int n, int width) {
    __m256 s[HEADS][4];
    UNROLL for (int h = 0; h < n; h++) {
        UNROLL for (int j = 0; j < width; j++) s[h][j] =
            _mm256_mul_ps(_mm256_loadu_ps(acc + h * D + i + 8 * j), _mm256_set1_ps(keep[h]));
    }
    for (int t = 0; t < count; t++) {
        size_t at = (first + (size_t)t) * (size_t)D + (size_t)i;
        UNROLL for (int j = 0; j < width; j++) {
            __m256 x = cached(v, at + 8 * j, f16);
            UNROLL for (int h = 0; h < n; h++) s[h][j] =
                _mm256_fmadd_ps(_mm256_set1_ps(p[h * SD_KEY_BLOCK + t]), x, s[h][j]);
        }
    }
    UNROLL for (int h = 0; h < n; h++) {
        UNROLL for (int j = 0; j < width; j++) _mm256_storeu_ps(acc + h * D + i + 8 * j, s[h][j]);
    }
}

// score <- exp(score - top); returns their sum. count is padded to whole vectors by -inf.
static float soften(float *score, int count, float top) {
    __m256 total = _mm256_setzero_ps();
    for (int t = 0; t < count; t += 8) {
        __m256 e = sd_exp8(_mm256_sub_ps(_mm256_loadu_ps(score + t), _mm256_set1_ps(top)));
        _mm256_storeu_ps(score + t, e);
        total = _mm256_add_ps(total, e);
    }
    return sd_sum8(total);
}

static float largest(const float *score, int count, float top) {
    __m256 m = _mm256_set1_ps(top);
    for (int t = 0; t < count; t += 8) m = _mm256_max_ps(m, _mm256_loadu_ps(score + t));
    return sd_max8(m);
}

INLINE void attend(float *out, const float *q, const void *k, const void *v, int len, int D,
                   float scale, float *score, bool f16, int n) {
    float *acc = score + HEADS * SD_KEY_BLOCK;
    float top[HEADS], total[HEADS] = {0}, keep[HEADS];
    for (int h = 0; h < n; h++) top[h] = -INFINITY;
    memset(acc, 0, (size_t)(n * D) * sizeof *acc);
    for (int t0 = 0; t0 < len; t0 += SD_KEY_BLOCK) {
        int count = len - t0 < SD_KEY_BLOCK ? len - t0 : SD_KEY_BLOCK, i = 0;
        scores(score, q, k, (size_t)t0, count, D, scale, f16, n);
        for (int h = 0; h < n; h++) {
            float *s = score + h * SD_KEY_BLOCK;
            for (int t = count; t % 8; t++) s[t] = -INFINITY;
            float now = largest(s, count, top[h]);
            keep[h] = t0 ? _mm256_cvtss_f32(sd_exp8(_mm256_set1_ps(top[h] - now))) : 0;
            total[h] = total[h] * keep[h] + soften(s, count, now);
            top[h] = now;
        }
        for (; i + 32 <= D; i += 32)
            values(acc, score, keep, v, (size_t)t0, count, D, i, f16, n, 4);
        for (; i < D; i += 8) values(acc, score, keep, v, (size_t)t0, count, D, i, f16, n, 1);
    }
    for (int h = 0; h < n; h++) {
        __m256 r = _mm256_set1_ps(1.0f / total[h]);
        for (int i = 0; i < D; i += 8)
            _mm256_storeu_ps(out + h * D + i, _mm256_mul_ps(_mm256_loadu_ps(acc + h * D + i), r));
    }
}

#define ATTEND(name, f16, n)                                                                       \
    static __attribute__((noinline)) void name(float *out, const float *q, const void *k,          \
                                               const void *v, int len, int D, float scale,         \
                                               float *score) {                                     \
        attend(out, q, k, v, len, D, scale, score, f16, n);                                        \
    }
ATTEND(attend_f32_1, false, 1)
ATTEND(attend_f32_2, false, 2)
ATTEND(attend_f32_3, false, 3)
ATTEND(attend_f16_1, true, 1)
ATTEND(attend_f16_2, true, 2)
ATTEND(attend_f16_3, true, 3)

typedef void (*attend_fn)(float *, const float *, const void *, const void *, int, int, float,
                          float *);
static const attend_fn attend_of[2][HEADS] = {{attend_f32_1, attend_f32_2, attend_f32_3},
                                              {attend_f16_1, attend_f16_2, attend_f16_3}};

void sd_attention_avx2(float *out, const float *q, const void *k, const void *v, int g, int len,
                       const sd_attention_shape *s, float *scratch) {
    int heads = s->H / s->G;
    if (s->D % 8) {
        sd_ops_plain.attention(out, q, k, v, g, len, s, scratch);
        return;
    }
    for (int h = 0, n; h < heads; h += n) {
        int left = heads - h;
        n = left == 4 ? 2 : left < HEADS ? left : HEADS;
        size_t at = (size_t)(g * heads + h) * (size_t)s->D;
        attend_of[s->kv_f16][n - 1](out + at, q + at, k, v, len, s->D, s->scale, scratch);
    }
}
