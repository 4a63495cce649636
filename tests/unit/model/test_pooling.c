// What models say of vectors and ranks: GGUF's keys, sentence-transformers' files, classifiers; and the tokens around a
// text.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static sd_model *open_gguf(int pooling, int labels, const char *pair) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen3);
    t.pooling = pooling, t.labels = labels, t.pair = pair;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

Test(pooling, a_gguf_file_says_its_type) {
    static const sd_pooling want[] = {SD_POOL_NONE, SD_POOL_MEAN, SD_POOL_OTHER,
                                      SD_POOL_LAST, SD_POOL_LAST, SD_POOL_OTHER};
    for (int i = 0; i < 6; i++) {
        sd_model *m = open_gguf(i, 0, NULL);
        cr_expect_eq(m->output.pooling, want[i], "type %d", i);
        cr_expect(!m->output.rank && !m->output.no_head && m->output.unit);
        sd_model_release(m);
    }
}

static int count(const sd_tokenizer *t, const char *text, int flags, int32_t *last) {
    sd_ids ids = {0};
    sd_error err = {0};
    cr_assert_eq(sd_tokenizer_encode(t, text, strlen(text), flags, &ids, &err), SD_OK);
    int n = ids.n;
    if (n > 0) *last = ids.id[n - 1];
    sd_ids_free(&ids);
    return n;
}

Test(pooling, the_end_token_stands_behind_a_text_where_that_is_asked) {
    sd_model *m = open_gguf(3, 0, NULL), *plain = open_gguf(0, 0, NULL);
    int32_t last = -1;
    const int n = count(m->tokenizer, "a text", 0, &last);
    cr_expect_eq(count(m->tokenizer, "a text", SD_TOK_ADD_LAST, &last), n + 1);
    cr_expect_eq(last, sd_tokenizer_eos(m->tokenizer));
    cr_expect_eq(count(m->tokenizer, "", SD_TOK_ADD_LAST, &last), 1);
    cr_expect_eq(count(plain->tokenizer, "a text", SD_TOK_ADD_LAST, &last), n);
    sd_model_release(m), sd_model_release(plain);
}

Test(pooling, a_classifier_of_yes_and_no_ranks_by_their_difference) {
    sd_model *m = open_gguf(4, 2, "<Q>{query}<D>{document}");
    cr_assert_not_null(m->output.rank);
    cr_expect_eq(m->output.labels, 2);
    cr_expect_str_eq(m->output.pair, "<Q>{query}<D>{document}");
    for (int c = 0; c < m->hp.C; c++)
        cr_assert_eq(m->output.rank[c], sd_tiny_label(0, c) - sd_tiny_label(1, c));
    sd_model_release(m);
}

// ---- folders

typedef struct {
    char *dir;
    sd_tiny_model t;
} folder;

static folder make(bool bare) {
    folder f = {.dir = sd_tiny_dir(), .t = sd_tiny_default(&sd_arch_llama)};
    sd_error err = {0};
    f.t.bare = f.t.tied = bare;
    cr_assert_eq(sd_tiny_write_folder(f.dir, &f.t, &err), SD_OK, "%s", err.message);
    return f;
}

static void put(const folder *f, const char *name, const char *text) {
    sd_error err = {0};
    char *path = sd_path_join(f->dir, name), *slash = strrchr(path, '/');
    *slash = '\0';
    cr_assert_eq(sd_mkdirs(path, &err), SD_OK);
    *slash = '/';
    cr_assert_eq(sd_file_write(path, text, strlen(text), &err), SD_OK, "%s", err.message);
    free(path);
}

static sd_model *open_folder(const folder *f) {
    sd_model *m;
    sd_error err = {0};
    cr_assert_eq(sd_model_open(&m, f->dir, &err), SD_OK, "%s", err.message);
    return m;
}

#define MODULE(path, type)                                                                         \
    "{\"path\":\"" path "\",\"type\":\"sentence_transformers.models." type "\"}"

