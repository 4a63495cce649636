// AVX-512 over SIMDe, with the intrinsics that our kernels use and SIMDe 0.7 lacks, lane by lane.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

#include "kernels/tensor.h"

#include <string.h>

#define EMULATED_LANES(out_type, in_type, in_value, expression)                                    \
    in_type in[16];                                                                                \
    out_type out[16];                                                                              \
    memcpy(in, &(in_value), sizeof in);                                                            \
    for (int i = 0; i < 16; i++) out[i] = (expression);

static inline simde__m512 emulated_floats(const float *v) {
    return simde_mm512_loadu_ps(v);
}
static inline simde__m512i emulated_ints(const int32_t *v) {
    return simde_mm512_loadu_si512(v);
}
static inline simde__m512 emulated_cvtph_ps(simde__m256i a) {
    EMULATED_LANES(float, uint16_t, a, sd_half_to_float(in[i]))
    return emulated_floats(out);
}
static inline simde__m512 emulated_cvtepi32_ps(simde__m512i a) {
    EMULATED_LANES(float, int32_t, a, (float)in[i])
    return emulated_floats(out);
}
static inline simde__m512i emulated_cvtepu8_epi32(simde__m128i a) {
    EMULATED_LANES(int32_t, uint8_t, a, in[i])
    return emulated_ints(out);
}
static inline simde__m512i emulated_cvtepi8_epi32(simde__m128i a) {
    EMULATED_LANES(int32_t, int8_t, a, in[i])
    return emulated_ints(out);
}
static inline simde__m512i emulated_cvtepu16_epi32(simde__m256i a) {
    EMULATED_LANES(int32_t, uint16_t, a, in[i])
    return emulated_ints(out);
}
static inline simde__m512i emulated_cvtepi16_epi32(simde__m256i a) {
    EMULATED_LANES(int32_t, int16_t, a, in[i])
    return emulated_ints(out);
}
static inline simde__m512i emulated_srai_epi32(simde__m512i a, unsigned n) {
    EMULATED_LANES(int32_t, int32_t, a, in[i] >> n)
    return emulated_ints(out);
}
static inline void emulated_mask_storeu_ps(float *p, uint16_t mask, simde__m512 a) {
    float v[16];
    memcpy(v, &a, sizeof v);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) p[i] = v[i];
}

#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtepi16_epi32 emulated_cvtepi16_epi32
#define _mm512_srai_epi32 emulated_srai_epi32
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define __mmask16 uint16_t
