// What the kernels share: activations of two types, sums over a warp and a block.
//
// Every kernel of inference has two instances. In the bf16 one, what enters a matrix product is rounded to
// bf16; in the fp32 one it stays as it is, for parity with the CPU. Sums, and what stands between products
// (the residual stream), are fp32 in both.
#pragma once

#include "kernels/cuda/dialect.cuh"

struct bf16 {
    uint16_t bits;
};

SD_DEVICE float sd_value(bf16 x) {
    return sd_bits_float((uint32_t)x.bits << 16);
}
SD_DEVICE float sd_value(float x) {
    return x;
}
SD_DEVICE void sd_store(bf16 *p, float x) {
    p->bits = (uint16_t)sd_pack_bf16(x, 0.0f);
}
SD_DEVICE void sd_store(float *p, float x) {
    *p = x;
}

/// The sum over a warp, in every lane: the same tree whatever else runs.
SD_DEVICE float sd_warp_sum(float v) {
    SD_UNROLL
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(SD_ALL_LANES, v, d);
    return v;
}

// int8 codes of values that a warp has, as the CPU's quantiser makes them (sd_ops): by the largest |x|, whose bits' order puts NaN on
// top. scale: what a code is multiplied by, NaN where an x is not finite, 0 below 1e-30; inverse: what a value is, 0 in
// both cases.
struct sd_code_scale {
    float scale, inverse;
};
SD_DEVICE uint32_t sd_magnitude(float x) {
    return sd_float_bits(x) & 0x7fffffffu;
}
/// top: the largest magnitude that a lane has.
SD_DEVICE sd_code_scale sd_warp_code_scale(uint32_t top) {
    SD_UNROLL
    for (int d = 16; d; d >>= 1) {
        const uint32_t other = __shfl_xor_sync(SD_ALL_LANES, top, d);
        top = other > top ? other : top;
    }
    const float most = sd_bits_float(top);
    const bool finite = top < 0x7f800000u, some = finite && most > 1e-30f;
    sd_code_scale s;
    s.scale = !finite ? sd_bits_float(0x7fc00000u) : some ? most / 127.0f : 0.0f;
    s.inverse = some ? 127.0f / most : 0.0f;
    return s;
}
SD_DEVICE int8_t sd_code_of(float x, float inverse) {
    return (int8_t)(inverse != 0.0f ? (int)rintf(x * inverse) : 0);
}

/// The sum over a block of `threads`, in every thread. part: shared, [threads / 32], not written again before another
/// barrier.
template <int threads> SD_DEVICE float sd_block_sum(float v, float *part) {
    v = sd_warp_sum(v);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    float total = 0;
    SD_UNROLL
    for (int w = 0; w < threads / 32; w++) total += part[w];
    return total;
}

/// RMSNorm's factor of a row (arXiv:1910.07467), 1 / sqrt(mean(x^2) + eps), in every thread of a block: thread i sums the squares of
/// elements i, i + threads, ... The backward pass computes the forward pass's bits by it.
template <int threads>
SD_DEVICE float sd_row_factor(const float *x, int C, float eps, float *part) {
    float sum = 0;
    for (int c = threadIdx.x; c < C; c += threads) sum = fmaf(x[c], x[c], sum);
    sum = sd_block_sum<threads>(sum, part);
    return 1.0f / sqrtf(sum / (float)C + eps);
}
