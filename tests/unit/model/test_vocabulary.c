// A tokenizer without weights: what opens as one, what is refused as one.
#include "base/files/path.h"
#include "base/memory.h"
#include "model/load/vocabulary.h"
#include "model/model.h"
#include "tests/unit/support/pieces.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void write_file(const char *path, const void *data, size_t len) {
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, len, f) == len && fclose(f) == 0);
}

static void model_refuses(const char *path, const char *named) {
    sd_model *m = NULL;
    sd_error err = {0};
    cr_expect_neq(sd_model_open(&m, path, &err), SD_OK);
    cr_expect(strstr(err.message, named), "%s", err.message);
    sd_model_release(m);
}

static bool is_alone(const char *path) {
    bool alone = false;
    sd_error err = {0};
    cr_assert_eq(sd_vocabulary_is(&alone, path, &err), SD_OK, "%s", err.message);
    return alone;
}

Test(vocabulary, a_file_without_tensors_serves_its_tokenizer) {
    static const piece rows[] = {{"a", -1, PIECE_NORMAL}};
    pieces_file f = pieces_make(&(pieces_recipe){.row = rows, .n = 1, .bytes = true});
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "v.gguf");
    sd_vocabulary *v;
    sd_error err = {0};
    write_file(path, f.data, f.len);
    cr_assert(is_alone(path));
    cr_assert_eq(sd_vocabulary_open(&v, path, &err), SD_OK, "%s", err.message);
    cr_assert(v->tokenizer && v->gguf && !v->tokenizer_error);
    cr_assert_eq(v->V, 257);
    sd_vocabulary_close(v);
    model_refuses(path, "is a vocabulary without weights");
    pieces_free(&f);
    free(path);
    sd_tiny_remove(dir);
}

Test(vocabulary, a_file_cut_within_its_metadata_is_no_vocabulary) {
    static const piece rows[] = {{"a", -1, PIECE_NORMAL}};
    pieces_file f = pieces_make(&(pieces_recipe){.row = rows, .n = 1, .bytes = true});
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "v.gguf");
    for (size_t n = f.len - 1; n > 0; n -= n < 400 ? n : 397) {
        sd_vocabulary *v = NULL;
        sd_error err = {0};
        write_file(path, f.data, n);
        cr_expect_eq(sd_vocabulary_open(&v, path, &err), SD_EFORMAT, "%zu bytes", n);
        cr_expect_null(v);
    }
    pieces_free(&f);
    free(path);
    sd_tiny_remove(dir);
}

Test(vocabulary, a_whole_model_serves_with_all_its_ids) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    char *dir = sd_tiny_dir(), *gguf = sd_path_join(dir, "m.gguf"),
         *folder = sd_path_join(dir, "m");
    sd_error err = {0};
    t.V = 300; // more than the tokenizer's 288
    cr_assert_eq(sd_tiny_write_gguf(gguf, &t, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_mkdirs(folder, &err), SD_OK);
    cr_assert_eq(sd_tiny_write_folder(folder, &t, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < 2; i++) {
        sd_vocabulary *v;
        cr_assert_not(is_alone(i ? folder : gguf));
        cr_assert_eq(sd_vocabulary_open(&v, i ? folder : gguf, &err), SD_OK, "%s", err.message);
        cr_assert(v->tokenizer);
        cr_assert_eq(v->V, 300);
        sd_vocabulary_close(v);
    }
    free(gguf);
    free(folder);
    sd_tiny_remove(dir);
}

Test(vocabulary, a_folder_with_a_tokenizer_alone_serves_it) {
    static const char json[] = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
                               "[]}, \"pre_tokenizer\": "
                               "{\"type\": \"ByteLevel\"}}";
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "tokenizer.json"),
         *proto = sd_path_join(dir, "tokenizer.model"),
         *adapter = sd_path_join(dir, "adapter_config.json");
    sd_vocabulary *v = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_vocabulary_open(&v, dir, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "holds no config.json"), "%s", err.message);
    write_file(path, json, sizeof json - 1);
    cr_assert(is_alone(dir));
    cr_assert_eq(sd_vocabulary_open(&v, dir, &err), SD_OK, "%s", err.message);
    cr_assert(v->tokenizer && !v->gguf && v->V == 1);
    sd_vocabulary_close(v);
    model_refuses(dir, "is a vocabulary without weights");
    write_file(adapter, "{}", 2); // PEFT keeps the tokenizer beside an adapter
    cr_assert_not(is_alone(dir));
    v = NULL;
    cr_assert_eq(sd_vocabulary_open(&v, dir, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "is an adapter or a run"), "%s", err.message);
    cr_assert(unlink(adapter) == 0 && rename(path, proto) == 0);
    cr_assert_eq(sd_vocabulary_open(&v, dir, &err), SD_OK, "%s", err.message);
    cr_assert(!v->tokenizer && strstr(v->tokenizer_error, "write tokenizer.json beside it"));
    sd_vocabulary_close(v);
    free(path);
    free(proto);
    free(adapter);
    sd_tiny_remove(dir);
}
