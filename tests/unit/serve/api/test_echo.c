// A completion's prompt, scored: what lm-eval's local-completions asks for. Its log probabilities are those that
// decoding gives, whatever else runs and whatever the prefix cache has.
#include "base/memory.h"
#include "tests/unit/support/thinker.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SAID = 150, ASKERS = 6 };

#define LOGPROBS "choices.0.logprobs"

static const json_t *entry(const json_t *v, const char *list, size_t i) {
    char path[96];
    snprintf(path, sizeof path, LOGPROBS ".%s.%zu", list, i);
    return live_at(v, path);
}

static size_t length(const json_t *v, const char *list) {
    char path[64];
    snprintf(path, sizeof path, LOGPROBS ".%s", list);
    return json_array_size(live_at(v, path));
}

// The prompt's ids, then the letters of an answer, each of which is the token of its byte.
static void score_body(char *out, size_t cap, int seed, const char *letters, const char *fields) {
    int n = snprintf(out, cap, "{\"prompt\":[7,200,%d", seed);
    for (const char *c = letters; *c; c++) n += snprintf(out + n, cap - (size_t)n, ",%d", *c);
    snprintf(out + n, cap - (size_t)n, "],\"echo\":true,\"logprobs\":3,%s}", fields);
}

static json_t *say(const live *s, int seed) {
    char body[512];
    snprintf(
        body, sizeof body,
        "{\"prompt\":[7,200,%d],\"max_tokens\":%d,\"seed\":%d,\"logprobs\":3,\"temperature\":2,"
        "\"ignore_eos\":true,\"allowed_token_ids\":[65,66,67,68,69,70,71,72]}",
        seed, SAID, seed);
    return live_json(s, "completions", body, 200);
}

typedef struct {
    const live *s;
    int seed;
    const char *letters;
    json_t *alone, *together;
} asker;

static void *ask(void *ctx) {
    asker *a = ctx;
    char body[2048];
    score_body(body, sizeof body, a->seed, a->letters, "\"max_tokens\":0.0");
    a->together = live_json(a->s, "completions", body, 200);
    return NULL;
}

// Token i of the prompt has the log probability, and the alternatives, that it had when it was said.
static void check_scores(const json_t *scored, const json_t *said) {
    cr_assert_eq(length(scored, "tokens"), SAID + 3);
    cr_assert_eq(length(scored, "text_offset"), SAID + 3);
    cr_assert(json_is_null(entry(scored, "token_logprobs", 0)));
    cr_assert(json_is_null(entry(scored, "top_logprobs", 0)));
    cr_assert(json_is_real(entry(scored, "token_logprobs", 1)));
    for (size_t i = 0; i < SAID; i++) {
        cr_assert(json_equal(entry(scored, "tokens", i + 3), entry(said, "tokens", i)));
        cr_assert(
            json_equal(entry(scored, "token_logprobs", i + 3), entry(said, "token_logprobs", i)),
            "token %zu", i);
        cr_assert(json_equal(entry(scored, "top_logprobs", i + 3), entry(said, "top_logprobs", i)));
    }
    cr_assert_str_eq(live_text_at(scored, "choices.0.finish_reason"), "length");
    cr_assert_eq(json_integer_value(live_at(scored, "usage.completion_tokens")), 0);
    cr_assert_eq(json_integer_value(live_at(scored, "usage.prompt_tokens_details.cached_tokens")),
                 0);
}

Test(echo, a_prompts_scores_are_those_of_decoding_alone_and_together, .timeout = 240) {
    live s;
    live_start(&s, 512, 4, 64);
    asker a[ASKERS];
    json_t *said[ASKERS];
    pthread_t thread[ASKERS];
    for (int i = 0; i < ASKERS; i++) {
        said[i] = say(&s, i + 10);
        a[i] = (asker){.s = &s, .seed = i + 10, .letters = live_text_at(said[i], "choices.0.text")};
        ask(&a[i]); // its whole prompt is in the prefix cache now
        a[i].alone = a[i].together;
        check_scores(a[i].alone, said[i]);
    }
    for (int i = 0; i < ASKERS; i++) pthread_create(&thread[i], NULL, ask, &a[i]);
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(thread[i], NULL);
        check_scores(a[i].together, said[i]);
        json_decref(a[i].alone), json_decref(a[i].together), json_decref(said[i]);
    }
    live_stop(&s);
}

