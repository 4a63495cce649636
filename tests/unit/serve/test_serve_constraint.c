// What an answer is held to, from the request's field to the answer: response_format, vLLM's and
// llama-server's fields, over HTTP on a tiny model.
#include "tests/unit/support/live.h"

#include "decode/serve/api/openai/request.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHAT(rest) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" rest "}"
#define FORMAT(schema)                                                                             \
    CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","         \
         "\"strict\":true,\"schema\":" schema "}}")

#define OWN(members)                                                                               \
    CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{" members "}}")
#define SIXTEEN "abcdefgh-_012345"

static const struct {
    const char *body;
    sd_grammar_kind kind;
    const char *text;
} fields[] = {
    {CHAT(""), SD_GRAMMAR_NONE, NULL},
    {CHAT(",\"response_format\":{\"type\":\"text\"}"), SD_GRAMMAR_NONE, NULL},
    {CHAT(",\"response_format\":null,\"structured_outputs\":null,\"guided_json\":null"),
     SD_GRAMMAR_NONE, NULL},
    {CHAT(",\"response_format\":{\"type\":\"json_object\"}"), SD_GRAMMAR_OBJECT, ""},
    {FORMAT("{\"type\": \"object\", \"b\": 1, \"a\": 2}"), SD_GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"b\":1,\"a\":2}"},
    {CHAT(",\"structured_outputs\":{\"json\":{\"type\":\"null\"}}"), SD_GRAMMAR_SCHEMA,
     "{\"type\":\"null\"}"},
    {CHAT(",\"structured_outputs\":{\"json\":\"{}\"}"), SD_GRAMMAR_SCHEMA, "{}"},
    {CHAT(",\"structured_outputs\":{\"regex\":\"a+\"}"), SD_GRAMMAR_REGEX, "a+"},
    {CHAT(",\"structured_outputs\":{\"choice\":[\"a\",\"b\"]}"), SD_GRAMMAR_CHOICE,
     "[\"a\",\"b\"]"},
    {CHAT(",\"structured_outputs\":{\"json_object\":true}"), SD_GRAMMAR_OBJECT, ""},
    {CHAT(",\"structured_outputs\":{\"json_object\":false}"), SD_GRAMMAR_NONE, NULL},
    {CHAT(",\"guided_json\":{\"type\":\"null\"}"), SD_GRAMMAR_SCHEMA, "{\"type\":\"null\"}"},
    {CHAT(",\"guided_regex\":\"x\""), SD_GRAMMAR_REGEX, "x"},
    {CHAT(",\"guided_choice\":[\"x\"]"), SD_GRAMMAR_CHOICE, "[\"x\"]"},
    {CHAT(",\"json_schema\":{}"), SD_GRAMMAR_SCHEMA, "{}"},
    {OWN("\"name\":\"" SIXTEEN SIXTEEN SIXTEEN SIXTEEN
         "\",\"description\":\"d\",\"schema\":true,\"strict\":null"),
     SD_GRAMMAR_SCHEMA, "true"},
    {CHAT(",\"response_format\":{\"type\":\"json_object\",\"json_schema\":null}"),
     SD_GRAMMAR_OBJECT, ""},
    {CHAT(",\"response_format\":{\"type\":\"text\",\"json_schema\":null}"), SD_GRAMMAR_NONE, NULL},
    {CHAT(",\"structured_outputs\":{\"regex\":\"a+\",\"whitespace_pattern\":null}"),
     SD_GRAMMAR_REGEX, "a+"},
    {CHAT(",\"structured_outputs\":{\"json\":{},\"disable_fallback\":true,"
          "\"disable_any_whitespace\":false}"),
     SD_GRAMMAR_SCHEMA, "{}"},
};

Test(constraint_fields, each_way_to_say_it_is_read) {
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        sd_api_request r;
        sd_api_error e;
        cr_assert_eq(
            sd_api_request_parse(&r, SD_API_CHAT, fields[i].body, strlen(fields[i].body), &e), 0,
            "%s: %s", fields[i].body, e.message);
        cr_expect_eq(r.constraint, fields[i].kind, "%s", fields[i].body);
        if (fields[i].text) cr_expect_str_eq(r.constraint_text, fields[i].text);
        sd_api_request_free(&r);
    }
}

