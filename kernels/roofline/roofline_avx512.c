// The loops of roofline_avx2.c at 512 bits.
#include "kernels/roofline/roofline_isa.h"

#include <immintrin.h>

enum { CHAINS = 12 };

double sd_fma_loop_avx512(int64_t rounds) {
    __m512 s[CHAINS], a = _mm512_set1_ps(1e-9f), b = _mm512_set1_ps(0.5f);
    for (int i = 0; i < CHAINS; i++) s[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) s[i] = _mm512_fmadd_ps(a, b, s[i]);
        __asm__ volatile("" : "+v"(a), "+v"(b)); // or the loop is a multiplication
    }
    for (int i = 1; i < CHAINS; i++) s[0] = _mm512_add_ps(s[0], s[i]);
    volatile float sink = _mm512_cvtss_f32(s[0]);
    (void)sink;
    return (double)rounds * CHAINS * 32;
}

double sd_int8_loop_avx512(int64_t rounds) {
    __m512i s[CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
    for (int i = 0; i < CHAINS; i++) s[i] = _mm512_setzero_si512();
    for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) s[i] = _mm512_dpbusd_epi32(s[i], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int i = 1; i < CHAINS; i++) s[0] = _mm512_add_epi32(s[0], s[i]);
    volatile int sink = _mm_cvtsi128_si32(_mm512_castsi512_si128(s[0]));
    (void)sink;
    return (double)rounds * CHAINS * 128;
}

double sd_bf16_loop_avx512(int64_t rounds) {
    __m512 s[CHAINS];
    __m512i a = _mm512_set1_epi16(0x3f80), b = a; // ones
    for (int i = 0; i < CHAINS; i++) s[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) s[i] = _mm512_dpbf16_ps(s[i], (__m512bh)a, (__m512bh)b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    for (int i = 1; i < CHAINS; i++) s[0] = _mm512_add_ps(s[0], s[i]);
    volatile float sink = _mm512_cvtss_f32(s[0]);
    (void)sink;
    return (double)rounds * CHAINS * 64;
}
