// What the loops of training share: reductions in fixed lanes (the compiler may not reorder a sum,
// so the lanes are written out), an exp that a loop vectorises, and clones for wider registers.
//
// Clones change no bit: contraction is off and every order is written down.
#pragma once

#include "kernels/cpu/inline.h"
#include "kernels/train/real.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SD_CLONES
#endif
// Before a loop whose arrays are either the same or apart: element i reads only elements i.
#if defined(__clang__)
#define SD_ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define SD_ELEMENTWISE _Pragma("GCC ivdep")
#else
#define SD_ELEMENTWISE
#endif

enum { SD_LANES = 16 };

SD_INLINE real sd_fold_lanes(const real *lane) {
    real t[8];
    for (int j = 0; j < 8; j++) t[j] = lane[j] + lane[j + 8];
    return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

SD_INLINE real sd_dot_lanes(const real *a, const real *b, int n) {
    real lane[SD_LANES] = {0};
    int i = 0;
    for (; i + SD_LANES <= n; i += SD_LANES)
        for (int j = 0; j < SD_LANES; j++) lane[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += a[i] * b[i];
    return sd_fold_lanes(lane);
}

SD_INLINE real sd_sum_lanes(const real *a, int n) {
    real lane[SD_LANES] = {0};
    int i = 0;
    for (; i + SD_LANES <= n; i += SD_LANES)
        for (int j = 0; j < SD_LANES; j++) lane[j] += a[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += a[i];
    return sd_fold_lanes(lane);
}

SD_INLINE real sd_max_lanes(const real *a, int n) {
    real lane[SD_LANES];
    for (int j = 0; j < SD_LANES; j++) lane[j] = a[0];
    int i = 0;
    for (; i + SD_LANES <= n; i += SD_LANES)
        for (int j = 0; j < SD_LANES; j++) lane[j] = a[i + j] > lane[j] ? a[i + j] : lane[j];
    for (int j = 0; i < n; i++, j++) lane[j] = a[i] > lane[j] ? a[i] : lane[j];
    real m = lane[0];
    for (int j = 1; j < SD_LANES; j++) m = lane[j] > m ? lane[j] : m;
    return m;
}

#if SD_REAL_IS_DOUBLE
SD_INLINE real sd_exp(real x) {
    return exp(x);
}
#else
// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2: ln 2 in two parts so that r is exact,
// a polynomial of degree 7 for exp(r), and n added to the exponent field.
SD_INLINE float sd_exp(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 0x1.8p23f; // the low bits now hold n
    float n = shifted - 0x1.8p23f;
    float r = (x - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    float e = (p * r) * r + r + 1.0f;
    int32_t bits, steps;
    memcpy(&steps, &shifted, 4);
    memcpy(&bits, &e, 4);
    bits = (int32_t)((uint32_t)bits + ((uint32_t)steps << 23));
    memcpy(&e, &bits, 4);
    return e;
}
#endif
