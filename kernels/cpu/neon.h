// The NEON kernels (ARMv8.2 with the dot product). The table's other ops are the plain ones, which
// compilers turn into vectors.
#pragma once

#include "kernels/cpu/cpu.h"

void sd_matmul_neon(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                    int m0, int m1);
void sd_matmul_add_neon(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                        int m0, int m1);
