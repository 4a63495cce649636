// The tables of gemm_packed.h that instruction sets bring; each is in a file compiled for its set.
#pragma once

#include "kernels/train/gemm_packed.h"

extern const sd_panels sd_panels_avx2, sd_panels_avx512, sd_panels_bf16, sd_panels_amx;
