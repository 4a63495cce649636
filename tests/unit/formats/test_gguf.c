// GGUF: what is written is read back, and whatever is wrong with a file is one sentence.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/formats/gguf_write.h"
#include "model/model.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char *dir, *path;
    char *bytes;
    size_t size;
} file;

static file tiny_file(void) {
    file f = {.dir = sd_tiny_dir()};
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    t.L = 1;
    f.path = sd_path_join(f.dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(f.path, &t, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_file_read(&f.bytes, &f.size, f.path, 1 << 30, &err), SD_OK);
    return f;
}
static void free_file(file *f) {
    free(f->bytes);
    free(f->path);
    sd_tiny_remove(f->dir);
}

Test(gguf, metadata_and_tensors_come_back_as_they_were_written) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "x.gguf");
    sd_error err = {0};
    sd_gguf_writer *w;
    float a[6] = {1, 2, 3, 4, 5, 6}, b[3] = {7, 8, 9};
    int64_t n = -5;
    cr_assert_eq(sd_gguf_writer_open(&w, path, &err), SD_OK);
    cr_assert_eq(sd_gguf_put_str(w, "k.str", "text", &err), SD_OK);
    cr_assert_eq(sd_gguf_put_u32(w, "k.u32", 7, &err), SD_OK);
    cr_assert_eq(sd_gguf_put_f32(w, "k.f32", 0.5f, &err), SD_OK);
    cr_assert_eq(sd_gguf_put_bool(w, "k.bool", true, &err), SD_OK);
    cr_assert_eq(sd_gguf_put_raw(w, "k.i64", SD_GGUF_I64, &n, 8, &err), SD_OK);
    cr_assert_eq(sd_gguf_declare(w, "a", SD_F32, 2, (int64_t[]){3, 2}, &err), SD_OK);
    cr_assert_eq(sd_gguf_declare(w, "b", SD_F32, 1, (int64_t[]){3}, &err), SD_OK);
    cr_assert_eq(sd_gguf_write_tensor(w, b, sizeof b, &err), SD_EINVAL, "a has another size");
    cr_assert_eq(sd_gguf_write_tensor(w, a, sizeof a, &err), SD_OK);
    cr_assert_eq(sd_gguf_write_tensor(w, b, sizeof b, &err), SD_OK);
    cr_assert_eq(sd_gguf_writer_commit(w, &err), SD_OK, "%s", err.message);

    sd_gguf *g;
    cr_assert_eq(sd_gguf_open(&g, path, &err), SD_OK, "%s", err.message);
    sd_gguf_string s = {0};
    uint32_t u = 0;
    float f = 0;
    bool t = false, has;
    cr_assert_eq(sd_gguf_str(g, "k.str", &s, &has, &err), SD_OK);
    cr_assert(has && s.len == 4 && memcmp(s.data, "text", 4) == 0);
    cr_assert(sd_gguf_u32(g, "k.u32", &u, &has, &err) == SD_OK && has && u == 7);
    cr_assert(sd_gguf_f32(g, "k.f32", &f, &has, &err) == SD_OK && has && f == 0.5f);
    cr_assert(sd_gguf_bool(g, "k.bool", &t, &has, &err) == SD_OK && has && t);
    cr_assert(sd_gguf_f32(g, "absent", &f, &has, &err) == SD_OK && !has && f == 0.5f);
    const sd_gguf_tensor *x = sd_gguf_tensor_find(g, "a");
    cr_assert(x && x->ne[0] == 3 && x->ne[1] == 2 && x->bytes == sizeof a);
    cr_assert(memcmp(x->data, a, sizeof a) == 0);
    cr_assert(memcmp(sd_gguf_tensor_find(g, "b")->data, b, sizeof b) == 0);
    cr_assert_null(sd_gguf_tensor_find(g, "c"));
    sd_gguf_close(g);
    free(path);
    sd_tiny_remove(dir);
}

Test(gguf, a_writer_that_is_left_early_leaves_no_file) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "x.gguf");
    sd_gguf_writer *w;
    cr_assert_eq(sd_gguf_writer_open(&w, path, NULL), SD_OK);
    cr_assert_eq(sd_gguf_declare(w, "a", SD_F32, 1, (int64_t[]){3}, NULL), SD_OK);
    cr_assert_eq(sd_gguf_writer_commit(w, NULL), SD_EINVAL, "a was never written");
    cr_assert(access(path, F_OK) != 0);
    free(path);
    sd_tiny_remove(dir);
}