Test(pooling, modules_say_how_a_folder_pools) {
    static const struct {
        const char *modules, *pooling;
        sd_pooling want;
        bool unit;
    } rows[] = {
        {"[" MODULE("", "Transformer") "]", "{}", SD_POOL_NONE, false},
        {"[" MODULE("1_Pooling", "Pooling") "]", "{\"pooling_mode_mean_tokens\":true}",
         SD_POOL_MEAN, false},
        {"[" MODULE("1_Pooling", "Pooling") "," MODULE("2_Normalize", "Normalize") "]",
         "{\"pooling_mode_lasttoken\":true,\"pooling_mode_mean_tokens\":false}", SD_POOL_LAST,
         true},
        {"[" MODULE("1_Pooling", "Pooling") "]", "{\"pooling_mode\":\"mean\"}", SD_POOL_MEAN,
         false},
        {"[" MODULE("1_Pooling", "Pooling") "]",
         "{\"pooling_mode_lasttoken\":true,\"pooling_mode_mean_tokens\":true}", SD_POOL_OTHER,
         false},
        {"[" MODULE("1_Pooling", "Pooling") "]", "{\"pooling_mode_cls_token\":true}", SD_POOL_OTHER,
         false},
        {"[" MODULE("../elsewhere", "Pooling") "]", "{\"pooling_mode\":\"mean\"}", SD_POOL_OTHER,
         false},
        {"[" MODULE("1_Pooling", "Pooling") "," MODULE("2_Dense", "Dense") "]",
         "{\"pooling_mode\":\"mean\"}", SD_POOL_OTHER, false},
        {"[7,{\"type\":7}]", "{}", SD_POOL_OTHER, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        folder f = make(false);
        put(&f, "modules.json", rows[i].modules);
        put(&f, "1_Pooling/config.json", rows[i].pooling);
        sd_model *m = open_folder(&f);
        cr_expect_eq(m->output.pooling, rows[i].want, "row %zu", i);
        cr_expect_eq(m->output.unit, rows[i].unit, "row %zu", i);
        sd_model_release(m);
        sd_tiny_remove(f.dir);
    }
}

Test(pooling, modules_that_are_no_list_are_refused) {
    static const char *const bad[] = {"{}", "7", "[", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        folder f = make(false);
        sd_model *m;
        sd_error err = {0};
        put(&f, "modules.json", bad[i]);
        cr_expect_eq(sd_model_open(&m, f.dir, &err), SD_EFORMAT, "%s", bad[i]);
        cr_expect(strstr(err.message, "modules.json"), "%s", err.message);
        sd_tiny_remove(f.dir);
    }
}

Test(pooling, a_folder_saved_without_its_head_opens_and_says_so) {
    folder f = make(true);
    sd_model *m = open_folder(&f);
    cr_expect(m->output.no_head);
    cr_expect_eq(m->head.data, m->embedding.data);
    sd_model_release(m);
    sd_tiny_remove(f.dir);
}

Test(pooling, a_text_of_a_folder_ends_with_what_its_tokenizer_puts_there) {
    folder f = make(false);
    char *path = sd_path_join(f.dir, "tokenizer.json");
    json_t *j = json_load_file(path, 0, NULL);
    json_object_set_new(j, "post_processor",
                        json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:{s:{s:s, s:[i]}}}",
                                  "type", "TemplateProcessing", "single", "Sequence", "id", "A",
                                  "type_id", 0, "SpecialToken", "id", "<|im_end|>", "type_id", 0,
                                  "special_tokens", "<|im_end|>", "id", "<|im_end|>", "ids", 287));
    char *text = json_dumps(j, 0);
    put(&f, "tokenizer.json", text);
    sd_model *m = open_folder(&f);
    int32_t last = -1;
    cr_assert_not_null(m->tokenizer, "%s", m->tokenizer_error ? m->tokenizer_error : "");
    const int n = count(m->tokenizer, "a text", SD_TOK_ADD_BOS, &last);
    cr_expect_eq(count(m->tokenizer, "a text", SD_TOK_ADD_BOS | SD_TOK_ADD_LAST, &last), n + 1);
    cr_expect_eq(last, 287);
    json_decref(j);
    free(text), free(path);
    sd_model_release(m);
    sd_tiny_remove(f.dir);
}
