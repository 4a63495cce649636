// The AVX-512 kernels (F, BW, DQ, VL, VNNI). The table's ops of rows are AVX2's: a few
// thousand floats in L1 gain nothing from wider vectors.
#pragma once

#include "kernels/cpu/cpu.h"

void sd_matmul_avx512(float *y, int ldy, const sd_packed *w, const sd_act *x, int N, int m0,
                      int m1);
void sd_matmul_add_avx512(float *y, int ldy, const sd_packed *w, const sd_act *x, int N, int m0,
                          int m1);
void sd_attention_avx512(float *part, const sd_attention_rows *r, int span,
                         const sd_attention_shape *s, float *scratch);
