// The server when the files it runs on change: an answer is right or an error, and it ends well.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/support/live.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char body[] = "{\"prompt\":[1,30,7],\"max_tokens\":12,\"ignore_eos\":true,"
                           "\"temperature\":1,\"seed\":5}";

static void all_bytes(const char *path, int value) {
    char *data;
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, path, 1 << 26, NULL), SD_OK);
    memset(data, value, len);
    int fd = open(path, O_WRONLY);
    cr_assert(fd >= 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
    close(fd);
    free(data);
}

static void check_lost(bool cut) {
    live s;
    live_start(&s, 512, 4, 64);
    char *want = live_answer(live_ask(&s, body)), *health = live_get(&s, "/health");
    cr_assert(want && strstr(health, " 200 "));
    free(health);
    if (cut)
        cr_assert_eq(truncate(s.model, 100), 0);
    else
        all_bytes(s.model, 0x5a);
    char *got = live_ask(&s, body);
    cr_assert(strstr(got, " 500 ") && strstr(got, "not what was loaded"), "%s", got);
    // The answer goes out of the step that found it; what health says is written down behind the step.
    for (int i = 0; health = live_get(&s, "/health"), !strstr(health, " 503 ") && i < 50; i++) {
        free(health);
        usleep(20 * 1000);
    }
    cr_assert(strstr(health, " 503 "), "%s", health);
    free(health);
    health = live_get(&s, "/livez");
    cr_assert(strstr(health, " 200 "), "%s", health);
    free(want), free(got), free(health);
    live_stop(&s);
}

Test(files, a_model_that_is_cut_under_the_server_is_an_error_and_told_by_health) {
    check_lost(true);
}

Test(files, a_model_that_is_written_over_is_an_error_and_told_by_health) {
    check_lost(false);
}

Test(files, a_new_model_in_the_old_one_s_place_changes_no_answer) {
    live s;
    live_start(&s, 512, 4, 64);
    char *want = live_answer(live_ask(&s, body)), *other = sd_path_join(s.dir, "other");
    cr_assert_eq(sd_file_write(other, "another model", 13, NULL), SD_OK);
    cr_assert_eq(rename(other, s.model), 0);
    char *got = live_answer(live_ask(&s, body)), *health = live_get(&s, "/health");
    cr_assert_str_eq(want, got);
    cr_assert(strstr(health, " 200 "), "%s", health);
    free(want), free(got), free(health), free(other);
    live_stop(&s);
}
