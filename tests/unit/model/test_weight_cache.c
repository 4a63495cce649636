// The packed form on disk: used when it is the model's, and only then.
#include "base/files/file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/infer/forward.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/care.h"
#include "model/infer/weight_cache/place.h"
#include "model/load/source.h"
#include "tests/unit/support/tiny_model.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
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
    place p = {.dir = sd_tiny_dir(), .t = sd_tiny_default(&sd_arch_qwen2)};
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
    if (cache) sd_weight_cache_attach(m, cache);
    sd_context_options o = {.max_rows = T, .compute = compute, .cache = {.dir = cache}};
    cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, T, &err), SD_OK);
    for (int i = 0; i < T; i++)
        row[i] = (sd_row){(i * 37 + 5) % m->hp.V, i, kv, NULL, i == T - 1, NULL};
    float *out = sd_alloc((size_t)m->hp.V, sizeof *out);
    cr_assert_eq(sd_forward(cx, row, T, out, &err), SD_OK, "%s", err.message);
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_model_release(m);
    return out;
}

static sd_model *open_model(const place *p, const char *cache) {
    sd_error err = {0};
    sd_model *m;
    cr_assert_eq(sd_model_open(&m, p->model, &err), SD_OK, "%s", err.message);
    if (cache) sd_weight_cache_attach(m, cache);
    return m;
}

static const sd_map *file_of(const sd_model *m) {
    return sd_model_source(m, 0);
}

static sd_status list_status(const char *dir) {
    sd_weight_cache_entry *e;
    int n;
    sd_status st = sd_weight_cache_list(&e, &n, dir, NULL);
    sd_weight_cache_list_free(e, n);
    return st;
}

static int files_in(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) n += f->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

static uint64_t inode_of(const char *path) {
    struct stat sb;
    cr_assert_eq(stat(path, &sb), 0);
    return sb.st_ino;
}
static off_t size_of(const char *path) {
    struct stat sb;
    cr_assert_eq(stat(path, &sb), 0);
    return sb.st_size;
}

static sd_weight_cache_state only_state(const place *p) {
    sd_weight_cache_entry *e;
    int n;
    cr_assert_eq(sd_weight_cache_list(&e, &n, p->cache, NULL), SD_OK);
    cr_assert_eq(n, 1);
    sd_weight_cache_state state = e[0].state;
    sd_weight_cache_list_free(e, n);
    return state;
}

static bool same_logits(const place *p, const float *a, const float *b) {
    return memcmp(a, b, (size_t)p->t.V * sizeof *a) == 0;
}

static char *only_file(const place *p) {
    sd_weight_cache_entry *e;
    int n;
    cr_assert_eq(sd_weight_cache_list(&e, &n, p->cache, NULL), SD_OK);
    cr_assert_eq(n, 1);
    char *path = sd_strdup(e[0].path);
    sd_weight_cache_list_free(e, n);
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
    // That the file is what runs: the same one serves a third start, and is whole.
    char *path = only_file(&p);
    uint64_t inode = inode_of(path);
    free(start(&p, p.cache, SD_COMPUTE_FP32));
    cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK);
    cr_assert_eq(inode_of(path), inode, "it was read, not made again");
    free(path);
    drop_place(&p);
}

Test(pack_cache, one_flipped_bit_of_the_data_is_found_and_the_file_made_again) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    float *want = start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = only_file(&p);
    long size = (long)size_of(path);
    // The first weight, some in the middle, the last one, and the sums of the embedding's rows.
    long sums = (long)p.t.V * 8;
    const long at[] = {-4, -sums + 4, -sums - 70, size - sums - (size - sums) / 3, size / 2};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        change_byte(path, at[i], 64);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_EMISMATCH, "byte %ld", at[i]);
        float *got = start(&p, p.cache, SD_COMPUTE_FP32);
        cr_assert(same_logits(&p, want, got), "byte %ld", at[i]);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK, "byte %ld: made again",
                     at[i]);
        free(got);
    }
    free(want), free(path);
    drop_place(&p);
}

