// The AVX-512 kernels of kernels/cpu/panels_*avx512.c with every instruction emulated, so that they
// are tested on processors without them.
#include "tests/unit/kernels/support_gemm_packed.h"

#include <criterion/criterion.h>
#include <simde/x86/avx512.h>
#include <string.h>

#define GEMM_ROWS 12
#define GEMM_VF simde__m512
#define GEMM_LANES 16
#define GEMM_ZERO() simde_mm512_setzero_ps()
#define GEMM_LOAD(p) simde_mm512_loadu_ps(p)
#define GEMM_STORE(p, v) simde_mm512_storeu_ps((p), (v))
#define GEMM_ADD(a, b) simde_mm512_add_ps((a), (b))

#define GEMM_NAME matmul_emulated
#define GEMM_VW simde__m512
#define GEMM_OPERAND float
#define GEMM_PAIR 1
#define GEMM_DEPTH 192
#define GEMM_WEIGHTS(p) simde_mm512_loadu_ps(p)
#define GEMM_SPREAD(p) simde_mm512_set1_ps(*(p))
#define GEMM_MUL_ADD(sum, x, w) simde_mm512_fmadd_ps((x), (w), (sum))
#define store_rows store_rows_f32
#define copy_row copy_row_f32
#define kernel kernel_f32
#define some_rows some_rows_f32
#include "kernels/train/gemm_packed_body.h"

#undef GEMM_NAME
#undef GEMM_VW
#undef GEMM_OPERAND
#undef GEMM_PAIR
#undef GEMM_DEPTH
#undef GEMM_WEIGHTS
#undef GEMM_SPREAD
#undef GEMM_MUL_ADD
#undef store_rows
#undef copy_row
#undef kernel
#undef some_rows
#undef GEMM_PANEL

// VDPBF16PS by its definition: in each lane sum += x1 w1, then += x0 w0 (the processor's own order
// and roundings differ in the last place).
static simde__m512 dot_pairs(simde__m512 sum, simde__m512i x, simde__m512i w) {
    float s[16];
    uint16_t a[32], b[32];
    memcpy(s, &sum, sizeof s);
    memcpy(a, &x, sizeof a);
    memcpy(b, &w, sizeof b);
    for (int i = 0; i < 32; i++) {
        uint32_t u = (uint32_t)a[i ^ 1] << 16, v = (uint32_t)b[i ^ 1] << 16;
        float f, g;
        memcpy(&f, &u, 4);
        memcpy(&g, &v, 4);
        s[i / 2] += f * g;
    }
    memcpy(&sum, s, sizeof s);
    return sum;
}

static simde__m512i spread_pair(const uint16_t *p) {
    int32_t pair;
    memcpy(&pair, p, 4);
    return simde_mm512_set1_epi32(pair);
}

#define GEMM_NAME matmul_emulated_bf16
#define GEMM_VW simde__m512i
#define GEMM_OPERAND uint16_t
#define GEMM_PAIR 2
#define GEMM_DEPTH 384
#define GEMM_WEIGHTS(p) simde_mm512_loadu_si512(p)
#define GEMM_SPREAD(p) spread_pair(p)
#define GEMM_MUL_ADD(sum, x, w) dot_pairs((sum), (x), (w))
#include "kernels/train/gemm_packed_body.h"

Test(gemm_packed_emulated, avx512_equals_double_precision) {
    static const sd_gemm_packed p = {"emulated", 32, 12, false, matmul_emulated};
    cr_assert_leq(gemm_packed_error(&p), 1);
    cr_assert(gemm_packed_rows_are_independent(&p));
}

Test(gemm_packed_emulated, bf16_equals_double_precision_on_rounded_operands) {
    static const sd_gemm_packed p = {"emulated", 32, 12, true, matmul_emulated_bf16};
    cr_assert_leq(gemm_packed_error(&p), 1);
    cr_assert(gemm_packed_rows_are_independent(&p));
}
