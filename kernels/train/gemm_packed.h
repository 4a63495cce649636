// Products with a frozen matrix that is packed once and used by every tile of tokens: the training
// pass dequantises a stack of weights straight into this form, so nothing is packed again per tile
// (a library's GEMM repacks its right side in every call). "Panel" is the word of BLIS for this form.
//
// W [M, K] is packed for one of two products:
//     forward:   y [n, M] = x [n, K] W^T     outputs are W's rows,    the sum runs over its columns
//     backward:  y [n, K] = x [n, M] W       outputs are W's columns, the sum runs over its rows
// A panel holds `width` outputs: fp32 as [sum][width]; bf16 as [sum/2][width][2]. Missing outputs
// and the odd last term are zero.
//
//     const sd_gemm_packed *p = sd_gemm_packed_best(false);
//     void *packed = sd_alloc(sd_gemm_packed_bytes(p, M, K), 1);
//     sd_gemm_pack_forward(p, packed, w, 0, M, M, K); // or ranges of rows, in any order
//     p->matmul(y, M, x, K, packed, n, M, K, false, scratch);
#pragma once

#include "base/status.h"

#include <stdint.h>

enum { SD_GEMM_PACK_ROWS = 64 }; // pack_* takes rows from multiples of this
enum {
    SD_GEMM_TILE_ROWS = 288
}; // rows of x in one matmul at most; a multiple of every kernel's rows

typedef struct sd_gemm_packed {
    const char *name; // "plain", "avx2", "avx512", "avx512-bf16", "amx-bf16"
    int width;        // outputs of a panel
    int rows;         // rows of x that the kernel takes at once
    bool bf16;        // operands rounded to bf16 (to nearest even), sums in fp32

    /// y [n, ldy] <- x [n, ldx] times the packed matrix of `out` outputs and sums of k terms; add:
    /// += . n <= SD_GEMM_TILE_ROWS. scratch: SD_GEMM_SCRATCH bytes. A row's bits do not depend on n.
    void (*matmul)(float *y, int ldy, const float *x, int ldx, const void *packed, int n, int out,
                   int k, bool add, void *scratch);
} sd_gemm_packed;

enum { SD_GEMM_SCRATCH = 960 * 1024 };

/// The fastest of this processor; bf16 asks for bf16 operands and gives NULL where the processor
/// has no instructions for them. SPECDEC_ISA (kernels/ops.h) forces one by its name; bf16 is
/// then there only if it is the one forced.
const sd_gemm_packed *sd_gemm_packed_best(bool bf16);
const sd_gemm_packed *sd_gemm_packed_named(const char *name); // NULL when this processor lacks it

/// Bytes of either packed form of [M, K]: a bound that holds for both.
size_t sd_gemm_packed_bytes(const sd_gemm_packed *p, int M, int K);

/// Packs rows [m0, m0 + count) of W [M, K], which stand at w [count, K]; m0 is a multiple of
/// SD_GEMM_PACK_ROWS, and so is count unless they are the last. Disjoint ranges may be packed at the
/// same time.
void sd_gemm_pack_forward(const sd_gemm_packed *p, void *packed, const float *w, int m0, int count,
                          int M, int K);
void sd_gemm_pack_backward(const sd_gemm_packed *p, void *packed, const float *w, int m0, int count,
                           int M, int K);
