// The server in this process over a tiny random model and real sockets: what threads and sanitizers
// must see. The API's fine print is tested in test_api_request.c and over the binary in tests/e2e.
#include "base/clock.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "datasets/corpus/corpus_index.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/run.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 16 };

typedef struct {
    const live *s;
    int i;
    char *answer;
} client;

static void *run_client(void *ctx) {
    client *c = ctx;
    char body[256];
    snprintf(body, sizeof body,
             "{\"prompt\":[%d,%d,7],\"max_tokens\":%d,\"temperature\":%d,\"seed\":%d,"
             "\"ignore_eos\":true,\"logprobs\":2,\"n\":%d}",
             c->i, c->i + 30, 20 + c->i, c->i % 2, c->i, 1 + c->i % 3);
    c->answer = live_answer(live_ask(c->s, body));
    return NULL;
}

Test(live, clients_at_once_get_what_each_gets_alone) {
    live s;
    live_start(&s, 512, 4, 64);
    client alone[CLIENTS], together[CLIENTS];
    pthread_t thread[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        alone[i] = (client){&s, i, NULL};
        run_client(&alone[i]);
        cr_assert_not_null(alone[i].answer);
    }
    for (int i = 0; i < CLIENTS; i++) {
        together[i] = (client){&s, i, NULL};
        pthread_create(&thread[i], NULL, run_client, &together[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(thread[i], NULL);
        cr_assert_not_null(together[i].answer);
        cr_assert_str_eq(together[i].answer, alone[i].answer);
        free(together[i].answer);
        free(alone[i].answer);
    }
    live_stop(&s);
}

static void *run_leaver(void *ctx) {
    client *c = ctx;
    for (int k = 0; k < 12; k++) {
        int fd = live_dial(c->s, 0);
        live_post(fd, k % 2 ? "{\"prompt\":[1,2,3],\"max_tokens\":4000,\"ignore_eos\":true,\"n\":2}"
                            : "{\"prompt\":[1,2,3],\"max_tokens\":4000,\"ignore_eos\":true,"
                              "\"stream\":true}");
        usleep((useconds_t)(c->i * 997 + k * 613) % 9000);
        close(fd);
    }
    return NULL;
}

Test(live, clients_that_leave_at_any_time_leave_nothing_behind) {
    live s;
    live_start(&s, 4096, 2, 8);
    client c[6];
    pthread_t thread[6];
    for (int i = 0; i < 6; i++) {
        c[i] = (client){&s, i, NULL};
        pthread_create(&thread[i], NULL, run_leaver, &c[i]);
    }
    for (int i = 0; i < 6; i++) pthread_join(thread[i], NULL);
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    cr_assert(live_wait_metric(&s, "num_requests_waiting", 0));
    char *out = live_ask(&s, "{\"prompt\":[1],\"max_tokens\":2}");
    cr_assert(strstr(out, " 200 OK"), "%s", out);
    free(out);
    live_stop(&s);
}

Test(live, a_client_that_does_not_read_is_dropped) {
    live s;
    live_start(&s, 16384, 8, 8);
    int fd = live_dial(&s, 4096);
    cr_assert(live_post(fd, "{\"prompt\":[1,2],\"max_tokens\":16000,\"ignore_eos\":true,\"n\":8,"
                            "\"logprobs\":20,\"stream\":true}"));
    cr_assert(live_began(fd));
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    // It was cut off, not finished.
    cr_assert_lt(live_metric(&s, "generation_tokens_total"), 8 * 16000);
    close(fd);
    live_stop(&s);
}

// Shuts the sending side after the request, as `nc -N` and some proxies do.
static char *ask_and_shut(const live *s, const char *body) {
    int fd = live_dial(s, 0);
    cr_assert(live_post(fd, body));
    shutdown(fd, SHUT_WR);
    char *out = live_read(fd);
    close(fd);
    return out;
}

Test(live, a_client_that_shuts_its_sending_side_gets_its_answer) {
    live s;
    live_start(&s, 4096, 2, 8);
    char *whole = ask_and_shut(&s, "{\"prompt\":[1,2],\"max_tokens\":2000,\"ignore_eos\":true}");
    cr_assert(strstr(whole, "HTTP/1.1 200 OK"), "%s", whole);
    cr_assert(strstr(whole, "\"completion_tokens\":2000"), "%s", whole);
    char *stream = ask_and_shut(&s, "{\"prompt\":[1,2],\"max_tokens\":20,\"ignore_eos\":true,"
                                    "\"stream\":true}");
    cr_assert(strstr(stream, "data: [DONE]"), "%s", stream);
    free(whole), free(stream);
    // Two requests at once, then the end of the stream: both are answered.
    static const char two[] = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
                              "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                              "Content-Type: application/json\r\nContent-Length: 31\r\n\r\n"
                              "{\"prompt\":[1,2],\"max_tokens\":2}";
    int fd = live_dial(&s, 0);
    cr_assert(live_send(fd, two, sizeof two - 1));
    shutdown(fd, SHUT_WR);
    char *both = live_read(fd);
    cr_assert(strstr(both, "\"ok\"") && strstr(both, "\"choices\""), "%s", both);
    free(both);
    close(fd);
    // One that closes altogether looks the same at first, and is still noticed.
    fd = live_dial(&s, 0);
    cr_assert(live_post(fd, "{\"prompt\":[1,2],\"max_tokens\":4000,\"ignore_eos\":true,\"n\":2}"));
    cr_assert(live_wait_metric(&s, "num_requests_running", 2));
    double made = live_metric(&s, "generation_tokens_total");
    close(fd);
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    cr_assert_lt(live_metric(&s, "generation_tokens_total") - made, 8000);
    live_stop(&s);
}

// The text of choice `index`, up to its logprobs.
static char *text_of(const char *answer, int index) {
    char mark[32];
    snprintf(mark, sizeof mark, "{\"index\":%d,\"text\":", index);
    const char *from = strstr(answer, mark);
    cr_assert_not_null(from, "no choice %d: %s", index, answer);
    from += strlen(mark);
    return sd_strndup(from, (size_t)(strstr(from, ",\"logprobs\"") - from));
}

Test(live, a_prompt_is_sampled_alike_alone_and_in_any_place_of_a_list) {
    live s;
    live_start(&s, 512, 4, 64);
    static const char rest[] = ",\"max_tokens\":24,\"temperature\":1,\"seed\":7,\"n\":2,"
                               "\"ignore_eos\":true}";
    char body[256];
    snprintf(body, sizeof body, "{\"prompt\":[5,6,7]%s", rest);
    char *alone = live_ask(&s, body);
    snprintf(body, sizeof body, "{\"prompt\":[[1,2,3],[5,6,7]]%s", rest);
    char *list = live_ask(&s, body);
    for (int i = 0; i < 2; i++) {
        char *a = text_of(alone, i), *b = text_of(list, 2 + i);
        cr_assert_str_eq(a, b);
        free(a), free(b);
    }
    char *first = text_of(alone, 0), *second = text_of(alone, 1);
    cr_assert_str_neq(first, second);
    free(first), free(second), free(alone), free(list);
    live_stop(&s);
}

// The model is random: a bias of 100 makes A of whatever it would say, and 50 makes B where A may not
// come. Tokens 65 to 67 are A, B and C.
static void says(const live *s, const char *fields, const char *want, const char *finish) {
    char body[512];
    snprintf(body, sizeof body,
             "{\"prompt\":[7,200],\"temperature\":0,\"max_tokens\":8,\"n\":2,%s}", fields);
    char *answer = live_ask(s, body);
    cr_assert(strstr(answer, " 200 OK"), "%s", answer);
    cr_assert(strstr(answer, finish), "%s: %s", fields, answer);
    for (int i = 0; i < 2; i++) {
        char *text = text_of(answer, i); // in its quotes
        cr_expect(strlen(text) == strlen(want) + 2 && strncmp(text + 1, want, strlen(want)) == 0,
                  "%s: %s, want %s", fields, text, want);
        free(text);
    }
    free(answer);
}

#define BIAS "\"logit_bias\":{\"65\":100,\"66\":50,\"67\":25}"
#define Z50 "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"
#define ALTERNATE BIAS ",\"bad_words\":[\"AA\",\"BB\"]"

Test(live, what_shapes_logits_is_obeyed_for_each_choice_and_named_when_it_is_bad) {
    static const struct {
        const char *fields, *names;
    } bad[] = {{"\"logit_bias\":{\"288\":1}", "logit_bias"},
               {"\"allowed_token_ids\":[5,288]", "allowed_token_ids"},
               {"\"bad_words\":[\"a\",\"  \"]", "bad_words"},
               {"\"bad_words\":[\"" Z50 Z50 "\"]", "bad_words"},
               {"\"min_tokens\":9", "min_tokens"},
               {"\"allowed_token_ids\":[65],\"bad_words\":[\"A\"]", "allowed tokens"}};
    char body[512];
    live s;
    live_start(&s, 512, 4, 64);
    says(&s, BIAS ",\"ignore_eos\":true", "AAAAAAAA", "\"length\"");
    says(&s, ALTERNATE, "ABABABAB", "\"length\"");
    says(&s, BIAS ",\"allowed_token_ids\":[67,66]", "BBBBBBBB", "\"length\"");
    says(&s, ALTERNATE ",\"stop\":\"B\"", "A", "\"stop\"");
    says(&s, ALTERNATE ",\"stop\":\"B\",\"min_tokens\":4", "ABABA", "\"stop\"");
    says(&s, ALTERNATE ",\"stop_token_ids\":[66],\"min_tokens\":4", "ACACA", "\"stop\"");
    says(&s, BIAS ",\"presence_penalty\":2,\"frequency_penalty\":2,\"bad_words\":[\"B\"]",
         "AAAAAAAA", "\"length\"");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(body, sizeof body, "{\"prompt\":[7],\"max_tokens\":8,%s}", bad[i].fields);
        char *answer = live_ask(&s, body);
        cr_expect(strstr(answer, " 400 ") && strstr(answer, bad[i].names), "%s: %s", body, answer);
        free(answer);
    }
    live_stop(&s);
}

enum { STREAMS = 8 };

static void *run_stream(void *ctx) {
    client *c = ctx;
    char body[256];
    snprintf(body, sizeof body,
             "{\"prompt\":[%d,7],\"max_tokens\":%d,\"temperature\":1,\"seed\":%d,\"n\":%d,"
             "\"ignore_eos\":true,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
             c->i, 20 + 3 * c->i, c->i, 2 + c->i % 3);
    c->answer = live_ask(c->s, body);
    return NULL;
}

// ThreadSanitizer sees here what one choice's end reads of the others.
Test(live, streams_of_several_choices_with_running_usage_end_whole) {
    live s;
    live_start(&s, 512, 6, 64);
    client c[STREAMS];
    pthread_t thread[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        c[i] = (client){&s, i, NULL};
        pthread_create(&thread[i], NULL, run_stream, &c[i]);
    }
    for (int i = 0; i < STREAMS; i++) {
        pthread_join(thread[i], NULL);
        char total[64];
        snprintf(total, sizeof total, "\"completion_tokens\":%d,", (2 + i % 3) * (20 + 3 * i));
        cr_assert(strstr(c[i].answer, total), "%s is not there", total);
        cr_assert(strstr(c[i].answer, "data: [DONE]"));
        int metrics = 0;
        for (const char *at = c[i].answer; (at = strstr(at, "\"speculative_decoding\"")); at++)
            metrics++;
        cr_assert_eq(metrics, 1, "the sum stands once, when all have ended");
        free(c[i].answer);
    }
    live_stop(&s);
}

Test(live, a_full_queue_is_a_429_and_nothing_of_the_request_stays) {
    live s;
    live_start(&s, 4096, 1, 2);
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = live_dial(&s, 0);
        cr_assert(live_post(fd[i], "{\"prompt\":[1],\"max_tokens\":4000,\"ignore_eos\":true}"));
        if (i == 0) cr_assert(live_wait_metric(&s, "num_requests_running", 1));
    }
    cr_assert(live_wait_metric(&s, "num_requests_waiting", 2));
    char *out = live_ask(&s, "{\"prompt\":[1]}");
    cr_assert(strstr(out, " 429 ") && strstr(out, "Retry-After: "), "%s", out);
    free(out);
    close(fd[2]);
    cr_assert(live_wait_metric(&s, "num_requests_waiting", 1));
    out = live_ask(&s, "{\"prompt\":[1],\"max_tokens\":1,\"n\":2}"); // room for one of the two
    cr_assert(strstr(out, " 429 "), "%s", out);
    free(out);
    cr_assert(
        live_wait_metric(&s, "num_requests_waiting", 1)); // what there was room for is gone again
    out = live_ask(&s, "{\"prompt\":[1],\"max_tokens\":1,\"n\":4}"); // never room for four
    cr_assert(strstr(out, " 400 ") && strstr(out, "--queue"), "%s", out);
    free(out);
    for (int i = 0; i < 2; i++) close(fd[i]);
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    cr_assert(live_wait_metric(&s, "num_requests_waiting", 0));
    live_stop(&s);
}

