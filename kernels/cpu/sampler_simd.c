#include "kernels/cpu/sampler_simd.h"

#include "kernels/cpu/inline.h"

#include <math.h>
#include <string.h>

enum { BLOCK = SD_SAMPLE_BLOCK, CALLS = BLOCK / 4 };

SD_INLINE float block_max_body(float *max, const float *x, int n) {
    float all = -INFINITY;
    int b = 0;
    for (int i = 0; i < n; i += BLOCK, b++) {
        float lane[8];
        for (int l = 0; l < 8; l++) lane[l] = -INFINITY;
        if (n - i >= BLOCK) {
            for (int j = 0; j < BLOCK; j += 8)
                for (int l = 0; l < 8; l++)
                    lane[l] = x[i + j + l] > lane[l] ? x[i + j + l] : lane[l];
        } else {
            for (int j = i; j < n; j++) lane[0] = x[j] > lane[0] ? x[j] : lane[0];
        }
        float m = lane[0];
        for (int l = 1; l < 8; l++) m = lane[l] > m ? lane[l] : m;
        max[b] = m;
        all = m > all ? m : all;
    }
    return all;
}

SD_INLINE bool has_nan_body(const float *x, int n) {
    int bad = 0, i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int j = 0; j < BLOCK; j++) bad |= x[i + j] != x[i + j];
    for (; i < n; i++) bad |= x[i] != x[i];
    return bad;
}

// Philox4x32-10 (base/rng.h) for eight counters at once.
SD_INLINE uint32_t noise_body(uint32_t *word, const sd_noise_key *k, int32_t first) {
    uint32_t c0[CALLS], c1[CALLS], c2[CALLS], c3[CALLS];
    for (int l = 0; l < CALLS; l++) {
        c0[l] = (uint32_t)(first >> 2) + (uint32_t)l, c1[l] = k->position;
        c2[l] = (uint32_t)k->hi, c3[l] = (uint32_t)(k->hi >> 32);
    }
    uint32_t k0 = (uint32_t)k->seed, k1 = (uint32_t)(k->seed >> 32);
    for (int r = 0; r < 10; r++) {
        for (int l = 0; l < CALLS; l++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[l], p1 = (uint64_t)0xCD9E8D57u * c2[l];
            c0[l] = (uint32_t)(p1 >> 32) ^ c1[l] ^ k0, c2[l] = (uint32_t)(p0 >> 32) ^ c3[l] ^ k1;
            c1[l] = (uint32_t)p1, c3[l] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    uint32_t most[CALLS];
    for (int l = 0; l < CALLS; l++) {
        uint32_t a = c0[l] > c1[l] ? c0[l] : c1[l], b = c2[l] > c3[l] ? c2[l] : c3[l];
        most[l] = a > b ? a : b;
        word[4 * l] = c0[l], word[4 * l + 1] = c1[l], word[4 * l + 2] = c2[l],
                 word[4 * l + 3] = c3[l];
    }
    uint32_t m = 0;
    for (int l = 0; l < CALLS; l++) m = most[l] > m ? most[l] : m;
    return m;
}

// exp(d) for -40 < d <= 0, else e^-87, which is nothing beside a sum of at least 1: 2^n times a
// polynomial on [-ln2/2, ln2/2]. Clamped first and without a later choice, or it would not
// vectorise.
SD_INLINE float exp_of(float d) {
    d = d > -40.0f ? d : -87.0f;
    int n = (int)(d * 1.44269504f - 0.5f);
    float r = d - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    float p = 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1;
    int32_t bits = (n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

SD_INLINE double exp_sum_body(const float *x, int n, float max, float T) {
    double sum = 0;
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        float lane[8] = {0};
        for (int j = 0; j < BLOCK; j += 8)
            for (int l = 0; l < 8; l++) lane[l] += exp_of((x[i + j + l] - max) / T);
        float s = 0;
        for (int l = 0; l < 8; l++) s += lane[l];
        sum += (double)s;
    }
    for (; i < n; i++) sum += (double)exp_of((x[i] - max) / T);
    return sum;
}

#define SAMPLER_TABLE(name, attribute)                                                             \
    attribute static float block_max_##name(float *max, const float *x, int n) {                   \
        return block_max_body(max, x, n);                                                          \
    }                                                                                              \
    attribute static bool has_nan_##name(const float *x, int n) {                                  \
        return has_nan_body(x, n);                                                                 \
    }                                                                                              \
    attribute static uint32_t noise_##name(uint32_t *word, const sd_noise_key *k, int32_t first) { \
        return noise_body(word, k, first);                                                         \
    }                                                                                              \
    attribute static double exp_sum_##name(const float *x, int n, float max, float T) {            \
        return exp_sum_body(x, n, max, T);                                                         \
    }                                                                                              \
    static const sd_sampler_simd name = {block_max_##name, has_nan_##name, noise_##name,           \
                                         exp_sum_##name};

SAMPLER_TABLE(plain, )
#ifdef __x86_64__
SAMPLER_TABLE(avx2, __attribute__((target("avx2"))))
#endif

const sd_sampler_simd *sd_sampler_simd_best(void) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) return &avx2;
#endif
    return &plain;
}
