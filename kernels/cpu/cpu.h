// The CPU tables and what they share.
//
// Loops that differ only in a register's width, a weight's type or a count of rows are written once,
// as a body, in one of two ways:
//
//   - a *_body.h file over vectors that its includer defines. The includer is a .c file compiled for
//     one instruction set: it defines the type and the operations (VEC(op), GEMM_LOAD(p), ...), then
//     includes the body: attention_body.h, checksum_body.h, train/gemm_packed_body.h.
//   - an SD_INLINE function whose type t and rows n are constants at every call, so that SD_UNROLL
//     makes straight code that keeps all sums in registers. A macro named after the file
//     (AVX2_TILE(Q4_K, 3)) makes one function for each pair, a second one the table of them.
//
// The macros of a body carry the body's name, so that a test can compile two bodies into one file.
#pragma once

#include "kernels/ops.h"

/// Positions of one key block of attention: fixed, counted from position 0.
enum { SD_KEY_BLOCK = SD_KV_PAGE };

/// gelu(x) = x / (1 + e^-v), v = x (SD_GELU_LINEAR + SD_GELU_CUBIC x^2): 2 sqrt(2 / pi), and 0.044715
/// times it.
#define SD_GELU_LINEAR 1.59576912f
#define SD_GELU_CUBIC 0.0713548163f

extern const sd_ops sd_ops_plain;
/// attention_scratch of a table that keeps, for each head of a row, the scores of one key block and
/// the largest of them.
size_t sd_attention_scratch_of_block(const sd_attention_shape *s, int N);
