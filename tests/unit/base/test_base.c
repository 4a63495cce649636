// The ground floor: sizes, buffers, files, random numbers, the pool, options.
#include "base/files/cleanup.h"
#include "base/files/file.h"
#include "base/files/hash.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "base/option.h"
#include "base/pool.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Test(memory, allocation_refuses_an_overflowing_product) {
    cr_assert_null(sd_alloc(SIZE_MAX / 2, 3));
    size_t out = 7;
    cr_assert_not(sd_mul_size(&out, SIZE_MAX, 2));
    cr_assert_eq(out, 7);
}

Test(memory, a_buffer_never_passes_its_ceiling) {
    sd_buf b = sd_buf_make(8);
    cr_assert(sd_buf_adds(&b, "12345678"));
    cr_assert_not(sd_buf_addc(&b, '9'));
    cr_assert_str_eq(b.data, "12345678");
    sd_buf_free(&b);
}

Test(hash, sha256_of_abc_is_the_standards_example) {
    sd_sha256 h;
    cr_assert_eq(sd_sha256_of(&h, "abc", 3, NULL), SD_OK);
    cr_assert_str_eq(h.hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

Test(rng, philox_gives_the_known_answer_of_random123) {
    // kat_vectors of Random123: philox4x32 10 rounds, counter and key all ones.
    uint32_t r[4];
    sd_philox(r, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    cr_assert_eq(r[0], 0x408f276d);
    cr_assert_eq(r[1], 0x41c83b0e);
    cr_assert_eq(r[2], 0xa20bc7c6);
    cr_assert_eq(r[3], 0x6d5451fd);
}

Test(rng, uniform_numbers_never_reach_an_end) {
    cr_assert(sd_uniform(0) > 0 && sd_uniform(UINT32_MAX) < 1);
    cr_assert(sd_uniform64(0, 0) > 0 && sd_uniform64(UINT32_MAX, UINT32_MAX) < 1);
}

Test(file, a_replacement_that_is_aborted_leaves_the_old_file) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/specdec_test_%d", (int)getpid());
    cr_assert_eq(sd_file_write(path, "old", 3, NULL), SD_OK);
    sd_replace r;
    cr_assert_eq(sd_replace_open(&r, path, NULL), SD_OK);
    fputs("new", r.f);
    sd_replace_abort(&r);
    char *data;
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, path, 100, NULL), SD_OK);
    cr_assert_str_eq(data, "old");
    free(data);
    unlink(path);
}

Test(file, an_interrupt_removes_what_is_unfinished_and_nothing_else) {
    char dir[] = "/tmp/specdec-unfinished-XXXXXX";
    cr_assert(mkdtemp(dir));
    char *folder = sd_path_join(dir, "new"), *path = sd_path_join(folder, "a"),
         *kept = sd_path_join(dir, "kept");
    sd_replace r, done;
    cr_assert_eq(sd_replace_open(&done, kept, NULL), SD_OK);
    cr_assert_eq(sd_replace_commit(&done, NULL), SD_OK);
    sd_cleanup_add(folder);
    cr_assert_eq(sd_mkdirs(folder, NULL), SD_OK);
    cr_assert_eq(sd_replace_open(&r, path, NULL), SD_OK);
    sd_cleanup_run();
    cr_assert(access(folder, F_OK) != 0 && access(kept, F_OK) == 0);
    sd_replace_abort(&r);
    sd_cleanup_drop(folder);
    cr_assert_eq(sd_mkdirs(folder, NULL), SD_OK);
    sd_cleanup_run(); // finished: no longer its business
    cr_assert(access(folder, F_OK) == 0);
    cr_assert_eq(sd_remove_tree(dir, NULL), SD_OK);
    free(folder), free(path), free(kept);
}

