// 12 rows x 32 outputs: twenty-four registers of sums.
#include "kernels/train/gemm_packed_isa.h"

#include <immintrin.h>

#define GEMM_NAME matmul_avx512
#define GEMM_ROWS 12
#define GEMM_VF __m512
#define GEMM_VW __m512
#define GEMM_LANES 16
#define GEMM_OPERAND float
#define GEMM_PAIR 1
#define GEMM_DEPTH 192
#define GEMM_ZERO() _mm512_setzero_ps()
#define GEMM_LOAD(p) _mm512_loadu_ps(p)
#define GEMM_STORE(p, v) _mm512_storeu_ps((p), (v))
#define GEMM_ADD(a, b) _mm512_add_ps((a), (b))
#define GEMM_WEIGHTS(p) _mm512_loadu_ps(p)
#define GEMM_SPREAD(p) _mm512_set1_ps(*(p))
#define GEMM_MUL_ADD(sum, x, w) _mm512_fmadd_ps((x), (w), (sum))
#include "kernels/train/gemm_packed_body.h"

const sd_gemm_packed sd_gemm_packed_avx512 = {"avx512", GEMM_PANEL, GEMM_ROWS, false,
                                              matmul_avx512};
