// Reading the packed tiles (packed.h) with AVX2: a plane of 64 bytes is two vectors, its halves.
#pragma once

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/inline.h"
#include "kernels/cpu/packed.h"

#include <immintrin.h>
#include <string.h>

// The sum so far, now: else the compiler regroups integer sums into trees and spills their leaves.
#define SETTLE(v) __asm__("" : "+x"(v))
enum { HALVES = 2 };

SD_INLINE __m256 half8(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
SD_INLINE __m256 u8x8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
SD_INLINE __m256 s8x8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
SD_INLINE __m256i load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

// The codes of group g, half h (8 outputs), as unsigned bytes; `plane` is the loaded plane g / 2.
SD_INLINE __m256i codes(__m256i plane, const uint8_t *high, int h, int g, int bits) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i q = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(plane, 4) : plane, low);
    if (bits == 5) {
        __m256i b = _mm256_and_si256(load(high + 32 * h), _mm256_set1_epi8((char)(1 << g)));
        q = _mm256_or_si256(q, g < 4 ? _mm256_slli_epi16(b, 4 - g) : _mm256_srli_epi16(b, g - 4));
    } else if (bits == 6) {
        __m256i b = load(high + g / 4 * SD_PLANE + 32 * h);
        int s = g % 4 * 2;
        b = s < 4 ? _mm256_slli_epi16(b, 4 - s) : _mm256_srli_epi16(b, s - 4);
        q = _mm256_or_si256(q, _mm256_and_si256(b, _mm256_set1_epi8(0x30)));
    }
    return q;
}

// What IQ4_NL's codes stand for.
SD_INLINE __m256i table_values(__m256i codes) {
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)sd_iq4_value);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), codes);
}

SD_INLINE __m256i word(const int8_t *p) { // 4 activations in every lane
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

// Scale and minimum of the 8 outputs of half h in the block at p; Q6_K has two scales a block and
// gets that of its head alone.
SD_INLINE void scales(__m256 *d, __m256 *m, const uint8_t *p, const uint8_t *head, int h,
                      sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    *d = half8((f.super ? head : p) + 16 * h);
    if (f.super && t != SD_Q6_K) *d = _mm256_mul_ps(*d, u8x8(p + 8 * h));
    if (f.min) *m = half8((f.super ? head : p) + 32 + 16 * h);
    if (f.min && f.super) *m = _mm256_mul_ps(*m, u8x8(p + 16 + 8 * h));
}

// The block's share of 8 outputs: what every kernel of the table does with an integer sum, in this
// order, so that all give a row the same bits.
SD_INLINE __m256 add_block(__m256 acc, __m256i dot, __m256 d, __m256 m, const float *scale,
                           const float *sum, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    __m256 k = _mm256_mul_ps(d, _mm256_broadcast_ss(scale));
    // The minimum first: it does not wait for the dot.
    if (f.min) {
        __m256 s = _mm256_broadcast_ss(sum);
        acc = f.super ? _mm256_fnmadd_ps(m, s, acc) : _mm256_fmadd_ps(m, s, acc);
    }
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), k, acc);
}