Test(file, an_interrupt_removes_folders_inside_each_other_and_scratch_folders_with_their_files) {
    char dir[] = "/tmp/specdec-unfinished-XXXXXX", *scratch;
    cr_assert(mkdtemp(dir));
    char *outer = sd_path_join(dir, "run"), *inner = sd_path_join(outer, "data");
    setenv("TMPDIR", dir, 1);
    sd_cleanup_add(outer); // before the one inside it
    sd_cleanup_add(inner);
    cr_assert_eq(sd_mkdirs(inner, NULL), SD_OK);
    cr_assert_eq(sd_scratch_open(&scratch, "s", NULL), SD_OK);
    for (int i = 0; i < 300; i++) { // more names than one listing holds
        char *path = sd_sprintf("%s/a-name-of-some-length-%d", scratch, i);
        cr_assert_eq(sd_file_write(path, "x", 1, NULL), SD_OK);
        free(path);
    }
    sd_cleanup_run();
    cr_assert(access(outer, F_OK) != 0 && access(scratch, F_OK) != 0);
    sd_cleanup_drop(outer), sd_cleanup_drop(inner), sd_scratch_close(scratch);
    cr_assert_eq(rmdir(dir), 0);
    free(outer), free(inner);
}

Test(file, a_look_tells_nothing_there_from_cannot_be_looked_at) {
    char dir[] = "/tmp/specdec-look-XXXXXX";
    sd_path_kind kind;
    sd_error err;
    cr_assert(mkdtemp(dir));
    char *file = sd_path_join(dir, "file"), *below = sd_path_join(file, "below"),
         *loop = sd_path_join(dir, "loop"), *pipe = sd_path_join(dir, "pipe");
    char long_name[400];
    memset(long_name, 'n', sizeof long_name);
    long_name[399] = 0;
    cr_assert_eq(sd_file_write(file, "x", 1, NULL), SD_OK);
    cr_assert(symlink(loop, loop) == 0 && mkfifo(pipe, 0600) == 0);
    cr_assert(sd_path_look(&kind, dir, NULL) == SD_OK && kind == SD_PATH_FOLDER);
    cr_assert(sd_path_look(&kind, file, NULL) == SD_OK && kind == SD_PATH_FILE);
    cr_assert(sd_path_look(&kind, pipe, NULL) == SD_OK && kind == SD_PATH_OTHER);
    cr_assert(sd_path_look(&kind, below, NULL) == SD_OK && kind == SD_PATH_NONE);
    cr_assert(sd_path_look_in(&kind, dir, "other", NULL) == SD_OK && kind == SD_PATH_NONE);
    cr_assert(sd_path_look_in(&kind, dir, long_name, NULL) == SD_OK && kind == SD_PATH_NONE);
    // ELOOP stands for all other errors: permissions do not bind the superuser.
    cr_assert_eq(sd_path_look(&kind, loop, &err), SD_EIO);
    cr_assert(strstr(err.message, loop));
    cr_assert_eq(sd_remove_tree(dir, NULL), SD_OK);
    free(file), free(below), free(loop), free(pipe);
}

Test(file, a_pipe_is_refused_without_waiting_for_a_writer, .timeout = 20) {
    char dir[] = "/tmp/specdec-pipe-XXXXXX", *data, head[4];
    size_t len, size;
    sd_map m;
    sd_sha256 h;
    int fd;
    cr_assert(mkdtemp(dir));
    char *pipe = sd_path_join(dir, "pipe");
    cr_assert_eq(mkfifo(pipe, 0600), 0);
    cr_assert_eq(sd_map_open(&m, pipe, NULL), SD_EFORMAT);
    cr_assert_eq(sd_file_read(&data, &len, pipe, 100, NULL), SD_EFORMAT);
    cr_assert_eq(sd_file_head(head, 4, &len, pipe, NULL), SD_EFORMAT);
    cr_assert_eq(sd_open_regular(&fd, &size, pipe, NULL), SD_EFORMAT);
    cr_assert_eq(sd_sha256_of_file(&h, pipe, NULL), SD_EFORMAT);
    cr_assert_eq(sd_file_read(&data, &len, "/dev/zero", 100, NULL), SD_EFORMAT);
    cr_assert_eq(sd_file_read(&data, &len, dir, 100, NULL), SD_EINVAL);
    int end[2]; // where text is wanted a pipe is read
    cr_assert(pipe2(end, 0) == 0 && write(end[1], "text", 4) == 4 && close(end[1]) == 0);
    char *name = sd_sprintf("/dev/fd/%d", end[0]);
    cr_assert_eq(sd_stream_read(&data, &len, name, 100, NULL), SD_OK);
    cr_assert_str_eq(data, "text");
    free(data), free(name), close(end[0]);
    cr_assert_eq(sd_remove_tree(dir, NULL), SD_OK);
    free(pipe);
}

