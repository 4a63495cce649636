// The server against clients that mean harm, or behave as if: each test is one way to hold more
// than one's share, and asserts that others are still served.
#include "base/clock.h"
#include "tests/unit/support/live.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

// Sends a head that announces `length` bytes (-1: chunked) and `sent` bytes of a body that is no
// JSON.
static int begin_body(const live *s, long length, size_t sent) {
    char head[256], size[64];
    int fd = live_dial(s, 0);
    if (length >= 0)
        snprintf(size, sizeof size, "Content-Length: %ld", length);
    else
        snprintf(size, sizeof size, "Transfer-Encoding: chunked");
    int n = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\n%s\r\n\r\n",
                     size);
    char *body = malloc(sent + 1);
    memset(body, ' ', sent);
    cr_assert(fd >= 0 && live_send(fd, head, (size_t)n));
    if (length < 0) {
        n = snprintf(size, sizeof size, "%zx\r\n", sent);
        cr_assert(live_send(fd, size, (size_t)n));
    }
    cr_assert(live_send(fd, body, sent));
    free(body);
    return fd;
}

static void expect_status(int fd, const char *status) {
    char *out = live_read(fd);
    cr_assert(strstr(out, status), "wanted %s: %.300s", status, out);
    if (strcmp(status, " 429 ") == 0) cr_assert(strstr(out, "Retry-After: "), "%.300s", out);
    free(out);
    close(fd);
}

Test(hostile, bodies_of_all_clients_together_have_a_bound) {
    live s;
    live_write_model(&s);
    s.o.body_memory = 1 << 20;
    live_start_with(&s, 512, 2, 8, NULL);
    // A length that is only announced takes nothing.
    int announced = begin_body(&s, 1 << 20, 0), holder = begin_body(&s, 700000, 600000);
    cr_assert(live_wait_metric(&s, "request_body_bytes", 600000));
    expect_status(begin_body(&s, 600000, 0), " 429 "); // before its body is sent
    expect_status(begin_body(&s, -1, 500000), " 429 ");
    char *page = live_get(&s, "/metrics");
    cr_assert(strstr(page, "reason=\"body_memory\"} 2\n"), "%s", page);
    free(page);
    // Room is left for small requests, which give it back.
    for (int i = 0; i < 3; i++) {
        char *out = live_ask(&s, "{\"prompt\":[1],\"max_tokens\":1}");
        cr_assert(strstr(out, " 200 OK"), "%s", out);
        free(out);
    }
    cr_assert(live_wait_metric(&s, "request_body_bytes", 600000));
    close(holder);
    cr_assert(live_wait_metric(&s, "request_body_bytes", 0));
    expect_status(begin_body(&s, 600000, 600000), " 400 "); // read, and it is no JSON
    close(announced);
    live_stop(&s);
}

Test(hostile, a_request_that_waits_holds_no_body) {
    live s;
    live_start(&s, 4096, 1, 8);
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = live_dial(&s, 0);
        cr_assert(live_post(fd[i], "{\"prompt\":[1],\"max_tokens\":4000,\"ignore_eos\":true}"));
    }
    cr_assert(live_wait_metric(&s, "num_requests_waiting", 2));
    cr_assert_eq(live_metric(&s, "request_body_bytes"), 0);
    for (int i = 0; i < 3; i++) close(fd[i]);
    live_stop(&s);
}

