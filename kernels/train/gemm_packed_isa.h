// The tables of gemm_packed.h that instruction sets bring; each is in a file compiled for its set.
#pragma once

#include "kernels/train/gemm_packed.h"

extern const sd_gemm_packed sd_gemm_packed_avx2, sd_gemm_packed_avx512, sd_gemm_packed_bf16,
    sd_gemm_packed_amx;
