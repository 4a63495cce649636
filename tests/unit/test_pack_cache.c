// The packed form on disk: used when it is the model's, and only then.
#include "base/file.h"
#include "base/log.h"
#include "model/forward.h"
#include "model/pack_cache.h"
#include "support_tiny_model.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { T = 20 };

typedef struct {
    char *dir, *model, *cache;
    sd_tiny_model t;
} place;

static bool nothing_to_test(void) {
    return sd_ops_best()->layout == 0; // only plain C runs here: weights are used as stored
}

static place make_place(void) {
    place p = {.dir = sd_tiny_dir(), .t = sd_tiny_default(SD_ARCH_QWEN2)};
    sd_error err;
    sd_log_set_level(SD_LOG_ERROR);
    p.model = sd_path_join(p.dir, "tiny.gguf");
    p.cache = sd_path_join(p.dir, "cache/packed");
    cr_assert_eq(sd_tiny_write_gguf(p.model, &p.t, &err), SD_OK, "%s", err.message);
    return p;
}
static void drop_place(place *p) {
    sd_tiny_remove(p->dir);
    free(p->model);
    free(p->cache);
}

// The last row's logits [V] of a fresh start, malloc'ed; cache NULL: without one.
static float *start(const place *p, const char *cache, sd_compute compute) {
    sd_error err = {0};
    sd_model *m;
    sd_context *cx;
    sd_kv *kv;
    sd_row row[T];
    cr_assert_eq(sd_model_open(&m, p->model, &err), SD_OK, "%s", err.message);
    if (cache) cr_assert_eq(sd_model_use_pack_cache(m, cache, 0, &err), SD_OK);
    sd_context_options o = {.max_rows = T, .compute = compute};
    cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, T, &err), SD_OK);
    for (int i = 0; i < T; i++) row[i] = (sd_row){(i * 37 + 5) % m->hp.V, i, kv, NULL, i == T - 1};
    float *out = sd_alloc((size_t)m->hp.V, sizeof *out);
    cr_assert_eq(sd_forward(cx, row, T, out, &err), SD_OK, "%s", err.message);
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_model_release(m);
    return out;
}

static bool same_logits(const place *p, const float *a, const float *b) {
    return memcmp(a, b, (size_t)p->t.V * sizeof *a) == 0;
}

static char *only_file(const place *p) {
    sd_pack_entry *e;
    int n;
    cr_assert_eq(sd_pack_list(&e, &n, p->cache, NULL), SD_OK);
    cr_assert_eq(n, 1);
    char *path = sd_strdup(e[0].path);
    sd_pack_list_free(e, n);
    return path;
}

// Adds `change` to the byte `at` bytes before (at < 0) the end or after the beginning.
static void change_byte(const char *path, long at, int change) {
    FILE *f = fopen(path, "r+b");
    cr_assert(f);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    fputc(c + change, f);
    fclose(f);
}

Test(pack_cache, a_second_start_runs_on_the_kept_form_with_the_same_bits) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    for (int c = SD_COMPUTE_AUTO; c <= SD_COMPUTE_FP32; c++) {
        float *without = start(&p, NULL, (sd_compute)c), *first = start(&p, p.cache, (sd_compute)c),
              *second = start(&p, p.cache, (sd_compute)c);
        cr_assert(same_logits(&p, without, first));
        cr_assert(same_logits(&p, without, second));
        free(without), free(first), free(second);
    }
    // That the file is what runs: one changed byte of the last weight changes the answer, and the
    // check finds it.
    float *before = start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = only_file(&p);
    cr_assert_eq(sd_pack_verify(path, NULL, NULL), SD_OK);
    change_byte(path, -2, 64); // the high half of an fp32
    float *after = start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert_not(same_logits(&p, before, after));
    cr_assert_eq(sd_pack_verify(path, NULL, NULL), SD_EMISMATCH);
    free(before), free(after), free(path);
    drop_place(&p);
}

Test(pack_cache, a_model_that_changed_is_packed_anew) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    float *old = start(&p, p.cache, SD_COMPUTE_AUTO);
    p.t.seed += 1;
    cr_assert_eq(sd_tiny_write_gguf(p.model, &p.t, NULL), SD_OK);
    sd_pack_entry *e;
    int n;
    cr_assert_eq(sd_pack_list(&e, &n, p.cache, NULL), SD_OK);
    cr_assert(n == 1 && !e[0].current && e[0].source);
    sd_pack_list_free(e, n);
    float *want = start(&p, NULL, SD_COMPUTE_AUTO), *got = start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert_not(same_logits(&p, old, want));
    cr_assert(same_logits(&p, want, got));
    free(only_file(&p)); // the old one was replaced
    free(old), free(want), free(got);
    drop_place(&p);
}

