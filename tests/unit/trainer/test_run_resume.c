// Resumed is the same as never stopped, and whatever would change the numbers of a resume is
// refused.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "kernels/train/gemm_packed.h"
#include "tests/unit/support/tiny/model.h"
#include "tests/unit/trainer/support_run.h"
#include "trainer/checkpoint.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(run_resume, .init = run_set_up, .fini = run_tear_down, .timeout = 300);

typedef struct {
    volatile int stop;
    char *watch;
} stopper;
static void *stop_when_there(void *v) {
    stopper *s = v;
    while (access(s->watch, F_OK) != 0) usleep(200);
    s->stop = 1;
    return NULL;
}

Test(run_resume, interrupted_and_resumed_is_the_same_as_never_stopped) {
    run_result whole = run_train("whole", NULL, 0);
    cr_assert_eq(whole.st, SD_OK, "%s", whole.err.message);
    volatile int at_once = 1;
    run_result first = run_train_with("cut", NULL, 0, 1, &at_once, NULL);
    cr_assert_eq(first.st, SD_EINTERRUPTED);
    cr_assert(strstr(first.err.message, "the state is saved"));
    free(first.out);
    int rounds = 0;
    for (bool done = false; !done; rounds++) {
        stopper s = {.watch =
                         sd_sprintf("%s/cut/checkpoints/step-%08d", run_dir, 3 * (rounds + 1))};
        pthread_t id;
        cr_assert_eq(pthread_create(&id, NULL, stop_when_there, &s), 0);
        run_result part = run_train_with("cut", NULL, 0, 1, &s.stop, NULL);
        cr_assert(part.st == SD_OK || part.st == SD_EINTERRUPTED, "%s", part.err.message);
        done = part.st == SD_OK;
        if (done && access(s.watch, F_OK) != 0) sd_mkdirs(s.watch, NULL); // lets the stopper end
        pthread_join(id, NULL);
        free(s.watch);
        if (done) {
            sd_sha256 a = run_adapter(&whole), b = run_adapter(&part);
            cr_assert_str_eq(a.hex, b.hex);
        }
        free(part.out);
        cr_assert_lt(rounds, 100);
    }
    cr_assert_geq(rounds, 2, "it was never interrupted");
    free(whole.out);
}

Test(run_resume, a_run_that_cannot_begin_leaves_no_folder_and_keeps_one_that_was_there) {
    const char *base[] = {"base.model=nowhere.gguf"}, *row[] = {"data.sequence_len=8"};
    run_result a = run_train("bare", base, 1),
               b = run_train("bare", row, 1); // without a base; in its data
    cr_assert(a.st != SD_OK && b.st != SD_OK);
    cr_assert(access(a.out, F_OK) != 0, "%s is left", a.out);
    cr_assert_eq(sd_mkdirs(a.out, NULL), SD_OK);
    run_result c = run_train("bare", base, 1);
    cr_assert(c.st != SD_OK && access(c.out, F_OK) == 0);
    free(a.out), free(b.out), free(c.out);
}

Test(run_resume, a_resume_under_another_recipe_base_or_data_is_refused_and_says_why) {
    run_result r = run_unfinished("u");
    const char *lr[] = {"train.epochs=3"}, *dtype[] = {"adapter.r=8"}, *log[] = {"log.every=5"};
    run_result a = run_train("u", lr, 1), b = run_train("u", dtype, 1);
    cr_assert(a.st == SD_EINVAL && strstr(a.err.message, "train.epochs"), "%s", a.err.message);
    cr_assert(b.st == SD_EINVAL && strstr(b.err.message, "adapter.r"), "%s", b.err.message);
    free(run_write_data("d.jsonl", 60, 1));
    run_result c = run_train("u", NULL, 0);
    cr_assert(c.st == SD_EINVAL && strstr(c.err.message, "the training data"), "%s", c.err.message);
    free(run_write_data("d.jsonl", 60, 0));
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.seed++;
    cr_assert_eq(sd_tiny_write_gguf(run_model, &t, NULL), SD_OK);
    run_result d = run_train("u", NULL, 0);
    cr_assert(d.st == SD_EINVAL && strstr(d.err.message, "the base model"), "%s", d.err.message);
    t.seed--;
    cr_assert_eq(sd_tiny_write_gguf(run_model, &t, NULL), SD_OK);
    run_result e = run_train("u", log, 1); // what does not change the numbers may change
    cr_assert_eq(e.st, SD_OK, "%s", e.err.message);
    cr_assert_eq(e.report.started_at, e.report.state.step);
    free(r.out), free(a.out), free(b.out), free(c.out), free(d.out), free(e.out);
}

