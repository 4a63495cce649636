// Adapters: what is written is what was held, in every file form and on either kind of base.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "model/infer/compare_logits.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 24 };
static int32_t tokens[TOKENS];

typedef struct {
    char *dir;
    sd_model *folder, *gguf; // the same weights in both forms
} bases;

static sd_model *open_at(const char *path) {
    sd_model *m;
    sd_error err;
    cr_assert_eq(sd_model_open(&m, path, &err), SD_OK, "%s", err.message);
    return m;
}

static bases make_bases(const sd_arch *arch, sd_dtype dtype) {
    bases b = {.dir = sd_tiny_dir()};
    sd_error err;
    sd_tiny_model t = sd_tiny_default(arch);
    t.dtype = dtype;
    char *gguf = sd_path_join(b.dir, "tiny.gguf"), *folder = sd_path_join(b.dir, "folder");
    cr_assert_eq(sd_tiny_write_gguf(gguf, &t, &err), SD_OK, "%s", err.message);
    b.gguf = open_at(gguf);
    if (dtype == SD_F32) {
        cr_assert_eq(sd_mkdirs(folder, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_tiny_write_folder(folder, &t, &err), SD_OK, "%s", err.message);
        b.folder = open_at(folder);
    }
    for (int i = 0; i < TOKENS; i++) tokens[i] = i * 37 % 280;
    free(gguf);
    free(folder);
    return b;
}

static void free_bases(bases *b) {
    sd_model_release(b->folder);
    sd_model_release(b->gguf);
    sd_tiny_remove(b->dir);
}

// Ranks and scales that differ from slot to slot, some slots empty.
static sd_adapter *random_adapter(const sd_model *base, bool uniform) {
    int slots = base->n_linears;
    sd_lora *lora = calloc((size_t)slots, sizeof *lora);
    uint64_t state = 1;
    sd_adapter *a;
    sd_error err;
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        if (!uniform && i % 5 == 3) continue;
        rows = base->linear[i].w.rows, cols = base->linear[i].w.cols;
        lora[i].r = uniform ? 4 : 2 + i % 3;
        lora[i].scale = uniform ? 2.0f : 1.0f + 0.25f * (float)(i % 4);
        float *A = malloc(sizeof *A * (size_t)(lora[i].r * cols)),
              *B = malloc(sizeof *B * (size_t)(lora[i].r * rows));
        for (int k = 0; k < lora[i].r * cols; k++)
            A[k] = (float)(sd_mix64(state++) % 2001) * 1e-4f - 0.1f;
        for (int k = 0; k < lora[i].r * rows; k++)
            B[k] = (float)(sd_mix64(state++) % 2001) * 1e-4f - 0.1f;
        lora[i].A = A;
        lora[i].B = B;
    }
    cr_assert_eq(sd_adapter_from_factors(&a, "random", lora, base, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < slots; i++) {
        free((void *)lora[i].A);
        free((void *)lora[i].B);
    }
    free(lora);
    return a;
}

static sd_logit_difference compare(sd_model *a, sd_adapter *la, sd_model *b, sd_adapter *lb) {
    sd_logit_difference d;
    sd_error err;
    cr_assert_eq(sd_compare_logits(&d, a, la, b, lb, tokens, TOKENS, NULL, &err), SD_OK, "%s",
                 err.message);
    return d;
}

static void assert_same_factors(const sd_adapter *a, const sd_adapter *b, const sd_model *base) {
    for (int i = 0; i < a->n_linears; i++) {
        int rows, cols;
        rows = base->linear[i].w.rows, cols = base->linear[i].w.cols;
        cr_assert_eq(a->lora[i].r, b->lora[i].r);
        cr_assert_eq(a->lora[i].scale, b->lora[i].scale);
        cr_assert_arr_eq(a->lora[i].A, b->lora[i].A, sizeof(float) * (size_t)(a->lora[i].r * cols));
        cr_assert_arr_eq(a->lora[i].B, b->lora[i].B, sizeof(float) * (size_t)(a->lora[i].r * rows));
    }
}

static void round_trip(const sd_arch *arch) {
    bases b = make_bases(arch, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, true), *peft, *gguf, *on_folder;
    char *dir = sd_path_join(b.dir, "peft"), *file = sd_path_join(b.dir, "lora.gguf");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, NULL, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_write_gguf(file, a, b.gguf, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_open(&peft, dir, b.gguf, false, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_open(&gguf, file, b.gguf, false, &err), SD_OK, "%s", err.message);
    assert_same_factors(a, peft, b.gguf);
    assert_same_factors(a, gguf, b.gguf);
    // The base's hash is that of the GGUF, but the folder holds the same weights.
    cr_assert_eq(sd_adapter_open(&on_folder, dir, b.folder, false, &err), SD_OK, "%s", err.message);
    cr_assert_lt(compare(b.gguf, a, b.folder, on_folder).max_abs, 1e-4);
    sd_adapter_release(on_folder);
    sd_adapter_release(a);
    sd_adapter_release(peft);
    sd_adapter_release(gguf);
    free(dir);
    free(file);
    free_bases(&b);
}
Test(adapter, round_trips_are_bit_exact_on_llama) {
    round_trip(&sd_arch_llama);
}
Test(adapter, round_trips_are_bit_exact_on_qwen2) {
    round_trip(&sd_arch_qwen2);
}
Test(adapter, round_trips_are_bit_exact_on_qwen3) {
    round_trip(&sd_arch_qwen3);
}
Test(adapter, round_trips_are_bit_exact_on_gemma3) {
    round_trip(&sd_arch_gemma3);
}
Test(adapter, round_trips_are_bit_exact_on_phi3) {
    round_trip(&sd_arch_phi3);
}

static void names_base(const char *dir, const char *want) {
    char *path = sd_path_join(dir, "adapter_config.json");
    json_t *j = json_load_file(path, 0, NULL), *is = json_object_get(j, "base_model_name_or_path");
    cr_assert(want ? json_is_string(is) : json_is_null(is));
    if (want) cr_assert_str_eq(json_string_value(is), want);
    json_decref(j);
    free(path);
}

// What AutoPeftModel loads the base by: a GGUF's name is no repository.
Test(adapter, a_peft_folder_names_a_base_that_peft_can_load_or_none) {
    bases b = make_bases(&sd_arch_llama, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, true), *c = random_adapter(b.folder, true);
    char *dir = sd_path_join(b.dir, "peft");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, NULL, &err), SD_OK, "%s", err.message);
    names_base(dir, NULL);
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, "some/model", &err), SD_OK);
    names_base(dir, "some/model");
    cr_assert_eq(sd_adapter_write_peft(dir, c, b.folder, NULL, &err), SD_OK);
    names_base(dir, b.folder->path);
    cr_assert_eq(sd_adapter_write_peft(dir, c, b.folder, "some/model", &err), SD_OK);
    names_base(dir, "some/model");
    cr_assert_eq(sd_adapter_write_peft(dir, c, b.folder, "\xff", &err), SD_EINVAL);
    cr_assert(strstr(err.message, "not UTF-8"), "%s", err.message);
    sd_adapter_release(a);
    sd_adapter_release(c);
    free(dir);
    free_bases(&b);
}

