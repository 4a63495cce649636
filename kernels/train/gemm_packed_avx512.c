// 12 rows x 32 outputs: twenty-four registers of sums.
#include "kernels/train/gemm_packed_isa.h"

#include <immintrin.h>

#define NAME matmul_avx512
#define ROWS 12
#define VF __m512
#define VW __m512
#define LANES 16
#define OPERAND float
#define PAIR 1
#define DEPTH 192
#define ZERO() _mm512_setzero_ps()
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps((p), (v))
#define ADD(a, b) _mm512_add_ps((a), (b))
#define WEIGHTS(p) _mm512_loadu_ps(p)
#define SPREAD(p) _mm512_set1_ps(*(p))
#define MUL_ADD(sum, x, w) _mm512_fmadd_ps((x), (w), (sum))
#include "kernels/train/gemm_packed_body.h"

const sd_gemm_packed sd_gemm_packed_avx512 = {"avx512", PANEL, ROWS, false, matmul_avx512};
