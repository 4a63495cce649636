// What a run leaves to look at: the rows of metrics.csv, whole after any interruption, and a
// picture that is well-formed whatever the losses were.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "tests/unit/support/files.h"
#include "trainer/report/metrics.h"
#include "trainer/report/plot.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static sd_metric row(int64_t step) {
    return (sd_metric){.step = step,
                       .loss = 2.0 / (double)step,
                       .eval_loss = step % 4 ? NAN : 3.0 / (double)step,
                       .lr = 1e-3,
                       .grad_norm = 0.5,
                       .tokens = 100 + step,
                       .supervised = 50,
                       .tok_s = 200,
                       .mem_mb = 10,
                       .wall_s = (double)step};
}

static char *write_rows(const char *dir, int64_t from, int64_t to, int64_t every) {
    sd_metrics *m;
    sd_error err = {0};
    sd_metrics_options o = {.dir = dir,
                            .title = "a <title> & more",
                            .csv = true,
                            .jsonl = true,
                            .plot = true,
                            .every = every,
                            .total = 8,
                            .keep_until = from};
    cr_assert_eq(sd_metrics_open(&m, &o, &err), SD_OK, "%s", err.message);
    for (int64_t s = from + 1; s <= to; s++) {
        sd_metric r = row(s);
        cr_assert_eq(sd_metrics_add(m, &r, &err), SD_OK);
    }
    cr_assert_eq(sd_metrics_plot(m, &err), SD_OK);
    sd_metrics_close(m);
    char *path = sd_path_join(dir, "metrics.csv"), *text;
    size_t len;
    cr_assert_eq(sd_file_read(&text, &len, path, 1 << 20, NULL), SD_OK);
    free(path);
    return text;
}

static char *folder(const char *name) {
    char *dir = sd_strdup(temp_file(name));
    cr_assert_eq(sd_mkdirs(dir, NULL), SD_OK);
    return dir;
}

Test(metrics, the_columns_are_the_contracts) {
    char *dir = folder("m"), *text = write_rows(dir, 0, 8, 1);
    cr_assert_eq(strncmp(text,
                         "step,loss,eval_loss,lr,grad_norm,tokens,supervised_tokens,tok_s,mem_mb,"
                         "wall_s\n1,2,,0.001,0.5,101,50,200.0,10.0,1.00\n",
                         114),
                 0, "%s", text);
    cr_assert(strstr(text, "\n4,0.5,0.75,0.001,"));
    free(text), free(dir);
}

Test(metrics, a_resume_keeps_each_step_once_and_drops_what_came_after_the_checkpoint) {
    char *dir = folder("m"), *other = folder("n");
    char *whole = write_rows(dir, 0, 8, 1);
    free(write_rows(other, 0, 6, 1)); // killed after step 6, its last checkpoint is of step 5
    char *path = sd_path_join(other, "metrics.csv");
    FILE *f = fopen(path, "a");
    fputs("7,0.28", f); // a row that the kill cut
    fclose(f);
    char *resumed = write_rows(other, 5, 8, 1);
    cr_assert_str_eq(resumed, whole);
    free(whole), free(resumed), free(path), free(dir), free(other);
}

Test(metrics, evaluated_and_last_steps_are_written_whatever_every_says) {
    char *dir = folder("m"), *text = write_rows(dir, 0, 8, 3);
    int lines = 0;
    for (char *c = text; *c; c++) lines += *c == '\n';
    cr_assert_eq(lines, 1 + 4, "%s", text); // 3, 4, 6, 8
    free(text), free(dir);
}

