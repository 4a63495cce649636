// Loops that keep a unit busy and nothing else.
#include "kernels/roofline/roofline_isa.h"

#include <immintrin.h>

enum { CHAINS = 10 }; // of latency 4 on 2 units at least; 16 registers

double sd_fma_loop_avx2(int64_t rounds) {
    __m256 s[CHAINS], a = _mm256_set1_ps(1e-9f), b = _mm256_set1_ps(0.5f);
    for (int i = 0; i < CHAINS; i++) s[i] = _mm256_setzero_ps();
    for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) s[i] = _mm256_fmadd_ps(a, b, s[i]);
        __asm__ volatile("" : "+x"(a), "+x"(b)); // or the loop is a multiplication
    }
    for (int i = 1; i < CHAINS; i++) s[0] = _mm256_add_ps(s[0], s[i]);
    volatile float sink = _mm256_cvtss_f32(s[0]);
    (void)sink;
    return (double)rounds * CHAINS * 16;
}

double sd_int8_loop_avx2(int64_t rounds) {
    __m256i s[CHAINS], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
    for (int i = 0; i < CHAINS; i++) s[i] = _mm256_setzero_si256();
    for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) {
            __m256i t; // in assembly, or equal products would be computed once
            __asm__ volatile("vpmaddubsw %1, %2, %0" : "=x"(t) : "x"(a), "x"(b));
            s[i] = _mm256_add_epi16(s[i], t);
        }
    }
    for (int i = 1; i < CHAINS; i++) s[0] = _mm256_add_epi16(s[0], s[i]);
    volatile int sink = _mm256_extract_epi16(s[0], 0);
    (void)sink;
    return (double)rounds * CHAINS * 64;
}

int64_t sd_read_avx2(const void *data, size_t bytes) {
    const __m256i *p = data;
    __m256i s[8];
    for (int i = 0; i < 8; i++) s[i] = _mm256_setzero_si256();
    for (size_t k = 0; k + 8 <= bytes / 32; k += 8)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) s[i] = _mm256_or_si256(s[i], _mm256_load_si256(p + k + i));
    for (int i = 1; i < 8; i++) s[0] = _mm256_or_si256(s[0], s[i]);
    return _mm256_extract_epi64(s[0], 0);
}
