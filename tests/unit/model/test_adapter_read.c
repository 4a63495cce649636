// What an adapter's files may hold, and on which base it may be put: everything else is refused in
// words that name what is really there.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "model/formats/safetensors.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static sd_model *make_model(const char *path, sd_dtype dtype, uint64_t seed, bool folder) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m;
    sd_error err;
    t.dtype = dtype;
    t.seed = seed;
    if (folder) cr_assert_eq(sd_mkdirs(path, &err), SD_OK);
    cr_assert_eq(folder ? sd_tiny_write_folder(path, &t, &err) : sd_tiny_write_gguf(path, &t, &err),
                 SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_open(&m, path, &err), SD_OK, "%s", err.message);
    return m;
}

static const char good_config[] = "{\"peft_type\": \"LORA\", \"lora_alpha\": 8, \"r\": 2}";

typedef struct {
    char *dir, *peft;
    sd_model *base;
} fixture;

static fixture make_fixture(void) {
    fixture f = {.dir = sd_tiny_dir()};
    char *path = sd_path_join(f.dir, "base.gguf");
    sd_log_set_level(SD_LOG_ERROR);
    f.base = make_model(path, SD_F32, 1, false);
    f.peft = sd_path_join(f.dir, "peft");
    free(path);
    return f;
}
static void free_fixture(fixture *f) {
    sd_model_release(f->base);
    free(f->peft);
    sd_tiny_remove(f->dir);
}

// q of layer 0 with these names, one value in A and one in B set.
static void write_peft(const char *dir, const char *config, const char *a, const char *b, float x,
                       float y) {
    float A[2 * 64], B[64 * 2];
    char path[512];
    sd_error err;
    for (int i = 0; i < 128; i++) A[i] = B[i] = 0.01f * (float)(i % 7 - 3);
    A[17] = x;
    B[101] = y;
    sd_st_tensor t[2] = {
        {.name = a, .dtype = SD_F32, .n_dims = 2, .shape = {2, 64}, .data = A, .bytes = sizeof A},
        {.name = b, .dtype = SD_F32, .n_dims = 2, .shape = {64, 2}, .data = B, .bytes = sizeof B}};
    cr_assert_eq(sd_mkdirs(dir, &err), SD_OK);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    cr_assert_eq(sd_safetensors_write(path, t, 2, NULL, &err), SD_OK, "%s", err.message);
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    cr_assert_eq(sd_file_write(path, config, strlen(config), &err), SD_OK);
}

#define Q0 "base_model.model.model.layers.0.self_attn.q_proj.lora_"

static void refused(const fixture *f, sd_status want, const char *words) {
    sd_adapter *a;
    sd_error err;
    cr_assert_eq(sd_adapter_open(&a, f->peft, f->base, false, &err), want, "want: %s", words);
    cr_assert(strstr(err.message, words), "%s, not: %s", err.message, words);
}

Test(adapter_read, factors_under_the_adapters_name_are_read_like_plain_ones) {
    fixture f = make_fixture();
    sd_adapter *a, *b;
    sd_error err;
    write_peft(f.peft, good_config, Q0 "A.weight", Q0 "B.weight", 1, 2);
    cr_assert_eq(sd_adapter_open(&a, f.peft, f.base, false, &err), SD_OK, "%s", err.message);
    write_peft(f.peft, good_config, Q0 "A.default.weight", Q0 "B.default.weight", 1, 2);
    cr_assert_eq(sd_adapter_open(&b, f.peft, f.base, false, &err), SD_OK, "%s", err.message);
    cr_assert_arr_eq(a->lora[0].A, b->lora[0].A, 128 * sizeof(float));
    cr_assert_arr_eq(a->lora[0].B, b->lora[0].B, 128 * sizeof(float));
    sd_adapter_release(a);
    sd_adapter_release(b);
    write_peft(f.peft, good_config, Q0 "A.weight", Q0 "A.default.weight", 1, 2);
    refused(&f, SD_EFORMAT, "are the same factor of two adapters");
    free_fixture(&f);
}

