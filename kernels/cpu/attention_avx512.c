// Attention in vectors of sixteen floats.
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/simd_exp.h"
#include "kernels/cpu/vec_avx2.h"

typedef __m512 vec;
enum { LANES = 16 };
#define VEC(op) _mm512_##op
#define exp_of sd_exp16

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

#include "kernels/cpu/attention_body.h"

void sd_attention_avx512(float *partial, const sd_attention_rows *r, int split,
                         const sd_attention_shape *s, float *scratch) {
    if (s->D % LANES)
        sd_attention_avx2(partial, r, split, s, scratch);
    else
        attend(partial, r, split, s, scratch);
}
