// Attention in vectors of eight floats.
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/simd_exp.h"
#include "kernels/cpu/vec_avx2.h"

typedef __m256 vec;
enum { LANES = 8 };
#define VEC(op) _mm256_##op
#define sum_of_4 sd_sum8x4
#define sum_of sd_sum8
#define largest_of sd_max8
#define exp_of sd_exp8
#define load_part sd_load_part

static inline __m256 cached(const void *c, size_t i, sd_kv_type type) {
    if (type == SD_KV_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)c + i)));
    if (type == SD_KV_BF16)
        return _mm256_castsi256_ps(_mm256_slli_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)((const uint16_t *)c + i))),
            16));
    if (type == SD_KV_INT8)
        return _mm256_cvtepi32_ps(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)((const int8_t *)c + i))));
    return _mm256_loadu_ps((const float *)c + i);
}

#include "kernels/cpu/attention_body.h"

void sd_attention_avx2(float *partial, const sd_attention_rows *r, int split,
                       const sd_attention_shape *s, float *scratch) {
    if (s->D % LANES)
        sd_ops_plain.attention(partial, r, split, s, scratch);
    else
        attend(partial, r, split, s, scratch);
}
