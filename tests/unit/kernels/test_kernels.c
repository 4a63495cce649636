// Every table of this machine against a double reference and against itself.
#include "tests/unit/kernels/support_kernels.h"

static const char *const table_names[] = {"plain", "avx2", "avx512", "amx", "neon"};
enum { TABLES = sizeof table_names / sizeof table_names[0] };
// Calls fn on every table that this machine runs; at least the plain one.
static void each_table(void (*fn)(const sd_ops *ops)) {
    for (int i = 0; i < TABLES; i++) {
        const sd_ops *ops = sd_ops_named(table_names[i]);
        if (ops)
            fn(ops);
        else
            printf("# %s: this processor or build lacks it\n", table_names[i]);
    }
}

Test(kernels, matmul_of_every_type_equals_the_sum_in_double) {
    each_table(matmul_of_every_type);
}

Test(kernels, matmul_does_not_saturate_at_the_ends_of_the_codes) {
    each_table(matmul_of_extremes);
}

Test(kernels, the_bits_of_a_row_do_not_depend_on_its_neighbours) {
    each_table(rows_are_invariant);
}

Test(kernels, a_product_is_added_to_what_is_there) {
    each_table(products_are_added);
}

Test(kernels, activations_are_rounded_to_the_nearest_code) {
    each_table(activations_round_to_nearest);
}

// The tolerance itself is tested: an error of the size of one code must not pass it. Each planted
// table damages the activations between quantising and multiplying.
static const sd_ops *honest;
static void miss_one_code(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x,
                          int N, int m0, int m1) {
    int8_t *q = sd_quant_rows_codes(x, 0, 1), saved = *q;
    *q = (int8_t)(saved > 0 ? saved - 1 : saved + 1);
    honest->matmul(y, ldy, w, x, N, m0, m1);
    *q = saved;
}
static void miss_the_last_block(float *y, int ldy, const sd_packed_weight *w,
                                const sd_quant_rows *x, int N, int m0, int m1) {
    size_t last = sd_quant_rows_at(x, 0, (x->K - 1) / x->group * x->group / SD_QBLOCK);
    float saved = x->scale[last];
    x->scale[last] = 0;
    honest->matmul(y, ldy, w, x, N, m0, m1);
    x->scale[last] = saved;
}
static void blur_a_sum(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                       int m0, int m1) {
    float *sum = x->sum + sd_quant_rows_at(x, 0, 1), saved = *sum; // types with a minimum read it,
    int16_t *isum = sd_quant_rows_isum(x, 0, 1), whole = *isum;    // or K types those
    *sum *= 1.01f;
    if (x->group == SD_QSUPER) *isum = (int16_t)(whole + whole / 64 + 1);
    honest->matmul(y, ldy, w, x, N, m0, m1);
    *sum = saved, *isum = whole;
}
static void planted_errors_are_found(const sd_ops *ops) {
    honest = ops;
    sd_ops bad = *ops;
    bad.name = "planted error";
    for (int i = 0; i < TYPES; i++) {
        if (!sd_dtype_quantised(types[i])) continue;
        seed = 5;
        bad.matmul = miss_one_code;
        cr_assert_gt(matmul_errors(&bad, types[i], SD_COMPUTE_AUTO, 32, 512, 2), 0);
        bad.matmul = miss_the_last_block;
        cr_assert_gt(matmul_errors(&bad, types[i], SD_COMPUTE_AUTO, 32, 512, 2), 0);
        bad.matmul = blur_a_sum;
        int errors = matmul_errors(&bad, types[i], SD_COMPUTE_AUTO, 32, 512, 2);
        cr_assert_eq(errors > 0, sd_dtype_has_min(types[i]), "%s", sd_dtype_name(types[i]));
    }
}
Test(kernels, errors_of_one_code_exceed_the_tolerance) {
    each_table(planted_errors_are_found);
}
