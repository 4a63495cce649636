// The file of a trace: a full disk, lines as long as may be, a bound on its length.
#include "decode/draft/replay.h"
#include "decode/engine/private.h"
#include "tests/unit/support/tiny/model.h"

#include "base/files/file.h"
#include "base/files/path.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static sd_trace_log read_log(const char *path) {
    sd_trace_log log;
    sd_error err = {0};
    cr_assert_eq(sd_trace_read(&log, path, &err), SD_OK, "%s", err.message);
    return log;
}

Test(trace_file, a_full_disk_is_one_sentence_and_leaves_no_file) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "trace.jsonl");
    sd_error err = {0};
    sd_trace *t = NULL;
    sd_path_kind kind;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096}), 0);
    cr_assert_eq(sd_trace_create(&t, path, 0, &err), SD_OK);
    for (int i = 0; i < 1000; i++) sd_trace_prefill(t, 10, .1);
    cr_assert_eq(sd_trace_commit(t, &err), SD_EIO);
    cr_assert_not_null(strstr(err.message, path), "%s", err.message);
    sd_trace_close(t);
    cr_assert_eq(sd_path_look(&kind, path, NULL), SD_OK);
    cr_assert_eq(kind, SD_PATH_NONE);
    cr_assert_neq(sd_trace_create(&t, "/nowhere/at/all", 0, &err), SD_OK);
    free(path);
    sd_tiny_remove(dir);
}

// A trace with a head for one free drafter and nothing else.
static sd_trace *begin_trace(const char *path, int drafters) {
    static const sd_draft_source source[1] = {{&sd_drafter_suffix, NULL}};
    sd_controller c;
    sd_planner *p = NULL;
    sd_trace *t = NULL;
    sd_controller_init(&c);
    cr_assert_eq(sd_planner_open(&p, &c, source, drafters, 1, &(sd_planner_options){.V = 9}, NULL),
                 SD_OK);
    cr_assert_eq(sd_trace_create(&t, path, 0, NULL), SD_OK);
    sd_trace_head(t, p, NULL);
    sd_planner_close(p);
    return t;
}

Test(trace_file, the_longest_lines_are_read_and_a_longer_one_is_left_out, .timeout = 120) {
    enum { MANY = 20000, TOO_MANY = 5000000 };
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "trace.jsonl");
    int32_t *tokens = calloc(TOO_MANY, sizeof *tokens);
    sd_proposal chain[SD_MAX_DRAFT] = {{0}};
    sd_trace *t = begin_trace(path, 1);
    sd_trace_answer(t, 1, tokens, MANY);
    sd_trace_shadow(t);
    for (int i = 1; i < MANY; i++) sd_trace_chain(t, chain, SD_MAX_DRAFT);
    sd_trace_answer_end(t);
    sd_trace_answer(t, 2, tokens, TOO_MANY);
    sd_trace_shadow(t);
    sd_trace_answer_end(t);
    sd_trace_prefill(t, 3, .1);
    cr_assert_eq(sd_trace_commit(t, NULL), SD_OK);
    sd_trace_close(t);
    sd_trace_log log = read_log(path);
    cr_assert(log.n_answers == 1 && log.n_steps == 1);
    cr_assert(log.answer[0].n == MANY && log.answer[0].length[MANY - 1] == SD_MAX_DRAFT);
    sd_trace_log_free(&log);
    free(tokens);
    free(path);
    sd_tiny_remove(dir);
}

Test(trace_file, a_trace_that_is_as_long_as_it_may_be_stops_at_a_line) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "trace.jsonl");
    enum { MOST = 3000 };
    sd_error err = {0};
    sd_trace *t = NULL;
    char *data;
    size_t len;
    sd_controller c;
    sd_planner *p = NULL;
    sd_controller_init(&c);
    cr_assert_eq(sd_planner_open(&p, &c, NULL, 0, 1, &(sd_planner_options){.V = 9}, NULL), SD_OK);
    cr_assert_eq(sd_trace_create(&t, path, MOST, &err), SD_OK);
    sd_trace_head(t, p, NULL);
    for (int i = 0; i < 1000; i++) sd_trace_prefill(t, 10, .1);
    cr_assert_eq(sd_trace_commit(t, &err), SD_OK);
    sd_trace_close(t);
    cr_assert_eq(sd_file_read(&data, &len, path, MOST, &err), SD_OK, "%s", err.message);
    cr_assert(len > MOST - 100 && data[len - 1] == '\n');
    sd_trace_log log = read_log(path);
    cr_assert_gt(log.n_steps, 10);
    sd_trace_log_free(&log);
    sd_planner_close(p);
    free(data);
    free(path);
    sd_tiny_remove(dir);
}
