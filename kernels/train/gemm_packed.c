// Packing, the plain kernel that is the reference, and the choice of a kernel for this processor.
#include "kernels/train/gemm_packed.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/features.h"
#include "kernels/tensor.h"
#include "kernels/train/gemm_packed_isa.h"

#include <string.h>

// ---- the reference: eight outputs, one row

enum { PLAIN = 8 };
static void matmul_plain(float *y, int ldy, const float *x, int ldx, const void *packed, int n,
                         int out, int k, bool add, void *scratch) {
    (void)scratch;
    for (int r = 0; r < n; r++) {
        for (int m = 0; m < out; m += PLAIN) {
            const float *w = (const float *)packed + (size_t)m * k;
            float sum[PLAIN] = {0};
            for (int i = 0; i < k; i++)
                for (int j = 0; j < PLAIN; j++) sum[j] += x[(size_t)r * ldx + i] * w[i * PLAIN + j];
            float *to = y + (size_t)r * ldy + m;
            for (int j = 0; j < PLAIN && m + j < out; j++) to[j] = add ? to[j] + sum[j] : sum[j];
        }
    }
}
static const sd_gemm_packed sd_gemm_packed_plain = {"plain", PLAIN, 1, false, matmul_plain};

// ---- choice

const sd_gemm_packed *sd_gemm_packed_named(const char *name) {
    switch (sd_isa_named(name)) {
    case SD_ISA_PLAIN:
        return &sd_gemm_packed_plain;
#if defined(__x86_64__)
    case SD_ISA_AVX2:
        return &sd_gemm_packed_avx2;
    case SD_ISA_AVX512: // its file may use whatever the build allows *_avx512.c
        return sd_cpu_has_avx512_bf16() ? &sd_gemm_packed_avx512 : NULL;
    case SD_ISA_AVX512_BF16:
        return &sd_gemm_packed_bf16;
    case SD_ISA_AMX_BF16:
        return &sd_gemm_packed_amx;
#endif
    default:
        return NULL;
    }
}

const sd_gemm_packed *sd_gemm_packed_best(bool bf16) {
    static const char *const order[2][3] = {{"avx512", "avx2", "plain"},
                                            {"amx-bf16", "avx512-bf16"}};
    const char *forced = sd_isa_forced();
    if (forced) {
        const sd_gemm_packed *p = sd_gemm_packed_named(forced);
        if (p && p->bf16 == bf16) return p;
        if (bf16) return NULL;
    }
    for (int i = 0; i < 3 && order[bf16][i]; i++) {
        const sd_gemm_packed *p = sd_gemm_packed_named(order[bf16][i]);
        if (p) return p;
    }
    return NULL;
}

// ---- packing

static int round_up(int n, int to) {
    return (n + to - 1) / to * to;
}

size_t sd_gemm_packed_bytes(const sd_gemm_packed *p, int M, int K) {
    size_t m = (size_t)round_up(M, 32), k = (size_t)round_up(K, 32);
    return m * k * (p->bf16 ? sizeof(uint16_t) : sizeof(float));
}

// Half of a word: two terms of a sum stand side by side in bf16.
static inline uint32_t bf16_bits(float v) {
    return sd_float_to_bf16(v);
}

static void forward_panel(float *to, const float *w, int there, int width, int K) {
    for (int k = 0; k < K; k++)
        for (int i = 0; i < width; i++) to[k * width + i] = i < there ? w[(size_t)i * K + k] : 0;
}

static void forward_panel_bf16(uint32_t *to, const float *w, int there, int width, int K) {
    for (int i = 0; i < width; i++, w += K, to++) {
        int k = 0;
        for (; i < there && k + 1 < K; k += 2)
            to[(size_t)k / 2 * width] = bf16_bits(w[k]) | bf16_bits(w[k + 1]) << 16;
        for (; k < K; k += 2) to[(size_t)k / 2 * width] = i < there ? bf16_bits(w[k]) : 0;
    }
}

// Rows come in groups of a panel's width; each is written as columns of the panel.
void sd_gemm_pack_forward(const sd_gemm_packed *p, void *packed, const float *w, int m0, int count,
                          int M, int K) {
    int width = p->width, padded = p->bf16 ? round_up(K, 2) : K;
    (void)M;
    for (int m = 0; m < count; m += width, w += (size_t)width * K) {
        int there = count - m < width ? count - m : width;
        size_t at = (size_t)(m0 + m) * (size_t)padded;
        if (p->bf16)
            forward_panel_bf16((uint32_t *)packed + at / 2, w, there, width, K);
        else
            forward_panel((float *)packed + at, w, there, width, K);
    }
}

// A row is one step of every panel.
static void backward_row(float *to, const float *w, int width, size_t panel, int K) {
    for (int k = 0; k < K; k += width, to += panel) {
        int there = K - k < width ? K - k : width;
        memcpy(to, w + k, sizeof(float) * (size_t)there);
        for (int i = there; i < width; i++) to[i] = 0;
    }
}

// Two rows are one step; the second may be missing.
static void backward_rows_bf16(uint32_t *to, const float *w, bool second, int width, size_t panel,
                               int K) {
    const float *next = w + K;
    for (int k = 0; k < K; k += width, to += panel) {
        int there = K - k < width ? K - k : width;
        for (int i = 0; i < there; i++) to[i] = bf16_bits(w[k + i]);
        for (int i = 0; second && i < there; i++) to[i] |= bf16_bits(next[k + i]) << 16;
        for (int i = there; i < width; i++) to[i] = 0;
    }
}

void sd_gemm_pack_backward(const sd_gemm_packed *p, void *packed, const float *w, int m0, int count,
                           int M, int K) {
    int width = p->width, padded = p->bf16 ? round_up(M, 2) : M;
    size_t panel = (size_t)padded * width;
    if (!p->bf16) {
        for (int r = 0; r < count; r++, w += K)
            backward_row((float *)packed + (size_t)(m0 + r) * width, w, width, panel, K);
        return;
    }
    for (int r = 0; r < count; r += 2, w += 2 * (size_t)K)
        backward_rows_bf16((uint32_t *)packed + (size_t)(m0 + r) / 2 * width, w, r + 1 < count,
                           width, panel / 2, K);
}