Test(file, a_folder_is_listed_in_byte_order_without_itself) {
    char dir[] = "/tmp/specdec-list-XXXXXX";
    sd_names in;
    cr_assert(mkdtemp(dir));
    static const char *const names[] = {"b", ".hidden", "a"};
    for (int i = 0; i < 3; i++) {
        char *p = sd_path_join(dir, names[i]);
        cr_assert_eq(sd_file_write(p, "x", 1, NULL), SD_OK);
        free(p);
    }
    cr_assert_eq(sd_folder_list(&in, dir, NULL), SD_OK);
    cr_assert_eq(in.n, 3);
    cr_assert_str_eq(in.name[0], ".hidden");
    cr_assert_str_eq(in.name[2], "b");
    sd_names_free(&in);
    cr_assert_eq(sd_remove_tree(dir, NULL), SD_OK);
    cr_assert_eq(sd_folder_list(&in, dir, NULL), SD_ENOTFOUND);
}

static unsigned mode_of(const char *path) {
    struct stat sb;
    cr_assert_eq(stat(path, &sb), 0);
    return sb.st_mode & 0777;
}

Test(file, what_is_made_from_a_private_source_is_private) {
    char dir[] = "/tmp/specdec-private-XXXXXX";
    cr_assert(mkdtemp(dir) && chmod(dir, 0755) == 0);
    umask(022);
    char *in = sd_path_join(dir, "in"), *out = sd_path_join(dir, "out"),
         *made = sd_path_join(dir, "folder");
    sd_replace r;
    cr_assert_eq(sd_file_write(in, "x", 1, NULL), SD_OK);
    cr_assert_eq(sd_keep_private(in, NULL), SD_OK);
    cr_assert_eq(sd_keep_private(dir, NULL), SD_OK);
    cr_assert_eq(sd_file_write(out, "x", 1, NULL), SD_OK);
    cr_assert_eq(mode_of(out), 0644);
    cr_assert_eq(sd_replace_open_mode(&r, out, 0600, NULL), SD_OK);
    cr_assert_eq(sd_replace_commit(&r, NULL), SD_OK);
    cr_assert_eq(mode_of(out), 0600);
    cr_assert(chmod(out, 0640) == 0 && chown(out, (uid_t)-1, getegid()) == 0);
    cr_assert_eq(sd_keep_private(out, NULL), SD_OK); // the group that may read it still may
    cr_assert_eq(sd_file_write(in, "x", 1, NULL), SD_OK);
    cr_assert_eq(mode_of(in), 0640);
    cr_assert_eq(chmod(out, 0600), 0);
    cr_assert_eq(sd_keep_private(dir, NULL), SD_OK); // a folder with a private file in it
    cr_assert_eq(sd_file_write(in, "x", 1, NULL), SD_OK);
    cr_assert_eq(sd_mkdirs(made, NULL), SD_OK);
    cr_assert_eq(mode_of(in), 0600);
    cr_assert_eq(mode_of(made), 0700);
    cr_assert_eq(sd_keep_private("/nonexistent/x", NULL), SD_ENOTFOUND);
    cr_assert_eq(sd_remove_tree(dir, NULL), SD_OK);
    free(in), free(out), free(made);
}

Test(file, a_missing_file_is_named) {
    sd_map m;
    sd_error err;
    cr_assert_eq(sd_map_open(&m, "/nonexistent/x", &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "/nonexistent/x"));
}

Test(file, a_map_is_read_without_its_pages_until_the_file_is_cut) {
    char path[64], text[1000], got[100];
    sd_map m;
    for (int i = 0; i < 1000; i++) text[i] = (char)(i * 7);
    snprintf(path, sizeof path, "/tmp/specdec_map_%d", (int)getpid());
    cr_assert_eq(sd_file_write(path, text, sizeof text, NULL), SD_OK);
    cr_assert_eq(sd_map_open(&m, path, NULL), SD_OK);
    cr_assert(sd_map_read(got, &m, m.data + 900, 100));
    cr_assert_eq(memcmp(got, text + 900, 100), 0);
    cr_assert(sd_map_holds(&m, m.data + 900, 100) && sd_map_holds(&m, m.data, 1000));
    cr_assert(!sd_map_holds(&m, m.data + 901, 100) && !sd_map_holds(&m, m.data - 1, 1));
    cr_assert(!sd_map_holds(&m, text, 1) && !sd_map_holds(&(sd_map){0}, NULL, 0));
    cr_assert_eq(truncate(path, 950), 0);
    cr_assert(sd_map_read(got, &m, m.data + 850, 100) && !sd_map_read(got, &m, m.data + 851, 100));
    sd_map_close(&m);
    unlink(path);
}

