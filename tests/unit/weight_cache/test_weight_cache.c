// The packed form on disk: used when it is the model's, and only then.
#include "base/files/file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/infer/weight_cache/place.h"
#include "tests/unit/weight_cache/support_weight_cache.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Test(pack_cache, a_second_start_runs_on_the_kept_form_with_the_same_bits) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    for (int c = SD_COMPUTE_AUTO; c <= SD_COMPUTE_FP32; c++) {
        float *without = pack_start(&p, NULL, (sd_compute)c),
              *first = pack_start(&p, p.cache, (sd_compute)c),
              *second = pack_start(&p, p.cache, (sd_compute)c);
        cr_assert(pack_same_logits(&p, without, first));
        cr_assert(pack_same_logits(&p, without, second));
        free(without), free(first), free(second);
    }
    // That the file is what runs: the same one serves a third start, and is whole.
    char *path = pack_only_file(&p);
    uint64_t inode = pack_inode_of(path);
    free(pack_start(&p, p.cache, SD_COMPUTE_FP32));
    cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK);
    cr_assert_eq(pack_inode_of(path), inode, "it was read, not made again");
    free(path);
    pack_drop_place(&p);
}

Test(pack_cache, one_flipped_bit_of_the_data_is_found_and_the_file_made_again) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    float *want = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = pack_only_file(&p);
    long size = (long)pack_size_of(path);
    // The first weight, some in the middle, the last one, and the sums of the embedding's rows.
    long sums = (long)p.t.V * 8;
    const long at[] = {-4, -sums + 4, -sums - 70, size - sums - (size - sums) / 3, size / 2};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        pack_change_byte(path, at[i], 64);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_EMISMATCH, "byte %ld", at[i]);
        float *got = pack_start(&p, p.cache, SD_COMPUTE_FP32);
        cr_assert(pack_same_logits(&p, want, got), "byte %ld", at[i]);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK, "byte %ld: made again",
                     at[i]);
        free(got);
    }
    free(want), free(path);
    pack_drop_place(&p);
}

Test(pack_cache, the_packed_form_of_a_private_model_is_private) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    static const mode_t mode[] = {0600, 0644, 0640, 0444};
    static const mode_t want[] = {0600, 0644, 0640, 0644};
    umask(022);
    for (int i = 0; i < 4; i++) {
        struct stat sb;
        cr_assert_eq(chmod(p.model, mode[i]), 0);
        cr_assert_eq(sd_remove_tree(p.cache, NULL), SD_OK);
        free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
        char *path = pack_only_file(&p);
        cr_assert_eq(stat(path, &sb), 0);
        cr_assert_eq(sb.st_mode & 0777, want[i], "%o of %o", sb.st_mode & 0777, mode[i]);
        free(path);
    }
    pack_drop_place(&p);
}

Test(pack_cache, a_folder_that_others_may_touch_is_not_used) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    char *elsewhere = sd_path_join(p.dir, "elsewhere");
    float *want = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = pack_only_file(&p);
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
        float *got = pack_start(&p, p.cache, SD_COMPUTE_FP32);
        cr_assert(pack_same_logits(&p, want, got), "%d", how);
        cr_assert(stat(path, &sb) == 0 && sb.st_mtim.tv_sec == used, "%d: it was used", how);
        free(got);
        cr_assert_eq(pack_list_status(p.cache), SD_EMISMATCH, "%d", how);
    }
    free(want), free(path), free(elsewhere);
    pack_drop_place(&p);
}

Test(pack_cache, a_linked_file_and_one_that_others_may_write_are_made_again) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    float *want = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = pack_only_file(&p), *elsewhere = sd_path_join(p.dir, "elsewhere.pack");
    struct stat sb;
    cr_assert(rename(path, elsewhere) == 0 && symlink(elsewhere, path) == 0);
    float *got = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert(pack_same_logits(&p, want, got));
    cr_assert(lstat(path, &sb) == 0 && S_ISREG(sb.st_mode), "a file took the link's place");
    uint64_t inode = pack_inode_of(path);
    cr_assert_eq(chmod(path, 0666), 0);
    free(got);
    got = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert(pack_same_logits(&p, want, got) && pack_inode_of(path) != inode);
    free(want), free(got), free(path), free(elsewhere);
    pack_drop_place(&p);
}