// Writes other weights over the model in place, as rsync --inplace does, and puts its time back.
static void overwrite(const place *p, uint64_t seed) {
    struct stat before;
    char *other = sd_path_join(p->dir, "other.gguf"), *data;
    size_t len;
    sd_tiny_model t = p->t;
    t.seed = seed;
    usleep(20000); // past the tick of the last write
    cr_assert_eq(sd_tiny_write_gguf(other, &t, NULL), SD_OK);
    cr_assert_eq(sd_file_read(&data, &len, other, 1 << 26, NULL), SD_OK);
    cr_assert_eq(stat(p->model, &before), 0);
    cr_assert_eq((size_t)before.st_size, len);
    int fd = open(p->model, O_WRONLY);
    cr_assert(fd >= 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
    struct timespec at[2] = {before.st_atim, before.st_mtim};
    cr_assert_eq(futimens(fd, at), 0);
    close(fd);
    unlink(other);
    free(other), free(data);
}

Test(pack_cache, a_change_in_place_under_the_old_time_is_seen) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    sd_sha256 before, after, real;
    float *old = start(&p, p.cache, SD_COMPUTE_AUTO);
    sd_model *m = open_model(&p, p.cache);
    cr_assert_eq(sd_model_sha256(m, &before, NULL), SD_OK);
    sd_model_release(m);
    overwrite(&p, p.t.seed + 1);
    m = open_model(&p, p.cache); // what an adapter's base is held against
    cr_assert_eq(sd_model_sha256(m, &after, NULL), SD_OK);
    cr_assert_eq(sd_sha256_of_file(&real, p.model, NULL), SD_OK);
    cr_assert(sd_sha256_equal(&after, &real) && !sd_sha256_equal(&after, &before));
    sd_model_release(m);
    float *want = start(&p, NULL, SD_COMPUTE_AUTO), *got = start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert_not(same_logits(&p, old, want));
    cr_assert(same_logits(&p, want, got));
    free(old), free(want), free(got);
    drop_place(&p);
}

Test(pack_cache, a_source_that_was_only_touched_keeps_its_file) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    sd_sha256 one, two;
    free(start(&p, p.cache, SD_COMPUTE_AUTO));
    char *path = only_file(&p), *copy = sd_path_join(p.dir, "copy.gguf"), *data;
    uint64_t inode = inode_of(path);
    size_t len;
    sd_model *m = open_model(&p, p.cache);
    cr_assert(sd_weight_cache_identity(&one, p.cache, m, sd_ops_best()));
    sd_model_release(m);
    for (int how = 0; how < 2; how++) {
        if (how == 0) {
            cr_assert_eq(utimensat(AT_FDCWD, p.model, NULL, 0), 0);
        } else { // another file with the same bytes in its place
            cr_assert_eq(sd_file_read(&data, &len, p.model, 1 << 26, NULL), SD_OK);
            cr_assert_eq(sd_file_write(copy, data, len, NULL), SD_OK);
            cr_assert_eq(rename(copy, p.model), 0);
            free(data);
        }
        cr_assert_eq(only_state(&p), SD_WEIGHT_CACHE_STALE);
        free(start(&p, p.cache, SD_COMPUTE_AUTO));
        cr_assert_eq(only_state(&p), SD_WEIGHT_CACHE_CURRENT, "%d: it has the new label", how);
        cr_assert_eq(inode_of(path), inode, "%d: and was not made again", how);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK);
    }
    m = open_model(&p, p.cache);
    cr_assert(sd_weight_cache_identity(&two, p.cache, m, sd_ops_best()) &&
                  sd_sha256_equal(&one, &two),
              "what lies beside it still belongs to it");
    sd_model_release(m);
    free(path), free(copy);
    drop_place(&p);
}

