// The AVX-512 kernels compiled over SIMDe, so that processors without AVX-512 test their source.
// Only instructions are emulated: layouts, tails and the order of sums are the real ones.
#define SPECDEC_SIMDE 1
#define sd_matmul_avx512 emulated_matmul
#define sd_matmul_add_avx512 emulated_matmul_add
#include "tests/unit/support_simde.h"

#include "kernels/cpu/matmul_avx512.c"

#include "kernels/cpu/cpu.h"
#include "tests/unit/support_kernels.h"

static const sd_ops *emulated(void) {
    static sd_ops ops;
    sd_ops_over_tiles(&ops, "avx512 over SIMDe", emulated_matmul, emulated_matmul_add);
    return &ops;
}

Test(kernels_simde, avx512_matmul_of_every_type_equals_the_sum_in_double) {
    matmul_of_every_type(emulated());
}
Test(kernels_simde, avx512_matmul_does_not_saturate) {
    matmul_of_extremes(emulated());
}
Test(kernels_simde, avx512_rows_do_not_depend_on_their_neighbours) {
    rows_are_invariant(emulated());
}
Test(kernels_simde, avx512_product_is_added_to_what_is_there) {
    products_are_added(emulated());
}