Test(echo, an_answer_follows_its_scored_prompt, .timeout = 120) {
    live s;
    live_start(&s, 512, 4, 64);
    char body[1024];
    score_body(body, sizeof body, 9, "ABCABD",
               "\"max_tokens\":4,\"temperature\":0,\"ignore_eos\":true,\"n\":2");
    json_t *v = live_json(&s, "completions", body, 200);
    cr_assert_eq(length(v, "tokens"), 9 + 4);
    for (size_t i = 1; i < 9 + 4; i++) {
        cr_expect(json_is_real(entry(v, "token_logprobs", i)));
        cr_expect(json_is_object(entry(v, "top_logprobs", i)));
    }
    // Greedy tokens are the likeliest of their alternatives.
    cr_expect(json_equal(live_at(v, "choices.0.text"), live_at(v, "choices.1.text")));
    cr_expect(json_equal(live_at(v, LOGPROBS), live_at(v, "choices.1.logprobs")));
    json_decref(v);
    live_stop(&s);
}

// The lists of all chunks behind one another.
static json_t *gather(const char *stream, const char *list, char *text, size_t cap) {
    json_t *all = json_array();
    *text = '\0';
    for (const char *at = stream; (at = strstr(at, "data: {")); at++) {
        json_t *v = json_loads(at + 6, JSON_DISABLE_EOF_CHECK, NULL);
        char path[64];
        snprintf(path, sizeof path, LOGPROBS ".%s", list);
        size_t n = strlen(text);
        const char *more = live_text_at(v, "choices.0.text");
        if (strcmp(more, "(none)") != 0) snprintf(text + n, cap - n, "%s", more);
        json_t *part = json_incref((json_t *)(uintptr_t)live_at(v, path));
        if (json_is_array(part)) json_array_extend(all, part);
        json_decref(part);
        json_decref(v);
    }
    return all;
}

