// fp32 values as sums of bf16, for a tensor core that takes bf16: three terms of 8 bits each are all 24, and no
// term is rounded. A product of sums leaves out what is small times small: 2^-24 of the whole.
#pragma once

#include "kernels/cuda/scalar.cuh"

SD_DEVICE uint32_t sd_high_halves(float lo, float hi) { // the bf16 that cutting gives
    return sd_float_bits(lo) >> 16 | (sd_float_bits(hi) & 0xffff0000u);
}
SD_DEVICE float sd_less_high_half(float f) { // exact
    return f - sd_bits_float(sd_float_bits(f) & 0xffff0000u);
}
/// r[i * stride] <- term i of the pair, for i < terms.
template <int terms> SD_DEVICE void sd_split_terms(uint32_t *r, int stride, float lo, float hi) {
    SD_UNROLL
    for (int i = 0; i < terms; i++) {
        r[i * stride] = sd_high_halves(lo, hi);
        lo = sd_less_high_half(lo), hi = sd_less_high_half(hi);
    }
}

/// d += a b over the terms of both.
template <int terms_a, int terms_b>
SD_DEVICE void sd_mma_terms(float (&d)[4], const uint32_t (&a)[terms_a][4],
                            const uint32_t (&b)[terms_b][2]) {
    SD_UNROLL
    for (int i = 0; i < terms_a; i++) {
        SD_UNROLL
        for (int j = 0; j < terms_b && i + j < 3; j++) sd_mma(d, a[i], b[j]);
    }
}
