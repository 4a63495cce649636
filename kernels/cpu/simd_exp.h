// Exponentials over vectors. They differ because their users do: attention in fp32 wants 2 ulp,
// attention in bf16 needs no more than 3e-6 and takes powers of 2. The loops that compilers turn into
// vectors have their own beside them, whose bits must not depend on FMA: kernels/train/simd_reduce.h
// and kernels/cpu/sampler_simd.c.
#pragma once

#include "kernels/cpu/inline.h"

#ifndef SPECDEC_SIMDE
#include <immintrin.h>

/// e^x within 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial of degree 7 in r (its
/// remainder is r^8 / 8! < 6e-9), times 2^n. Below -87.33 it gives 0, above 88.37 e^88.37; NaN
/// stays NaN.
static inline __m256 sd_exp8(__m256 x) {
    const __m256 low = _mm256_set1_ps(-87.33f), high = _mm256_set1_ps(88.37f);
    __m256 keep = _mm256_cmp_ps(x, low, _CMP_NLT_UQ); // true for NaN
    __m256 v = _mm256_max_ps(low, _mm256_min_ps(high, x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(v, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), v);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i e =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(keep, _mm256_mul_ps(p, _mm256_castsi256_ps(e)));
}
#endif

#if defined(__AVX512DQ__) && !defined(SPECDEC_SIMDE)
/// As sd_exp8.
static inline __m512 sd_exp16(__m512 x) {
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
#endif

#if defined(__AVX512DQ__) || defined(SPECDEC_SIMDE)
/// 2^x within 3e-6 of it, for x <= 0: exactly 1 at 0, and 0 where its bf16 could be subnormal.
SD_INLINE __m512 sd_exp2_16(__m512 x) {
    __mmask16 there = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-100), _CMP_NLT_UQ); // true for NaN
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_sub_ps(x, n), p = _mm512_set1_ps(0.009582852944731712f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.055906426161527634f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24024099111557007f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6931241750717163f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    return _mm512_maskz_scalef_ps(there, p, n);
}
#endif
