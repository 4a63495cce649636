// safetensors: what is written is read back, shards are one set, and damage is one sentence.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/formats/safetensors.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static sd_status from_header(const char *json, size_t data, sd_error *err) {
    char bytes[1024] = {0};
    uint64_t n = strlen(json);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, json, n);
    sd_safetensors *s = NULL;
    sd_status st = sd_safetensors_from_memory(&s, bytes, 8 + n + data, "x", err);
    sd_safetensors_close(s);
    return st;
}

Test(safetensors, tensors_and_metadata_come_back_as_they_were_written) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "x.safetensors");
    sd_error err = {0};
    float a[6] = {1, 2, 3, 4, 5, 6};
    uint16_t b[3] = {7, 8, 9};
    sd_st_tensor t[2] = {
        {.name = "z", .dtype = SD_F32, .n_dims = 2, .shape = {2, 3}, .data = a, .bytes = sizeof a},
        {.name = "b", .dtype = SD_BF16, .n_dims = 1, .shape = {3}, .data = b, .bytes = sizeof b}};
    json_t *meta = json_pack("{s:s}", "format", "pt");
    cr_assert_eq(sd_safetensors_write(path, t, 2, meta, &err), SD_OK, "%s", err.message);
    json_decref(meta);
    sd_safetensors *s;
    cr_assert_eq(sd_safetensors_open(&s, path, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_safetensors_count(s), 2);
    const sd_st_tensor *x = sd_safetensors_find(s, "z"), *y = sd_safetensors_find(s, "b");
    cr_assert(x && x->dtype == SD_F32 && x->n_dims == 2 && x->shape[1] == 3);
    cr_assert(memcmp(x->data, a, sizeof a) == 0);
    cr_assert(y && y->dtype == SD_BF16 && memcmp(y->data, b, sizeof b) == 0);
    cr_assert_eq((uintptr_t)x->data % 4, 0);
    cr_assert_null(sd_safetensors_find(s, "c"));
    cr_assert_str_eq(sd_safetensors_metadata(s, "format"), "pt");
    cr_assert_null(sd_safetensors_metadata(s, "absent"));
    sd_safetensors_close(s);
    t[0].shape[0] = 3;
    cr_assert_eq(sd_safetensors_write(path, t, 2, NULL, &err), SD_EINVAL, "shape and bytes differ");
    free(path);
    sd_tiny_remove(dir);
}

