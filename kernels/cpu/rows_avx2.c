// The ops between the matrix products, on rows of 576 to 8960 floats that are in L1 or L2: each is
// one or two passes, sums in four fixed vectors folded in one order.
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/simd_exp.h"
#include "kernels/cpu/vec_avx2.h"

#include <math.h>
#include <string.h>

// The larger magnitudes, as bits.
static inline __m256i larger(__m256i top, __m256 v) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    return _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v), magnitude));
}

// As the plain table's: the same bits.
static inline float scale_of(float *inverse, __m256i top) {
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    int bits = _mm_cvtsi128_si32(t);
    float amax = _mm_cvtss_f32(_mm_castsi128_ps(t));
    bool finite = bits < 0x7f800000, some = finite && amax > 1e-30f;
    *inverse = some ? 127.0f / amax : 0;
    return !finite ? NAN : some ? amax / 127.0f : 0;
}

// Block b of row n: 32 values.
static void quantize_block(sd_quant_rows *a, int n, int b, const float *x, float scale,
                           float inverse) {
    const size_t at = sd_quant_rows_at(a, n, b);
    __m256i c[4];
    for (int i = 0; i < 4; i++)
        c[i] =
            _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse)));
    __m256i q = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
    q = _mm256_permutevar8x32_epi32(q, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if (inverse == 0) q = _mm256_setzero_si256();
    _mm256_storeu_si256((__m256i *)(void *)sd_quant_rows_codes(a, n, b), q);
    // Sums of 8 bytes, shifted to be unsigned; two of the four make 16 k.
    __m256i s =
        _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
    __m128i lo = _mm256_castsi256_si128(s), hi = _mm256_extracti128_si256(s, 1);
    int32_t s0 = _mm_cvtsi128_si32(lo) + _mm_extract_epi16(lo, 4) - 16 * 128;
    int32_t s1 = _mm_cvtsi128_si32(hi) + _mm_extract_epi16(hi, 4) - 16 * 128;
    a->scale[at] = scale;
    *sd_quant_rows_isum(a, n, b) = (int16_t)(s0 + s1);
    a->isum16[2 * at] = (int16_t)s0;
    a->isum16[2 * at + 1] = (int16_t)s1;
    a->sum[at] = scale * (float)(s0 + s1);
}

// Blocks [b0, b1) of row n under one scale.
static void quantize_group(sd_quant_rows *a, int n, int b0, int b1, const float *x) {
    __m256i top[4];
    for (int j = 0; j < 4; j++) top[j] = _mm256_setzero_si256();
    for (int i = 0; i < (b1 - b0) * SD_QBLOCK; i += SD_QBLOCK)
        for (int j = 0; j < 4; j++) top[j] = larger(top[j], _mm256_loadu_ps(x + i + 8 * j));
    float inverse, scale = scale_of(&inverse, _mm256_max_epi32(_mm256_max_epi32(top[0], top[1]),
                                                               _mm256_max_epi32(top[2], top[3])));
    for (int b = b0; b < b1; b++) quantize_block(a, n, b, x + (b - b0) * SD_QBLOCK, scale, inverse);
}

void sd_quantize_rows_avx2(sd_quant_rows *a, const float *x, int n0, int n1) {
    __atomic_store_n(&a->x, x, __ATOMIC_RELAXED); // every range of the same rows stores the same
    if (a->compute == SD_COMPUTE_FP32) return;
    const int group = a->group / SD_QBLOCK, last = a->K / a->group * group;
    const int left = a->K - last * SD_QBLOCK; // of a group that is not whole
    for (int n = n0; n < n1; n++) {
        const float *row = x + (size_t)n * a->K;
        for (int b = 0; b < last; b += group)
            quantize_group(a, n, b, b + group, row + b * SD_QBLOCK);
        if (left) {
            float end[SD_QSUPER] = {0};
            memcpy(end, row + last * SD_QBLOCK, (size_t)left * sizeof *end);
            quantize_group(a, n, last, last + (left + SD_QBLOCK - 1) / SD_QBLOCK, end);
        }
    }
}

// sum of a b over n in one shape: four chains, folded pairwise.
static float dot(const float *a, const float *b, int n) {
    __m256 s[4];
    for (int j = 0; j < 4; j++) s[j] = _mm256_setzero_ps();
    int i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 4; j++)
            s[j] = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8 * j), _mm256_loadu_ps(b + i + 8 * j),
                                   s[j]);
    for (int j = 0; i < n; i += 8, j++) {
        int c = n - i < 8 ? n - i : 8;
        s[j] = _mm256_fmadd_ps(sd_load_part(a + i, c), sd_load_part(b + i, c), s[j]);
    }
    return sd_sum8(_mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
}

