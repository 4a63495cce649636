// A merged file holds the adapter, whatever the base's file looks like, and what is said of it is
// measured on the file.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "model/infer/compare_logits.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { TOKENS = 24 };

static sd_model *open_at(const char *path) {
    sd_model *m;
    sd_error err;
    cr_assert_eq(sd_model_open(&m, path, &err), SD_OK, "%s", err.message);
    return m;
}

static sd_adapter *random_adapter(const sd_model *base, float size) {
    int slots = base->n_linears;
    sd_lora lora[64] = {0};
    static float factors[64 * 4 * 512];
    float *next = factors;
    uint64_t state = 1;
    sd_adapter *a;
    sd_error err;
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        if (i == 3) continue; // one weight that is left as it is
        rows = base->linear[i].w.rows, cols = base->linear[i].w.cols;
        lora[i] = (sd_lora){.r = 4, .A = next, .B = next + 4 * cols, .scale = 2};
        for (int k = 0; k < 4 * (rows + cols); k++)
            *next++ = size * ((float)(sd_mix64(state++) % 2001) * 1e-3f - 1);
    }
    cr_assert_eq(sd_adapter_from_factors(&a, "random", lora, base, &err), SD_OK, "%s", err.message);
    return a;
}

// A folder whose weights begin at an odd byte: one space more at the end of the header.
static void make_odd(const char *folder) {
    sd_error err;
    char *data, *path = sd_path_join(folder, "model.safetensors");
    size_t len;
    uint64_t header;
    cr_assert_eq(sd_file_read(&data, &len, path, 1 << 26, &err), SD_OK, "%s", err.message);
    memcpy(&header, data, 8);
    char *odd = malloc(len + 1);
    size_t at = 8 + (size_t)header;
    header++;
    memcpy(odd, &header, 8);
    memcpy(odd + 8, data + 8, at - 8);
    odd[at] = ' ';
    memcpy(odd + at + 1, data + at, len - at);
    cr_assert_eq(sd_file_write(path, odd, len + 1, &err), SD_OK, "%s", err.message);
    free(odd);
    free(data);
    free(path);
}

static sd_status verify(sd_merge_report *r, sd_model *written, sd_adapter *a, sd_model *base,
                        sd_error *err) {
    int32_t tokens[TOKENS];
    sd_logit_difference d;
    for (int i = 0; i < TOKENS; i++) tokens[i] = i * 37 % 280;
    return sd_verify_merged(r, &d, written, a, base, tokens, TOKENS, NULL, err);
}

static void merge_of(const sd_arch *arch, sd_dtype dtype, bool folder, bool odd, float size,
                     double least) {
    char *dir = sd_tiny_dir(), *in = sd_path_join(dir, "in"), *out = sd_path_join(dir, "out");
    sd_tiny_model t = sd_tiny_default(arch);
    sd_error err;
    sd_merge_report r;
    t.dtype = dtype;
    if (folder) cr_assert_eq(sd_mkdirs(in, &err), SD_OK, "%s", err.message);
    cr_assert_eq(folder ? sd_tiny_write_folder(in, &t, &err) : sd_tiny_write_gguf(in, &t, &err),
                 SD_OK, "%s", err.message);
    if (odd) make_odd(in);
    sd_model *base = open_at(in);
    sd_adapter *a = random_adapter(base, size);
    cr_assert_eq(sd_adapter_write_merged(out, a, base, &err), SD_OK, "%s", err.message);
    sd_model *written = open_at(out);
    cr_assert_eq(verify(&r, written, a, base, &err), SD_OK, "%s", err.message);
    cr_assert_eq(r.tensors, base->n_linears - 1);
    cr_assert(fabs(r.survived - 1) <= least, "%s: %g", sd_dtype_name(dtype), r.survived);
    // The base in the merge's place is what a merge that found no adapter would have written.
    cr_assert_eq(verify(&r, base, a, base, &err), SD_EMISMATCH);
    cr_assert(strstr(err.message, "is not the base's with the adapter in it"), "%s", err.message);
    sd_model_release(written);
    sd_adapter_release(a);
    sd_model_release(base);
    free(in);
    free(out);
    sd_tiny_remove(dir);
}

static void merge_and_verify(sd_dtype dtype, bool folder, bool odd, float size, double least) {
    merge_of(&sd_arch_llama, dtype, folder, odd, size, least);
}

// The logits of base and adapter beside those of the merged file: a map that holds several of the
// block's matrices gives each its own rows of B.
Test(merge, every_architecture_is_merged_in_both_formats) {
    for (int i = 0; sd_arch_at(i); i++)
        for (int folder = 0; folder < 2; folder++)
            merge_of(sd_arch_at(i), SD_F32, folder, false, 0.1f, 1e-4);
}

Test(merge, a_folder_whose_tensors_stand_at_odd_places_is_merged_as_any_other) {
    static const sd_dtype types[] = {SD_F32, SD_F16, SD_BF16};
    for (int i = 0; i < 3; i++) {
        merge_and_verify(types[i], true, true, 0.1f, 0.02);
        merge_and_verify(types[i], true, false, 0.1f, 0.02);
    }
}

// The rounding of 8 bits is no fault, also where it is a good share of the adapter's change.
Test(merge, a_small_adapter_in_16_bits_passes_and_most_of_it_is_there) {
    merge_and_verify(SD_BF16, true, false, 0.02f, 0.2);
    merge_and_verify(SD_F16, true, false, 0.02f, 0.02);
    merge_and_verify(SD_BF16, false, false, 0.02f, 0.2);
}

Test(merge, quantised_types_pass_with_their_share) {
    static const sd_dtype types[] = {SD_Q8_0, SD_Q4_0, SD_Q4_1, SD_Q5_0};
    for (int i = 0; i < 4; i++) merge_and_verify(types[i], false, false, 0.2f, 0.5);
}

// One element off by a few of its last places, in a merged weight and in one that was left alone.
Test(merge, a_single_wrong_element_is_found) {
    char *dir = sd_tiny_dir(), *in = sd_path_join(dir, "in.gguf"), *out = sd_path_join(dir, "o");
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_error err;
    sd_merge_report r;
    t.dtype = SD_BF16;
    cr_assert_eq(sd_tiny_write_gguf(in, &t, &err), SD_OK, "%s", err.message);
    sd_model *base = open_at(in);
    sd_adapter *a = random_adapter(base, 0.1f);
    cr_assert_eq(sd_adapter_write_merged(out, a, base, &err), SD_OK, "%s", err.message);
    sd_model *written = open_at(out);
    const uint8_t *of[] = {written->layer[1].w[SD_WDOWN].data, written->layer[0].w[SD_WO].data,
                           written->embedding.data};
    char *data;
    size_t len, at[3];
    cr_assert_eq(sd_file_read(&data, &len, out, 1 << 26, &err), SD_OK);
    for (int i = 0; i < 3; i++) {
        at[i] = (size_t)((const char *)memmem(data, len, of[i], 256) - data) + 20;
        cr_assert_lt(at[i], len);
    }
    sd_model_release(written);
    for (int i = 0; i < 3; i++) {
        data[at[i]] ^= 2;
        cr_assert_eq(sd_file_write(out, data, len, &err), SD_OK);
        data[at[i]] ^= 2;
        written = open_at(out);
        cr_assert_eq(verify(&r, written, a, base, &err), SD_EMISMATCH, "change %d", i);
        sd_model_release(written);
    }
    sd_adapter_release(a);
    sd_model_release(base);
    free(data);
    free(in);
    free(out);
    sd_tiny_remove(dir);
}