Test(run_resume, a_resume_with_kernels_for_other_instructions_is_refused_and_says_what_to_set) {
    setenv("SPECDEC_ISA", "plain", 1);
    run_result r = run_unfinished("k");
    unsetenv("SPECDEC_ISA");
    const char *best = sd_gemm_packed_best(false)->name;
    if (strcmp(best, "plain") == 0) cr_skip_test("this processor has the plain kernels only");
    run_result a = run_train("k", NULL, 0);
    cr_assert_eq(a.st, SD_EINVAL);
    cr_assert(strstr(a.err.message, "SPECDEC_ISA=plain") && strstr(a.err.message, best), "%s",
              a.err.message);
    setenv("SPECDEC_ISA", "plain", 1);
    run_result b = run_train("k", NULL, 0);
    cr_assert_eq(b.st, SD_OK, "%s", b.err.message);
    unsetenv("SPECDEC_ISA");
    free(r.out), free(a.out), free(b.out);
}

/// The newest checkpoint's step of an run_unfinished run.
static int64_t newest_step(const run_result *r) {
    char *path, *checkpoints = sd_path_join(r->out, "checkpoints");
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, checkpoints, NULL), SD_OK);
    cr_assert(path);
    int64_t step = strtoll(strrchr(path, '-') + 1, NULL, 10);
    free(path), free(checkpoints);
    return step;
}

Test(run_resume, a_checkpoint_that_cannot_be_read_ends_the_start_and_all_stay) {
    run_result r = run_unfinished("u");
    sd_names before, after;
    char *checkpoints = sd_path_join(r.out, "checkpoints"),
         *sums = sd_sprintf("%s/step-%08d/SHA256SUMS", checkpoints, (int)newest_step(&r));
    cr_assert_eq(sd_folder_list(&before, checkpoints, NULL), SD_OK);
    cr_assert(unlink(sums) == 0 && symlink(sums, sums) == 0); // ELOOP, as EIO or EACCES would be
    run_result a = run_train("u", NULL, 0);
    cr_assert_eq(a.st, SD_EIO, "%s", a.err.message);
    cr_assert(strstr(a.err.message, sums), "%s", a.err.message);
    cr_assert_eq(sd_folder_list(&after, checkpoints, NULL), SD_OK);
    cr_assert_eq(before.n, after.n);
    for (int i = 0; i < before.n; i++) cr_assert_str_eq(before.name[i], after.name[i]);
    sd_names_free(&before), sd_names_free(&after);
    free(checkpoints), free(sums), free(r.out), free(a.out);
}

