// The packed form and its model: one that changes before, while or after it is packed.
#include "base/files/file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/infer/weight_cache/place.h"
#include "tests/unit/weight_cache/support_weight_cache.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Writes other weights over the model in place, as rsync --inplace does, and puts its time back.
static void overwrite(const pack_place *p, uint64_t seed) {
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
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    sd_sha256 before, after, real;
    float *old = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    sd_model *m = pack_open_model(&p, p.cache);
    cr_assert_eq(sd_model_sha256(m, &before, NULL), SD_OK);
    sd_model_release(m);
    overwrite(&p, p.t.seed + 1);
    m = pack_open_model(&p, p.cache); // what an adapter's base is held against
    cr_assert_eq(sd_model_sha256(m, &after, NULL), SD_OK);
    cr_assert_eq(sd_sha256_of_file(&real, p.model, NULL), SD_OK);
    cr_assert(sd_sha256_equal(&after, &real) && !sd_sha256_equal(&after, &before));
    sd_model_release(m);
    float *want = pack_start(&p, NULL, SD_COMPUTE_AUTO),
          *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert_not(pack_same_logits(&p, old, want));
    cr_assert(pack_same_logits(&p, want, got));
    free(old), free(want), free(got);
    pack_drop_place(&p);
}

Test(pack_cache, a_source_that_was_only_touched_keeps_its_file) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    sd_sha256 one, two;
    free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
    char *path = pack_only_file(&p), *copy = sd_path_join(p.dir, "copy.gguf"), *data;
    uint64_t inode = pack_inode_of(path);
    size_t len;
    sd_model *m = pack_open_model(&p, p.cache);
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
        cr_assert_eq(pack_only_state(&p), SD_WEIGHT_CACHE_STALE);
        free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
        cr_assert_eq(pack_only_state(&p), SD_WEIGHT_CACHE_CURRENT, "%d: it has the new label", how);
        cr_assert_eq(pack_inode_of(path), inode, "%d: and was not made again", how);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK);
    }
    m = pack_open_model(&p, p.cache);
    cr_assert(sd_weight_cache_identity(&two, p.cache, m, sd_ops_best()) &&
                  sd_sha256_equal(&one, &two),
              "what lies beside it still belongs to it");
    sd_model_release(m);
    free(path), free(copy);
    pack_drop_place(&p);
}

Test(pack_cache, a_source_that_is_replaced_while_it_is_packed_leaves_nothing) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    sd_error err = {0};
    sd_context *cx;
    char *other = sd_path_join(p.dir, "other.gguf");
    sd_tiny_model t = p.t;
    t.seed += 1;
    cr_assert_eq(sd_tiny_write_gguf(other, &t, NULL), SD_OK);
    sd_model *m = pack_open_model(&p, p.cache);
    cr_assert_eq(rename(other, p.model), 0);
    cr_assert_eq(
        sd_context_open(&cx, m, NULL, &(sd_context_options){.cache = {.dir = p.cache}}, &err),
        SD_OK, "%s", err.message);
    sd_context_close(cx);
    sd_model_release(m);
    cr_assert_eq(pack_files_in(p.cache), 0);
    float *want = pack_start(&p, NULL, SD_COMPUTE_AUTO),
          *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert(pack_same_logits(&p, want, got), "the start after that has the new model");
    free(want), free(got), free(other);
    pack_drop_place(&p);
}

Test(pack_cache, a_source_that_is_written_while_it_is_packed_is_an_error) {
    pack_place p = pack_make_place();
    sd_error err = {0};
    sd_context *cx;
    for (int with = 0; with < 2; with++) {
        sd_model *m = pack_open_model(&p, with ? p.cache : NULL);
        overwrite(&p, p.t.seed + 1 + with);
        sd_context_options o = {.cache = {.dir = with ? p.cache : NULL}};
        cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_EIO);
        cr_assert(strstr(err.message, p.model), "%s", err.message);
        sd_model_release(m);
        cr_assert_eq(pack_files_in(p.cache), 0);
    }
    pack_drop_place(&p);
}

static sd_status forward(sd_context *cx, sd_kv *kv, float *out, sd_error *err) {
    sd_row row[PACK_T];
    int V = sd_context_model(cx)->hp.V;
    for (int i = 0; i < PACK_T; i++)
        row[i] = (sd_row){(i * 37 + 5) % V, i, kv, NULL, i == PACK_T - 1, NULL, NULL};
    return sd_forward(cx, row, PACK_T, out, err);
}

