// Checkpoints: what comes back is what was saved, and what was damaged, cut, lost or never finished
// is passed over for the one before.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "trainer/checkpoint.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 3000 };
static char dir[64];
static float theta[N], m[N], v[N], best[N];

static void setup(void) {
    snprintf(dir, sizeof dir, "/tmp/specdec_ckpt_%d", (int)getpid());
    sd_remove_tree(dir, NULL);
    sd_log_set_level(SD_LOG_ERROR);
}
static void teardown(void) {
    sd_remove_tree(dir, NULL);
}

static sd_checkpoint fill(int64_t step) {
    for (int i = 0; i < N; i++) {
        uint32_t w[4];
        sd_philox(w, 1, (uint64_t)step, (uint64_t)i);
        theta[i] = sd_uniform(w[0]), m[i] = sd_uniform(w[1]);
        v[i] = sd_uniform(w[2]), best[i] = sd_uniform(w[3]);
    }
    sd_checkpoint c = {.n = N, .theta = theta, .m = m, .v = v, .best = best};
    c.state = (sd_train_state){.step = step,
                               .epoch = 2,
                               .index = 5,
                               .tokens = 1000,
                               .wall_s = 1.5,
                               .has_best = true,
                               .best_loss = 0.1,
                               .best_step = step};
    snprintf(c.state.version, sizeof c.state.version, "0.2.0");
    sd_sha256_of(&c.state.base, "base", 4, NULL);
    c.recipe = sd_buf_make(100);
    sd_buf_adds(&c.recipe, "name: x\n");
    return c;
}

static void save_as(sd_checkpoints *all, int64_t step) {
    sd_error err = {0};
    sd_checkpoint c = fill(step);
    cr_assert_eq(sd_checkpoint_save(all, &c, NULL, &err), SD_OK, "%s", err.message);
    sd_checkpoint_free_recipe(&c);
}
/// One process saves one step.
static void save(int64_t step, int keep) {
    sd_checkpoints all = {.dir = dir, .keep = keep};
    save_as(&all, step);
    sd_checkpoints_free(&all);
}

static int64_t newest(void) {
    char *path;
    sd_checkpoint c = {0};
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, dir, NULL), SD_OK);
    if (!path) return -1;
    cr_assert_eq(sd_checkpoint_peek(&c, path, NULL), SD_OK);
    sd_checkpoint_free_recipe(&c);
    free(path);
    return c.state.step;
}

static int entries(void) {
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (d) closedir(d);
    return n;
}

TestSuite(checkpoint, .init = setup, .fini = teardown);

Test(checkpoint, what_was_saved_comes_back_bit_for_bit) {
    static float a[N], b[N], c[N], d[N];
    save(7, 3);
    char *path;
    sd_error err = {0};
    sd_checkpoint back = {.n = N, .theta = a, .m = b, .v = c, .best = d};
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, dir, &err), SD_OK);
    cr_assert_eq(sd_checkpoint_load(&back, path, &err), SD_OK, "%s", err.message);
    cr_assert(!memcmp(a, theta, sizeof a) && !memcmp(b, m, sizeof b) && !memcmp(c, v, sizeof c) &&
              !memcmp(d, best, sizeof d));
    cr_assert(back.state.step == 7 && back.state.epoch == 2 && back.state.index == 5);
    cr_assert(back.state.wall_s == 1.5 && back.state.best_loss == 0.1);
    cr_assert_str_eq(back.recipe.data, "name: x\n");
    back.n = N - 1;
    cr_assert_eq(sd_checkpoint_load(&back, path, &err), SD_EMISMATCH);
    sd_checkpoint_free_recipe(&back);
    free(path);
}

Test(checkpoint, only_the_newest_are_kept_and_leftovers_are_swept) {
    char tmp[128];
    sd_checkpoints all = {.dir = dir, .keep = 2};
    sd_mkdirs(dir, NULL);
    snprintf(tmp, sizeof tmp, "%s/.tmp-00000001-99", dir);
    sd_mkdirs(tmp, NULL);
    for (int64_t s = 1; s <= 5; s++) save_as(&all, s * 10);
    save_as(&all, 50); // once more, after an interruption: its own is replaced
    cr_assert_eq(newest(), 50);
    cr_assert_eq(entries(), 2);
    sd_checkpoints_free(&all);
}

static bool there(const char *name) {
    char *path = sd_path_join(dir, name);
    bool yes = access(path, F_OK) == 0;
    free(path);
    return yes;
}

