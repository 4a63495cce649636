// Reading a request (JSON, template, tokens) may take long; it must hold up nobody but its client.
// The workers are stopped at a gate here, so what is asserted is an order, not a time.
#include "base/clock.h"
#include "tests/unit/support/live.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int to_stop; // so many of the next requests wait at the gate
static sem_t at_gate, gate;

static void on_read(void *ctx) {
    (void)ctx;
    if (atomic_fetch_sub(&to_stop, 1) <= 0) return;
    sem_post(&at_gate);
    sem_wait(&gate);
}

static void start(live *s, int queue) {
    sem_init(&at_gate, 0, 0);
    sem_init(&gate, 0, 0);
    atomic_store(&to_stop, 0);
    live_write_model(s);
    s->o.on_read = on_read;
    live_start_with(s, 4096, 4, queue, NULL);
}

// A request whose worker stands at the gate.
static int held_request(const live *s, const char *body) {
    int fd = live_dial(s, 0);
    atomic_store(&to_stop, 1);
    cr_assert(fd >= 0 && live_post(fd, body));
    sem_wait(&at_gate);
    return fd;
}

static bool has_answer(int fd) {
    char c;
    return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void begin_drain(const live *s) {
    kill(getpid(), SIGTERM);
    for (bool draining = false; !draining;) {
        char *out = live_get(s, "/health");
        draining = strstr(out, " 503 ") != NULL;
        free(out);
    }
}

static void expect(char *out, const char *what) {
    cr_assert(strstr(out, what), "wanted %s: %.400s", what, out);
    free(out);
}

Test(serve_workers, a_request_that_is_long_to_read_holds_up_neither_probes_nor_streams_nor_others) {
    live s;
    start(&s, 64);
    int stream = live_dial(&s, 0);
    cr_assert(live_post(stream, "{\"prompt\":[1,2],\"max_tokens\":1000,\"ignore_eos\":true,"
                                "\"stream\":true}"));
    cr_assert(live_began(stream));
    int held = held_request(&s, "{\"prompt\":\"a long text\",\"max_tokens\":3}");
    expect(live_get(&s, "/health"), " 200 OK");
    expect(live_ask(&s, "{\"prompt\":\"short\",\"max_tokens\":2}"), " 200 OK");
    expect(live_read(stream), "data: [DONE]");
    cr_assert_eq(live_metric(&s, "num_requests_reading"), 1);
    cr_assert_not(has_answer(held));
    sem_post(&gate);
    expect(live_read(held), " 200 OK");
    cr_assert_eq(live_metric(&s, "num_requests_reading"), 0);
    close(held);
    close(stream);
    live_stop(&s);
}

Test(serve_workers, what_is_being_read_is_bounded_like_slots_and_queue) {
    live s;
    start(&s, 2);
    int fd[6];
    for (int i = 0; i < 2; i++) fd[i] = held_request(&s, "{\"prompt\":[1],\"max_tokens\":2}");
    for (int i = 2; i < 6; i++) {
        fd[i] = live_dial(&s, 0);
        cr_assert(live_post(fd[i], "{\"prompt\":[1],\"max_tokens\":2}"));
    }
    cr_assert(live_wait_metric(&s, "num_requests_reading", 6));
    char *out = live_ask(&s, "{\"prompt\":[3],\"max_tokens\":2}");
    cr_assert(strstr(out, "Retry-After: "), "%s", out);
    expect(out, " 429 ");
    // Another client's is read: the threads of this one stand at the gate.
    expect(live_ask_from(&s, "127.0.0.2", "{\"prompt\":[3],\"max_tokens\":2}"), " 200 OK");
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    sem_post(&gate);
    sem_post(&gate);
    for (int i = 0; i < 6; i++) {
        expect(live_read(fd[i]), " 200 OK");
        close(fd[i]);
    }
    live_stop(&s);
}

Test(serve_workers, a_client_that_leaves_while_it_is_read_leaves_nothing_behind) {
    live s;
    start(&s, 8);
    close(held_request(&s, "{\"prompt\":\"abc\",\"max_tokens\":2000,\"ignore_eos\":true}"));
    sem_post(&gate);
    cr_assert(live_wait_metric(&s, "num_requests_reading", 0));
    cr_assert_eq(live_metric(&s, "request_body_bytes"), 0);
    cr_assert_eq(live_metric(&s, "num_requests_running"), 0);
    expect(live_ask(&s, "{\"prompt\":[3],\"max_tokens\":2}"), " 200 OK");
    live_stop(&s);
}

Test(serve_workers, a_request_that_is_being_read_is_finished_by_a_drain) {
    live s;
    start(&s, 8);
    int held = held_request(&s, "{\"prompt\":\"abc\",\"max_tokens\":5,\"ignore_eos\":true}");
    begin_drain(&s);
    cr_assert_not(has_answer(held));
    sem_post(&gate);
    expect(live_read(held), "\"finish_reason\":\"length\"");
    close(held);
    live_join(&s);
}

Test(serve_workers, a_server_ends_with_requests_that_nobody_read) {
    live s;
    start(&s, 8);
    int held = held_request(&s, "{\"prompt\":[1]}"), other = held_request(&s, "{\"prompt\":[1]}");
    int third = live_dial(&s, 0);
    cr_assert(live_post(third, "{\"prompt\":[1]}"));
    cr_assert(live_wait_metric(&s, "num_requests_reading", 3));
    begin_drain(&s);
    kill(getpid(), SIGTERM);
    double start = sd_now_s();
    free(live_read(third)); // it is cut off at once, not when the readers are done
    cr_assert_lt(sd_now_s() - start, 30);
    sem_post(&gate);
    sem_post(&gate);
    live_join(&s);
    close(held);
    close(other);
    close(third);
}