// Asks for the page n times without reading: more than the sockets' buffers (4 MiB) hold.
static int ask_without_reading(const live *s, int n) {
    static const char get[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fd = live_dial(s, 4096);
    sd_buf all = sd_buf_make(1 << 20);
    for (int i = 0; i < n; i++) sd_buf_adds(&all, get);
    cr_assert(fd >= 0 && live_send(fd, all.data, all.len));
    sd_buf_free(&all);
    for (int i = 0; i < 200; i++) free(live_get(s, "/livez")); // the loop has come to it by then
    return fd;
}

static double resident_mb(void) {
    double pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    cr_assert(f && fscanf(f, "%*s %lf", &pages) == 1);
    fclose(f);
    return pages * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

Test(hostile, answers_that_are_not_read_do_not_outlive_the_time_to_drain) {
    live s;
    live_write_model(&s);
    s.o.drain_s = 0.2;
    live_start_with(&s, 512, 2, 8, NULL);
    int fd = ask_without_reading(&s, 1500);
    double start = sd_now_s();
    live_stop(&s);
    cr_assert_lt(sd_now_s() - start, 20); // a socket without progress lives for 30 s
    close(fd);
}

Test(hostile, pipelined_requests_wait_until_the_answers_are_read) {
    enum { CLIENTS = 8, REQUESTS = 1500 };
    live s;
    live_start(&s, 512, 2, 8);
    int fd[CLIENTS];
    double before = resident_mb();
    for (int i = 0; i < CLIENTS; i++) fd[i] = ask_without_reading(&s, REQUESTS);
    double grown = resident_mb() - before;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // they keep what is freed
    cr_assert_lt(grown, 20, "%.1f MB for answers that nobody reads", grown);
#else
    (void)grown;
#endif
    // A client that begins to read gets all of them.
    char *page = live_get(&s, "/");
    size_t length = strlen(page), got = 0, want = (size_t)REQUESTS * (length - 40);
    char piece[65536];
    ssize_t n;
    while (got < want && (n = recv(fd[0], piece, sizeof piece, 0)) > 0) got += (size_t)n;
    cr_assert_geq(got, want);
    free(page);
    for (int i = 0; i < CLIENTS; i++) close(fd[i]);
    live_stop(&s);
}

// Its own requests in one piece, small enough that all answers find room at once.
static bool is_overtaken(const live *s) {
    enum { REQUESTS = 100 };
    static const char get[] = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int many = live_dial(s, 0), one = live_dial(s, 0), bytes = 0, all = 0, answers = 0;
    char answer[32768];
    sd_buf text = sd_buf_make(1 << 20);
    for (int i = 0; i < REQUESTS; i++) sd_buf_adds(&text, get);
    cr_assert(many >= 0 && one >= 0);
    cr_assert(live_send(many, text.data, text.len));
    cr_assert(live_send(one, get, sizeof get - 1));
    ssize_t n = recv(one, answer, sizeof answer, 0);
    cr_assert_gt(n, 0);
    cr_assert_eq(ioctl(many, FIONREAD, &bytes), 0); // when the other's answer has come
    while (answers < REQUESTS && (n = recv(many, answer, sizeof answer - 1, 0)) > 0) {
        all += (int)n;
        answer[n] = '\0';
        for (const char *p = answer; (p = strstr(p, "\r\n\r\n")); p++) answers++;
    }
    cr_assert_eq(answers, REQUESTS);
    sd_buf_free(&text);
    close(many);
    close(one);
    return bytes > 0 && bytes < all;
}

Test(hostile, a_request_of_another_is_answered_between_pipelined_ones) {
    enum { TRIES = 200 }; // in one of them all may be answered before the other's request is sent
    live s;
    bool overtaken = false;
    live_start(&s, 512, 2, 8);
    for (int i = 0; i < TRIES && !overtaken; i++) overtaken = is_overtaken(&s);
    cr_assert(overtaken);
    live_stop(&s);
}

// Reads at most `bytes`, then leaves.
static void read_some(int fd, size_t bytes) {
    char piece[4096];
    while (bytes > 0) {
        ssize_t n = recv(fd, piece, bytes < sizeof piece ? bytes : sizeof piece, 0);
        if (n <= 0) return;
        bytes -= (size_t)n;
    }
}

static const char big[] = "{\"prompt\":[1,2],\"max_tokens\":1500,\"ignore_eos\":true,\"n\":4,"
                          "\"logprobs\":20}";

Test(hostile, an_answer_of_megabytes_is_written_as_it_is_read) {
    live s;
    live_start(&s, 2048, 4, 8);
    char *whole = live_ask(&s, big);
    cr_assert(strstr(whole, "Transfer-Encoding: chunked"), "%.300s", whole);
    cr_assert_gt(strlen(whole), 2 << 20);
    cr_assert_str_eq(whole + strlen(whole) - 7, "\r\n0\r\n\r\n");
    free(whole);
    cr_assert_eq(live_metric(&s, "request_body_bytes"), 0);
    // One that stops reading holds what is kept for it, until it leaves.
    int fd = live_dial(&s, 4096);
    cr_assert(live_post(fd, big));
    cr_assert(live_began(fd));
    read_some(fd, 20000);
    cr_assert_gt(live_metric(&s, "request_body_bytes"), 1000000);
    char *other = live_ask(&s, "{\"prompt\":[1],\"max_tokens\":2}");
    cr_assert(strstr(other, " 200 OK"), "%s", other);
    free(other);
    close(fd);
    cr_assert(live_wait_metric(&s, "request_body_bytes", 0));
    // A drain cuts it off and ends.
    s.o.drain_s = 1;
    fd = live_dial(&s, 4096);
    cr_assert(live_post(fd, big));
    cr_assert(live_began(fd));
    live_stop(&s);
    close(fd);
}

Test(hostile, logprobs_that_can_never_be_kept_are_refused_before_the_queue) {
    live s;
    live_start(&s, 16384, 16, 64);
    char *out = live_ask(&s, "{\"prompt\":[[1],[2],[3],[4]],\"max_tokens\":16000,\"n\":16,"
                             "\"logprobs\":20}");
    cr_assert(strstr(out, " 400 ") && strstr(out, "\"param\":\"logprobs\""), "%s", out);
    cr_assert(strstr(out, "lower max_tokens"), "%s", out);
    free(out);
    cr_assert_eq(live_metric(&s, "num_requests_waiting"), 0);
    cr_assert_eq(live_metric(&s, "request_body_bytes"), 0);
    live_stop(&s);
}
