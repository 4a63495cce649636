// The NEON kernels compiled over SIMDe, so that processors without NEON test their source. Only
// instructions are emulated: layouts, tails and the order of sums are the real ones.
#define SPECDEC_SIMDE 1
#define sd_matmul_neon emulated_matmul
#define sd_matmul_add_neon emulated_matmul_add
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>

#include "kernels/cpu/matmul_neon.c"

#include "tests/unit/kernels/support_kernels.h"

static const sd_ops *emulated(void) {
    static sd_ops ops;
    sd_ops_over_tiles(&ops, "neon over SIMDe", emulated_matmul, emulated_matmul_add);
    return &ops;
}

Test(kernels_neon_simde, matmul_of_every_type_equals_the_sum_in_double) {
    matmul_of_every_type(emulated());
}
Test(kernels_neon_simde, matmul_does_not_saturate) {
    matmul_of_extremes(emulated());
}
Test(kernels_neon_simde, rows_do_not_depend_on_their_neighbours) {
    rows_are_invariant(emulated());
}
Test(kernels_neon_simde, a_product_is_added_to_what_is_there) {
    products_are_added(emulated());
}
Test(kernels_neon_simde, activations_are_rounded_to_the_nearest_code) {
    activations_round_to_nearest(emulated());
}