void sd_rmsnorm_avx2(float *y, const float *x, const float *w, int N, int C, float eps) {
    for (int n = 0; n < N; n++, x += C, y += C) {
        float r = 1.0f / sqrtf(dot(x, x, C) / (float)C + eps);
        __m256 scale = _mm256_set1_ps(r);
        int c = 0;
        for (; c + 8 <= C; c += 8)
            _mm256_storeu_ps(y + c, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + c), scale),
                                                  _mm256_loadu_ps(w + c)));
        for (; c < C; c++) y[c] = x[c] * r * w[c];
    }
}

static void rope_interleaved(float *x, const float *cos, const float *sin, int half) {
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    int i = 0;
    for (; i + 4 <= half; i += 4) {
        __m256 v = _mm256_loadu_ps(x + 2 * i);
        __m256 c = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(cos + i)), twice);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(sin + i)), twice);
        __m256 swapped = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), s);
        _mm256_storeu_ps(x + 2 * i, _mm256_fmaddsub_ps(v, c, swapped));
    }
    for (; i < half; i++) {
        float u = x[2 * i], v = x[2 * i + 1];
        x[2 * i] = u * cos[i] - v * sin[i];
        x[2 * i + 1] = u * sin[i] + v * cos[i];
    }
}

void sd_rope_avx2(float *x, const float *cos, const float *sin, int D, int rot, bool interleaved) {
    (void)D; // what lies beyond rot stays
    int half = rot / 2, i = 0;
    if (interleaved) {
        rope_interleaved(x, cos, sin, half);
        return;
    }
    for (; i + 8 <= half; i += 8) {
        __m256 u = _mm256_loadu_ps(x + i), v = _mm256_loadu_ps(x + half + i);
        __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(u, c, _mm256_mul_ps(v, s)));
        _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(v, c, _mm256_mul_ps(u, s)));
    }
    for (; i < half; i++) {
        float u = x[i], v = x[half + i];
        x[i] = u * cos[i] - v * sin[i];
        x[half + i] = u * sin[i] + v * cos[i];
    }
}

static inline __m256 swiglu8(__m256 g, __m256 u) {
    __m256 e = sd_exp8(_mm256_sub_ps(_mm256_setzero_ps(), g));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), u);
}

void sd_swiglu_avx2(float *y, const float *gate, const float *up, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, swiglu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i < n)
        sd_store_part(y + i, swiglu8(sd_load_part(gate + i, n - i), sd_load_part(up + i, n - i)),
                      n - i);
}

static inline __m256 geglu8(__m256 g, __m256 u) {
    __m256 by = _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(SD_GELU_CUBIC),
                                _mm256_set1_ps(SD_GELU_LINEAR));
    __m256 e = sd_exp8(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(g, by)));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), u);
}

void sd_geglu_avx2(float *y, const float *gate, const float *up, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, geglu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i < n)
        sd_store_part(y + i, geglu8(sd_load_part(gate + i, n - i), sd_load_part(up + i, n - i)),
                      n - i);
}

void sd_add_avx2(float *y, const float *x, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

void sd_to_f16_avx2(uint16_t *y, const float *x, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) y[i] = sd_float_to_half(x[i]);
}

// As sd_float_to_bf16.
void sd_to_bf16_avx2(uint16_t *y, const float *x, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        __m256i b = _mm256_castps_si256(v);
        __m256i even = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
        __m256i up = _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff));
        __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        b = _mm256_srli_epi32(_mm256_add_epi32(b, _mm256_andnot_si256(nan, up)), 16);
        b = _mm256_or_si256(b, _mm256_and_si256(nan, _mm256_set1_epi32(0x40)));
        __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(b, b), 0xd8);
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_castsi256_si128(words));
    }
    for (; i < n; i++) y[i] = sd_float_to_bf16(x[i]);
}

float sd_quantize_i8_avx2(int8_t *q, const float *x, int n) {
    __m256i top = _mm256_setzero_si256();
    int i = 0;
    for (; i + 8 <= n; i += 8) top = larger(top, _mm256_loadu_ps(x + i));
    if (i < n) top = larger(top, sd_load_part(x + i, n - i));
    float inverse, scale = scale_of(&inverse, top);
    if (inverse == 0) { // zeros, or what is not finite
        memset(q, 0, (size_t)n);
        return scale;
    }
    for (i = 0; i < n; i += 8) {
        int count = n - i < 8 ? n - i : 8;
        __m256i c =
            _mm256_cvtps_epi32(_mm256_mul_ps(sd_load_part(x + i, count), _mm256_set1_ps(inverse)));
        __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
        int64_t eight = _mm_cvtsi128_si64(_mm_packs_epi16(w, w));
        memcpy(q + i, &eight, (size_t)count);
    }
    return scale;
}
