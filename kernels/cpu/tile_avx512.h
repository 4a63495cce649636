// Reading the packed tiles (packed.h) with AVX-512: a plane of 64 bytes is one vector. Also
// compiled over emulated instructions: the includer of such a file provides the intrinsics.
#pragma once

#include "kernels/cpu/inline.h"
#include "kernels/cpu/packed.h"

#include <string.h>

#ifndef SPECDEC_SIMDE
#include <immintrin.h>
#endif

enum { AHEAD = 1536 }; // bytes that the prefetch runs ahead

SD_INLINE __m512 half16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SD_INLINE __m512i load(const uint8_t *p) {
    return _mm512_loadu_si512((const void *)p);
}

SD_INLINE __m512i load_u8(const uint8_t *p) { // 16 of them, as words
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
SD_INLINE __m512i load_s8(const uint8_t *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
// Two words to a lane, as vpdpwssd multiplies them.
SD_INLINE __m512i in_pairs(__m512i low, __m512i high) {
    return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xffff)),
                           _mm512_slli_epi32(high, 16));
}
SD_INLINE __m512i pair(const int16_t *p) { // in every lane
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

// The minimums of two blocks of a K type, the first at p.
SD_INLINE __m512i min_pair(const uint8_t *p, sd_dtype t) {
    return in_pairs(load_u8(p + 16), load_u8(p + sd_tile_form_of(t).block + 16));
}
// acc + what 256 k of a row give 16 outputs. isum: the sum of scale * code * the row's code, msum
// of minimum * the row's code, both exact; d and dmin of the head; k: the row's scale.
SD_INLINE __m512 add_super(__m512 acc, __m512i isum, __m512 msum, __m512 d, __m512 dmin, float k,
                           sd_dtype t) {
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(isum), d);
    if (sd_tile_form_of(t).min) v = _mm512_fnmadd_ps(msum, dmin, v);
    return _mm512_fmadd_ps(v, _mm512_set1_ps(k), acc);
}

// What the unsigned codes are above the signed: the top bit for codes that are signed as stored,
// and for the values of IQ4_NL's table.
SD_INLINE int centre_of(sd_dtype t) {
    return t == SD_Q8_0 || t == SD_IQ4_NL ? 128 : sd_tile_form_of(t).centre;
}
// Q6_K has a scale for each 16 k.
SD_INLINE int parts_of(sd_dtype t) {
    return t == SD_Q6_K ? 2 : 1;
}

// The unsigned codes of group g.
SD_INLINE __m512i codes(const uint8_t *code, const uint8_t *high, int g, sd_dtype t) {
    const int bits = sd_tile_form_of(t).bits;
    if (bits == 8) return _mm512_xor_si512(load(code + g * SD_PLANE), _mm512_set1_epi8((char)0x80));
    __m512i q = load(code + g / 2 * SD_PLANE);
    q = _mm512_and_si512(g % 2 ? _mm512_srli_epi16(q, 4) : q, _mm512_set1_epi8(15));
    if (t == SD_IQ4_NL) {
        __m128i of = _mm_loadu_si128((const __m128i *)(const void *)sd_iq4_value);
        __m512i value = _mm512_xor_si512(_mm512_broadcast_i32x4(of), _mm512_set1_epi8((char)0x80));
        return _mm512_shuffle_epi8(value, q);
    }
    if (bits == 5) {
        __m512i b = _mm512_and_si512(load(high), _mm512_set1_epi8((char)(1 << g)));
        b = g < 4 ? _mm512_slli_epi16(b, (unsigned)(4 - g) & 7)
                  : _mm512_srli_epi16(b, (unsigned)(g - 4) & 7);
        q = _mm512_or_si512(q, b);
    } else if (bits == 6) {
        __m512i b = load(high + g / 4 * SD_PLANE);
        int s = g % 4 * 2;
        b = s < 4 ? _mm512_slli_epi16(b, (unsigned)(4 - s) & 7)
                  : _mm512_srli_epi16(b, (unsigned)(s - 4) & 7);
        q = _mm512_or_si512(q, _mm512_and_si512(b, _mm512_set1_epi8(0x30)));
    }
    return q;
}

SD_INLINE __mmask16 outputs(int rows) {
    return (__mmask16)((1u << rows) - 1);
}
