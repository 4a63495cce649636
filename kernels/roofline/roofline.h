// What this machine can do at most, measured now: the denominators of every bench. Shared and
// virtual machines drift by tens of percent between minutes, so a figure from elsewhere or from
// before proves nothing.
#pragma once

#include "base/pool.h"

typedef struct {
    double read_gb; // GB/s of reading memory that is in no cache, all threads
    double fma_g;   // GFLOP/s of fp32 FMA in registers, all threads
    double int8_g;  // GOP/s of the table's int8 dot (maddubs + add, or vpdpbusd) in registers
    double bf16_g;  // GFLOP/s of training's bf16 products (kernels/train/gemm_packed.h); 0: none
} sd_roofline;

/// About 150 ms. isa: a table's name. SD_ENOMEM when the buffer (256 MB) cannot be had.
sd_status sd_roofline_measure(sd_roofline *out, const char *isa, sd_pool *pool, sd_error *err);
