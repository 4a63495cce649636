// A folder's JSON files: a number in another spelling is the same number, null is absent, and a key
// that cannot be read as what it should be is refused by file and name.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/model.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char *root, *dir;
} folder;

static folder make_folder(const sd_arch *arch) {
    folder f = {.root = sd_tiny_dir()};
    sd_tiny_model t = sd_tiny_default(arch);
    sd_error err;
    sd_log_set_level(SD_LOG_ERROR);
    t.L = 1;
    f.dir = sd_path_join(f.root, "m");
    cr_assert_eq(sd_mkdirs(f.dir, &err), SD_OK);
    cr_assert_eq(sd_tiny_write_folder(f.dir, &t, &err), SD_OK, "%s", err.message);
    return f;
}
static void free_folder(folder *f) {
    free(f->dir);
    sd_tiny_remove(f->root);
}

// Sets a key (a path with dots) of a file to a JSON value, opens the folder, puts the file back.
static sd_status with(const folder *f, const char *name, const char *key, const char *value,
                      sd_model **m, sd_error *err) {
    char *path = sd_path_join(f->dir, name), *before = NULL, part[64];
    size_t len = 0;
    sd_path_kind kind;
    cr_assert_eq(sd_path_look(&kind, path, NULL), SD_OK);
    if (kind == SD_PATH_FILE) cr_assert_eq(sd_file_read(&before, &len, path, 1 << 24, NULL), SD_OK);
    json_t *root = before ? json_loadb(before, len, 0, NULL) : json_object(), *o = root;
    for (const char *dot; (dot = strchr(key, '.')); key = dot + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - key), key);
        json_t *next =
            json_is_array(o) ? json_array_get(o, (size_t)atoi(part)) : json_object_get(o, part);
        cr_assert_not_null(next, "%s", part);
        o = next;
    }
    cr_assert_eq(json_object_set_new(o, key, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    char *text = json_dumps(root, 0);
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    *m = NULL;
    sd_status st = sd_model_open(m, f->dir, err);
    if (before)
        cr_assert_eq(sd_file_write(path, before, len, NULL), SD_OK);
    else
        cr_assert_eq(remove(path), 0);
    json_decref(root);
    free(text);
    free(before);
    free(path);
    return st;
}

static void refused(const folder *f, const char *name, const char *key, const char *value) {
    sd_model *m;
    sd_error err;
    const char *leaf = strrchr(key, '.') ? strrchr(key, '.') + 1 : key;
    cr_assert_eq(with(f, name, key, value, &m, &err), SD_EFORMAT, "%s %s: %s", name, key, value);
    cr_assert(strstr(err.message, name) && strstr(err.message, leaf), "%s: %s", key, err.message);
}

static void taken(const folder *f, const char *name, const char *key, const char *value) {
    sd_model *m;
    sd_error err;
    cr_assert_eq(with(f, name, key, value, &m, &err), SD_OK, "%s: %s", key, err.message);
    cr_assert(m->hp.C == 64 && m->hp.ctx_train == 512 && m->tokenizer, "%s", key);
    sd_model_release(m);
}

Test(folder_keys, a_number_in_another_spelling_is_the_same_and_null_is_absent) {
    folder f = make_folder(&sd_arch_llama);
    taken(&f, "config.json", "hidden_size", "64.0");
    taken(&f, "config.json", "max_position_embeddings", "512.0");
    taken(&f, "config.json", "sliding_window", "null");
    taken(&f, "config.json", "attention_bias", "null");
    taken(&f, "config.json", "rope_scaling", "null");
    taken(&f, "config.json", "eos_token_id", "[287.0, 285]");
    taken(&f, "config.json", "eos_token_id", "-1");
    taken(&f, "generation_config.json", "eos_token_id", "null");
    taken(&f, "tokenizer_config.json", "add_bos_token", "null");
    taken(&f, "tokenizer_config.json", "bos_token", "null");
    taken(&f, "tokenizer_config.json", "chat_template", "null");
    free_folder(&f);
}

Test(folder_keys, a_key_that_cannot_be_read_is_refused_by_file_and_name) {
    folder f = make_folder(&sd_arch_llama);
    static const char *const rows[][2] = {{"model_type", "5"},
                                          {"num_hidden_layers", "\"1\""},
                                          {"hidden_size", "64.5"},
                                          {"intermediate_size", "-96"},
                                          {"num_attention_heads", "true"},
                                          {"num_key_value_heads", "\"2\""},
                                          {"head_dim", "[16]"},
                                          {"vocab_size", "1e20"},
                                          {"max_position_embeddings", "{}"},
                                          {"rms_norm_eps", "\"1e-5\""},
                                          {"rope_theta", "\"10000\""},
                                          {"rope_scaling", "\"linear\""},
                                          {"rope_parameters", "[]"},
                                          {"partial_rotary_factor", "\"1\""},
                                          {"hidden_act", "1"},
                                          {"tie_word_embeddings", "\"true\""},
                                          {"attention_bias", "\"yes\""},
                                          {"mlp_bias", "1"},
                                          {"use_sliding_window", "1"},
                                          {"sliding_window", "\"64\""},
                                          {"eos_token_id", "\"<|im_end|>\""},
                                          {"eos_token_id", "[287, \"x\"]"},
                                          {"eos_token_id", "288"},
                                          {"eos_token_id", "1.5"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(&f, "config.json", rows[i][0], rows[i][1]);
    refused(&f, "generation_config.json", "eos_token_id", "true");
    refused(&f, "generation_config.json", "eos_token_id", "9999");
    refused(&f, "tokenizer_config.json", "chat_template", "5");
    refused(&f, "tokenizer_config.json", "chat_template",
            "[{\"name\": \"tool\", \"template\": \"x\"}]");
    free_folder(&f);
}

Test(folder_keys, rotary_keys_of_another_type_are_refused) {
    folder f = make_folder(&sd_arch_llama);
    static const char *const scalings[][2] = {
        {"{\"rope_type\": 5}", "rope_type"},
        {"{\"type\": []}", "type"},
        {"{\"rope_type\": \"linear\", \"factor\": \"2\"}", "factor"},
        {"{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": \"1\"}",
         "low_freq_factor"},
        {"{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": \"64\"}",
         "original_max_position_embeddings"},
        {"{\"rope_type\": \"yarn\", \"factor\": 2, \"truncate\": \"no\"}", "truncate"}};
    for (size_t i = 0; i < sizeof scalings / sizeof scalings[0]; i++) {
        sd_model *m;
        sd_error err;
        cr_assert_eq(with(&f, "config.json", "rope_scaling", scalings[i][0], &m, &err), SD_EFORMAT,
                     "%s", scalings[i][0]);
        cr_assert(strstr(err.message, scalings[i][1]), "%s: %s", scalings[i][1], err.message);
    }
    free_folder(&f);
}

// What only the tokenizer needs leaves the model without one, and says why.
Test(folder_keys, a_tokenizer_key_that_cannot_be_read_is_named) {
    folder f = make_folder(&sd_arch_llama);
    static const char *const rows[][3] = {
        {"tokenizer.json", "added_tokens.0.special", "\"yes\""},
        {"tokenizer.json", "added_tokens.0.lstrip", "1"},
        {"tokenizer.json", "added_tokens.0.normalized", "\"\""},
        {"tokenizer.json", "model.type", "1"},
        {"tokenizer.json", "model.ignore_merges", "1"},
        {"tokenizer.json", "model.byte_fallback", "true"},
        {"tokenizer.json", "model.dropout", "\"0\""},
        {"tokenizer.json", "model.unk_token", "3"},
        {"tokenizer.json", "model.continuing_subword_prefix", "3"},
        {"tokenizer_config.json", "bos_token", "5"},
        {"tokenizer_config.json", "eos_token", "[\"x\"]"},
        {"tokenizer_config.json", "add_bos_token", "\"false\""}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_model *m;
        sd_error err;
        const char *leaf = strrchr(rows[i][1], '.') ? strrchr(rows[i][1], '.') + 1 : rows[i][1];
        cr_assert_eq(with(&f, rows[i][0], rows[i][1], rows[i][2], &m, &err), SD_OK, "%s: %s",
                     rows[i][1], err.message);
        cr_assert(!m->tokenizer && m->tokenizer_error && strstr(m->tokenizer_error, leaf), "%s: %s",
                  rows[i][1], m->tokenizer_error ? m->tokenizer_error : "taken");
        sd_model_release(m);
    }
    free_folder(&f);
}

Test(folder_keys, a_sentencepiece_folder_is_named_as_such) {
    folder f = make_folder(&sd_arch_llama);
    sd_model *m;
    sd_error err;
    char *from = sd_path_join(f.dir, "tokenizer.json"),
         *to = sd_path_join(f.dir, "tokenizer.model");
    cr_assert_eq(sd_rename_new(from, to, &err), SD_OK);
    cr_assert_eq(sd_model_open(&m, f.dir, &err), SD_OK, "%s", err.message);
    cr_assert(m->tokenizer_error && strstr(m->tokenizer_error, "SentencePiece"));
    sd_model_release(m);
    free(from);
    free(to);
    free_folder(&f);
}

// transformers counts them in double.
Test(folder_keys, the_dimensions_that_turn_are_counted_as_elsewhere) {
    for (int dim = 2; dim <= 20; dim += 2) {
        char *dir = sd_tiny_dir();
        sd_tiny_model t = sd_tiny_default(&sd_arch_phi3);
        sd_model *m;
        sd_error err;
        t.L = 1, t.D = 20, t.rope_dim = dim;
        cr_assert_eq(sd_tiny_write_folder(dir, &t, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_model_open(&m, dir, &err), SD_OK, "%d: %s", dim, err.message);
        cr_assert_eq(m->hp.rope_dim, dim);
        sd_model_release(m);
        sd_tiny_remove(dir);
    }
}