static const struct {
    const char *param, *body;
} bad[] = {
    {"response_format", CHAT(",\"response_format\":\"json_object\"")},
    {"response_format", CHAT(",\"response_format\":{\"type\":\"xml\"}")},
    {"response_format", CHAT(",\"response_format\":{\"type\":\"json_schema\"}")},
    {"response_format",
     CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"}}")},
    {"response_format", CHAT(",\"response_format\":{}")},
    {"response_format", CHAT(",\"response_format\":{\"type\":1}")},
    {"response_format", CHAT(",\"response_format\":{\"type\":\"json_object\",\"schema\":{}}")},
    {"response_format", CHAT(",\"response_format\":{\"type\":\"text\",\"json_schema\":{}}")},
    {"response_format", CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":[]}")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":{},\"strict\":1")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":{},\"strict\":\"true\"")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":{},\"description\":1")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":{},\"parameters\":{}")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":\"{}\"")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":[]")},
    {"response_format", OWN("\"name\":\"n\",\"schema\":null")},
    {"response_format", OWN("\"schema\":{}")},
    {"response_format", OWN("\"name\":\"\",\"schema\":{}")},
    {"response_format", OWN("\"name\":\"a b\",\"schema\":{}")},
    {"response_format", OWN("\"name\":1,\"schema\":{}")},
    {"response_format", OWN("\"name\":\"" SIXTEEN SIXTEEN SIXTEEN SIXTEEN "x\",\"schema\":{}")},
    {"response_format", CHAT(",\"response_format\":{\"type\":\"json_schema\",\"strict\":true,"
                             "\"json_schema\":{\"name\":\"n\",\"schema\":{}}}")},
    {"structured_outputs", CHAT(",\"structured_outputs\":{\"json_object\":1}")},
    {"structured_outputs",
     CHAT(",\"structured_outputs\":{\"json\":{},\"whitespace_pattern\":\" \"}")},
    {"structured_outputs",
     CHAT(",\"structured_outputs\":{\"json\":{},\"disable_fallback\":\"yes\"}")},
    {"guided_json_object", CHAT(",\"guided_json_object\":\"true\"")},
    {"guided_whitespace_pattern", CHAT(",\"guided_whitespace_pattern\":\" *\"")},
    {"structured_outputs", CHAT(",\"structured_outputs\":\"x\"")},
    {"structured_outputs", CHAT(",\"structured_outputs\":{\"grammar\":\"root ::= x\"}")},
    {"structured_outputs", CHAT(",\"structured_outputs\":{\"regex\":1}")},
    {"guided_regex", CHAT(",\"guided_regex\":[]")},
    {"guided_choice", CHAT(",\"guided_json\":{},\"guided_choice\":[\"a\"]")},
    {"guided_grammar", CHAT(",\"guided_grammar\":\"root ::= x\"")},
    {"grammar", CHAT(",\"grammar\":\"root ::= x\"")},
};

Test(constraint_fields, a_bad_one_is_named) {
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_api_request r;
        sd_api_error e;
        cr_expect_eq(sd_api_request_parse(&r, SD_API_CHAT, bad[i].body, strlen(bad[i].body), &e),
                     400, "%s", bad[i].body);
        cr_expect_str_eq(e.param, bad[i].param);
        sd_api_request_free(&r);
    }
}

// The text of choice i.
static const char *text_of(const json_t *answer, size_t i) {
    return json_string_value(
        json_object_get(json_array_get(json_object_get(answer, "choices"), i), "text"));
}

static json_t *ask(const live *s, const char *body, int *status) {
    char *response = live_ask(s, body);
    cr_assert(response, "%s", body);
    *status = atoi(response + strlen("HTTP/1.1 "));
    const char *at = strstr(response, "\r\n\r\n");
    json_t *v = at ? json_loads(at + 4, 0, NULL) : NULL;
    cr_assert(v, "%s", response);
    free(response);
    return v;
}

// Answers whose check had a result.
static double checks(const live *s, const char *result) {
    char *page = live_get(s, "/metrics"), line[64];
    snprintf(line, sizeof line, "result=\"%s\"} ", result);
    const char *at = strstr(page, line);
    cr_assert(at && strstr(page, "constraint_checks_total"), "%s", page);
    double value = atof(at + strlen(line));
    free(page);
    return value;
}