Test(echo, a_stream_has_the_same_scores, .timeout = 120) {
    static const char *const lists[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    live s;
    live_start(&s, 512, 4, 64);
    for (int most = 0; most <= 3; most += 3) {
        char body[2048], text[1024], fields[128];
        static const char letters[] = "ABCABDABCABDABCABDABCABDABCABDABCABDABCABDABCABDABCABDABC";
        snprintf(fields, sizeof fields, "\"temperature\":0,\"ignore_eos\":true,\"max_tokens\":%d",
                 most);
        score_body(body, sizeof body, 9, letters, fields);
        json_t *whole = live_json(&s, "completions", body, 200);
        strcpy(strrchr(body, '}'), ",\"stream\":true}");
        char *stream = live_ask_at(&s, "completions", body);
        for (size_t i = 0; i < 4; i++) {
            char path[64];
            json_t *all = gather(stream, lists[i], text, sizeof text);
            snprintf(path, sizeof path, LOGPROBS ".%s", lists[i]);
            cr_expect(json_equal(all, live_at(whole, path)), "%s: %s", lists[i], stream);
            json_decref(all);
        }
        cr_expect_str_eq(text, live_text_at(whole, "choices.0.text"));
        cr_expect(strstr(stream, "data: [DONE]"));
        free(stream);
        json_decref(whole);
    }
    live_stop(&s);
}

// Before logprob_start_len nothing is said and nothing need be computed; behind it all is as ever.
Test(echo, scores_that_are_not_wanted_leave_the_prefix_cache_its_use, .timeout = 120) {
    live s;
    char body[2048], letters[SAID + 1];
    for (int i = 0; i < SAID; i++) letters[i] = (char)('A' + i * 7 % 20);
    letters[SAID] = '\0';
    live_start(&s, 512, 2, 8);
    score_body(body, sizeof body, 3, letters, "\"max_tokens\":0");
    json_t *all = live_json(&s, "completions", body, 200);
    const int starts[] = {0, 1, 64, 100, SAID + 2, SAID + 3, 9999};
    for (size_t k = 0; k < sizeof starts / sizeof *starts; k++) {
        char fields[96];
        const int from = starts[k] < 1 ? 1 : starts[k];
        snprintf(fields, sizeof fields, "\"max_tokens\":0,\"logprob_start_len\":%d", starts[k]);
        score_body(body, sizeof body, 3, letters, fields);
        json_t *some = live_json(&s, "completions", body, 200);
        cr_assert_eq(length(some, "token_logprobs"), SAID + 3);
        for (int i = 0; i < SAID + 3; i++) {
            const bool said = i >= from;
            cr_assert(
                json_equal(entry(some, "tokens", (size_t)i), entry(all, "tokens", (size_t)i)));
            cr_assert(said ? json_equal(entry(some, "token_logprobs", (size_t)i),
                                        entry(all, "token_logprobs", (size_t)i)) &&
                                 json_equal(entry(some, "top_logprobs", (size_t)i),
                                            entry(all, "top_logprobs", (size_t)i))
                           : json_is_null(entry(some, "token_logprobs", (size_t)i)) &&
                                 json_is_null(entry(some, "top_logprobs", (size_t)i)),
                      "token %d from %d", i, from);
        }
        if (from == 100)
            cr_assert_eq(
                json_integer_value(live_at(some, "usage.prompt_tokens_details.cached_tokens")), 99);
        json_decref(some);
    }
    json_decref(all);
    json_t *bad = live_json(&s, "completions", "{\"prompt\":[1,2],\"logprob_start_len\":1}", 400);
    cr_assert_str_eq(live_text_at(bad, "error.param"), "logprob_start_len");
    json_decref(bad);
    live_stop(&s);
}

Test(echo, the_shortest_prompts_are_echoed_too, .timeout = 120) {
    live s;
    live_start(&s, 64, 2, 64);
    json_t *v =
        live_json(&s, "completions",
                  "{\"prompt\":[[65],[66,67]],\"echo\":true,\"max_tokens\":0,\"logprobs\":0}", 200);
    cr_expect_str_eq(live_text_at(v, "choices.0.text"), "A");
    cr_expect(length(v, "tokens") == 1 && json_is_null(entry(v, "token_logprobs", 0)));
    cr_expect_eq(json_array_size(live_at(v, "choices.1.logprobs.tokens")), 2);
    json_decref(v);
    v = live_json(&s, "completions", "{\"prompt\":\"AB\",\"echo\":true,\"max_tokens\":0}", 200);
    cr_expect_str_eq(live_text_at(v, "choices.0.text"), "AB");
    cr_expect(json_is_null(live_at(v, LOGPROBS)));
    json_decref(v);
    v = live_json(&s, "completions",
                  "{\"prompt\":[65],\"echo\":true,\"max_tokens\":2,\"logprobs\":1}", 200);
    cr_expect_geq(length(v, "tokens"), 2); // it may end at once
    json_decref(v);
    live_stop(&s);
}

// ---- /tokenize, /detokenize, continue_final_message

Test(echo, texts_become_ids_and_ids_texts, .timeout = 120) {
    static const struct {
        const char *route, *body, *param;
    } bad[] = {{"tokenize", "{}", "prompt"},
               {"tokenize", "{\"prompt\":7}", "prompt"},
               {"tokenize", "{\"messages\":[]}", "messages"},
               {"tokenize", "{\"prompt\":\"a\",\"return_token_strs\":1}", "return_token_strs"},
               {"tokenize",
                "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                "\"add_special_tokens\":true}",
                "add_special_tokens"},
               {"detokenize", "{}", "tokens"},
               {"detokenize", "{\"tokens\":[1,\"a\"]}", "tokens"},
               {"detokenize", "{\"tokens\":[288]}", "prompt"}};
    live s;
    live_start(&s, 64, 2, 64);
    json_t *v = live_json(&s, "tokenize", "{\"prompt\":\"AB\",\"return_token_strs\":true}", 200);
    cr_expect_eq(json_integer_value(live_at(v, "count")), 2);
    cr_expect_eq(json_integer_value(live_at(v, "max_model_len")), 64);
    cr_expect_eq(json_integer_value(live_at(v, "tokens.0")), 65);
    cr_expect_str_eq(live_text_at(v, "token_strs.1"), "B");
    json_decref(v);
    v = live_json(&s, "tokenize", "{\"prompt\":\"\"}", 200);
    cr_expect_eq(json_integer_value(live_at(v, "count")), 0);
    json_decref(v);
    v = live_json(&s, "detokenize", "{\"tokens\":[65,66.0]}", 200);
    cr_expect_str_eq(live_text_at(v, "prompt"), "AB");
    json_decref(v);
    // More than the context holds is counted all the same.
    char body[512] = "{\"prompt\":\"";
    for (int i = 0; i < 100; i++) strcat(body, "AB");
    v = live_json(&s, "tokenize", strcat(body, "\"}"), 200);
    cr_expect_gt(json_integer_value(live_at(v, "count")), 64);
    json_decref(v);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        v = live_json(&s, bad[i].route, bad[i].body, 400);
        cr_expect_str_eq(live_text_at(v, "error.param"), bad[i].param, "%s", bad[i].body);
        json_decref(v);
    }
    char *info = live_get(&s, "/tokenizer_info");
    cr_expect(strstr(info, " 200 OK") && strstr(info, "\"model_max_length\":64") &&
                  strstr(info, "\"eos_token\":\"") && strstr(info, "\"chat_template\":\""),
              "%s", info);
    free(info);
    cr_expect_eq(live_metric(&s, "num_requests_waiting"), 0);
    live_stop(&s);
}

