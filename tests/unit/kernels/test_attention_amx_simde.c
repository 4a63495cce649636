// The attention of AMX compiled over emulated instructions, so that processors without it test its
// source.
#define SPECDEC_SIMDE 1
#include "tests/unit/kernels/support_amx.h"
#include "tests/unit/kernels/support_simde.h"
#define sd_attention_amx emulated_attention
#define sd_attention_scratch_amx emulated_scratch
// Shapes that are not the matrix unit's go to another file, whose instructions this processor may lack.
#define sd_attention_avx512 of_other_shapes

#include "kernels/cpu/attention_amx.c"

#include "tests/unit/kernels/support_window.h"

void of_other_shapes(float *partial, const sd_attention_rows *r, int split,
                     const sd_attention_shape *s, float *scratch) {
    sd_ops_plain.attention(partial, r, split, s, scratch);
}

static const sd_ops *emulated(void) {
    static sd_ops ops;
    ops = sd_ops_plain;
    ops.name = "amx emulated";
    ops.attention = emulated_attention;
    ops.attention_scratch = emulated_scratch;
    return &ops;
}

Test(attention_emulated, amx_equals_softmax_in_double) {
    attention_equals_double(emulated(), SD_KV_BF16);
    attention_equals_double(emulated(), SD_KV_INT8);
}
Test(attention_emulated, amx_in_a_window_equals_double_and_reads_nothing_outside) {
    window_equals_double(emulated(), SD_KV_BF16);
    window_equals_double(emulated(), SD_KV_INT8);
    wide_window_is_none(emulated(), SD_KV_BF16);
}
Test(attention_emulated, amx_rows_in_a_window_do_not_depend_on_the_others) {
    window_rows_are_invariant(emulated(), SD_KV_BF16);
    window_rows_are_invariant(emulated(), SD_KV_INT8);
}
Test(attention_emulated, amx_rows_do_not_depend_on_the_others) {
    attention_rows_are_invariant(emulated(), SD_KV_BF16);
    attention_rows_are_invariant(emulated(), SD_KV_INT8);
}
