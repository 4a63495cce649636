// The sampler's loops over the whole vocabulary, written over lanes so that they vectorise.
//
// Compiled for the base instruction set and, on x86-64, once more for AVX2; which one runs is
// decided at the first use. Both do the same additions and multiplications in the same order (no
// FMA), so their results are equal bit for bit.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { SD_SAMPLE_BLOCK = 32 }; // tokens of a block: eight Philox calls

typedef struct {
    uint64_t seed, hi; // Philox key, and the high half of its counter
    uint32_t position; // bits 32..63 of the counter; bits 0..31 are token / 4
} sd_noise_key;

typedef struct {
    /// max [ceil(n/32)] <- the largest of each block of x [n]; NaN counts as minus infinity.
    /// Returns the largest of all.
    float (*block_max)(float *max, const float *x, int n);
    /// Is any of x [n] NaN?
    bool (*has_nan)(const float *x, int n);
    /// word [32] <- the noise words of tokens [first, first + 32), first a multiple of 32. Returns
    /// the largest word.
    uint32_t (*noise)(uint32_t *word, const sd_noise_key *k, int32_t first);
    /// sum of exp((x_i - max) / T) over x [n], in double, block by block; terms below e^-40 and NaN
    /// count nothing. Relative error of a term: 2e-7.
    double (*exp_sum)(const float *x, int n, float max, float T);
} sd_sampler_simd;

const sd_sampler_simd *sd_sampler_simd_best(void);