Test(pack_cache, a_file_of_an_earlier_version_is_told_by_its_first_bytes) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    float *want = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    char *path = pack_only_file(&p);
    pack_change_byte(path, 6, -1); // SDPACK2
    cr_assert_eq(pack_only_state(&p), SD_WEIGHT_CACHE_OLD);
    float *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    cr_assert(pack_same_logits(&p, want, got));
    cr_assert_eq(pack_only_state(&p), SD_WEIGHT_CACHE_CURRENT);
    free(want), free(got), free(path);
    pack_drop_place(&p);
}

Test(pack_cache, what_is_more_than_the_cache_may_hold_is_not_kept) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    cr_assert_eq(sd_weight_cache_bytes(), (int64_t)64 << 30);
    setenv("SPECDEC_CACHE_MIB", "0", 1);
    free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
    cr_assert_eq(pack_files_in(p.cache), 0);
    setenv("SPECDEC_CACHE_MIB", "many", 1);
    cr_assert_eq(sd_weight_cache_bytes(), (int64_t)64 << 30);
    setenv("SPECDEC_CACHE_MIB", "100", 1);
    free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
    cr_assert_eq(pack_files_in(p.cache), 1);
    pack_drop_place(&p);
}

Test(pack_cache, a_start_that_is_told_to_stop_leaves_nothing) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    atomic_bool stop = true;
    sd_error err = {0};
    sd_context *cx;
    for (int kept = 0; kept < 2; kept++) { // packing, then reading what was packed
        sd_model *m = pack_open_model(&p, p.cache);
        sd_context_options o = {.cache = {.dir = p.cache}, .stop = &stop};
        cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_EINTERRUPTED);
        cr_assert_eq(pack_files_in(p.cache), kept);
        sd_model_release(m);
        free(pack_start(&p, p.cache, SD_COMPUTE_AUTO));
        cr_assert_eq(pack_files_in(p.cache), 1);
    }
    pack_drop_place(&p);
}

Test(pack_cache, a_damaged_head_is_never_believed) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    float *want = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
    char *path = pack_only_file(&p);
    unsigned seed = 7;
    for (int i = 0; i < 60; i++) {
        seed = seed * 1103515245 + 12345;
        pack_change_byte(path, (long)(seed >> 8) % 2000, 1 + (int)(seed >> 4) % 255);
        float *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO); // packs, and keeps a good one again
        cr_assert(pack_same_logits(&p, want, got), "after change %d", i);
        free(got);
        cr_assert_eq(sd_weight_cache_verify(path, NULL, NULL), SD_OK);
    }
    for (int at = 0; at < 24; at++) { // the lengths, a byte at a time
        pack_change_byte(path, at, 16);
        float *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
        cr_assert(pack_same_logits(&p, want, got), "byte %d", at);
        free(got);
    }
    for (long len = 0; len < 200; len += 13) {
        cr_assert_eq(truncate(path, len), 0);
        float *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
        cr_assert(pack_same_logits(&p, want, got), "cut to %ld bytes", len);
        free(got);
    }
    for (int at = 8; at < 24; at += 8) { // a length of nothing
        FILE *f = fopen(path, "r+b");
        cr_assert(f && fseek(f, at, SEEK_SET) == 0 && fwrite("\0\0\0\0\0\0\0", 1, 8, f) == 8);
        fclose(f);
        float *got = pack_start(&p, p.cache, SD_COMPUTE_AUTO);
        cr_assert(pack_same_logits(&p, want, got), "zeros at %d", at);
        free(got);
    }
    free(want), free(path);
    pack_drop_place(&p);
}

Test(pack_cache, a_file_of_another_user_is_not_used) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    if (geteuid() != 0) cr_skip_test("only root can give a file away");
    pack_place p = pack_make_place();
    float *want = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    char *path = pack_only_file(&p);
    pack_change_byte(path, -2, 64);
    cr_assert_eq(chown(path, 1, (gid_t)-1), 0);
    float *got = pack_start(&p, p.cache, SD_COMPUTE_FP32);
    cr_assert(pack_same_logits(&p, want, got));
    free(want), free(got), free(path);
    pack_drop_place(&p);
}

Test(pack_cache, a_cache_that_cannot_be_written_costs_no_answer) {
    if (pack_nothing_to_test()) cr_skip_test("no packed form on this processor");
    pack_place p = pack_make_place();
    char *below_a_file = sd_path_join(p.model, "packed");
    float *want = pack_start(&p, NULL, SD_COMPUTE_AUTO),
          *got = pack_start(&p, below_a_file, SD_COMPUTE_AUTO);
    cr_assert(pack_same_logits(&p, want, got));
    free(want), free(got), free(below_a_file);
    pack_drop_place(&p);
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
