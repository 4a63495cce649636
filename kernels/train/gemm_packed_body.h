// The product of a tile with packed panels, for one instruction set. The including file defines
//     GEMM_NAME, GEMM_ROWS, GEMM_VF (a vector of fp32), GEMM_LANES, GEMM_ZERO(), GEMM_LOAD(p), GEMM_STORE(p, v)
//     GEMM_OPERAND (float, or uint16_t for bf16), GEMM_PAIR (terms of a sum per step: 1 or 2), GEMM_DEPTH
//     GEMM_SPREAD(p): the x of one step in every lane;  GEMM_MUL_ADD(sum, x, w): one step;  GEMM_WEIGHTS(p)
//
// Blocks of GEMM_DEPTH terms: a panel's block stays in L1 while all rows of the tile pass over it, the
// tile's block stays in L2. GEMM_ROWS x 2 vectors of sums fill the registers. Sums run over ascending
// terms with one rounding each (fused multiply-add), block by block into y.
#include "kernels/cpu/inline.h"
#include "kernels/tensor.h"
#include "kernels/train/gemm_packed.h"

#include <string.h>

#define GEMM_PANEL (2 * GEMM_LANES)

SD_INLINE void store_rows(float *y, int ldy, GEMM_VF sum[][2], int rows, int outputs, bool add) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++, y += ldy) {
        if (outputs == GEMM_PANEL) {
            GEMM_VF a = sum[r][0], b = sum[r][1];
            if (add) a = GEMM_ADD(GEMM_LOAD(y), a), b = GEMM_ADD(GEMM_LOAD(y + GEMM_LANES), b);
            GEMM_STORE(y, a);
            GEMM_STORE(y + GEMM_LANES, b);
        } else {
            float t[GEMM_PANEL];
            GEMM_STORE(t, sum[r][0]);
            GEMM_STORE(t + GEMM_LANES, sum[r][1]);
            for (int i = 0; i < outputs; i++) y[i] = add ? y[i] + t[i] : t[i];
        }
    }
}

// rows is a constant at every call: the loops over it unroll and the sums stay in registers.
SD_INLINE void kernel(float *y, int ldy, const GEMM_OPERAND *x, int ldx, const GEMM_OPERAND *w,
                      int rows, int depth, int outputs, bool add) {
    GEMM_VF sum[GEMM_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = GEMM_ZERO();
#pragma GCC unroll 4
    for (int k = 0; k < depth; k += GEMM_PAIR, w += GEMM_PAIR * GEMM_PANEL) {
        GEMM_VW w0 = GEMM_WEIGHTS(w), w1 = GEMM_WEIGHTS(w + GEMM_PAIR * GEMM_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            GEMM_VW v = GEMM_SPREAD(x + (size_t)r * ldx + k);
            sum[r][0] = GEMM_MUL_ADD(sum[r][0], v, w0);
            sum[r][1] = GEMM_MUL_ADD(sum[r][1], v, w1);
        }
    }
    store_rows(y, ldy, sum, rows, outputs, add);
}

static void some_rows(float *y, int ldy, const GEMM_OPERAND *x, int ldx, const GEMM_OPERAND *w,
                      int rows, int depth, int outputs, bool add) {
    switch (rows) {
#define GEMM_CASE(n)                                                                               \
    case n:                                                                                        \
        kernel(y, ldy, x, ldx, w, n, depth, outputs, add);                                         \
        break;
        GEMM_CASE(1)
        GEMM_CASE(2)
        GEMM_CASE(3)
        GEMM_CASE(4)
        GEMM_CASE(5)
#if GEMM_ROWS > 6
        GEMM_CASE(6)
        GEMM_CASE(7)
        GEMM_CASE(8)
        GEMM_CASE(9)
        GEMM_CASE(10)
        GEMM_CASE(11)
#endif
#undef GEMM_CASE
    default:
        kernel(y, ldy, x, ldx, w, GEMM_ROWS, depth, outputs, add);
    }
}

_Static_assert(SD_GEMM_TILE_ROWS *GEMM_DEPTH * sizeof(GEMM_OPERAND) <= SD_GEMM_SCRATCH, "scratch");

// Rows of a block side by side: the tile's own stride is often a multiple of 4 KiB, which would put
// all rows of a kernel into the same few cache sets.
static void copy_row(GEMM_OPERAND *to, const float *x, int terms) {
#if GEMM_PAIR == 2
    for (int i = 0; i < terms; i++) to[i] = sd_float_to_bf16(x[i]);
    if (terms & 1) to[terms] = 0;
#else
    memcpy(to, x, sizeof(float) * (size_t)terms);
#endif
}

static void GEMM_NAME(float *y, int ldy, const float *x, int ldx, const void *packed, int n,
                      int out, int k, bool add, void *scratch) {
    int padded = (k + GEMM_PAIR - 1) / GEMM_PAIR * GEMM_PAIR;
    for (int k0 = 0; k0 < padded; k0 += GEMM_DEPTH) {
        int depth = padded - k0 < GEMM_DEPTH ? padded - k0 : GEMM_DEPTH;
        int terms = k - k0 < depth ? k - k0 : depth;
        GEMM_OPERAND *rows = scratch;
        for (int r = 0; r < n; r++)
            copy_row(rows + (size_t)r * GEMM_DEPTH, x + (size_t)r * ldx + k0, terms);
        for (int m = 0; m < out; m += GEMM_PANEL) {
            const GEMM_OPERAND *w =
                (const GEMM_OPERAND *)packed + (size_t)m * padded + (size_t)k0 * GEMM_PANEL;
            int outputs = out - m < GEMM_PANEL ? out - m : GEMM_PANEL;
            for (int r = 0; r < n; r += GEMM_ROWS)
                some_rows(y + (size_t)r * ldy + m, ldy, rows + (size_t)r * GEMM_DEPTH, GEMM_DEPTH,
                          w, n - r < GEMM_ROWS ? n - r : GEMM_ROWS, depth, outputs, add || k0 > 0);
        }
    }
}
