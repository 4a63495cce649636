// 6 rows x 16 outputs: twelve registers of sums, two of weights, one of x.
#include "kernels/train/gemm_packed_isa.h"

#include <immintrin.h>

#define GEMM_NAME matmul_avx2
#define GEMM_ROWS 6
#define GEMM_VF __m256
#define GEMM_VW __m256
#define GEMM_LANES 8
#define GEMM_OPERAND float
#define GEMM_PAIR 1
#define GEMM_DEPTH 384
#define GEMM_ZERO() _mm256_setzero_ps()
#define GEMM_LOAD(p) _mm256_loadu_ps(p)
#define GEMM_STORE(p, v) _mm256_storeu_ps((p), (v))
#define GEMM_ADD(a, b) _mm256_add_ps((a), (b))
#define GEMM_WEIGHTS(p) _mm256_loadu_ps(p)
#define GEMM_SPREAD(p) _mm256_broadcast_ss(p)
#define GEMM_MUL_ADD(sum, x, w) _mm256_fmadd_ps((x), (w), (sum))
#include "kernels/train/gemm_packed_body.h"

const sd_gemm_packed sd_gemm_packed_avx2 = {"avx2", GEMM_PANEL, GEMM_ROWS, false, matmul_avx2};