static void drain_by(int sig) {
    live s;
    live_start(&s, 4096, 2, 8);
    int fd = live_dial(&s, 0);
    cr_assert(
        live_post(fd, "{\"prompt\":[1],\"max_tokens\":3000,\"ignore_eos\":true,\"stream\":true}"));
    cr_assert(live_began(fd));
    s.o.drain_s = 120; // also under a sanitizer on a busy machine
    kill(getpid(), sig);
    char *out = live_read(fd);
    cr_assert(strstr(out, "data: [DONE]"), "the stream was cut off");
    cr_assert(strstr(out, "\"finish_reason\":\"length\""));
    free(out);
    close(fd);
    live_join(&s);
}

// The choices end while the server closes, the one after the other; where the signal meets a step.
static void cut_off(void) {
    live s;
    live_start(&s, 4096, 4, 8);
    s.o.drain_s = 120;
    int fd = live_dial(&s, 0);
    cr_assert(live_post(fd, "{\"prompt\":[1],\"max_tokens\":4000,\"ignore_eos\":true,\"n\":4,"
                            "\"stream\":true}"));
    cr_assert(live_began(fd) && live_wait_metric(&s, "num_requests_running", 4));
    for (int i = 0; i < 2; i++) { // two that come at once are one
        kill(getpid(), SIGTERM);
        usleep(20000);
    }
    char *out = live_read(fd);
    cr_expect(!strstr(out, "\"finish_reason\":\"length\""), "it ran to its end");
    free(out);
    close(fd);
    live_join(&s);
}