Test(checkpoint, what_another_process_made_is_never_removed) {
    save(10, 5), save(20, 5), save(30, 5), save(40, 5), save(50, 5);
    sd_checkpoints all = {.dir = dir, .keep = 1}; // an older one was resumed
    char *from = sd_path_join(dir, "step-00000030");
    cr_assert_eq(sd_checkpoints_own(&all, 30, from, NULL), SD_OK);
    cr_assert_eq(sd_checkpoints_own(&all, 20, from, NULL), SD_OK); // not the one of step 20
    free(from);
    save_as(&all, 35);
    cr_assert(there("step-00000010") && there("step-00000020"), "the past is not one's own");
    cr_assert(!there("step-00000030"), "keep counts what was gone on from");
    cr_assert(there("given-up-00000040") && there("given-up-00000050"), "the future is put aside");
    cr_assert_eq(newest(), 35);
    save_as(&all, 40);
    cr_assert(there("step-00000040") && !there("step-00000035"));
    sd_checkpoints_free(&all);
    save(60, 5), save(50, 5); // another process saves where one stands: it steps aside
    save(50, 5);
    cr_assert(there("given-up-00000050.2") && there("given-up-00000060") && there("step-00000040"));
    cr_assert_eq(newest(), 50);
    int n;
    cr_assert_eq(sd_checkpoints_give_up(&n, dir, NULL), SD_OK);
    cr_assert_gt(n, 2);
    cr_assert_eq(newest(), -1);
    cr_assert(there("given-up-00000010") && there("given-up-00000050.3"));
}

Test(checkpoint, one_that_cannot_be_read_is_no_damaged_one) {
    save(10, 5), save(20, 5);
    char *path, *sums = sd_path_join(dir, "step-00000020/SHA256SUMS");
    sd_error err = {0};
    cr_assert(unlink(sums) == 0 && symlink(sums, sums) == 0); // ELOOP, as EIO or EACCES would be
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, dir, &err), SD_EIO);
    cr_assert(!path && strstr(err.message, "step-00000020"), "%s", err.message);
    free(sums);
}

static char *part(const char *name) {
    return sd_sprintf("%s/step-00000020/%s", dir, name);
}

Test(checkpoint, a_damaged_cut_or_missing_file_sends_the_loader_to_the_one_before) {
    static const char *const names[] = {"theta.f32", "adam_m.f32", "adam_v.f32",
                                        "best.f32",  "state.json", "recipe.resolved.yaml",
                                        "SHA256SUMS"};
    for (size_t i = 0; i < 7; i++)
        for (int how = 0; how < 4; how++) {
            save(10, 5), save(20, 5);
            cr_assert_eq(newest(), 20);
            char *path = part(names[i]), *data;
            size_t len;
            cr_assert_eq(sd_file_read(&data, &len, path, 1 << 20, NULL), SD_OK);
            if (how == 0) data[len / 2] ^= 1, sd_file_write(path, data, len, NULL);
            if (how == 1) sd_file_write(path, data, len - 1, NULL);
            if (how == 2) sd_file_write(path, data, 0, NULL);
            if (how == 3) unlink(path);
            cr_expect_eq(newest(), 10, "%s, damage %d went unseen", names[i], how);
            free(data);
            free(path);
        }
}

Test(checkpoint, a_manifest_that_points_outside_is_refused) {
    save(20, 5);
    char *path = part("SHA256SUMS");
    const char *evil =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ../../x\n";
    sd_file_write(path, evil, strlen(evil), NULL);
    cr_assert_eq(newest(), -1);
    free(path);
}

// A path that is too long cannot be opened, whoever asks; nor may it pass for an empty folder.
Test(checkpoint, a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one) {
    char *path, name[300];
    sd_error err = {0};
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, name, &err), SD_EIO);
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, "/nonexistent", &err), SD_OK);
    cr_assert_null(path);
}

// A limit on file sizes makes a write fail where a full disk would.
Test(checkpoint, a_write_that_fails_leaves_the_earlier_checkpoint_and_no_litter) {
    save(10, 3);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 0; limit < N * 4 + 600; limit += 100 + limit / 2) {
        pid_t child = fork();
        if (child == 0) {
            sd_error err = {0};
            sd_checkpoint c = fill(20);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
            sd_checkpoints all = {.dir = dir, .keep = 3};
            sd_status st = sd_checkpoint_save(&all, &c, NULL, &err);
            _exit(limit < N * 4 ? (st == SD_EIO && err.message[0] ? 0 : 1) : st != SD_OK);
        }
        int status = 0;
        waitpid(child, &status, 0);
        cr_assert_eq(status, 0, "limit %d", (int)limit);
        if (limit < N * 4) cr_assert(newest() == 10 && entries() == 1);
    }
}

Test(checkpoint, a_kill_at_any_moment_leaves_a_checkpoint_that_loads) {
    save(1, 2);
    for (int round = 0; round < 40; round++) {
        pid_t child = fork();
        if (child == 0) {
            sd_checkpoints all = {.dir = dir, .keep = 2};
            for (int64_t s = 2;; s++) {
                sd_checkpoint c = fill(s);
                if (sd_checkpoint_save(&all, &c, NULL, NULL) != SD_OK) _exit(1);
                sd_checkpoint_free_recipe(&c);
            }
        }
        usleep((useconds_t)(500 + 977 * round % 20000));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        cr_assert(WIFSIGNALED(status), "the saver failed by itself");
        cr_assert_geq(newest(), 1);
    }
}