Test(pack_cache, a_source_that_is_replaced_while_it_is_packed_leaves_nothing) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    sd_error err = {0};
    sd_context *cx;
    char *other = sd_path_join(p.dir, "other.gguf");
    sd_tiny_model t = p.t;
    t.seed += 1;
    cr_assert_eq(sd_tiny_write_gguf(other, &t, NULL), SD_OK);
    sd_model *m = open_model(&p, p.cache);
    cr_assert_eq(rename(other, p.model), 0);
    cr_assert_eq(
        sd_context_open(&cx, m, NULL, &(sd_context_options){.cache = {.dir = p.cache}}, &err),
        SD_OK, "%s", err.message);
    sd_context_close(cx);
    sd_model_release(m);
    cr_assert_eq(files_in(p.cache), 0);
    float *want = start(&p, NULL, SD_COMPUTE_AUTO), *got = start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert(same_logits(&p, want, got), "the start after that has the new model");
    free(want), free(got), free(other);
    drop_place(&p);
}

Test(pack_cache, a_source_that_is_written_while_it_is_packed_is_an_error) {
    place p = make_place();
    sd_error err = {0};
    sd_context *cx;
    for (int with = 0; with < 2; with++) {
        sd_model *m = open_model(&p, with ? p.cache : NULL);
        overwrite(&p, p.t.seed + 1 + with);
        sd_context_options o = {.cache = {.dir = with ? p.cache : NULL}};
        cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_EIO);
        cr_assert(strstr(err.message, p.model), "%s", err.message);
        sd_model_release(m);
        cr_assert_eq(files_in(p.cache), 0);
    }
    drop_place(&p);
}

static sd_status forward(sd_context *cx, sd_kv *kv, float *out, sd_error *err) {
    sd_row row[T];
    int V = sd_context_model(cx)->hp.V;
    for (int i = 0; i < T; i++) row[i] = (sd_row){(i * 37 + 5) % V, i, kv, NULL, i == T - 1, NULL};
    return sd_forward(cx, row, T, out, err);
}

Test(pack_cache, a_source_that_changes_under_a_context_is_an_error_and_never_an_answer) {
    static const char *const isa[] = {NULL, "plain"};
    for (int i = 0; i < 2; i++) {
        place p = make_place();
        sd_error err = {0};
        sd_context *cx;
        sd_kv *kv;
        sd_model *m = open_model(&p, NULL);
        float *want = sd_alloc((size_t)m->hp.V, sizeof *want),
              *got = sd_alloc((size_t)m->hp.V, sizeof *got);
        sd_context_options o = {.max_rows = T, .isa = isa[i]};
        cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_kv_open(&kv, cx, T, &err), SD_OK);
        cr_assert_eq(forward(cx, kv, want, &err), SD_OK);
        cr_assert_eq(chmod(p.model, 0600), 0);
        cr_assert_eq(forward(cx, kv, got, &err), SD_OK, "%s", err.message);
        cr_assert(same_logits(&p, want, got), "permissions are no bytes");
        // All bytes but the embedding's, which are read from the file.
        size_t all =
            (size_t)m->embedding.rows * sd_row_bytes(m->embedding.dtype, m->embedding.cols);
        long from = (const uint8_t *)m->embedding.data - file_of(m)->data;
        int fd = open(p.model, O_WRONLY);
        for (long at = 0; at < (long)file_of(m)->size; at++)
            if (at < from || at >= from + (long)all) cr_assert_eq(pwrite(fd, "\xff", 1, at), 1);
        cr_assert_eq(forward(cx, kv, got, &err), SD_OK, "%s", err.message);
        cr_assert(same_logits(&p, want, got), "%s: weights stand in memory",
                  isa[i] ? isa[i] : "best");
        size_t stride = sd_row_bytes(m->embedding.dtype, m->embedding.cols);
        cr_assert_eq(pwrite(fd, "\xff", 1, from + (long)(5 * stride + stride / 2)), 1); // token 5
        cr_assert_eq(forward(cx, kv, got, &err), SD_EIO);
        cr_assert(strstr(err.message, p.model));
        cr_assert_eq(ftruncate(fd, 100), 0);
        cr_assert_eq(forward(cx, kv, got, &err), SD_EIO);
        close(fd);
        sd_kv_close(kv);
        sd_context_close(cx);
        sd_model_release(m);
        free(want), free(got);
        drop_place(&p);
    }
}