static void do_nothing(int sig) {
    (void)sig;
}

Test(live, a_second_signal_ends_what_runs) {
    signal(SIGTERM, do_nothing); // what stands behind a server's that ended before the second
    for (int i = 0; i < 8; i++) cut_off();
}

Test(live, sigterm_and_sigint_let_the_running_request_finish) {
    drain_by(SIGTERM);
    drain_by(SIGINT);
}

Test(live, signals_that_mean_nothing_end_no_server) {
    const int sent[] = {SIGHUP, SIGUSR1, SIGALRM, SIGVTALRM, SIGPROF, SIGPOLL, SIGPWR, SIGRTMIN};
    live s;
    live_start(&s, 512, 2, 8);
    for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) kill(getpid(), sent[i]);
    char *out = live_get(&s, "/health");
    cr_assert(strstr(out, " 200 OK"), "%s", out);
    free(out);
    live_stop(&s);
}

static char *ask_model(const live *s, const char *model) {
    char body[256];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"prompt\":[1,2,3,4],\"max_tokens\":32,\"temperature\":0,"
             "\"ignore_eos\":true,\"logprobs\":1}",
             model);
    char *answer = live_answer(live_ask(s, body));
    cr_assert_not_null(answer, "no answer of %s", model);
    return answer;
}

