// The AVX-512 kernels (F, BW, DQ, VL, VNNI), and those of AMX. The tables' ops of rows are AVX2's:
// a few thousand floats in L1 gain nothing from wider vectors.
#pragma once

#include "kernels/cpu/cpu.h"

void sd_matmul_avx512(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                      int m0, int m1);
void sd_matmul_add_avx512(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x,
                          int N, int m0, int m1);
/// The same bits for many rows, with the products on AMX; few rows are sd_matmul_avx512's.
void sd_matmul_amx(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                   int m0, int m1);
/// As AVX2's, and bsum where K types read the rows.
void sd_quantize_rows_amx(sd_quant_rows *a, const float *x, int n0, int n1);
void sd_attention_avx512(float *partial, const sd_attention_rows *r, int split,
                         const sd_attention_shape *s, float *scratch);
/// Keys and values in bf16 or int8 on the matrix unit; others, and heads of odd sizes, as on
/// AVX-512.
void sd_attention_amx(float *partial, const sd_attention_rows *r, int split,
                      const sd_attention_shape *s, float *scratch);
size_t sd_attention_scratch_amx(const sd_attention_shape *s, int N);
