// Writers of one block, for sd_quantise.
#pragma once

#include "kernels/dequantize.h"

/// 256 values into 144 (Q4_K), 176 (Q5_K) or 210 (Q6_K) bytes.
void sd_write_q45_k(uint8_t *p, const float *x, bool five);
void sd_write_q6_k(uint8_t *p, const float *x);