Test(live, adapters_are_models_of_their_own_and_pairs_are_checked) {
    live s;
    sd_error err = {0};
    sd_model *base;
    live_write_model(&s);
    cr_assert_eq(sd_model_open(&base, s.model, &err), SD_OK, "%s", err.message);
    char *one = sd_path_join(s.dir, "one"), *two = sd_path_join(s.dir, "two");
    test_write_run(one, base, 1, 0.3f, true);
    test_write_run(two, base, 100000, 0.3f, false);
    sd_model_release(base);
    char *first = sd_sprintf("first=%s", one), *second = sd_sprintf("second=%s", two);
    sd_strings adapters = {.item = {first, second}, .n = 2};
    live_start_with(&s, 512, 4, 64, &adapters);
    char *plain = ask_model(&s, "tiny"), *a = ask_model(&s, "first"), *b = ask_model(&s, "second");
    cr_assert_str_neq(plain, a);
    cr_assert_str_neq(plain, b);
    cr_assert_str_neq(a, b);
    char *models = live_get(&s, "/v1/models");
    const char *at = strstr(models, "\"first\"");
    cr_assert(at && strstr(at, "\"draft\":\"index\""), "%s", models);
    at = strstr(models, "\"second\"");
    cr_assert(at && strstr(at, "\"draft\":\"none\""), "a foreign index was taken: %s", models);
    char *nobody = live_ask(&s, "{\"model\":\"third\",\"prompt\":[1]}");
    cr_assert(strstr(nobody, " 404 ") && strstr(nobody, "tiny, first, second"), "%s", nobody);
    live_stop(&s);
    free(plain), free(a), free(b), free(models), free(nobody);
    free(one), free(two), free(first), free(second);
}

