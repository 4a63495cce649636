// A chat template of any bytes, rendered with a small conversation. A rendering that takes longer
// than its steps can explain is a finding: work that costs no fuel.
#include "base/clock.h"
#include "model/template/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

// Sanitizers slow a step down; 20 million steps take a few seconds of this thread's time with them.
enum { NS_A_STEP = 2500, NS_ALLOWED = 300 * 1000 * 1000 };

static int64_t thread_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void check_time(const char *what, int64_t since, int64_t steps) {
    int64_t took = thread_ns() - since;
    if (took <= NS_ALLOWED + steps * NS_A_STEP) return;
    fprintf(stderr, "ERROR: %s took %lld ms for %lld steps\n", what, (long long)(took / 1000000),
            (long long)steps);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *messages, *tools, *extra;
    sd_template *t = NULL;
    sd_error err;
    int64_t steps = 0, start = thread_ns();
    sd_template_bounds bounds = {.steps = &steps, .max_bytes = 1 << 22};
    if (!messages) {
        json_error_t why;
        messages =
            json_loads("[{\"role\": \"system\", \"content\": \"s\\n\"}, {\"role\": \"user\", "
                       "\"content\": \"h\\u00e9\"}, {\"role\": \"assistant\", \"content\": "
                       "null, \"reasoning\": \"r\", \"tool_calls\": [{\"function\": "
                       "{\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, true]}}}]}]",
                       0, &why);
        tools = json_loads("[{\"function\": {\"name\": \"f\"}}]", 0, &why);
        extra = json_loads("{\"n\": -3, \"d\": {\"k\": \"v\"}, \"l\": [3, 1, 2], \"w\": "
                           "\"a well-known text\\twith \\u00df and \\u03a3\\n\"}",
                           0, &why);
    }
    sd_status st = sd_template_open(&t, (const char *)data, size, &err);
    check_time("parsing", start, (int64_t)size);
    if (st != SD_OK) return 0;
    sd_buf b = sd_buf_make(1 << 26);
    start = thread_ns();
    sd_template_render_within(t, messages, tools, extra, true, "<s>", "</s>", &bounds, &b, &err);
    check_time("rendering", start, steps);
    sd_buf_free(&b);
    sd_template_close(t);
    return 0;
}