Test(run_resume, damaged_checkpoints_are_put_aside_and_none_that_was_found_is_removed) {
    const char *one[] = {"checkpoint.keep=1", "checkpoint.every=2"};
    run_result whole = run_train("whole", NULL, 0), r = run_train("u", one, 2);
    cr_assert(whole.st == SD_OK && r.st == SD_OK, "%s", r.err.message);
    int64_t step = newest_step(&r);
    char *manifest = sd_path_join(r.out, "manifest.json"),
         *state = sd_sprintf("%s/checkpoints/step-%08d/state.json", r.out, (int)step),
         *aside = sd_sprintf("checkpoints/given-up-%08d/theta.f32", (int)step);
    unlink(manifest);
    cr_assert_eq(sd_file_write(state, "{\"checkpoint\": 2}", 17, NULL), SD_OK);
    run_result again = run_train("u", one, 2); // nothing is left to go on from: it begins anew
    cr_assert_eq(again.st, SD_OK, "%s", again.err.message);
    cr_assert_eq(again.report.started_at, 0);
    cr_assert(run_exists(&again, aside) && run_exists(&again, "metrics.csv.given-up"));
    sd_sha256 a = run_adapter(&whole), b = run_adapter(&again);
    cr_assert_str_eq(a.hex, b.hex);
    unlink(manifest);
    const char *wrong[] = {"base.model=nowhere.gguf"};
    run_result stopped = run_train_with("u", wrong, 1, 1, &run_never, "never");
    cr_assert(stopped.st == SD_ENOTFOUND && newest_step(&stopped) == step, "%s",
              stopped.err.message);
    free(stopped.out);
    run_result anew = run_train_with("u", one, 2, 1, &run_never, "never");
    char *second = sd_sprintf("checkpoints/given-up-%08d.2/theta.f32", (int)step);
    cr_assert_eq(anew.st, SD_OK, "%s", anew.err.message);
    cr_assert(run_exists(&anew, aside) && run_exists(&anew, second));
    free(manifest), free(state), free(aside), free(second);
    free(whole.out), free(r.out), free(again.out), free(anew.out);
}

// The newest checkpoint, as an interruption between its step and the evaluation behind it leaves it.
static void owe_the_evaluation(const run_result *r) {
    sd_error err = {0};
    size_t n = (size_t)r->report.parameters;
    char *dir = sd_path_join(r->out, "checkpoints"), *newest;
    sd_checkpoint c = {.n = n};
    float **part[] = {&c.theta, &c.m, &c.v, &c.best};
    for (int i = 0; i < 4; i++) *part[i] = sd_alloc(n, sizeof(float));
    cr_assert_eq(sd_checkpoint_newest(&newest, NULL, dir, &err), SD_OK);
    cr_assert_eq(sd_checkpoint_load(&c, newest, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_remove_tree(newest, NULL), SD_OK);
    c.state.eval_due = true;
    sd_checkpoints all = {.dir = dir, .keep = 9};
    cr_assert_eq(sd_checkpoint_save(&all, &c, NULL, &err), SD_OK, "%s", err.message);
    sd_checkpoint_free_recipe(&c);
    sd_checkpoints_free(&all);
    for (int i = 0; i < 4; i++) free(*part[i]);
    free(dir), free(newest);
}

// The process that did the step took its time along: the row has an evaluation and no speed.
Test(run_resume, an_evaluation_that_was_owed_is_a_row_without_a_speed) {
    run_result r = run_unfinished("e");
    owe_the_evaluation(&r);
    run_result a = run_train("e", NULL, 0);
    cr_assert_eq(a.st, SD_OK, "%s", a.err.message);
    cr_assert_eq(a.report.started_at, a.report.state.step);
    char *path = sd_path_join(a.out, "metrics.csv"), *text, *row;
    size_t len;
    cr_assert_eq(sd_file_read(&text, &len, path, 1 << 20, NULL), SD_OK);
    row = text + len - 1; // behind the last line
    while (row > text && row[-1] != '\n') row--;
    int column = 0;
    for (char *cell = row; cell;
         cell = strchr(cell, ',') ? strchr(cell, ',') + 1 : NULL, column++) {
        if (column == 0) cr_assert_eq(strtoll(cell, NULL, 10), a.report.state.step, "%s", row);
        if (column == 2) cr_assert_neq(*cell, ',', "no evaluation: %s", row);
        if (column == 7) cr_assert_eq(*cell, ',', "a speed: %s", row);
    }
    cr_assert_eq(column, 10, "%s", row);
    free(path), free(text), free(r.out), free(a.out);
}