Test(safetensors, shards_of_an_index_are_read_as_one_set) {
    char *dir = sd_tiny_dir();
    char *one = sd_path_join(dir, "model-1.safetensors"),
         *two = sd_path_join(dir, "model-2.safetensors"),
         *index = sd_path_join(dir, "model.safetensors.index.json");
    float v[2] = {1, 2};
    sd_st_tensor t = {.dtype = SD_F32, .n_dims = 1, .shape = {2}, .data = v, .bytes = sizeof v};
    sd_error err = {0};
    t.name = "a";
    cr_assert_eq(sd_safetensors_write(one, &t, 1, NULL, &err), SD_OK);
    t.name = "b";
    cr_assert_eq(sd_safetensors_write(two, &t, 1, NULL, &err), SD_OK);
    const char *good =
        "{\"weight_map\":{\"b\":\"model-2.safetensors\",\"a\":\"model-1.safetensors\"}}";
    cr_assert_eq(sd_file_write(index, good, strlen(good), &err), SD_OK);
    sd_safetensors *s;
    cr_assert_eq(sd_safetensors_open_folder(&s, dir, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_safetensors_file_count(s), 2);
    cr_assert_str_eq(sd_safetensors_file_at(s, 0), one);
    cr_assert(sd_safetensors_find(s, "a") && sd_safetensors_find(s, "b"));
    sd_safetensors_close(s);
    static const char *const bad[] = {"{\"weight_map\":{\"c\":\"model-1.safetensors\"}}",
                                      "{\"weight_map\":{\"a\":\"../model-1.safetensors\"}}",
                                      "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
                                      "{\"weight_map\":{\"a\":5}}",
                                      "{\"weight_map\":{}}",
                                      "{}",
                                      "[",
                                      "{\"weight_map\":{\"a\":\"absent.safetensors\"}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(sd_file_write(index, bad[i], strlen(bad[i]), &err), SD_OK);
        sd_status st = sd_safetensors_open_folder(&s, dir, &err);
        cr_assert_eq(sd_status_exit_code(st), 2, "%s: %s", bad[i], err.message);
        cr_assert_null(s);
    }
    free(one);
    free(two);
    free(index);
    sd_tiny_remove(dir);
}

// As transformers reads a folder: a single file goes before an index that was left beside it, and
// what neither names is not read.
Test(safetensors, the_file_that_transformers_takes_is_read) {
    char *dir = sd_tiny_dir();
    char *one = sd_path_join(dir, "model.safetensors"),
         *shard = sd_path_join(dir, "model-00001-of-00001.safetensors"),
         *index = sd_path_join(dir, "model.safetensors.index.json"),
         *other = sd_path_join(dir, "consolidated.safetensors"),
         *pickle = sd_path_join(dir, "pytorch_model.bin");
    float v[2] = {1, 2};
    sd_st_tensor t = {
        .name = "one", .dtype = SD_F32, .n_dims = 1, .shape = {2}, .data = v, .bytes = sizeof v};
    sd_error err = {0};
    sd_safetensors *s;
    cr_assert_eq(sd_safetensors_open_folder(&s, dir, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "holds neither model.safetensors nor"), "%s", err.message);
    cr_assert_eq(sd_file_write(pickle, "x", 1, &err), SD_OK);
    cr_assert_eq(sd_safetensors_open_folder(&s, dir, &err), SD_EFORMAT);
    cr_assert(strstr(err.message, "pickle") && strstr(err.message, "safe_serialization"), "%s",
              err.message);
    static const char stale[] = "{\"weight_map\":{\"one\":\"model-00001-of-00002.safetensors\"}}";
    cr_assert_eq(sd_safetensors_write(one, &t, 1, NULL, &err), SD_OK);
    cr_assert_eq(sd_file_write(index, stale, strlen(stale), &err), SD_OK);
    cr_assert_eq(sd_safetensors_open_folder(&s, dir, &err), SD_OK, "%s", err.message);
    cr_assert(sd_safetensors_find(s, "one"));
    sd_safetensors_close(s);
    cr_assert_eq(sd_rename_new(one, other, &err), SD_OK);
    t.name = "sharded";
    static const char good[] =
        "{\"weight_map\":{\"sharded\":\"model-00001-of-00001.safetensors\"}}";
    cr_assert_eq(sd_safetensors_write(shard, &t, 1, NULL, &err), SD_OK);
    cr_assert_eq(sd_file_write(index, good, strlen(good), &err), SD_OK);
    cr_assert_eq(sd_safetensors_open_folder(&s, dir, &err), SD_OK, "%s", err.message);
    cr_assert(sd_safetensors_find(s, "sharded") && !sd_safetensors_find(s, "one"));
    sd_safetensors_close(s);
    free(one);
    free(shard);
    free(index);
    free(other);
    free(pickle);
    sd_tiny_remove(dir);
}

Test(safetensors, headers_that_lie_are_refused_with_the_tensor_named) {
    sd_error err = {0};
    cr_assert_eq(
        from_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, &err),
        SD_OK, "%s", err.message);
    static const struct {
        const char *json, *says;
        size_t data;
    } bad[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor a", 7},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "tensor a", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "tensor a", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "dimension", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "dimension", 8},
        {"{\"a\":{\"dtype\":\"F9\",\"shape\":[2],\"data_offsets\":[0,8]}}", "F9", 8},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "lacks", 8},
        {"{\"a\":[]}", "lacks", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", "5 dimensions",
         8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483647,2147483647,2147483647],\"data_offsets\":"
         "[0,8]}}",
         "dimension", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         "overlap", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "duplicate", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "4 bytes after a belong to no tensor", 12},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         "4 bytes after the header belong to no tensor", 12},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
         "byte 125: 4 bytes after a belong to no tensor", 16},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "overlap", 8},
        {"{\"__metadata__\":{\"n\":5}}", "__metadata__ is no object of strings", 0},
        {"{\"__metadata__\":\"x\"}", "__metadata__ is no object of strings", 0},
        {"{}", "5 bytes after the header belong to no tensor", 5},
        {"[]", "object", 0},
        {"{", "JSON", 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(from_header(bad[i].json, bad[i].data, &err), SD_EFORMAT, "%s", bad[i].json);
        cr_assert(strstr(err.message, bad[i].says), "%s: %s", bad[i].json, err.message);
    }
}

