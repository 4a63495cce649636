// Every table of this machine against a double reference and against itself.
#include "tests/unit/support_kernels.h"

static const char *const table_names[] = {"plain", "avx2", "avx512"};
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

Test(kernels, activations_are_rounded_to_the_nearest_code) {
    each_table(activations_round_to_nearest);
}
