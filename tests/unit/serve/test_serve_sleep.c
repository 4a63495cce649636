// Sleeping and waking: the memory of weights goes and comes back, and answers are the same to the byte.
#include "base/files/path.h"
#include "base/memory.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/run.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char question[] = "{\"prompt\":[1,2,3],\"max_tokens\":20,\"temperature\":1,\"seed\":5,"
                               "\"logprobs\":2,\"ignore_eos\":true}";

// The answer to a POST without a body.
static char *post(const live *s, const char *path) {
    char head[256];
    int fd = live_dial(s, 0);
    snprintf(
        head, sizeof head,
        "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: 0\r\n\r\n",
        path, live_key_line());
    cr_assert(fd >= 0 && live_send(fd, head, strlen(head)));
    char *out = live_read(fd);
    close(fd);
    return out;
}

static void start(live *s, int ctx, double idle_s) {
    live_write_model(s);
    live_give_admin_key(s);
    s->o.engine.sleep_idle_s = idle_s;
    live_start_with(s, ctx, 2, 8, NULL);
}

static void must_say(char *out, const char *words) {
    cr_assert(strstr(out, words), "%s is not in: %s", words, out);
    free(out);
}

static char *ask(const live *s) {
    return live_answer(live_ask(s, question));
}

static double weights(const live *s) {
    char *page = live_get(s, "/metrics");
    const char *at = strstr(page, "part=\"weights\"} ");
    double value = at ? atof(at + strlen("part=\"weights\"} ")) : 0;
    free(page);
    return value;
}

Test(serve_sleep, a_request_wakes_it_and_has_the_answer_of_before) {
    live s;
    start(&s, 256, 0);
    char *before = ask(&s);
    const double awake = weights(&s);
    char *page = live_get(&s, "/metrics");
    cr_assert_null(strstr(page, "wake_up"), "what was not measured is not printed");
    free(page);
    must_say(live_get(&s, "/is_sleeping"), "{\"is_sleeping\":false}");
    must_say(post(&s, "/sleep"), "{\"is_sleeping\":true}");
    must_say(post(&s, "/sleep"), "{\"is_sleeping\":true}");
    cr_assert(live_wait_metric(&s, "is_sleeping", 1));
    must_say(live_get(&s, "/is_sleeping"), "{\"is_sleeping\":true}");
    must_say(live_get(&s, "/health"), " 200 ");
    cr_assert_lt(weights(&s), awake);
    char *after = ask(&s);
    cr_assert_str_eq(after, before);
    cr_assert(live_wait_metric(&s, "is_sleeping", 0));
    cr_assert_eq(weights(&s), awake);
    cr_assert_eq(live_metric(&s, "wake_ups_total"), 1);
    cr_assert_gt(live_metric(&s, "last_wake_up_seconds"), 0);
    must_say(post(&s, "/sleep"), " 200 ");
    must_say(post(&s, "/wake_up"), "\"wake_ms\":");
    must_say(post(&s, "/wake_up"), "{\"is_sleeping\":false");
    cr_assert(live_wait_metric(&s, "wake_ups_total", 2));
    free(before), free(after);
    live_stop(&s);
}

Test(serve_sleep, it_does_not_fall_asleep_under_a_request) {
    live s;
    start(&s, 8192, 0);
    int fd = live_dial(&s, 0);
    cr_assert(
        live_post(fd, "{\"prompt\":[1],\"max_tokens\":4000,\"stream\":true,\"ignore_eos\":true}"));
    cr_assert(live_began(fd));
    must_say(post(&s, "/sleep"), " 409 ");
    close(fd);
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    live_stop(&s);
}

Test(serve_sleep, it_sleeps_when_nobody_has_asked_for_long_enough) {
    live s;
    start(&s, 256, 0.2);
    char *before = ask(&s);
    for (int i = 1; i < 3; i++) {
        for (int k = 0; k < 600; k++) { // the metric is there once it has slept
            char *out = live_get(&s, "/is_sleeping");
            bool sleeps = strstr(out, "true") != NULL;
            free(out);
            if (sleeps) break;
            usleep(50000);
        }
        must_say(live_get(&s, "/is_sleeping"), "true");
        char *after = ask(&s);
        cr_assert_str_eq(after, before);
        free(after);
        cr_assert(live_wait_metric(&s, "wake_ups_total", i));
    }
    free(before);
    live_stop(&s);
}

// 13 bytes near the model's end; those of before go to `were`, where it is not NULL.
static void write_at_end(const live *s, const char *bytes, char *were) {
    FILE *f = fopen(s->model, "r+b");
    cr_assert(f && fseek(f, -100, SEEK_END) == 0);
    if (were) cr_assert_eq(fread(were, 1, 13, f), 13);
    cr_assert(fseek(f, -100, SEEK_END) == 0 && fwrite(bytes, 1, 13, f) == 13 && fclose(f) == 0);
}

// Asleep, its model changed; each request tries to wake it.
static void sleep_and_change(const live *s, char *were, const char *remedy) {
    must_say(post(s, "/sleep"), " 200 ");
    write_at_end(s, "other weights", were);
    for (int i = 0; i < 2; i++) {
        char *out = live_ask(s, question);
        cr_assert(strstr(out, " 500 ") && strstr(out, "changed since") && strstr(out, remedy), "%s",
                  out);
        free(out);
        must_say(live_get(s, "/readyz"), " 503 ");
        must_say(live_get(s, "/health"), "POST /wake_up");
        must_say(live_get(s, "/livez"), " 200 ");
        cr_assert_eq(live_metric(s, "ready"), 0);
    }
    must_say(post(s, "/wake_up"), " 500 ");
}

Test(serve_sleep, a_model_that_changed_meanwhile_is_not_taken_for_the_one_that_slept) {
    live s;
    char were[13];
    start(&s, 256, 0);
    free(ask(&s));
    sleep_and_change(&s, were, "start again");
    write_at_end(&s, were, NULL); // nobody knows that these are the bytes of before
    must_say(post(&s, "/wake_up"), " 500 ");
    must_say(live_get(&s, "/readyz"), " 503 ");
    live_stop(&s);
}

Test(serve_sleep, a_model_whose_hash_is_known_wakes_when_its_bytes_are_those_of_before) {
    live s;
    char were[13];
    live_write_model(&s);
    live_give_admin_key(&s);
    char *adapter = sd_path_join(s.dir, "adapter"); // its reading has the base's hash
    sd_model *base;
    cr_assert_eq(sd_model_open(&base, s.model, NULL), SD_OK);
    test_write_run(adapter, base, 1, 0.3f, false);
    sd_model_release(base);
    sd_strings list = {.n = 1, .item = {adapter}};
    live_start_with(&s, 256, 2, 8, &list);
    char *before = ask(&s);
    sleep_and_change(&s, were, "restore it");
    write_at_end(&s, were, NULL);
    must_say(post(&s, "/wake_up"), "{\"is_sleeping\":false");
    must_say(live_get(&s, "/readyz"), " 200 ");
    char *after = ask(&s);
    cr_assert_str_eq(after, before);
    free(before), free(after), free(adapter);
    live_stop(&s);
}
