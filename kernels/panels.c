// Packing, the plain kernel that is the reference, and the choice of a kernel for this processor.
#include "kernels/panels.h"

#include "kernels/cpu/features.h"
#include "kernels/cpu/panels_isa.h"
#include "kernels/tensor.h"

#include <stdlib.h>
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
static const sd_panels sd_panels_plain = {"plain", PLAIN, 1, false, matmul_plain};

// ---- choice

const sd_panels *sd_panels_named(const char *name) {
    if (strcmp(name, "plain") == 0) return &sd_panels_plain;
#if defined(__x86_64__)
    if (strcmp(name, "avx2") == 0 && sd_cpu_has_avx2()) return &sd_panels_avx2;
    // Its file may use whatever the build allows *_avx512.c.
    if (strcmp(name, "avx512") == 0 && sd_cpu_has_avx512_bf16()) return &sd_panels_avx512;
    if (strcmp(name, "avx512-bf16") == 0 && sd_cpu_has_avx512_bf16()) return &sd_panels_bf16;
#endif
    return NULL;
}

const sd_panels *sd_panels_best(bool bf16) {
    const char *forced = getenv("SPECDEC_ISA");
    const sd_panels *p = NULL;
    if (bf16) return forced && *forced ? NULL : sd_panels_named("avx512-bf16");
    if (forced && *forced) p = sd_panels_named(forced);
    if (!p) p = sd_panels_named("avx512");
    if (!p) p = sd_panels_named("avx2");
    return p ? p : &sd_panels_plain;
}

// ---- packing

static int round_up(int n, int to) {
    return (n + to - 1) / to * to;
}

size_t sd_panels_bytes(const sd_panels *p, int M, int K) {
    size_t m = (size_t)round_up(M, 32), k = (size_t)round_up(K, 32);
    return m * k * (p->bf16 ? sizeof(uint16_t) : sizeof(float));
}

// Rows come in groups of a panel's width; each is written as columns of the panel.
void sd_panels_pack_forward(const sd_panels *p, void *packed, const float *w, int m0, int count,
                            int M, int K) {
    int width = p->width, padded = p->bf16 ? round_up(K, 2) : K;
    (void)M;
    for (int m = 0; m < count; m += width, w += (size_t)width * K) {
        int there = count - m < width ? count - m : width;
        size_t at = (size_t)(m0 + m) * (size_t)padded;
        for (int k = 0; k < padded; k++) {
            for (int i = 0; i < width; i++) {
                float v = i < there && k < K ? w[(size_t)i * K + k] : 0;
                size_t place = at + (size_t)k * width + i;
                if (p->bf16)
                    ((uint16_t *)packed)[at + (size_t)(k & ~1) * width + 2 * i + (k & 1)] =
                        sd_float_to_bf16(v);
                else
                    ((float *)packed)[place] = v;
            }
        }
    }
}

// A row is one step (or half of one) of every panel.
void sd_panels_pack_backward(const sd_panels *p, void *packed, const float *w, int m0, int count,
                             int M, int K) {
    int width = p->width, padded = p->bf16 ? round_up(M, 2) : M;
    int rows = m0 + count == M ? padded - m0 : count; // the last range also writes the odd zero
    for (int r = 0; r < rows; r++, w += K) {
        int m = m0 + r;
        for (int k = 0; k < K; k += width) {
            size_t at = (size_t)k * (size_t)padded + (size_t)(p->bf16 ? m & ~1 : m) * width;
            int there = r >= count ? 0 : K - k < width ? K - k : width;
            if (p->bf16) {
                uint16_t *to = (uint16_t *)packed + at + (m & 1);
                for (int i = 0; i < width; i++)
                    to[2 * i] = i < there ? sd_float_to_bf16(w[k + i]) : 0;
            } else {
                float *to = (float *)packed + at;
                memcpy(to, w + k, sizeof(float) * (size_t)there);
                for (int i = there; i < width; i++) to[i] = 0;
            }
        }
    }
}