// A killed run leaves its temporary file, and in a container the next one has its process id.
Test(file, a_replacement_steps_over_the_leftover_of_a_killed_run) {
    char path[64];
    sd_replace r;
    sd_error err = {0};
    snprintf(path, sizeof path, "/tmp/specdec_left_%d", (int)getpid());
    cr_assert_eq(sd_replace_open(&r, path, NULL), SD_OK);
    int serial = atoi(strrchr(r.tmp, '.') + 1);
    sd_replace_abort(&r);
    char *left = sd_sprintf("%s.tmp.%d.%d", path, (int)getpid(), serial + 1);
    FILE *f = fopen(left, "w");
    cr_assert(f && fclose(f) == 0);
    cr_assert_eq(sd_file_write(path, "new", 3, &err), SD_OK, "%s", err.message);
    cr_assert(access(left, F_OK) == 0 && access(path, F_OK) == 0);
    unlink(left);
    unlink(path);
    free(left);
}

Test(file, a_sweep_removes_leftovers_and_nothing_else) {
    static const char *const name[] = {"a.gguf.tmp.12.0", "a.tmp.b.tmp.1.2", "a.gguf", "b.tmp.12",
                                       "c.tmp.12.x",      "d.tmp..1",        ".tmp-x"};
    char dir[64];
    sd_error err = {0};
    snprintf(dir, sizeof dir, "/tmp/specdec_sweep_%d", (int)getpid());
    cr_assert_eq(sd_mkdirs(dir, NULL), SD_OK);
    for (int i = 0; i < 7; i++) {
        char *path = sd_path_join(dir, name[i]);
        cr_assert_eq(sd_file_write(path, "x", 1, NULL), SD_OK);
        free(path);
    }
    cr_assert_eq(sd_replace_sweep(dir, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < 7; i++) {
        char *path = sd_path_join(dir, name[i]);
        cr_assert_eq(access(path, F_OK) == 0, i >= 2, "%s", name[i]);
        free(path);
    }
    cr_assert_eq(sd_replace_sweep("/nonexistent", &err), SD_OK);
    sd_remove_tree(dir, NULL);
}

Test(file, what_is_no_path_of_a_file_is_the_callers_mistake) {
    char *data;
    size_t len;
    sd_error err = {0};
    cr_assert_eq(sd_file_read(&data, &len, "/tmp", 100, &err), SD_EINVAL, "%s", err.message);
    cr_assert_eq(sd_file_read(&data, &len, "/dev/null/x", 100, &err), SD_ENOTFOUND);
    cr_assert_eq(sd_mkdirs("/dev/null/x", &err), SD_EINVAL, "%s", err.message);
}

static void count_task(void *ctx, int task, int worker) {
    (void)worker;
    atomic_fetch_add((atomic_int *)ctx + task, 1);
}

Test(pool, every_task_runs_once_in_every_region) {
    sd_pool *p;
    cr_assert_eq(sd_pool_open(&p, 3, NULL), SD_OK);
    for (int round = 0; round < 2000; round++) {
        atomic_int done[37] = {0};
        sd_pool_run(p, 37, count_task, done);
        for (int i = 0; i < 37; i++) cr_assert_eq(done[i], 1);
        if (round % 500 == 0) usleep(2000); // let the workers park
    }
    sd_pool_close(p);
}

// More threads than processors: workers are preempted in the middle of everything, and regions with
// another context follow each other at once.
Test(pool, regions_stay_apart_when_threads_outnumber_processors) {
    sd_pool *p;
    cr_assert_eq(sd_pool_open(&p, 16, NULL), SD_OK);
    atomic_int done[2][64] = {{0}};
    for (int round = 0; round < 3000; round++) {
        atomic_int *mine = done[round % 2];
        int tasks = 2 + round % 60;
        for (int i = 0; i < 64; i++) mine[i] = 0;
        sd_pool_run(p, tasks, count_task, mine);
        for (int i = 0; i < 64; i++) cr_assert_eq(mine[i], i < tasks);
    }
    sd_pool_close(p);
}

static void count_last(void *ctx, int task, int worker) {
    (void)worker;
    if (task % 1000003 == 0) atomic_fetch_add((atomic_int *)ctx, task + 1);
}
Test(pool, a_region_may_have_millions_of_tasks) {
    sd_pool *p;
    atomic_int sum = 0;
    cr_assert_eq(sd_pool_open(&p, 3, NULL), SD_OK);
    sd_pool_run(p, 2100000, count_last, &sum);
    cr_assert_eq(sum, 1 + 1000004 + 2000007);
    sd_pool_close(p);
}

typedef struct {
    int64_t n;
    double t;
    bool f;
    int e;
    const char *s;
    bool has_n, has_t; // given, and not by default
} values;
static const sd_option rows[] = {
    {.name = "count",
     .letter = 'n',
     .type = SD_OPT_INT,
     .offset = offsetof(values, n),
     .def = "3",
     .min = 0,
     .max = 9,
     .given = offsetof(values, has_n)},
    {.name = "temp",
     .type = SD_OPT_FLOAT,
     .offset = offsetof(values, t),
     .def = "0.5",
     .given = offsetof(values, has_t)},
    {.name = "pack", .type = SD_OPT_FLAG, .offset = offsetof(values, f), .def = "true"},
    {.name = "mode",
     .type = SD_OPT_ENUM,
     .offset = offsetof(values, e),
     .value = "auto|off",
     .def = "auto"},
    {.name = "prompt",
     .letter = 'p',
     .type = SD_OPT_STRING,
     .offset = offsetof(values, s),
     .required = true},
    {0}};

Test(option, values_come_from_flags_letters_and_defaults) {
    values v = {0};
    sd_strings rest;
    char *argv[] = {"-n4", "--mode=off", "file", "--no-pack", "-p", "hello", "--", "--temp"};
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 8, argv, NULL), SD_OK);
    cr_assert(v.n == 4 && v.t == 0.5 && !v.f && v.e == 1);
    cr_assert(v.has_n && !v.has_t);
    cr_assert_str_eq(v.s, "hello");
    cr_assert_eq(rest.n, 2);
    cr_assert_str_eq(rest.item[1], "--temp");
}