Test(adapter_read, a_tensor_that_is_no_factor_here_is_named_for_what_it_is) {
    fixture f = make_fixture();
    static const struct {
        const char *name, *words;
        sd_status status;
    } rows[] = {
        {"base_model.model.model.layers.9.self_attn.q_proj.lora_B.weight", "has 2 layers",
         SD_EINVAL},
        {"base_model.model.lm_head.lora_B.weight", "not of a block's layer", SD_EFORMAT},
        {"base_model.model.model.embed_tokens.lora_embedding_B", "not named as PEFT", SD_EFORMAT},
        {Q0 "magnitude_vector", "not named as PEFT", SD_EFORMAT},
        {Q0 "B.bias", "not named as PEFT", SD_EFORMAT},
        {"model.layers.0.self_attn.q_proj.lora_B.weight", "not named as PEFT", SD_EFORMAT},
        {"base_model.model.model.layers.0.mlp.experts.lora_B.weight",
         "a module that has no factors", SD_EFORMAT},
        {"base_model.model.model.layers.0.mlp.up_proj.lora_B.weight", "has no partner",
         SD_EFORMAT}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_peft(f.peft, good_config, Q0 "A.weight", rows[i].name, 1, 2);
        refused(&f, rows[i].status, rows[i].words);
    }
    free_fixture(&f);
}

Test(adapter_read, values_that_are_not_finite_are_refused_by_the_tensors_name) {
    fixture f = make_fixture();
    const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (int i = 0; i < 4; i++) {
        write_peft(f.peft, good_config, Q0 "A.weight", Q0 "B.weight", bad[i], 2);
        refused(&f, SD_EFORMAT, Q0 "A.weight holds");
        write_peft(f.peft, good_config, Q0 "A.weight", Q0 "B.weight", 1, bad[i]);
        refused(&f, SD_EFORMAT, Q0 "B.weight holds");
    }
    // Each alone is finite, their product with the scale is not.
    write_peft(f.peft, "{\"peft_type\": \"LORA\", \"lora_alpha\": 1e20}", Q0 "A.weight",
               Q0 "B.weight", 1, 1e19f);
    refused(&f, SD_EFORMAT, Q0 "B.weight holds");
    free_fixture(&f);
}

Test(adapter_read, a_key_of_the_configuration_that_cannot_be_read_is_refused_by_name) {
    fixture f = make_fixture();
    static const char *const keys[][2] = {
        {"\"use_dora\": \"yes\"", "use_dora is \"yes\", where true or false is needed"},
        {"\"lora_alpha\": 8, \"use_rslora\": 1", "use_rslora is 1, where true or false is needed"},
        {"\"fan_in_fan_out\": \"false\"", "fan_in_fan_out is \"false\""},
        {"\"lora_alpha\": \"16\"", "lora_alpha is \"16\", where a number in range is needed"},
        {"\"lora_alpha\": 1e300", "lora_alpha is 1.0"},
        {"\"lora_alpha\": null", "lora_alpha is missing"},
        {"\"lora_alpha\": 8, \"alpha_pattern\": [1]", "alpha_pattern is [1], where an object"},
        {"\"lora_alpha\": 8, \"alpha_pattern\": {\"q_proj\": \"4\"}", "q_proj is \"4\""},
        {"\"lora_alpha\": 8, \"alpha_pattern\": {\"q_(proj\": 4}", "no regular expression"},
        {"\"lora_alpha\": 8, \"modules_to_save\": \"lm_head\"", "modules_to_save is \"lm_head\""}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char config[256];
        snprintf(config, sizeof config, "{\"peft_type\": \"LORA\", %s}", keys[i][0]);
        write_peft(f.peft, config, Q0 "A.weight", Q0 "B.weight", 1, 2);
        refused(&f, SD_EFORMAT, keys[i][1]);
    }
    free_fixture(&f);
}

Test(adapter_read, a_pickle_is_refused_with_the_way_out) {
    fixture f = make_fixture();
    sd_error err;
    write_peft(f.peft, good_config, Q0 "A.weight", Q0 "B.weight", 1, 2);
    char *from = sd_path_join(f.peft, "adapter_model.safetensors"),
         *to = sd_path_join(f.peft, "adapter_model.bin");
    cr_assert_eq(sd_rename_new(from, to, &err), SD_OK);
    refused(&f, SD_EFORMAT, "is a pickle");
    refused(&f, SD_EFORMAT, "save the adapter as safetensors");
    free(from);
    free(to);
    free_fixture(&f);
}

// The files are read and closed: what happens to them afterwards does not reach the adapter.
Test(adapter_read, its_files_may_be_cut_while_it_is_used) {
    fixture f = make_fixture();
    sd_adapter *a;
    sd_error err;
    write_peft(f.peft, good_config, Q0 "A.weight", Q0 "B.weight", 1, 2);
    cr_assert_eq(sd_adapter_open(&a, f.peft, f.base, false, &err), SD_OK, "%s", err.message);
    char *path = sd_path_join(f.peft, "adapter_model.safetensors");
    cr_assert_eq(truncate(path, 10), 0);
    cr_assert_eq(a->lora[0].A[17], 1);
    cr_assert_eq(a->lora[0].scale, 4);
    sd_adapter_release(a);
    free(path);
    free_fixture(&f);
}

