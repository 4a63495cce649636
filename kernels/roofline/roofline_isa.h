// The loops behind sd_roofline_measure. Each returns the operations done.
#pragma once

#include <stddef.h>
#include <stdint.h>

double sd_fma_loop_avx2(int64_t rounds);
double sd_int8_loop_avx2(int64_t rounds);
double sd_fma_loop_avx512(int64_t rounds);
double sd_int8_loop_avx512(int64_t rounds);
double sd_bf16_loop_avx512(int64_t rounds);
double sd_bf16_loop_amx(int64_t rounds);
int64_t sd_read_avx2(const void *data, size_t bytes); // aligned to 32
