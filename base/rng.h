// Philox4x32-10 (Salmon et al., SC 2011): random numbers as a function of (key, counter), with no
// state to save. Everything that is random here (initialisation, shuffling, sampling noise) names
// its counter, so that a resume or a batch sees the same numbers.
//
//     uint32_t r[4];
//     sd_philox(r, seed, stream, index);
#pragma once

#include <stdint.h>

// Streams keep uses of one seed apart.
enum { SD_STREAM_INIT = 1, SD_STREAM_SHUFFLE = 2, SD_STREAM_SAMPLE = 4 };

/// Four independent 32-bit words for the 64-bit key and the 128-bit counter (hi, lo).
static inline void sd_philox(uint32_t out[4], uint64_t key, uint64_t hi, uint64_t lo) {
    uint32_t c0 = (uint32_t)lo, c1 = (uint32_t)(lo >> 32), c2 = (uint32_t)hi,
             c3 = (uint32_t)(hi >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/// (0, 1), never an end: 24 random bits plus half a step. The largest words, whose half step rounds
/// up to 1 in a float, stop one step short of it.
static inline float sd_uniform(uint32_t word) {
    float u = ((float)(word >> 8) + 0.5f) * 0x1p-24f;
    return u < 1 ? u : 0x1.fffffep-1f;
}
/// The same of 52 bits. For tests.
static inline double sd_uniform64(uint32_t a, uint32_t b) {
    return ((double)(((uint64_t)a << 32 | b) >> 12) + 0.5) * 0x1p-52;
}