Test(gguf, strings_of_an_array_are_found_by_index) {
    file f = tiny_file();
    sd_gguf *g;
    cr_assert_eq(sd_gguf_from_memory(&g, f.bytes, f.size, "tiny", NULL), SD_OK);
    sd_gguf_string s;
    size_t n;
    int64_t v;
    cr_assert_eq(sd_gguf_strings(g, "tokenizer.ggml.tokens", &n, NULL), SD_OK);
    cr_assert_eq(n, 288);
    cr_assert(sd_gguf_array_str(g, "tokenizer.ggml.tokens", 287, &s));
    cr_assert(s.len == 10 && memcmp(s.data, "<|im_end|>", 10) == 0);
    cr_assert_not(sd_gguf_array_str(g, "tokenizer.ggml.tokens", 288, &s));
    cr_assert_eq(sd_gguf_integers(g, "tokenizer.ggml.token_type", &n, NULL), SD_OK);
    cr_assert_eq(n, 288);
    cr_assert(sd_gguf_array_int(g, "tokenizer.ggml.token_type", 287, &v) && v == 3);
    cr_assert_not(sd_gguf_array_int(g, "tokenizer.ggml.token_type", 288, &v));
    cr_assert_eq(sd_gguf_strings(g, "tokenizer.ggml.token_type", &n, NULL), SD_EFORMAT);
    sd_buf b = sd_buf_make(4096);
    bool seen = false;
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_gguf_type type;
        if (strcmp(sd_gguf_key_at(g, i, &type), "tokenizer.ggml.token_type") != 0) continue;
        cr_assert(sd_gguf_describe(g, i, &b) && type == SD_GGUF_ARRAY);
        cr_assert_str_eq(b.data, "[1, 1, 1, 1, ... (288)]");
        seen = true;
    }
    cr_assert(seen);
    sd_buf_free(&b);
    sd_gguf_close(g);
    free_file(&f);
}

// Opens damaged bytes as GGUF and, through a file, as a model; both must say what is wrong or open.
static void try_bytes(const file *f, const char *bytes, size_t size, const char *how) {
    sd_gguf *g = NULL;
    sd_error err = {0};
    // An exact copy on the heap lets a sanitizer see every read beyond the end.
    char *copy = malloc(size ? size : 1);
    memcpy(copy, bytes, size);
    sd_status st = sd_gguf_from_memory(&g, copy, size, "damaged", &err);
    if (st != SD_OK) {
        cr_assert_eq(st, SD_EFORMAT, "%s: status %d: %s", how, st, err.message);
        cr_assert(strstr(err.message, "damaged: byte "), "%s: %s", how, err.message);
        cr_assert_null(g);
    }
    sd_gguf_close(g);
    free(copy);
    sd_model *m = NULL;
    cr_assert_eq(sd_file_write(f->path, bytes, size, NULL), SD_OK);
    st = sd_model_open(&m, f->path, &err);
    cr_assert(st == SD_OK || sd_status_exit_code(st) == 2, "%s: %s", how, err.message);
    cr_assert(st == SD_OK || strlen(err.message) > 20, "%s", how);
    sd_model_release(m);
}

Test(gguf, every_cut_is_a_sentence_with_a_byte_offset, .timeout = 120) {
    file f = tiny_file();
    for (int i = 0; i < 60; i++) {
        char how[64];
        size_t size = i < 30 ? (size_t)i : f.size * (size_t)i / 60;
        snprintf(how, sizeof how, "cut to %zu bytes", size);
        sd_gguf *g = NULL;
        cr_assert_neq(sd_gguf_from_memory(&g, f.bytes, size, "x", NULL), SD_OK, "%s", how);
        try_bytes(&f, f.bytes, size, how);
    }
    free_file(&f);
}

