// The AVX2 kernels; the AVX-512 table takes those that gain nothing from wider vectors.
#pragma once

#include "kernels/cpu/cpu.h"

void sd_matmul_avx2(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                    int m0, int m1);
void sd_matmul_add_avx2(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                        int m0, int m1);
/// y [N, rows] (ldy apart) <- one packed tile and rows [0, N) of x. Q5_0, Q5_1, Q5_K, Q6_K.
void sd_matmul_many_avx2(float *y, int ldy, const uint8_t *tile, const sd_quant_rows *x, int N,
                         int rows, sd_dtype t);
void sd_quantize_rows_avx2(sd_quant_rows *a, const float *x, int n0, int n1);
void sd_rmsnorm_avx2(float *y, const float *x, const float *w, int N, int C, float eps);
void sd_rope_avx2(float *x, const float *cos, const float *sin, int D, int rot, bool interleaved);
void sd_swiglu_avx2(float *y, const float *gate, const float *up, int n);
void sd_geglu_avx2(float *y, const float *gate, const float *up, int n);
void sd_add_avx2(float *y, const float *x, int n);
void sd_attention_avx2(float *partial, const sd_attention_rows *r, int split,
                       const sd_attention_shape *s, float *scratch);
void sd_to_f16_avx2(uint16_t *y, const float *x, int n);
void sd_to_bf16_avx2(uint16_t *y, const float *x, int n);
float sd_quantize_i8_avx2(int8_t *q, const float *x, int n);