Test(live, logits_that_are_not_finite_are_an_error_and_no_answer) {
    live s;
    sd_error err = {0};
    sd_model *base;
    live_write_model(&s);
    cr_assert_eq(sd_model_open(&base, s.model, &err), SD_OK, "%s", err.message);
    char *run = sd_path_join(s.dir, "run");
    test_write_run(run, base, 1, 1e15f,
                   true); // factors that pass; what attention makes of them does not
    sd_model_release(base);
    char *spec = sd_sprintf("huge=%s", run);
    sd_strings adapters = {.item = {spec}, .n = 1};
    live_start_with(&s, 512, 4, 64, &adapters);
    static const char *const rest[] = {"\"temperature\":0}", "\"temperature\":1}",
                                       "\"temperature\":1,\"stream\":true}",
                                       "\"logprobs\":3,\"n\":2}"};
    char body[256];
    for (int i = 0; i < 4; i++) {
        snprintf(body, sizeof body, "{\"model\":\"huge\",\"prompt\":[1,2,3],%s", rest[i]);
        char *out = live_ask(&s, body);
        cr_assert(strstr(out, "HTTP/1.1 500 "), "%s", out);
        cr_assert(strstr(out, "not finite"), "%s", out);
        cr_assert_null(strstr(out, "\"choices\""), "%s", out);
        free(out);
    }
    // The engine publishes its counters at the end of a step, after the answers.
    for (double end = sd_now_s() + 60;
         live_metric(&s, "nonfinite_logits_total") < 4 && sd_now_s() < end;)
        usleep(2000);
    cr_assert_geq(live_metric(&s, "nonfinite_logits_total"), 4);
    char *good = live_ask(&s, "{\"prompt\":[1,2,3],\"max_tokens\":3,\"ignore_eos\":true}");
    cr_assert(strstr(good, "\"completion_tokens\":3"), "the base is served on: %s", good);
    free(good);
    live_stop(&s);
    free(run), free(spec);
}

Test(live, a_model_that_is_not_there_ends_the_start) {
    sd_error err = {0};
    sd_serve_options o = {.model = "/nonexistent.gguf", .port = 0};
    cr_assert_eq(sd_serve(&o, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "/nonexistent.gguf"));
    o.model = "/dev/null";
    cr_assert_neq(sd_serve(&o, &err), SD_OK);
}

static int listed(const char *answer, const char *id) {
    char want[96];
    int n = 0;
    snprintf(want, sizeof want, "\"id\":\"%s\"", id);
    for (const char *p = answer; (p = strstr(p, want)) != NULL; p++) n++;
    return n;
}

// All names that were given are listed, and an adapter without one is called by its path.
Test(serve_live, what_may_be_asked_for_by_a_given_name_is_listed, .timeout = 120) {
    live s;
    live_write_model(&s);
    sd_model *base;
    cr_assert_eq(sd_model_open(&base, s.model, NULL), SD_OK);
    char *run = sd_path_join(s.dir, "my-run"), *slash = sd_sprintf("%s/", run),
         *named = sd_sprintf("other=%s", run);
    test_write_run(run, base, 5, 0.1f, true);
    sd_model_release(base);
    const sd_strings adapters = {.item = {slash, named}, .n = 2},
                     names = {.item = {"first", "second", "first", "third"}, .n = 4};
    s.o.served_names = &names;
    live_start_with(&s, 256, 2, 8, &adapters);
    char *all = live_get(&s, "/v1/models");
    static const char *const ids[] = {"first", "second", "third", "my-run", "other"};
    for (int i = 0; i < 5; i++) cr_assert_eq(listed(all, ids[i]), 1, "%s: %s", ids[i], all);
    cr_assert_eq(listed(all, "tiny"), 0, "%s", all);
    char *one = live_get(&s, "/v1/models/third"), *file = live_get(&s, "/v1/models/tiny.gguf");
    cr_assert_eq(listed(one, "third"), 1, "%s", one);
    cr_assert_eq(listed(file, "first"), 1, "%s", file);
    for (int i = 0; i < 5; i++) free(ask_model(&s, ids[i]));
    free(all), free(one), free(file), free(run), free(slash), free(named);
    live_stop(&s);
}