Test(pack_cache, a_damaged_head_is_never_believed) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    float *want = start(&p, p.cache, SD_COMPUTE_AUTO);
    char *path = only_file(&p);
    unsigned seed = 7;
    for (int i = 0; i < 60; i++) {
        seed = seed * 1103515245 + 12345;
        change_byte(path, (long)(seed >> 8) % 2000, 1 + (int)(seed >> 4) % 255);
        float *got = start(&p, p.cache, SD_COMPUTE_AUTO); // packs, and keeps a good one again
        cr_assert(same_logits(&p, want, got), "after change %d", i);
        free(got);
        cr_assert_eq(sd_pack_verify(path, NULL, NULL), SD_OK);
    }
    for (int at = 0; at < 24; at++) { // the lengths, a byte at a time
        change_byte(path, at, 16);
        float *got = start(&p, p.cache, SD_COMPUTE_AUTO);
        cr_assert(same_logits(&p, want, got), "byte %d", at);
        free(got);
    }
    for (long len = 0; len < 200; len += 13) {
        cr_assert_eq(truncate(path, len), 0);
        float *got = start(&p, p.cache, SD_COMPUTE_AUTO);
        cr_assert(same_logits(&p, want, got), "cut to %ld bytes", len);
        free(got);
    }
    for (int at = 8; at < 24; at += 8) { // a length of nothing
        FILE *f = fopen(path, "r+b");
        cr_assert(f && fseek(f, at, SEEK_SET) == 0 && fwrite("\0\0\0\0\0\0\0", 1, 8, f) == 8);
        fclose(f);
        float *got = start(&p, p.cache, SD_COMPUTE_AUTO);
        cr_assert(same_logits(&p, want, got), "zeros at %d", at);
        free(got);
    }
    free(want), free(path);
    drop_place(&p);
}

Test(pack_cache, a_file_of_another_user_is_not_used) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    if (geteuid() != 0) cr_skip_test("only root can give a file away");
    place p = make_place();
    float *want = start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = only_file(&p);
    change_byte(path, -2, 64);
    cr_assert_eq(chown(path, 1, (gid_t)-1), 0);
    float *got = start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert(same_logits(&p, want, got));
    free(want), free(got), free(path);
    drop_place(&p);
}

Test(pack_cache, a_cache_that_cannot_be_written_costs_no_answer) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    char *below_a_file = sd_path_join(p.model, "packed");
    float *want = start(&p, NULL, SD_COMPUTE_AUTO), *got = start(&p, below_a_file, SD_COMPUTE_AUTO);
    cr_assert(same_logits(&p, want, got));
    free(want), free(got), free(below_a_file);
    drop_place(&p);
}

Test(pack_cache, the_hash_of_the_source_comes_from_the_file) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    sd_model *m;
    sd_sha256 kept, real;
    free(start(&p, p.cache, SD_COMPUTE_AUTO));
    cr_assert_eq(sd_model_open(&m, p.model, NULL), SD_OK);
    cr_assert_not(sd_pack_source_sha256(m, &kept)); // without a cache
    cr_assert_eq(sd_model_use_pack_cache(m, p.cache, 0, NULL), SD_OK);
    cr_assert(sd_pack_source_sha256(m, &kept));
    cr_assert_eq(sd_sha256_of_file(&real, p.model, NULL), SD_OK);
    cr_assert(sd_sha256_equal(&kept, &real));
    sd_model_release(m);
    drop_place(&p);
}

Test(pack_cache, the_least_recently_used_go_first) {
    char *dir = sd_tiny_dir();
    char text[100] = {0}, *path[3];
    for (int i = 0; i < 3; i++) {
        char name[8] = {(char)('a' + i), '.', 'p', 'a', 'c', 'k', 0};
        path[i] = sd_path_join(dir, name);
        cr_assert_eq(sd_file_write(path[i], text, sizeof text, NULL), SD_OK);
        struct timespec at[2] = {{1000 + i, 0}, {1000 + i, 0}};
        cr_assert_eq(utimensat(AT_FDCWD, path[i], at, 0), 0);
    }
    sd_pack_trim(dir, 200, path[1]);
    cr_assert(access(path[0], F_OK) != 0 && access(path[1], F_OK) == 0 &&
              access(path[2], F_OK) == 0);
    sd_pack_trim(dir, 50, path[1]);
    cr_assert(access(path[1], F_OK) == 0 && access(path[2], F_OK) != 0);
    for (int i = 0; i < 3; i++) free(path[i]);
    sd_tiny_remove(dir);
}