Test(gguf, no_mutation_of_the_header_crashes, .timeout = 300) {
    sd_log_set_level(SD_LOG_ERROR); // broken tokenizers are warned of
    file f = tiny_file();
    char *bytes = malloc(f.size);
    // The interesting part: everything before the weights.
    sd_gguf *g;
    cr_assert_eq(sd_gguf_from_memory(&g, f.bytes, f.size, "x", NULL), SD_OK);
    size_t head = f.size;
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        size_t at = (size_t)((const char *)sd_gguf_tensor_at(g, i)->data - f.bytes);
        if (at < head) head = at;
    }
    sd_gguf_close(g);
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    for (int i = 0; i < 400; i++) {
        uint32_t r[4];
        sd_philox(r, 5, 0, (uint64_t)i);
        memcpy(bytes, f.bytes, f.size);
        // The vocabulary is most of the header; half of the hits go to what surrounds it.
        size_t at = i % 2 ? r[0] % head : i % 4 ? r[0] % 700 : head - 1 - r[0] % 1200;
        for (uint32_t k = 0; k <= r[1] % 8 && at + k < f.size; k++)
            bytes[at + k] = (char)values[(r[2] >> k) % sizeof values];
        char how[64];
        snprintf(how, sizeof how, "mutation %d at byte %zu", i, at);
        try_bytes(&f, bytes, f.size, how);
    }
    free(bytes);
    free_file(&f);
}

static void put64(char *p, uint64_t v) {
    memcpy(p, &v, 8);
}

Test(gguf, counts_that_no_file_can_hold_are_refused_before_memory_is_asked_for) {
    char bytes[256] = "GGUF\x03";
    for (int k = 0; k < 2; k++) {
        sd_gguf *g;
        sd_error err = {0};
        put64(bytes + 8, k ? 0 : UINT64_MAX);
        put64(bytes + 16, k ? (uint64_t)1 << 40 : 0);
        cr_assert_eq(sd_gguf_from_memory(&g, bytes, sizeof bytes, "x", &err), SD_EFORMAT);
        cr_assert(strstr(err.message, k ? "byte 16" : "byte 8"), "%s", err.message);
    }
}

Test(gguf, dimensions_whose_product_overflows_are_refused) {
    char bytes[128] = "GGUF\x03";
    put64(bytes + 8, 1);
    put64(bytes + 24, 1);
    bytes[32] = 'w';
    bytes[33] = 4;
    for (int d = 0; d < 4; d++) put64(bytes + 37 + 8 * d, (uint64_t)1 << 30);
    sd_gguf *g;
    sd_error err = {0};
    cr_assert_eq(sd_gguf_from_memory(&g, bytes, sizeof bytes, "x", &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "dimension"), "%s", err.message);
}

Test(gguf, other_files_are_named_as_what_they_are_not) {
    sd_gguf *g;
    sd_error err = {0};
    cr_assert_eq(sd_gguf_from_memory(&g, "PK\x03\x04 and so on", 14, "x.zip", &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "x.zip") && strstr(err.message, "GGUF"), "%s", err.message);
    cr_assert_eq(sd_gguf_from_memory(&g, "GGUF\0\0\0\x03 and so on, until", 30, "x", &err),
                 SD_EFORMAT);
    cr_assert(strstr(err.message, "big-endian"), "%s", err.message);
}

// A file that people give in a model's place is named for what it is.
Test(gguf, a_file_of_another_kind_is_named) {
    static const struct {
        const char *bytes, *says;
        size_t size;
    } rows[] = {
        {"", "is empty", 0},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer", 55},
        {"PK\3\4aaaaaaaaaaaaaaaaaaaa", "is a zip archive, as PyTorch saves pickles", 24},
        {"\x80\2}q\1aaaaaaaaaaaaaa", "is a pickle", 18},
        {"<!DOCTYPE html><html></html>", "is a web page", 28},
        {"{\"a\": 1, \"b\": 2, \"c\": 3}", "is JSON text", 24},
        {"tjggaaaaaaaaaaaaaaaaaaaa", "before GGUF", 24},
        {"\5\0\0\0\0\0\0\0{}   aaaaaa", "is a safetensors file; give the folder", 19},
        {"xxxxxxxxxxxxxxxxxxxxxxxx", "does not begin with \"GGUF\"", 24}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_gguf *g;
        sd_error err;
        cr_assert_eq(sd_gguf_from_memory(&g, rows[i].bytes, rows[i].size, "x", &err), SD_EFORMAT);
        cr_assert(strstr(err.message, rows[i].says), "%s: %s", rows[i].says, err.message);
    }
}
