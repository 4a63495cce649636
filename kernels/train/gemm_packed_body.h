// The product of a tile with packed panels, for one instruction set. The including file defines
//     NAME, ROWS, VF (a vector of fp32), LANES, ZERO(), LOAD(p), STORE(p, v)
//     OPERAND (float, or uint16_t for bf16), PAIR (terms of a sum per step: 1 or 2), DEPTH
//     SPREAD(p): the x of one step in every lane;  MUL_ADD(sum, x, w): one step;  WEIGHTS(p)
//
// Blocks of DEPTH terms: a panel's block stays in L1 while all rows of the tile pass over it, the
// tile's block stays in L2. ROWS x 2 vectors of sums fill the registers. Sums run over ascending
// terms with one rounding each (fused multiply-add), block by block into y.
#include "kernels/tensor.h"
#include "kernels/train/gemm_packed.h"

#include <string.h>

#define PANEL (2 * LANES)
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void store_rows(float *y, int ldy, VF sum[][2], int rows, int outputs, bool add) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++, y += ldy) {
        if (outputs == PANEL) {
            VF a = sum[r][0], b = sum[r][1];
            if (add) a = ADD(LOAD(y), a), b = ADD(LOAD(y + LANES), b);
            STORE(y, a);
            STORE(y + LANES, b);
        } else {
            float t[PANEL];
            STORE(t, sum[r][0]);
            STORE(t + LANES, sum[r][1]);
            for (int i = 0; i < outputs; i++) y[i] = add ? y[i] + t[i] : t[i];
        }
    }
}

// rows is a constant at every call: the loops over it unroll and the sums stay in registers.
ALWAYS void kernel(float *y, int ldy, const OPERAND *x, int ldx, const OPERAND *w, int rows,
                   int depth, int outputs, bool add) {
    VF sum[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = ZERO();
#pragma GCC unroll 4
    for (int k = 0; k < depth; k += PAIR, w += PAIR * PANEL) {
        VW w0 = WEIGHTS(w), w1 = WEIGHTS(w + PAIR * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            VW v = SPREAD(x + (size_t)r * ldx + k);
            sum[r][0] = MUL_ADD(sum[r][0], v, w0);
            sum[r][1] = MUL_ADD(sum[r][1], v, w1);
        }
    }
    store_rows(y, ldy, sum, rows, outputs, add);
}

static void some_rows(float *y, int ldy, const OPERAND *x, int ldx, const OPERAND *w, int rows,
                      int depth, int outputs, bool add) {
    switch (rows) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        kernel(y, ldy, x, ldx, w, n, depth, outputs, add);                                         \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
#if ROWS > 6
        CASE(6)
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
#endif
#undef CASE
    default:
        kernel(y, ldy, x, ldx, w, ROWS, depth, outputs, add);
    }
}

_Static_assert(SD_GEMM_TILE_ROWS *DEPTH * sizeof(OPERAND) <= SD_GEMM_SCRATCH, "scratch");

// Rows of a block side by side: the tile's own stride is often a multiple of 4 KiB, which would put
// all rows of a kernel into the same few cache sets.
static void copy_row(OPERAND *to, const float *x, int terms) {
#if PAIR == 2
    for (int i = 0; i < terms; i++) to[i] = sd_float_to_bf16(x[i]);
    if (terms & 1) to[terms] = 0;
#else
    memcpy(to, x, sizeof(float) * (size_t)terms);
#endif
}

static void NAME(float *y, int ldy, const float *x, int ldx, const void *packed, int n, int out,
                 int k, bool add, void *scratch) {
    int padded = (k + PAIR - 1) / PAIR * PAIR;
    for (int k0 = 0; k0 < padded; k0 += DEPTH) {
        int depth = padded - k0 < DEPTH ? padded - k0 : DEPTH;
        int terms = k - k0 < depth ? k - k0 : depth;
        OPERAND *rows = scratch;
        for (int r = 0; r < n; r++)
            copy_row(rows + (size_t)r * DEPTH, x + (size_t)r * ldx + k0, terms);
        for (int m = 0; m < out; m += PANEL) {
            const OPERAND *w = (const OPERAND *)packed + (size_t)m * padded + (size_t)k0 * PANEL;
            int outputs = out - m < PANEL ? out - m : PANEL;
            for (int r = 0; r < n; r += ROWS)
                some_rows(y + (size_t)r * ldy + m, ldy, rows + (size_t)r * DEPTH, DEPTH, w,
                          n - r < ROWS ? n - r : ROWS, depth, outputs, add || k0 > 0);
        }
    }
}