static sd_adapter *ones(const sd_model *m) {
    sd_lora lora[64] = {0};
    float A[2 * 96], B[96 * 2];
    sd_adapter *a;
    sd_error err;
    for (int i = 0; i < 192; i++) A[i] = B[i] = 0.01f * (float)(i % 11 - 5);
    for (int i = 0; i < m->n_linears; i++) lora[i] = (sd_lora){.r = 2, .A = A, .B = B, .scale = 1};
    cr_assert_eq(sd_adapter_from_factors(&a, "ones", lora, m, &err), SD_OK, "%s", err.message);
    return a;
}

// Trained on a 4-bit file, put on the 16-bit weights: the way an adapter of a quantised base goes.
Test(adapter_read, the_same_model_in_another_precision_is_taken_and_another_model_is_not) {
    char *dir = sd_tiny_dir();
    sd_error err;
    sd_adapter *a, *on;
    const char *names[] = {"q4.gguf", "q8.gguf", "f32", "bf16", "other", "other.gguf"};
    const sd_dtype types[] = {SD_Q4_1, SD_Q8_0, SD_F32, SD_BF16, SD_BF16, SD_Q4_1};
    sd_model *m[6];
    sd_log_set_level(SD_LOG_ERROR);
    for (int i = 0; i < 6; i++) {
        char *path = sd_path_join(dir, names[i]);
        m[i] = make_model(path, types[i], i < 4 ? 1 : 2, i >= 2 && i <= 4);
        free(path);
    }
    char *peft = sd_path_join(dir, "peft"), *gguf = sd_path_join(dir, "lora.gguf"),
         *again = sd_path_join(dir, "again");
    a = ones(m[0]);
    cr_assert_eq(sd_adapter_write_peft(peft, a, m[0], NULL, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_write_gguf(gguf, a, m[0], &err), SD_OK, "%s", err.message);
    sd_adapter_release(a);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(sd_adapter_open(&on, peft, m[i], false, &err), SD_OK, "%s", err.message);
        sd_adapter_release(on);
        cr_assert_eq(sd_adapter_open(&on, gguf, m[i], false, &err), SD_OK, "%s", err.message);
        // Written again from there it still says what it was trained on.
        if (i == 3) cr_assert_eq(sd_adapter_write_peft(again, on, m[i], NULL, &err), SD_OK);
        sd_adapter_release(on);
    }
    sd_sha256 trained_on, here;
    cr_assert_eq(sd_model_sha256(m[0], &trained_on, &err), SD_OK);
    cr_assert_eq(sd_adapter_open(&on, again, m[2], false, &err), SD_OK, "%s", err.message);
    cr_assert(sd_sha256_equal(&on->base_sha256, &trained_on));
    sd_adapter_release(on);
    for (int i = 4; i < 6; i++) {
        cr_assert_eq(sd_adapter_open(&on, peft, m[i], false, &err), SD_EINVAL);
        cr_assert_eq(sd_model_sha256(m[i], &here, NULL), SD_OK);
        char both[2][16];
        snprintf(both[0], sizeof both[0], "%.12s", trained_on.hex);
        snprintf(both[1], sizeof both[1], "%.12s", here.hex);
        cr_assert(strstr(err.message, both[0]) && strstr(err.message, both[1]) &&
                      strstr(err.message, "weights differ by about 1") &&
                      strstr(err.message, "--other-base"),
                  "%s", err.message);
        cr_assert_eq(sd_adapter_open(&on, peft, m[i], true, &err), SD_OK, "%s", err.message);
        sd_adapter_release(on);
    }
    for (int i = 0; i < 6; i++) sd_model_release(m[i]);
    free(peft);
    free(gguf);
    free(again);
    sd_tiny_remove(dir);
}

// The same precision with other bytes is another model, however near: a merge of the adapter, as a
// rule, which would then be applied twice.
Test(adapter_read, a_near_model_of_the_same_precision_is_refused) {
    char *dir = sd_tiny_dir();
    sd_error err;
    sd_adapter *on;
    char *in = sd_path_join(dir, "in"), *merged = sd_path_join(dir, "merged"),
         *peft = sd_path_join(dir, "peft");
    sd_model *base = make_model(in, SD_BF16, 1, true), *m;
    sd_adapter *a = ones(base);
    cr_assert_eq(sd_adapter_write_peft(peft, a, base, NULL, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_write_merged(merged, a, base, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_open(&m, merged, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_adapter_open(&on, peft, m, false, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "whose weights differ by about"), "%s", err.message);
    sd_adapter_release(a);
    sd_model_release(m);
    sd_model_release(base);
    free(in);
    free(merged);
    free(peft);
    sd_tiny_remove(dir);
}