Test(option, a_word_of_an_enum_is_found_by_its_number) {
    static const char *const want[] = {"auto", "fp32", "bf16", ""};
    for (int i = 0; i < 4; i++) {
        size_t len;
        const char *word = sd_option_word(&len, "auto|fp32|bf16", i);
        cr_assert(len == strlen(want[i]) && memcmp(word, want[i], len) == 0, "word %d", i);
    }
}

Test(option, mistakes_are_named_with_their_remedy) {
    values v = {0};
    sd_strings rest;
    sd_error err;
    char *wrong[] = {"--tmp", "1"}, *big[] = {"-n", "10"}, *nothing[] = {"-n", "1"};
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 2, wrong, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "--temp"));
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 2, big, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "10"));
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 2, nothing, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "--prompt"));
    char *twice[] = {"-p", "x", "--prompt=x"}, *both[] = {"-p", "x", "--pack", "--no-pack"};
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 3, twice, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "--prompt is given twice"), "%s", err.message);
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 4, both, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "--pack is given twice"), "%s", err.message);
    static const char *const numbers[] = {"0x10", " 1", "inf", "nan", "1e999", "1 ", "", "1,5"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char *odd[] = {"-p", "x", "--temp", (char *)(uintptr_t)numbers[i]};
        cr_assert_eq(sd_options_parse(&rest, rows, &v, 4, odd, &err), SD_EINVAL, "%s", numbers[i]);
        cr_assert(strstr(err.message, "--temp: "), "%s", err.message);
        odd[2] = "-n";
        cr_assert_eq(sd_options_parse(&rest, rows, &v, 4, odd, &err), SD_EINVAL, "%s", numbers[i]);
    }
    char *no[] = {"-p", "x", "--no-pack=false"};
    cr_assert_eq(sd_options_parse(&rest, rows, &v, 3, no, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "--no-pack"), "%s", err.message);
}
