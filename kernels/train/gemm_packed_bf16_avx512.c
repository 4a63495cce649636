// The same shape with VDPBF16PS: two terms of 32 outputs a step and vector.
#include "kernels/train/gemm_packed_isa.h"

#include <immintrin.h>

static inline __m512i spread_pair(const uint16_t *p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, 4);
    return _mm512_set1_epi32(pair);
}

#define GEMM_NAME matmul_bf16
#define GEMM_ROWS 12
#define GEMM_VF __m512
#define GEMM_VW __m512i
#define GEMM_LANES 16
#define GEMM_OPERAND uint16_t
#define GEMM_PAIR 2
#define GEMM_DEPTH 384
#define GEMM_ZERO() _mm512_setzero_ps()
#define GEMM_LOAD(p) _mm512_loadu_ps(p)
#define GEMM_STORE(p, v) _mm512_storeu_ps((p), (v))
#define GEMM_ADD(a, b) _mm512_add_ps((a), (b))
#define GEMM_WEIGHTS(p) _mm512_loadu_si512(p)
#define GEMM_SPREAD(p) spread_pair(p)
#define GEMM_MUL_ADD(sum, x, w) _mm512_dpbf16_ps((sum), (__m512bh)(x), (__m512bh)(w))
#include "kernels/train/gemm_packed_body.h"

const sd_gemm_packed sd_gemm_packed_bf16 = {"avx512-bf16", GEMM_PANEL, GEMM_ROWS, true,
                                            matmul_bf16};