Test(pack_cache, the_packed_form_of_a_private_model_is_private) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    static const mode_t mode[] = {0600, 0644, 0640, 0444};
    static const mode_t want[] = {0600, 0644, 0640, 0644};
    umask(022);
    for (int i = 0; i < 4; i++) {
        struct stat sb;
        cr_assert_eq(chmod(p.model, mode[i]), 0);
        cr_assert_eq(sd_remove_tree(p.cache, NULL), SD_OK);
        free(start(&p, p.cache, SD_COMPUTE_AUTO));
        char *path = only_file(&p);
        cr_assert_eq(stat(path, &sb), 0);
        cr_assert_eq(sb.st_mode & 0777, want[i], "%o of %o", sb.st_mode & 0777, mode[i]);
        free(path);
    }
    drop_place(&p);
}

Test(pack_cache, a_folder_that_others_may_touch_is_not_used) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    char *elsewhere = sd_path_join(p.dir, "elsewhere");
    float *want = start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = only_file(&p);
    for (int how = 0; how < 4; how++) {
        if (how == 2 && geteuid() != 0) continue; // only root can give a folder away
        struct stat sb;
        time_t used = 12345;
        struct timespec at[2] = {{used, 0}, {used, 0}};
        cr_assert_eq(utimensat(AT_FDCWD, path, at, 0), 0);
        if (how == 0) cr_assert_eq(chmod(p.cache, 0775), 0);
        if (how == 1) cr_assert_eq(chmod(p.cache, 0757), 0);
        if (how == 2) cr_assert(chmod(p.cache, 0755) == 0 && chown(p.cache, 1, (gid_t)-1) == 0);
        if (how == 3)
            cr_assert(chown(p.cache, geteuid(), (gid_t)-1) == 0 && chmod(p.cache, 0755) == 0 &&
                      rename(p.cache, elsewhere) == 0 && symlink(elsewhere, p.cache) == 0);
        float *got = start(&p, p.cache, SD_COMPUTE_FP32);
        cr_assert(same_logits(&p, want, got), "%d", how);
        cr_assert(stat(path, &sb) == 0 && sb.st_mtim.tv_sec == used, "%d: it was used", how);
        free(got);
        cr_assert_eq(list_status(p.cache), SD_EMISMATCH, "%d", how);
    }
    free(want), free(path), free(elsewhere);
    drop_place(&p);
}

Test(pack_cache, a_linked_file_and_one_that_others_may_write_are_made_again) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    float *want = start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = only_file(&p), *elsewhere = sd_path_join(p.dir, "elsewhere.pack");
    struct stat sb;
    cr_assert(rename(path, elsewhere) == 0 && symlink(elsewhere, path) == 0);
    float *got = start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert(same_logits(&p, want, got));
    cr_assert(lstat(path, &sb) == 0 && S_ISREG(sb.st_mode), "a file took the link's place");
    uint64_t inode = inode_of(path);
    cr_assert_eq(chmod(path, 0666), 0);
    free(got);
    got = start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert(same_logits(&p, want, got) && inode_of(path) != inode);
    free(want), free(got), free(path), free(elsewhere);
    drop_place(&p);
}

Test(pack_cache, a_file_of_an_earlier_version_is_told_by_its_first_bytes) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    float *want = start(&p, p.cache, SD_COMPUTE_AUTO);
    char *path = only_file(&p);
    change_byte(path, 6, -1); // SDPACK2
    cr_assert_eq(only_state(&p), SD_WEIGHT_CACHE_OLD);
    float *got = start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert(same_logits(&p, want, got));
    cr_assert_eq(only_state(&p), SD_WEIGHT_CACHE_CURRENT);
    free(want), free(got), free(path);
    drop_place(&p);
}

Test(pack_cache, what_is_more_than_the_cache_may_hold_is_not_kept) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    cr_assert_eq(sd_weight_cache_bytes(), (int64_t)64 << 30);
    setenv("SPECDEC_CACHE_MIB", "0", 1);
    free(start(&p, p.cache, SD_COMPUTE_AUTO));
    cr_assert_eq(files_in(p.cache), 0);
    setenv("SPECDEC_CACHE_MIB", "many", 1);
    cr_assert_eq(sd_weight_cache_bytes(), (int64_t)64 << 30);
    setenv("SPECDEC_CACHE_MIB", "100", 1);
    free(start(&p, p.cache, SD_COMPUTE_AUTO));
    cr_assert_eq(files_in(p.cache), 1);
    drop_place(&p);
}

