// One check for every kernel of kernels/train/gemm_packed.h, native or emulated.
#pragma once

#include "kernels/train/gemm_packed.h"

/// The largest error of both products over shapes with every kind of remainder, in units of the
/// bound that fp32 sums allow: (1 + sum of magnitudes) times (terms + 2) * 2^-24. bf16: of the
/// rounded operands.
double gemm_packed_error(const sd_gemm_packed *p);
/// Whether the bits of each row are the same alone and among others.
bool gemm_packed_rows_are_independent(const sd_gemm_packed *p);