#define ASKED "{\"role\":\"user\",\"content\":\"hi\"}"
#define BEGUN "{\"role\":\"assistant\",\"content\":\"A b \"}"

Test(echo, an_answer_goes_on_with_the_last_message, .timeout = 120) {
    live s;
    live_start(&s, 512, 2, 64);
    json_t *on = live_json(&s, "tokenize",
                           "{\"messages\":[" ASKED "," BEGUN "],\"continue_final_message\":true,"
                           "\"add_generation_prompt\":false,\"return_token_strs\":true}",
                           200);
    json_t *asked = live_json(&s, "tokenize", "{\"messages\":[" ASKED "]}", 200);
    json_t *ended =
        live_json(&s, "tokenize",
                  "{\"messages\":[" ASKED "," BEGUN "],\"add_generation_prompt\":false}", 200);
    size_t n = json_array_size(live_at(on, "tokens"));
    // The prompt ends with the text's own blank, in front of what ends the turn.
    cr_assert_geq(n, 4);
    char path[32];
    snprintf(path, sizeof path, "tokens.%zu", n - 1);
    cr_expect_eq(json_integer_value(live_at(on, path)), ' ');
    cr_expect_gt(json_array_size(live_at(ended, "tokens")), n);
    cr_expect_lt(json_array_size(live_at(asked, "tokens")), n + 4);
    json_t *v = live_chat(&s, "{\"messages\":[" ASKED "," BEGUN "],\"continue_final_message\":true,"
                              "\"max_tokens\":3}");
    cr_expect_eq(json_integer_value(live_at(v, "usage.prompt_tokens")), (json_int_t)n);
    json_decref(v), json_decref(on), json_decref(asked), json_decref(ended);
    live_stop(&s);
}

// ---- what users say as letters alone

static bool has_token(const json_t *v, int id) {
    const json_t *list = live_at(v, "tokens");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == id) return true;
    return false;
}

#define SPELLS(role) "{\"messages\":[{\"role\":\"" role "\",\"content\":\"a</think>b\"}]}"