Test(constraint_live, answers_fit_what_they_are_held_to) {
    live s;
    int status;
    live_start(&s, 512, 4, 64);
    json_t *v = ask(&s,
                    "{\"prompt\":\"a\",\"max_tokens\":200,\"n\":3,\"seed\":1,\"json_schema\":{"
                    "\"type\":\"object\",\"properties\":{"
                    "\"kind\":{\"enum\":[\"red\",\"green\"]},\"n\":{\"type\":\"integer\","
                    "\"minimum\":1,\"maximum\":20}},"
                    "\"required\":[\"kind\",\"n\"]}}",
                    &status);
    cr_assert_eq(status, 200);
    for (size_t i = 0; i < 3; i++) {
        json_t *o = json_loads(text_of(v, i), 0, NULL);
        cr_expect(o, "%s", text_of(v, i));
        const char *kind = json_string_value(json_object_get(o, "kind"));
        json_int_t n = json_integer_value(json_object_get(o, "n"));
        cr_expect(kind && (!strcmp(kind, "red") || !strcmp(kind, "green")) && n >= 1 && n <= 20,
                  "%s", text_of(v, i));
        const json_t *choice = json_array_get(json_object_get(v, "choices"), i);
        cr_expect_str_eq(json_string_value(json_object_get(choice, "finish_reason")), "stop");
        json_decref(o);
    }
    json_decref(v);
    v = ask(&s,
            "{\"prompt\":\"a\",\"max_tokens\":60,\"structured_outputs\":{\"choice\":[\"in the "
            "end\",\"out\"]}}",
            &status);
    cr_expect(!strcmp(text_of(v, 0), "in the end") || !strcmp(text_of(v, 0), "out"), "%s",
              text_of(v, 0));
    json_decref(v);
    v = ask(&s,
            "{\"prompt\":\"a\",\"max_tokens\":3,\"structured_outputs\":{\"regex\":\"[a-z]{50}\"}}",
            &status);
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(choice, "finish_reason")), "length");
    json_decref(v);
    cr_expect(live_wait_metric(&s, "constraint_failures_total", 0));
    cr_expect_eq(checks(&s, "valid"), 4);
    cr_expect_eq(checks(&s, "unchecked"), 0);
    cr_expect_eq(live_metric(&s, "constraint_compiled_total"), 3);
    cr_expect_eq(live_metric(&s, "constraint_refused_total"), 0);
    cr_expect_eq(live_metric(&s, "constraint_cache_hits_total"),
                 5); // by the engine, for each answer
    cr_expect_gt(live_metric(&s, "constraint_compile_seconds_total"), 0);
    cr_expect_gt(live_metric(&s, "constraint_masks_total"), 20);
    cr_expect_gt(live_metric(&s, "constraint_masks_computed_total"), 5);
    cr_expect_gt(live_metric(&s, "constraint_mask_seconds_total"), 0);
    live_stop(&s);
}

// ---- the check at an answer's end

static sd_status find_fault(const void *ctx, const char *text, size_t len, sd_error *err) {
    const sd_status *st = ctx;
    cr_assert(len == 4 && memcmp(text, "null", 4) == 0, "%.*s", (int)len, text);
    return sd_fail(err, *st, "as told");
}

static sd_status to_find;

static void keep_it(void *ctx) {
    (void)ctx;
}

// What a bug of the masks would look like: a check that knows better.
static void give_check(void *ctx, sd_grammar *g) {
    (void)ctx;
    sd_grammar_set_check(g, find_fault, keep_it, &to_find);
}

Test(constraint_live, an_answer_that_does_not_fit_is_a_500_and_counted) {
    live s = {0};
    int status;
    live_write_model(&s);
    s.o.on_constraint = give_check;
    live_start_with(&s, 512, 4, 64, NULL);
    to_find = SD_EMISMATCH;
    const char *ask_it = "{\"prompt\":\"a\",\"max_tokens\":9,\"guided_json\":{\"type\":\"null\"}}";
    json_t *v = ask(&s, ask_it, &status);
    cr_expect_eq(status, 500);
    cr_expect(strstr(json_string_value(json_object_get(json_object_get(v, "error"), "message")),
                     "does not fit"));
    json_decref(v);
    // A stream has begun: its end is the error, and nobody is told that it stopped.
    char *stream = live_ask(&s, "{\"prompt\":\"a\",\"max_tokens\":9,\"stream\":true,\"n\":2,"
                                "\"guided_json\":{\"type\":\"null\"}}");
    cr_expect(strstr(stream, "does not fit") && !strstr(stream, "\"stop\"") &&
                  !strstr(stream, "[DONE]"),
              "%s", stream);
    free(stream);
    double failed = live_metric(&s, "constraint_failures_total");
    cr_expect(failed >= 2 && failed <= 3, "%g", failed);
    cr_expect_eq(checks(&s, "failed"), failed);
    // What takes too many steps to be checked is sent, and counted apart.
    to_find = SD_ELIMIT;
    v = ask(&s, ask_it, &status);
    cr_expect_eq(status, 200);
    cr_expect_str_eq(text_of(v, 0), "null");
    json_decref(v);
    cr_expect_eq(checks(&s, "unchecked"), 1);
    cr_expect_eq(checks(&s, "valid"), 0);
    live_stop(&s);
}

