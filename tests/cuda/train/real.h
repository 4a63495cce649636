// The CPU's operations of training in double precision: what the CUDA kernels of training are held against.
#pragma once

#define SD_REAL_DOUBLE
#define _Noreturn [[noreturn]]
extern "C" {
#include "kernels/train/ops.h"
}

#include "kernels/cuda/train/train.h"
#include "tests/cuda/pages.h"

static const double u = 0x1p-24, v = 0x1p-8; // a rounding of fp32, one to bf16
static const sd_cuda_real types[] = {SD_CUDA_F32, SD_CUDA_BF16};

template <class A> std::vector<double> in_double(const A &x) {
    return std::vector<double>(x.begin(), x.end());
}
