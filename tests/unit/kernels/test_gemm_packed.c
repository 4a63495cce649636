// The packed products of training on this processor's instruction sets.
#include "tests/unit/kernels/support_gemm_packed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(gemm_packed, both_products_equal_double_precision_on_every_instruction_set) {
    static const char *const names[] = {"plain", "avx2", "avx512", "avx512-bf16", "amx-bf16"};
    for (int i = 0; i < 5; i++) {
        const sd_gemm_packed *p = sd_gemm_packed_named(names[i]);
        if (!p) continue; // test_gemm_packed_simde.c runs these on any processor
        double error = gemm_packed_error(p);
        cr_assert_leq(error, 1, "%s: %g", names[i], error);
        cr_assert(gemm_packed_rows_are_independent(p), "%s", names[i]);
    }
}

Test(gemm_packed, the_best_is_one_that_this_processor_has) {
    const sd_gemm_packed *p = sd_gemm_packed_best(false);
    cr_assert_not_null(p);
    cr_assert_eq(sd_gemm_packed_named(p->name), p);
    cr_assert_not(p->bf16);
    const sd_gemm_packed *half = sd_gemm_packed_best(true);
    cr_assert(half == NULL || half->bf16);
}

Test(gemm_packed, an_instruction_set_can_be_forced) {
    setenv("SPECDEC_ISA", "plain", 1);
    cr_assert_str_eq(sd_gemm_packed_best(false)->name, "plain");
    cr_assert_null(sd_gemm_packed_best(true));
    setenv("SPECDEC_ISA", "avx512-bf16", 1); // a run that was made with it goes on with it
    const sd_gemm_packed *half = sd_gemm_packed_named("avx512-bf16");
    cr_assert_eq(sd_gemm_packed_best(true), half);
    cr_assert_not(sd_gemm_packed_best(false)->bf16);
}