Test(safetensors, no_cut_or_mutation_of_a_model_crashes, .timeout = 300) {
    sd_log_set_level(SD_LOG_ERROR); // broken tokenizers are warned of
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "model.safetensors");
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen3);
    t.L = 1;
    cr_assert_eq(sd_tiny_write_folder(dir, &t, &err), SD_OK, "%s", err.message);
    char *bytes, *copy;
    size_t size;
    uint64_t header;
    cr_assert_eq(sd_file_read(&bytes, &size, path, 1 << 30, &err), SD_OK);
    memcpy(&header, bytes, 8);
    for (int i = 0; i < 200; i++) {
        uint32_t r[4];
        sd_philox(r, 6, 0, (uint64_t)i);
        bool cut = i % 2;
        size_t n = cut ? (i < 40 ? (size_t)i : size * (size_t)i / 200) : size;
        copy = malloc(n ? n : 1);
        memcpy(copy, bytes, n);
        if (!cut) {
            size_t at = i % 8 ? 8 + r[0] % header : r[0] % 8;
            for (uint32_t k = 0; k <= r[1] % 4; k++)
                copy[at + k] = i % 8 ? "0123456789[]{}\",:-.eE\xff"[(r[2] >> 4 * k) % 22]
                                     : (char)(r[2] >> 8 * k);
        }
        sd_safetensors *s = NULL;
        sd_status st = sd_safetensors_from_memory(&s, copy, n, "damaged", &err);
        cr_assert(st == SD_OK || st == SD_EFORMAT, "%d: %s", i, err.message);
        cr_assert(!cut || st != SD_OK, "a cut to %zu bytes opens", n);
        cr_assert(st == SD_OK || strstr(err.message, "damaged: byte "), "%s", err.message);
        sd_safetensors_close(s);
        cr_assert_eq(sd_file_write(path, copy, n, NULL), SD_OK);
        sd_model *m = NULL;
        st = sd_model_open(&m, dir, &err);
        cr_assert(st == SD_OK || sd_status_exit_code(st) == 2, "%d: %s", i, err.message);
        sd_model_release(m);
        free(copy);
    }
    free(bytes);
    free(path);
    sd_tiny_remove(dir);
}

Test(safetensors, a_file_of_another_kind_is_named) {
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
                      zip[] = "PK\3\4aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                      gguf[] = "GGUF\3\0\0\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const struct {
        const char *bytes, *says;
        size_t size;
    } rows[] = {{lfs, "is a Git LFS pointer", sizeof lfs - 1},
                {zip, "pickles are not read", sizeof zip - 1},
                {gguf, "is a GGUF file", sizeof gguf - 1},
                {"", "is empty", 0}};
    for (size_t i = 0; i < 4; i++) {
        sd_safetensors *s;
        sd_error err;
        sd_status st = sd_safetensors_from_memory(&s, rows[i].bytes, rows[i].size, "x", &err);
        cr_assert_eq(st, SD_EFORMAT);
        cr_assert(strstr(err.message, rows[i].says), "%s: %s", rows[i].says, err.message);
    }
}