// A file without a record of its base opens on both forms of it: rewrite the PEFT weights without
// the metadata.
static void strip_metadata(const char *dir) {
    sd_error err;
    char *data, *path = sd_path_join(dir, "adapter_model.safetensors");
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, path, 1 << 24, &err), SD_OK);
    char *at = memmem(data, len, "specdec.base_sha256", 19);
    cr_assert_not_null(at);
    memcpy(at, "x", 1);
    cr_assert_eq(sd_file_write(path, data, len, &err), SD_OK);
    free(data);
    free(path);
}

Test(adapter, the_same_peft_folder_acts_alike_on_a_folder_and_on_a_permuted_gguf) {
    bases b = make_bases(&sd_arch_llama, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.folder, true), *on_gguf;
    char *dir = sd_path_join(b.dir, "peft");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.folder, NULL, &err), SD_OK, "%s", err.message);
    strip_metadata(dir);
    cr_assert_eq(sd_adapter_open(&on_gguf, dir, b.gguf, false, &err), SD_OK, "%s", err.message);
    sd_logit_difference same = compare(b.folder, a, b.gguf, on_gguf),
                        none = compare(b.folder, a, b.gguf, NULL);
    cr_assert_lt(same.max_abs, 1e-4, "%g", same.max_abs);
    cr_assert_gt(none.max_abs, 1e-2, "the adapter changes nothing: %g", none.max_abs);
    // The planted error: factors taken over without moving the rows must be seen.
    sd_adapter *wrong;
    cr_assert_eq(sd_adapter_from_factors(&wrong, "wrong", a->lora, b.gguf, &err), SD_OK);
    cr_assert_gt(compare(b.folder, a, b.gguf, wrong).max_abs, 1e-3);
    sd_adapter_release(wrong);
    sd_adapter_release(on_gguf);
    sd_adapter_release(a);
    free(dir);
    free_bases(&b);
}

