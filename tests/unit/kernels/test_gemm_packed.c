// The packed products of training on this processor's instruction sets.
#include "tests/unit/kernels/support_gemm_packed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(panels, both_products_equal_double_precision_on_every_instruction_set) {
    static const char *const names[] = {"plain", "avx2", "avx512", "avx512-bf16", "amx-bf16"};
    for (int i = 0; i < 5; i++) {
        const sd_panels *p = sd_panels_named(names[i]);
        if (!p) continue; // test_gemm_packed_simde.c runs these on any processor
        double error = panels_error(p);
        cr_assert_leq(error, 1, "%s: %g", names[i], error);
        cr_assert(panels_rows_are_independent(p), "%s", names[i]);
    }
}

Test(panels, the_best_is_one_that_this_processor_has) {
    const sd_panels *p = sd_panels_best(false);
    cr_assert_not_null(p);
    cr_assert_eq(sd_panels_named(p->name), p);
    cr_assert_not(p->bf16);
    const sd_panels *half = sd_panels_best(true);
    cr_assert(half == NULL || half->bf16);
}

Test(panels, an_instruction_set_can_be_forced) {
    setenv("SPECDEC_ISA", "plain", 1);
    cr_assert_str_eq(sd_panels_best(false)->name, "plain");
    cr_assert_null(sd_panels_best(true));
    setenv("SPECDEC_ISA", "avx512-bf16", 1); // a run that was made with it goes on with it
    const sd_panels *half = sd_panels_named("avx512-bf16");
    cr_assert_eq(sd_panels_best(true), half);
    cr_assert_not(sd_panels_best(false)->bf16);
}