Test(pack_cache, a_start_that_is_told_to_stop_leaves_nothing) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    atomic_bool stop = true;
    sd_error err = {0};
    sd_context *cx;
    for (int kept = 0; kept < 2; kept++) { // packing, then reading what was packed
        sd_model *m = open_model(&p, p.cache);
        sd_context_options o = {.cache = {.dir = p.cache}, .stop = &stop};
        cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_EINTERRUPTED);
        cr_assert_eq(files_in(p.cache), kept);
        sd_model_release(m);
        free(start(&p, p.cache, SD_COMPUTE_AUTO));
        cr_assert_eq(files_in(p.cache), 1);
    }
    drop_place(&p);
}

Test(pack_cache, a_model_that_changed_is_packed_anew) {
    if (nothing_to_test()) cr_skip_test("no packed form on this processor");
    place p = make_place();
    float *old = start(&p, p.cache, SD_COMPUTE_AUTO);
    p.t.seed += 1;
    cr_assert_eq(sd_tiny_write_gguf(p.model, &p.t, NULL), SD_OK);
    sd_weight_cache_entry *e;
    int n;
    cr_assert_eq(sd_weight_cache_list(&e, &n, p.cache, NULL), SD_OK);
    cr_assert(n == 1 && e[0].state == SD_WEIGHT_CACHE_STALE && e[0].source);
    sd_weight_cache_list_free(e, n);
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
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK);
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
    cr_assert_not(sd_weight_cache_source_sha256(NULL, m, &kept)); // without a cache
    cr_assert(sd_weight_cache_source_sha256(p.cache, m, &kept));
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
    sd_weight_cache_trim(dir, 200, path[1]);
    cr_assert(access(path[0], F_OK) != 0 && access(path[1], F_OK) == 0 &&
              access(path[2], F_OK) == 0);
    sd_weight_cache_trim(dir, 50, path[1]);
    cr_assert(access(path[1], F_OK) == 0 && access(path[2], F_OK) != 0);
    for (int i = 0; i < 3; i++) free(path[i]);
    sd_tiny_remove(dir);
}

Test(pack_cache, a_folder_is_watched_as_a_file_is) {
    place p = make_place();
    sd_error err = {0};
    sd_context *cx;
    sd_kv *kv;
    free(p.model);
    p.model = sd_path_join(p.dir, "folder");
    cr_assert_eq(sd_tiny_write_folder(p.model, &p.t, &err), SD_OK, "%s", err.message);
    char *weights = sd_path_join(p.model, "model.safetensors");
    float *want = start(&p, NULL, SD_COMPUTE_AUTO), *first = start(&p, p.cache, SD_COMPUTE_AUTO),
          *second = start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert(same_logits(&p, want, first) && same_logits(&p, want, second));
    // Written between the open and the packing, then cut under a context.
    usleep(20000);
    sd_model *m = open_model(&p, NULL);
    cr_assert_eq(utimensat(AT_FDCWD, weights, NULL, 0), 0);
    cr_assert_eq(sd_context_open(&cx, m, NULL, NULL, &err), SD_EIO);
    cr_assert(strstr(err.message, weights), "%s", err.message);
    sd_model_release(m);
    m = open_model(&p, p.cache);
    cr_assert_eq(
        sd_context_open(&cx, m, NULL, &(sd_context_options){.cache = {.dir = p.cache}}, &err),
        SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, T, &err), SD_OK);
    cr_assert_eq(truncate(weights, 9), 0);
    float *out = sd_alloc((size_t)p.t.V, sizeof *out);
    // A tensor at an odd place was copied when the model was opened, and is right for ever.
    sd_status st = forward(cx, kv, out, &err);
    cr_assert(st == SD_EIO || (st == SD_OK && same_logits(&p, want, out)));
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_model_release(m);
    cr_assert_neq(sd_model_open(&m, p.model, &err), SD_OK);
    free(want), free(first), free(second), free(out), free(weights);
    drop_place(&p);
}