Test(adapter, mixed_ranks_and_scales_are_folded_without_changing_the_logits) {
    bases b = make_bases(&sd_arch_qwen2, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, false), *peft, *gguf;
    char *dir = sd_path_join(b.dir, "peft"), *file = sd_path_join(b.dir, "lora.gguf");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, NULL, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_write_gguf(file, a, b.gguf, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_open(&peft, dir, b.gguf, false, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_open(&gguf, file, b.gguf, false, &err), SD_OK, "%s", err.message);
    cr_assert_lt(compare(b.gguf, a, b.gguf, peft).max_abs, 1e-4);
    cr_assert_lt(compare(b.gguf, a, b.gguf, gguf).max_abs, 1e-4);
    cr_assert_gt(compare(b.gguf, a, b.gguf, NULL).max_abs, 1e-2);
    sd_adapter_release(a);
    sd_adapter_release(peft);
    sd_adapter_release(gguf);
    free(dir);
    free(file);
    free_bases(&b);
}

static sd_merge_report verified(sd_model *written, sd_adapter *a, sd_model *base) {
    sd_merge_report r;
    sd_logit_difference d;
    sd_error err;
    cr_assert_eq(sd_verify_merged(&r, &d, written, a, base, tokens, TOKENS, NULL, &err), SD_OK,
                 "%s", err.message);
    return r;
}

Test(adapter, merging_gives_the_logits_of_base_plus_adapter) {
    bases b = make_bases(&sd_arch_llama, SD_F32);
    sd_error err;
    sd_model *const from[] = {b.folder, b.gguf};
    for (int i = 0; i < 2; i++) {
        char name[24];
        snprintf(name, sizeof name, "merged%d", i);
        char *path = sd_path_join(b.dir, name);
        sd_adapter *a = random_adapter(from[i], true);
        cr_assert_eq(sd_adapter_write_merged(path, a, from[i], &err), SD_OK, "%s", err.message);
        sd_model *merged = open_at(path);
        cr_assert_float_eq(verified(merged, a, from[i]).survived, 1, 1e-5);
        cr_assert_lt(compare(from[i], a, merged, NULL).max_abs, 1e-4);
        sd_model_release(merged);
        sd_adapter_release(a);
        free(path);
    }
    free_bases(&b);
}

Test(adapter, a_merge_into_few_bits_says_how_much_survived) {
    bases b = make_bases(&sd_arch_qwen2, SD_Q8_0);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, true);
    char *path = sd_path_join(b.dir, "merged.gguf");
    cr_assert_eq(sd_adapter_write_merged(path, a, b.gguf, &err), SD_OK, "%s", err.message);
    sd_model *merged = open_at(path);
    double survived = verified(merged, a, b.gguf).survived;
    cr_assert(survived > 0.5 && survived < 1.5 && fabs(survived - 1) > 1e-7, "%g", survived);
    cr_assert_lt(compare(b.gguf, a, merged, NULL).mean_kl,
                 compare(b.gguf, a, b.gguf, NULL).mean_kl);
    sd_model_release(merged);
    sd_adapter_release(a);
    free(path);
    free_bases(&b);
}