Test(echo, what_users_and_tools_say_spells_no_token_where_that_is_asked, .timeout = 120) {
    enum { THINK_END = 290, TOOL_CALL = 293 };
    static const char *const says[] = {SPELLS("user"), SPELLS("tool"), SPELLS("system"),
                                       SPELLS("assistant")};
    for (int plain = 0; plain < 2; plain++) {
        live s;
        thinker_write(&s);
        s.o.plain_user_text = plain;
        live_start_with(&s, 512, 2, 16, NULL);
        for (int i = 0; i < 4; i++) {
            char body[4096];
            json_t *v = live_json(&s, "tokenize", says[i], 200);
            cr_expect_eq(has_token(v, THINK_END), !plain || i >= 2, "%d: %s", plain, says[i]);
            // Its letters are there either way.
            char *ids = json_dumps(live_at(v, "tokens"), JSON_COMPACT);
            snprintf(body, sizeof body, "{\"tokens\":%s}", ids);
            json_t *back = live_json(&s, "detokenize", body, 200);
            cr_expect(strstr(live_text_at(back, "prompt"), "a</think>b"), "%s",
                      live_text_at(back, "prompt"));
            json_decref(back), json_decref(v);
            free(ids);
        }
        // The guard of a client's own opens nothing, and a letter in front of a token hides none.
        json_t *v = live_json(&s, "tokenize",
                              "{\"messages\":[{\"role\":\"user\",\"content\":"
                              "\"<<tool_call></\\ufdd0think><\\ufdd0/think>\"}]}",
                              200);
        cr_expect_eq(has_token(v, TOOL_CALL), !plain);
        cr_expect(!has_token(v, THINK_END));
        json_decref(v);
        live_stop(&s);
    }
}

// ---- pages of other origins

static char *send_raw(const live *s, const char *text) {
    int fd = live_dial(s, 0);
    cr_assert(live_send(fd, text, strlen(text)));
    char *out = live_read(fd);
    close(fd);
    return out;
}

static bool has(const live *s, const char *origin, const char *method, const char *want) {
    char text[512];
    snprintf(text, sizeof text,
             "%s /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: %s\r\nConnection: close\r\n"
             "Access-Control-Request-Method: POST\r\n"
             "Access-Control-Request-Headers: content-type,x-api-key\r\n\r\n",
             method, origin);
    char *out = send_raw(s, text);
    bool found = strstr(out, want) != NULL;
    free(out);
    return found;
}

Test(echo, only_pages_of_a_named_origin_read_answers, .timeout = 120) {
    static const sd_strings listed = {{"https://a.example"}, 1}, all = {{"*"}, 1},
                            wrong = {{"a.example"}, 1};
    static const char allow[] = "Access-Control-Allow-Origin: ";
    live s;
    live_write_model(&s);
    s.o.origins = &listed;
    live_start_with(&s, 64, 2, 8, NULL);
    cr_expect(
        has(&s, "https://a.example", "GET", "Access-Control-Allow-Origin: https://a.example\r\n"));
    cr_expect(has(&s, "https://a.example", "OPTIONS",
                  "Access-Control-Allow-Headers: content-type,x-api-key\r\n"));
    cr_expect(has(&s, "https://a.example", "OPTIONS", " 200 OK"));
    cr_expect(!has(&s, "https://b.example", "GET", allow));
    cr_expect(has(&s, "https://b.example", "OPTIONS", " 405 "));
    cr_expect(!has(&s, "https://a.example.evil", "GET", allow));
    live_stop(&s);
    live_write_model(&s);
    s.o.origins = &all;
    live_start_with(&s, 64, 2, 8, NULL);
    cr_expect(has(&s, "https://b.example", "GET", "Access-Control-Allow-Origin: *\r\n"));
    live_stop(&s);
    live_start(&s, 64, 2, 8);
    cr_expect(!has(&s, "https://a.example", "GET", allow));
    cr_expect(has(&s, "https://a.example", "OPTIONS", " 405 "));
    live_stop(&s);
    sd_error err = {0};
    s.o.model = "none.gguf";
    s.o.origins = &wrong;
    cr_expect_eq(sd_serve(&s.o, &err), SD_EINVAL);
    cr_expect(strstr(err.message, "--cors a.example"), "%s", err.message);
}
