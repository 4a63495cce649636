// 6 rows x 16 outputs: twelve registers of sums, two of weights, one of x.
#include "kernels/train/gemm_packed_isa.h"

#include <immintrin.h>

#define NAME matmul_avx2
#define ROWS 6
#define VF __m256
#define VW __m256
#define LANES 8
#define OPERAND float
#define PAIR 1
#define DEPTH 384
#define ZERO() _mm256_setzero_ps()
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps((p), (v))
#define ADD(a, b) _mm256_add_ps((a), (b))
#define WEIGHTS(p) _mm256_loadu_ps(p)
#define SPREAD(p) _mm256_broadcast_ss(p)
#define MUL_ADD(sum, x, w) _mm256_fmadd_ps((x), (w), (sum))
#include "kernels/train/gemm_packed_body.h"

const sd_gemm_packed sd_gemm_packed_avx2 = {"avx2", PANEL, ROWS, false, matmul_avx2};
