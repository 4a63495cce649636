// The AMX kernel of training with its instructions in plain C, so that processors without it test
// its source.
#define SPECDEC_SIMDE 1
#define sd_gemm_packed_amx emulated_gemm
#include "tests/unit/kernels/support_amx.h"

#include "kernels/train/gemm_packed_amx.c"

#include "tests/unit/kernels/support_gemm_packed.h"

#include <criterion/criterion.h>

Test(gemm_packed_emulated, amx_equals_double_precision_on_rounded_operands) {
    cr_assert_leq(gemm_packed_error(&emulated_gemm), 1);
    cr_assert(gemm_packed_rows_are_independent(&emulated_gemm));
}
