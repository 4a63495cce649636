// The access log: written by its own thread, lost lines counted, nobody held up.
#include "decode/serve/http/access_log.h"
#include "decode/serve/http/request_log.h"

#include "base/clock.h"
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sd_access_log *open_at(const char *path) {
    sd_access_log *log = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_access_log_open(&log, path, &err), SD_OK, "%s", err.message);
    return log;
}

Test(access_log, lines_reach_the_file_in_order_and_are_appended) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "log"), line[64];
    for (int round = 0; round < 2; round++) {
        sd_access_log *log = open_at(path);
        for (int i = 0; i < 1000; i++) {
            int n = snprintf(line, sizeof line, "{\"line\":%d}", round * 1000 + i);
            sd_access_log_add(log, line, (size_t)n);
        }
        cr_assert_eq(sd_access_log_lost(log), 0);
        sd_access_log_close(log);
    }
    FILE *f = fopen(path, "r");
    for (int i = 0, got; i < 2000; i++)
        cr_assert(fscanf(f, "{\"line\":%d}\n", &got) == 1 && got == i);
    cr_assert_eq(fgetc(f), EOF);
    fclose(f);
    free(path);
    sd_tiny_remove(dir);
}

Test(access_log, a_full_disk_loses_lines_and_says_how_many) {
    sd_access_log *log = open_at("/dev/full");
    sd_access_log_add(log, "{}", 2);
    for (double end = sd_now_s() + 60; sd_access_log_lost(log) == 0 && sd_now_s() < end;)
        usleep(1000);
    cr_assert_eq(sd_access_log_lost(log), 1);
    sd_access_log_close(log);
}

Test(access_log, a_pipe_that_nobody_reads_holds_nobody_up) {
    signal(SIGPIPE, SIG_IGN);
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "pipe"), line[1000];
    sd_error err = {0};
    sd_access_log *log = NULL;
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(sd_access_log_open(&log, path, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "nobody reads"), "%s", err.message);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    log = open_at(path);
    memset(line, 'x', sizeof line);
    double begin = sd_now_s(), longest = 0;
    for (int i = 0; i < 5000; i++) { // five times what the queue holds
        double t = sd_now_s();
        sd_access_log_add(log, line, sizeof line);
        if (sd_now_s() - t > longest) longest = sd_now_s() - t;
    }
    cr_assert_gt(sd_access_log_lost(log), 1000);
    cr_assert_lt(longest, 1, "the slowest of %g s took %g s", sd_now_s() - begin, longest);
    begin = sd_now_s();
    sd_access_log_close(log);
    cr_assert_lt(sd_now_s() - begin, 30, "an end waits for no reader");
    close(reader);
    free(path);
    sd_tiny_remove(dir);
}

Test(request_log, a_trace_is_what_the_standard_says_and_nothing_else) {
    cr_expect(sd_log_is_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    static const char *const others[] = {
        "",
        "00",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319\"-b7ad6b7169203331-01"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_expect(!sd_log_is_trace(others[i]), "%s", others[i]);
}

Test(request_log, an_adapter_is_named_with_its_generation_and_the_base_is_none) {
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "log"), *text = NULL;
    size_t len;
    sd_access_log *log;
    cr_assert_eq(sd_access_log_open(&log, path, NULL), SD_OK);
    sd_logged r = {.id = "i",
                   .remote = "r",
                   .method = "POST",
                   .path = "/",
                   .key = "ops",
                   .status = 200,
                   .facts = {.model = "support", .generation = 7}};
    sd_log_request(log, &r);
    r.facts = (sd_log_facts){.model = "base"};
    r.key = "";
    sd_log_request(log, &r);
    sd_access_log_close(log);
    cr_assert_eq(sd_stream_read(&text, &len, path, 1 << 16, NULL), SD_OK);
    char *second = strchr(text, '\n');
    cr_assert_not_null(second);
    *second++ = '\0';
    cr_expect(strstr(text, "\"model\":\"support\",\"adapter\":\"support\",\"generation\":7"), "%s",
              text);
    cr_expect(strstr(text, "\"key\":\"ops\""), "%s", text);
    cr_expect(strstr(second, "\"model\":\"base\"") && !strstr(second, "adapter") &&
                  !strstr(second, "\"key\""),
              "%s", second);
    free(text), free(path);
    sd_tiny_remove(dir);
}