// PiSSA's factors are for a base less its principal part: on the plain base they would be wrong.
Test(adapter, one_that_goes_with_a_changed_base_is_refused) {
    bases b = make_bases(&sd_arch_llama, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, true), *other;
    char *dir = sd_path_join(b.dir, "peft"), *config = sd_path_join(dir, "adapter_config.json");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, NULL, &err), SD_OK);
    static const char text[] = "{\"peft_type\": \"LORA\", \"lora_alpha\": 16, "
                               "\"init_lora_weights\": \"pissa_niter_16\"}";
    cr_assert_eq(sd_file_write(config, text, strlen(text), &err), SD_OK);
    cr_assert_eq(sd_adapter_open(&other, dir, b.gguf, false, &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "pissa"), "%s", err.message);
    sd_adapter_release(a);
    free(dir);
    free(config);
    free_bases(&b);
}

Test(adapter, one_of_another_base_is_refused_with_both_shapes) {
    bases b = make_bases(&sd_arch_llama, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, true), *other;
    char *dir = sd_path_join(b.dir, "peft"), *path = sd_path_join(b.dir, "wide.gguf");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, NULL, &err), SD_OK);
    sd_tiny_model wide = sd_tiny_default(&sd_arch_llama);
    wide.F = 128;
    cr_assert_eq(sd_tiny_write_gguf(path, &wide, &err), SD_OK);
    sd_model *m = open_at(path);
    cr_assert_eq(sd_adapter_open(&other, dir, m, false, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "96") && strstr(err.message, "128"), "%s", err.message);
    cr_assert_eq(sd_adapter_open(&other, "/nonexistent", m, false, &err), SD_ENOTFOUND);
    sd_model_release(m);
    sd_adapter_release(a);
    free(dir);
    free(path);
    free_bases(&b);
}

Test(adapter, one_that_changed_after_its_run_is_refused) {
    bases b = make_bases(&sd_arch_qwen2, SD_F32);
    sd_error err;
    sd_adapter *a = random_adapter(b.gguf, true), *opened;
    char *run = sd_path_join(b.dir, "run"), *dir = sd_path_join(run, "adapter");
    char *manifest = sd_path_join(run, "manifest.json");
    cr_assert_eq(sd_adapter_write_peft(dir, a, b.gguf, NULL, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_open(&opened, run, b.gguf, false, &err), SD_OK, "%s", err.message);
    char *text =
        sd_sprintf("{\"artefacts\": {\"adapter\": {\"sha256\": \"%s\"}}}", opened->sha256.hex);
    sd_adapter_release(opened);
    cr_assert_eq(sd_file_write(manifest, text, strlen(text), &err), SD_OK);
    cr_assert_eq(sd_adapter_open(&opened, run, b.gguf, false, &err), SD_OK, "%s", err.message);
    sd_adapter_release(opened);
    char *digit = strstr(text, "sha256") + 10;
    *digit = *digit == '0' ? '1' : '0';
    cr_assert_eq(sd_file_write(manifest, text, strlen(text), &err), SD_OK);
    cr_assert_eq(sd_adapter_open(&opened, run, b.gguf, false, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "manifest") && !opened, "%s", err.message);
    cr_assert_eq(sd_file_write(manifest, "{}", 2, &err), SD_OK);
    cr_assert_eq(sd_adapter_open(&opened, run, b.gguf, false, &err), SD_EFORMAT);
    sd_adapter_release(a);
    free(text);
    free(run);
    free(dir);
    free(manifest);
    free_bases(&b);
}