// What goes to standard error while it is no terminal.
static char *said(const char *dir, const sd_metric *rows, int n) {
    sd_metrics *m;
    sd_error err = {0};
    const char *path = temp_file("said");
    int saved = dup(STDERR_FILENO), fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    char *text = NULL;
    size_t len;
    sd_metrics_options o = {
        .dir = dir, .title = "t", .tty = true, .csv = true, .every = 1, .total = 8};
    cr_assert(saved >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    cr_assert_eq(sd_metrics_open(&m, &o, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < n; i++) cr_assert_eq(sd_metrics_add(m, &rows[i], &err), SD_OK);
    sd_metrics_close(m);
    dup2(saved, STDERR_FILENO);
    close(saved), close(fd);
    cr_assert_eq(sd_file_read(&text, &len, path, 1 << 20, NULL), SD_OK);
    return text;
}

Test(metrics, a_line_shows_the_evaluation_of_its_own_step_alone) {
    char *dir = folder("m");
    const sd_metric rows[] = {row(4), row(8)},
                    none = {.step = 8, .loss = 1, .eval_loss = NAN, .tok_s = 5};
    char *both = said(dir, rows, 2);
    cr_assert(strstr(both, "step 4/8") && strstr(both, "eval 0.7500"), "%s", both);
    const sd_metric then[] = {rows[0], none};
    char *one = said(dir, then, 2);
    size_t first = strcspn(one, "\n");
    cr_assert(strstr(one + first, "step 8/8") && strstr(one + first, "5 tok/s"), "%s", one);
    cr_assert(!strstr(one + first, "eval"), "%s", one);
    free(both), free(one), free(dir);
}

// After a resume a step may be without a time of its own: its speed is not 0.
Test(metrics, a_speed_that_is_not_known_is_left_out_and_read_back) {
    char *dir = folder("m"), *path = sd_path_join(dir, "metrics.csv"), *text;
    sd_metric rows[] = {row(4), row(5)};
    size_t len;
    rows[0].tok_s = NAN;
    char *lines = said(dir, rows, 2);
    cr_assert(!strstr(lines, "tok/s") && strstr(lines, "lr 0.001  10 MB"), "%s", lines);
    cr_assert_eq(sd_file_read(&text, &len, path, 1 << 20, NULL), SD_OK);
    cr_assert(strstr(text, "\n4,0.5,0.75,0.001,0.5,104,50,,10.0,4.00\n"), "%s", text);
    free(text);
    text = write_rows(dir, 5, 8, 1); // reads the rows and writes them again
    cr_assert(strstr(text, "\n4,0.5,0.75,0.001,0.5,104,50,,10.0,4.00\n5,"), "%s", text);
    free(lines), free(text), free(path), free(dir);
}

Test(plot, ticks_are_one_two_or_five_times_a_power_of_ten) {
    cr_assert_float_eq(sd_nice_step(0, 1.7, 6), 0.2, 1e-12);
    cr_assert_float_eq(sd_nice_step(0, 62, 8), 10, 1e-12);
    cr_assert_float_eq(sd_nice_step(0, 0.0013, 6), 0.0002, 1e-12);
    cr_assert_float_eq(sd_nice_step(5, 5, 6), 1, 1e-12);
}

Test(plot, the_picture_is_bounded_and_escaped_whatever_the_losses) {
    enum { N = 20000 };
    static sd_metric rows[N];
    for (int k = 0; k < 4; k++) {
        int n = k == 3 ? 1 : N;
        for (int i = 0; i < n; i++) {
            rows[i] = row(i + 1);
            if (k == 1) rows[i].loss = 0;
            if (k == 2 && i % 1000 == 7) rows[i].loss = 1e9; // spikes do not flatten the rest
        }
        const char *path = temp_file("p.svg");
        sd_error err = {0};
        char *text;
        size_t len;
        cr_assert_eq(sd_plot_loss(path, "a <b> & c", rows, n, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_file_read(&text, &len, path, 2 << 20, NULL), SD_OK);
        cr_assert(strstr(text, "a &lt;b&gt; &amp; c</text>") && strstr(text, "</svg>"));
        cr_assert(!strstr(text, "nan") && !strstr(text, "inf"), "variant %d", k);
        if (k == 2) cr_assert(!strstr(text, ">1000000000<"), "a spike set the scale");
        free(text);
    }
}
