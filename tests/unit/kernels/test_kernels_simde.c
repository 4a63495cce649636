// The AVX-512 and AMX kernels compiled over emulated instructions, so that processors without them
// test their source.
// Only instructions are emulated: layouts, tails and the order of sums are the real ones.
#define SPECDEC_SIMDE 1
#define sd_matmul_avx512 emulated_matmul
#define sd_matmul_add_avx512 emulated_matmul_add
#include "tests/unit/kernels/support_simde.h"

#include "kernels/cpu/matmul_avx512.c"
#define sd_matmul_amx emulated_matmul_many
#define sd_k_rows_amx emulated_k_rows
#define sd_quantize_rows_amx emulated_act_rows_amx
#define sd_quantize_rows_avx2 plain_act_rows
#include "tests/unit/kernels/support_amx.h"

#include "kernels/cpu/matmul_amx.c"
#include "kernels/cpu/matmul_k_amx.c"

#include "kernels/cpu/cpu.h"
#include "tests/unit/kernels/support_kernels.h"

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

void plain_act_rows(sd_quant_rows *a, const float *x, int n0, int n1) {
    sd_ops_plain.quantize_rows(a, x, n0, n1);
}
static const sd_ops *emulated_amx(void) {
    static sd_ops ops;
    sd_ops_over_tiles(&ops, "amx emulated", emulated_matmul_many, emulated_matmul_add);
    ops.quantize_rows = emulated_act_rows_amx;
    return &ops;
}
Test(kernels_simde, amx_matmul_of_every_type_equals_the_sum_in_double) {
    matmul_of_every_type(emulated_amx());
}
Test(kernels_simde, amx_matmul_does_not_saturate) {
    matmul_of_extremes(emulated_amx());
}
Test(kernels_simde, amx_rows_do_not_depend_on_their_neighbours) {
    rows_are_invariant(emulated_amx());
}
