// Attention in vectors of sixteen floats.
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vec_avx2.h"

typedef __m512 vec;
enum { LANES = 16 };
#define VEC(op) _mm512_##op

static inline __m512 cached(const void *c, size_t i, sd_kv_type type) {
    if (type == SD_KV_F16)
        return _mm512_cvtph_ps(
            _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)c + i)));
    if (type == SD_KV_BF16)
        return _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                  (const __m256i *)(const void *)((const uint16_t *)c + i))),
                              16));
    if (type == SD_KV_INT8)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(
            _mm_loadu_si128((const __m128i *)(const void *)((const int8_t *)c + i))));
    return _mm512_loadu_ps((const float *)c + i);
}

// The two halves added.
static inline __m256 folded(__m512 v) {
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

static inline __m128 sum_of_4(__m512 a, __m512 b, __m512 c, __m512 d) {
    return sd_sum8x4(folded(a), folded(b), folded(c), folded(d));
}
static inline float sum_of(__m512 v) {
    return sd_sum8(folded(v));
}
static inline float largest_of(__m512 v) {
    return sd_max8(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

// Lanes [0, n) of p, the rest 0; reads nothing beyond.
static inline __m512 load_part(const float *p, int n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

// As sd_exp8.
static inline __m512 exp_of(__m512 x) {
    const __m512 low = _mm512_set1_ps(-87.33f), high = _mm512_set1_ps(88.37f);
    __mmask16 keep = _mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ); // true for NaN
    __m512 v = _mm512_max_ps(low, _mm512_min_ps(high, x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), v);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(keep, p, n);
}

#include "kernels/cpu/attention_body.h"

void sd_attention_avx512(float *partial, const sd_attention_rows *r, int split,
                         const sd_attention_shape *s, float *scratch) {
    if (s->D % LANES)
        sd_attention_avx2(partial, r, split, s, scratch);
    else
        attend(partial, r, split, s, scratch);
}
