// Paths of strangers: nothing outside the root is opened, whatever a path says and whatever stands on its way.
#include "base/files/beneath.h"
#include "base/files/file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], outside[96], in[96];
static sd_root root;

static void write_text(const char *path, const char *text) {
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
}

static void make(void) {
    char path[160];
    sd_error err = {0};
    snprintf(folder, sizeof folder, "/tmp/specdec_root_%d", (int)getpid());
    snprintf(in, sizeof in, "%s/root", folder);
    snprintf(outside, sizeof outside, "%s/secret", folder);
    snprintf(path, sizeof path, "%s/sub", in);
    cr_assert_eq(sd_mkdirs(path, NULL), SD_OK);
    write_text(outside, "secret");
    snprintf(path, sizeof path, "%s/file", in);
    write_text(path, "inside");
    snprintf(path, sizeof path, "%s/up", in);
    cr_assert_eq(symlink("../secret", path), 0);
    snprintf(path, sizeof path, "%s/far", in);
    cr_assert_eq(symlink(outside, path), 0);
    snprintf(path, sizeof path, "%s/near", in);
    cr_assert_eq(symlink("file", path), 0);
    snprintf(path, sizeof path, "%s/out", in);
    cr_assert_eq(symlink("..", path), 0);
    snprintf(path, sizeof path, "%s/loop", in);
    cr_assert_eq(symlink("loop", path), 0);
    snprintf(path, sizeof path, "%s/proc", in);
    cr_assert_eq(symlink("/proc/self/root", path), 0);
    snprintf(path, sizeof path, "%s/fifo", in);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(sd_root_open(&root, in, 100, &err), SD_OK, "%s", err.message);
    sd_root_enter(&root);
}
static void drop(void) {
    sd_root_leave();
    sd_root_close(&root);
    sd_remove_tree(folder, NULL);
}
TestSuite(beneath, .init = make, .fini = drop);

// What reading `name` below the root gives.
static sd_status get(char *text, size_t cap, const char *name) {
    char *path = NULL, *data = NULL;
    size_t len;
    sd_error err = {0};
    text[0] = '\0';
    sd_status st = sd_root_path(&path, &root, name, &err);
    if (st == SD_OK) st = sd_file_read(&data, &len, path, 1000, &err);
    snprintf(text, cap, "%s", st == SD_OK ? data : err.message);
    free(data), free(path);
    return st;
}

Test(beneath, what_stands_below_the_root_is_read) {
    char text[1100], name[256];
    static const char *const good[] = {"file", "sub/../file", "near", "./file", "sub//../near"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cr_assert_eq(get(text, sizeof text, good[i]), SD_OK, "%s: %s", good[i], text);
        cr_assert_str_eq(text, "inside");
    }
    snprintf(name, sizeof name, "%s/file", in);
    cr_assert_eq(get(text, sizeof text, name), SD_OK, "the root's own path may stand before it");
}

Test(beneath, nothing_else_is_by_any_reader) {
    char text[1100], name[256], long_name[5000];
    snprintf(name, sizeof name, "%s/../secret", in);
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const char *const bad[] = {"../secret",
                               "sub/../../secret",
                               "up",
                               "far",
                               "out/secret",
                               "loop",
                               outside,
                               name,
                               "/etc/passwd",
                               "proc/etc/passwd",
                               "/proc/self/cwd",
                               "",
                               ".",
                               "fifo",
                               "sub",
                               "none",
                               "/proc/self/fd/0",
                               long_name,
                               "file/../../secret"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_neq(get(text, sizeof text, bad[i]), SD_OK, "%.100s", bad[i]);
        cr_assert_null(strstr(text, "secret\n"));
    }
    static const char *const links[] = {"up", "far", "out", "proc"};
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        sd_map m;
        sd_names names;
        sd_path_kind kind;
        char *path = sd_path_join(in, links[i]);
        cr_assert_eq(sd_map_open(&m, path, NULL), SD_EINVAL, "%s", links[i]);
        cr_assert_eq(sd_path_look(&kind, path, NULL), SD_EINVAL, "%s", links[i]);
        cr_assert_neq(sd_folder_list(&names, path, NULL), SD_OK, "%s", links[i]);
        free(path);
    }
}

Test(beneath, paths_of_others_and_threads_that_left_are_as_always) {
    char *data;
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, outside, 100, NULL), SD_OK);
    free(data);
    char beside[128];
    snprintf(beside, sizeof beside, "%sx", in); // begins like it, and is not below it
    write_text(beside, "beside");
    cr_assert_eq(sd_file_read(&data, &len, beside, 100, NULL), SD_OK);
    free(data);
    sd_root_leave();
    snprintf(beside, sizeof beside, "%s/up", in);
    cr_assert_eq(sd_file_read(&data, &len, beside, 100, NULL), SD_OK);
    free(data);
}

Test(beneath, large_files_are_refused_before_they_are_read) {
    char path[160], text[1100];
    snprintf(path, sizeof path, "%s/large", in);
    write_text(path, "");
    cr_assert_eq(truncate(path, (off_t)1 << 40), 0);
    cr_assert_eq(get(text, sizeof text, "large"), SD_ELIMIT, "%s", text);
    cr_assert(strstr(text, "1099511627776 bytes"), "%s", text);
    sd_map m;
    cr_assert_eq(sd_map_open(&m, path, NULL), SD_ELIMIT);
}

Test(beneath, a_root_that_is_no_folder_is_refused) {
    sd_root r;
    sd_error err = {0};
    char path[160];
    snprintf(path, sizeof path, "%s/file", in);
    cr_assert_eq(sd_root_open(&r, path, 1, &err), SD_EINVAL);
    sd_root_close(&r);
    cr_assert_eq(sd_root_open(&r, "/nowhere/at/all", 1, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "/nowhere/at/all"), "%s", err.message);
    sd_root_close(&r);
    cr_assert_eq(sd_root_open(&r, "not_here", 1, &err), SD_EINVAL);
    sd_root_close(&r);
}