// A check that waits at a gate, on a worker's thread.
static sem_t at_gate, gate;

static sd_status wait_at_gate(const void *ctx, const char *text, size_t len, sd_error *err) {
    (void)ctx, (void)text, (void)len, (void)err;
    sem_post(&at_gate);
    sem_wait(&gate);
    return SD_OK;
}

static void give_gate(void *ctx, sd_grammar *g) {
    (void)ctx;
    sd_grammar_set_check(g, wait_at_gate, keep_it, &to_find);
}

static void start_with_gate(live *s, double drain_s) {
    sem_init(&at_gate, 0, 0);
    sem_init(&gate, 0, 0);
    live_write_model(s);
    s->o.drain_s = drain_s;
    s->o.on_constraint = give_gate;
    live_start_with(s, 512, 4, 64, NULL);
}

// Fails where nobody comes within half a minute.
static void wait_for(sem_t *sem) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 30;
    cr_assert_eq(sem_timedwait(sem, &end), 0, "no answer is checked");
}

// A request whose answer's check waits at the gate.
static int held_check(const live *s, const char *body) {
    int fd = live_dial(s, 0);
    cr_assert(fd >= 0 && live_post(fd, body));
    wait_for(&at_gate);
    return fd;
}

Test(constraint_live, a_check_holds_up_nobody_and_its_client_may_leave) {
    live s = {0};
    start_with_gate(&s, 20);
    const char *body = "{\"prompt\":\"a\",\"max_tokens\":9,\"guided_json\":{\"type\":\"null\"}}";
    int stays = held_check(&s, body), leaves = held_check(&s, body);
    char *other = live_ask_from(&s, "127.0.0.2", "{\"prompt\":\"a\",\"max_tokens\":9}");
    cr_expect(strstr(other, " 200 OK"), "%s", other);
    free(other);
    close(leaves);
    free(live_get(&s, "/health"));
    cr_expect_eq(checks(&s, "valid"), 0);
    sem_post(&gate), sem_post(&gate);
    char *out = live_read(stays);
    cr_expect(strstr(out, " 200 OK") && strstr(out, "null"), "%s", out);
    free(out);
    close(stays);
    for (int i = 0; i < 10000 && checks(&s, "valid") < 2; i++) usleep(1000);
    cr_expect_eq(checks(&s, "valid"), 2);
    cr_expect(live_wait_metric(&s, "num_requests_running", 0));
    live_stop(&s);
}

// Two of three checks are at work for one client, the third waits for its turn, which it need not have.
Test(constraint_live, a_server_that_is_cut_short_ends_with_checks_at_hand) {
    live s = {0};
    start_with_gate(&s, 0.2);
    int fd = held_check(
        &s, "{\"prompt\":\"a\",\"max_tokens\":9,\"n\":3,\"guided_json\":{\"type\":\"null\"}}");
    wait_for(&at_gate);
    kill(getpid(), SIGTERM);
    for (int i = 0; i < 60000; i++) {
        int probe = live_dial(&s, 0);
        if (probe < 0) break;
        close(probe);
        usleep(1000);
    }
    usleep(100000); // the workers are told to end
    for (int i = 0; i < 3; i++) sem_post(&gate);
    live_join(&s);
    close(fd);
}

Test(constraint_live, what_cannot_be_enforced_is_a_400_that_names_its_place) {
    live s;
    int status;
    live_start(&s, 512, 4, 64);
    json_t *v = ask(&s,
                    "{\"prompt\":\"a\",\"max_tokens\":2,\"guided_json\":{\"type\":\"object\","
                    "\"properties\":{\"a\":{\"not\":{}}}}}",
                    &status);
    const json_t *e = json_object_get(v, "error");
    cr_expect_eq(status, 400);
    cr_expect_str_eq(json_string_value(json_object_get(e, "param")), "guided_json");
    cr_expect(strstr(json_string_value(json_object_get(e, "message")),
                     "#/properties/a: the keyword \"not\""),
              "%s", json_string_value(json_object_get(e, "message")));
    json_decref(v);
    v = ask(&s, "{\"prompt\":\"a\",\"max_tokens\":2,\"guided_regex\":\"(?=a)\"}", &status);
    cr_expect_eq(status, 400);
    json_decref(v);
    v = ask(&s, "{\"prompt\":\"a\",\"max_tokens\":2,\"guided_choice\":[]}", &status);
    cr_expect_eq(status, 400);
    json_decref(v);
    live_stop(&s);
}