Test(pack_cache, a_source_that_changes_under_a_context_is_an_error_and_never_an_answer) {
    static const char *const isa[] = {NULL, "plain"};
    for (int i = 0; i < 2; i++) {
        pack_place p = pack_make_place();
        sd_error err = {0};
        sd_context *cx;
        sd_kv *kv;
        sd_model *m = pack_open_model(&p, NULL);
        float *want = sd_alloc((size_t)m->hp.V, sizeof *want),
              *got = sd_alloc((size_t)m->hp.V, sizeof *got);
        sd_context_options o = {.max_rows = PACK_T, .isa = isa[i]};
        cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_kv_open(&kv, cx, PACK_T, &err), SD_OK);
        cr_assert_eq(forward(cx, kv, want, &err), SD_OK);
        cr_assert_eq(chmod(p.model, 0600), 0);
        cr_assert_eq(forward(cx, kv, got, &err), SD_OK, "%s", err.message);
        cr_assert(pack_same_logits(&p, want, got), "permissions are no bytes");
        // All bytes but the embedding's, which are read from the file.
        size_t all =
            (size_t)m->embedding.rows * sd_row_bytes(m->embedding.dtype, m->embedding.cols);
        long from = (const uint8_t *)m->embedding.data - pack_file_of(m)->data;
        int fd = open(p.model, O_WRONLY);
        for (long at = 0; at < (long)pack_file_of(m)->size; at++)
            if (at < from || at >= from + (long)all) cr_assert_eq(pwrite(fd, "\xff", 1, at), 1);
        cr_assert_eq(forward(cx, kv, got, &err), SD_OK, "%s", err.message);
        cr_assert(pack_same_logits(&p, want, got), "%s: weights stand in memory",
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
        pack_drop_place(&p);
    }
}

Test(pack_cache, a_model_that_changed_is_packed_anew) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    float *old = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    p.t.seed += 1;
    cr_assert_eq(sd_tiny_write_gguf(p.model, &p.t, NULL), SD_OK);
    sd_weight_cache_entry *e;
    int n;
    cr_assert_eq(sd_weight_cache_list(&e, &n, p.cache, NULL), SD_OK);
    cr_assert(n == 1 && e[0].state == SD_WEIGHT_CACHE_STALE && e[0].source);
    sd_weight_cache_list_free(e, n);
    float *want = pack_start(&p, NULL, SD_COMPUTE_AUTO),
          *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert_not(pack_same_logits(&p, old, want));
    cr_assert(pack_same_logits(&p, want, got));
    free(pack_only_file(&p)); // the old one was replaced
    free(old), free(want), free(got);
    pack_drop_place(&p);
}

Test(pack_cache, the_hash_of_the_source_comes_from_the_file) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    sd_model *m;
    sd_sha256 kept, real;
    free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
    cr_assert_eq(sd_model_open(&m, p.model, NULL), SD_OK);
    cr_assert_not(sd_weight_cache_source_sha256(NULL, m, &kept)); // without a cache
    cr_assert(sd_weight_cache_source_sha256(p.cache, m, &kept));
    cr_assert_eq(sd_sha256_of_file(&real, p.model, NULL), SD_OK);
    cr_assert(sd_sha256_equal(&kept, &real));
    sd_model_release(m);
    pack_drop_place(&p);
}

Test(pack_cache, a_folder_is_watched_as_a_file_is) {
    pack_place p = pack_make_place();
    sd_error err = {0};
    sd_context *cx;
    sd_kv *kv;
    free(p.model);
    p.model = sd_path_join(p.dir, "folder");
    cr_assert_eq(sd_tiny_write_folder(p.model, &p.t, &err), SD_OK, "%s", err.message);
    char *weights = sd_path_join(p.model, "model.safetensors");
    float *want = pack_start(&p, NULL, SD_COMPUTE_AUTO),
          *first = pack_start(&p, p.cache, SD_COMPUTE_AUTO),
          *second = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert(pack_same_logits(&p, want, first) && pack_same_logits(&p, want, second));
    // Written between the open and the packing, then cut under a context.
    usleep(20000);
    sd_model *m = pack_open_model(&p, NULL);
    cr_assert_eq(utimensat(AT_FDCWD, weights, NULL, 0), 0);
    cr_assert_eq(sd_context_open(&cx, m, NULL, NULL, &err), SD_EIO);
    cr_assert(strstr(err.message, weights), "%s", err.message);
    sd_model_release(m);
    m = pack_open_model(&p, p.cache);
    cr_assert_eq(
        sd_context_open(&cx, m, NULL, &(sd_context_options){.cache = {.dir = p.cache}}, &err),
        SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, PACK_T, &err), SD_OK);
    cr_assert_eq(truncate(weights, 9), 0);
    float *out = sd_alloc((size_t)p.t.V, sizeof *out);
    // A tensor at an odd place was copied when the model was opened, and is right for ever.
    sd_status st = forward(cx, kv, out, &err);
    cr_assert(st == SD_EIO || (st == SD_OK && pack_same_logits(&p, want, out)));
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_model_release(m);
    cr_assert_neq(sd_model_open(&m, p.model, &err), SD_OK);
    free(want), free(first), free(second), free(out), free(weights);
    pack_drop_place(&p);
}
