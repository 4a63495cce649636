// A budget of reasoning from the request to the wire: what is reasoning, what follows it, what is counted.
#include "base/files/path.h"
#include "base/memory.h"
#include "model/dialogue/format.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const think_tokens[] = {"\nHm", ".\n",         "</think>",    "\n\nYes",
                                           ".",    "<tool_call>", "</tool_call>"};
static const char *const channel_tokens[] = {"<|channel|>", "<|message|>",   "<|end|>",
                                             "<|start|>",   "<|constrain|>", "<|call|>",
                                             "<|return|>"};
static const char think_template[] = "{% for m in messages %}{{ m.content }}{% endfor %}{% if "
                                     "tools %}{{ tools | tojson }}{% endif %}"
                                     "{% if false %}<tool_call>{% endif %}<think>\n";
static const char channel_template[] = "{% for m in messages %}{{ m.content }}{% endfor %}{% if "
                                       "tools %}{{ tools | tojson }}{% endif %}"
                                       "{% if false %}<|channel|>{% endif %}<|start|>assistant";
static const char plain_template[] = "{% for m in messages %}{{ m.content }}{% endfor %}";

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
// The five tokens behind 288 in their order, then the end.
#define FORCED                                                                                     \
    "\"temperature\":0,\"max_tokens\":30,\"repetition_penalty\":100,\"logit_bias\":{\"288\":100,"  \
    "\"289\":90,\"290\":80,\"291\":70,\"292\":60,\"287\":50}"
#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"strict\":true,"            \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":" \
    "1,"                                                                                           \
    "\"maximum\":9}},\"required\":[\"n\"],\"additionalProperties\":false}}}]"
#define SCHEMA                                                                                     \
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\",\"schema\":"    \
    "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":"  \
    "9}},"                                                                                         \
    "\"required\":[\"n\"],\"additionalProperties\":false}}}"

static void start(live *s, const char *template, const char *const *added) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.ctx = 4096;
    t.V = 296;
    t.added = added, t.n_added = 7;
    t.chat_template = template;
    *s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(s->model, &t, &s->err), SD_OK, "%s", s->err.message);
    live_start_with(s, 2048, 4, 16, NULL);
}

static int number(const json_t *v, const char *path) {
    return json_is_integer(live_at(v, path)) ? (int)json_integer_value(live_at(v, path)) : -1;
}

#define MESSAGE "choices.0.message"
#define COUNT "usage.completion_tokens_details.reasoning_tokens"

// With speculation and without it, and found in the cache: the same answer.
static json_t *ask_twice(const live *s, const char *body) {
    char off[4096];
    json_t *v = live_chat(s, body);
    int n = snprintf(off, sizeof off, "%s", body);
    cr_assert(n > 1 && n < 4000);
    strcpy(off + n - 1, ",\"speculative\":{\"enabled\":false}}");
    json_t *w = live_chat(s, off);
    const char *same[] = {MESSAGE ".content",
                          MESSAGE ".reasoning_content",
                          MESSAGE ".tool_calls.0.function",
                          "usage.completion_tokens",
                          COUNT,
                          "choices.0.finish_reason"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        cr_assert(
            !live_at(v, same[i]) == !live_at(w, same[i]) &&
                (!live_at(v, same[i]) || json_equal(live_at(v, same[i]), live_at(w, same[i]))),
            "%s: %s", body, same[i]);
    json_decref(w);
    return v;
}

Test(serve_reasoning, a_budget_ends_the_reasoning_and_is_counted, .timeout = 120) {
    static const struct {
        int budget;
        const char *reasoning, *content;
        int counted;
    } row[] = {{-1, "Hm.", "Yes.", 2},
               {3, "Hm.", "Yes.", 2}, // it ends by itself
               {1, "Hm", ".\n\n\nYes.", 1},
               {0, "(none)", "\nHm.\n\n\nYes.", 0}};
    live s;
    start(&s, think_template, think_tokens);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char body[1024];
        snprintf(body, sizeof body, "{" USER "," FORCED ",\"reasoning_budget\":%d}", row[i].budget);
        json_t *v = ask_twice(&s, body);
        cr_expect_str_eq(live_text_at(v, MESSAGE ".reasoning_content"), row[i].reasoning, "%d",
                         row[i].budget);
        // White space between reasoning and content is dropped.
        const char *want = row[i].content + strspn(row[i].content, "\n");
        cr_expect_str_eq(live_text_at(v, MESSAGE ".content"), want, "%d: %s", row[i].budget,
                         live_text_at(v, MESSAGE ".content"));
        cr_expect_eq(number(v, COUNT), row[i].counted, "%d: %d", row[i].budget, number(v, COUNT));
        cr_expect_str_eq(live_text_at(v, "choices.0.finish_reason"), "stop");
        // Forced tokens are tokens of the answer: six of the model's own, and those.
        int own = 6, all = number(v, "usage.completion_tokens");
        cr_expect(row[i].budget < 0 || row[i].budget == 3 ? all == own : all >= own + 1,
                  "budget %d: %d tokens", row[i].budget, all);
        json_decref(v);
    }
    char *out = live_ask_at(&s, "chat/completions",
                            "{" USER "," FORCED ",\"reasoning_budget\":1,\"stream\":true,"
                            "\"stream_options\":{\"include_usage\":true}}");
    cr_assert(strstr(out, "\"reasoning_content\":\"Hm\"") &&
                  strstr(out, "\"completion_tokens_details\":{\"reasoning_tokens\":1}"),
              "%s", out);
    free(out);
    live_stop(&s);
}

Test(serve_reasoning, a_form_begins_behind_it, .timeout = 240) {
    live s;
    start(&s, think_template, think_tokens);
    int reasoned = 0; // it may be white space alone, or end at once
    for (int budget = 0; budget <= 5; budget = budget * 4 + 1)
        for (int seed = 0; seed < 12; seed++) {
            char body[1024];
            snprintf(body, sizeof body,
                     "{" USER "," SCHEMA
                     ",\"thinking_token_budget\":%d,\"seed\":%d,\"max_tokens\":200}",
                     budget, seed);
            json_t *v = ask_twice(&s, body);
            const char *content = live_text_at(v, MESSAGE ".content");
            json_t *form = json_loads(content, 0, NULL);
            cr_assert(form && json_object_size(form) == 1 && number(form, "n") >= 1,
                      "budget %d: %s", budget, content);
            cr_expect_str_eq(live_text_at(v, "choices.0.finish_reason"), "stop");
            cr_expect(number(v, COUNT) >= 0 && number(v, COUNT) <= budget, "%d of %d",
                      number(v, COUNT), budget);
            bool has = live_at(v, MESSAGE ".reasoning_content") != NULL;
            cr_expect(!has || budget > 0, "%d", budget);
            reasoned += has;
            json_decref(form), json_decref(v);
        }
    cr_expect_gt(reasoned, 12, "%d of 24", reasoned);
    live_stop(&s);
}

static void expect_call(const json_t *v, int budget) {
    json_t *arguments =
        json_loads(live_text_at(v, MESSAGE ".tool_calls.0.function.arguments"), 0, NULL);
    cr_expect_str_eq(live_text_at(v, MESSAGE ".tool_calls.0.function.name"), "get");
    cr_expect(number(arguments, "n") >= 1, "budget %d", budget);
    cr_expect_str_eq(live_text_at(v, "choices.0.finish_reason"), "tool_calls");
    cr_expect(json_is_null(live_at(v, MESSAGE ".content")));
    cr_expect(number(v, COUNT) >= 0 && number(v, COUNT) <= budget, "%d of %d", number(v, COUNT),
              budget);
    json_decref(arguments);
}

Test(serve_reasoning, forced_calls_come_behind_it, .timeout = 240) {
    for (int k = 0; k < 2; k++) { // <think> and harmony's channels
        live s;
        start(&s, k ? channel_template : think_template, k ? channel_tokens : think_tokens);
        int reasoned = 0;
        for (int seed = 0; seed < 12; seed++) {
            char body[1024];
            int budget = seed % 3 * 2;
            snprintf(body, sizeof body,
                     "{" USER "," TOOLS
                     ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false,"
                     "\"max_thinking_tokens\":%d,\"seed\":%d,\"max_tokens\":400}",
                     budget, seed);
            json_t *v = ask_twice(&s, body);
            expect_call(v, budget);
            reasoned += number(v, COUNT) > 0;
            json_decref(v);
        }
        cr_expect_gt(reasoned, 0, "style %d", k);
        live_stop(&s);
    }
}

Test(serve_reasoning, harmonys_final_message_follows_it, .timeout = 120) {
    live s;
    start(&s, channel_template, channel_tokens);
    // <|channel|> first, then its header by grammar's choice: reasoning or the form at once.
    int reasoned = 0;
    for (int seed = 0; seed < 8; seed++) {
        char body[1024];
        snprintf(body, sizeof body,
                 "{" USER "," SCHEMA ",\"reasoning_budget\":3,\"seed\":%d,\"max_tokens\":300}",
                 seed);
        json_t *v = ask_twice(&s, body);
        json_t *form = json_loads(live_text_at(v, MESSAGE ".content"), 0, NULL);
        cr_assert(form && number(form, "n") >= 1, "%s", live_text_at(v, MESSAGE ".content"));
        cr_expect_leq(number(v, COUNT), 3);
        reasoned += number(v, COUNT) > 0;
        json_decref(form), json_decref(v);
    }
    cr_expect_gt(reasoned, 0);
    live_stop(&s);
}

Test(serve_reasoning, a_budget_has_many_names_and_one_value, .timeout = 120) {
    static const char *const names[] = {
        "\"reasoning_budget\":0",
        "\"reasoning_budget_tokens\":0",
        "\"thinking_budget\":0",
        "\"thinking_budget_tokens\":0",
        "\"thinking_token_budget\":0",
        "\"max_thinking_tokens\":0",
        "\"chat_template_kwargs\":{\"thinking_budget\":0}",
        "\"reasoning_budget\":0,\"chat_template_kwargs\":{\"thinking_budget\":0}"};
    static const struct {
        const char *field, *says;
    } bad[] = {{"\"reasoning_budget\":\"5\"", "reasoning_budget"},
               {"\"thinking_budget\":-2", "thinking_budget"},
               {"\"max_thinking_tokens\":1.5", "max_thinking_tokens"},
               {"\"reasoning_budget\":1,\"thinking_budget\":2", "thinking_budget is 2"},
               {"\"reasoning_budget\":1,\"chat_template_kwargs\":{\"thinking_budget\":2}",
                "chat_template_kwargs.thinking_budget is 2"}};
    live s;
    char body[1024];
    start(&s, think_template, think_tokens);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(body, sizeof body, "{" USER "," FORCED ",%s}", names[i]);
        json_t *v = live_chat(&s, body);
        cr_expect_eq(number(v, COUNT), 0, "%s", names[i]);
        cr_expect_null(live_at(v, MESSAGE ".reasoning_content"), "%s", names[i]);
        json_decref(v);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(body, sizeof body, "{" USER ",%s}", bad[i].field);
        char *out = live_ask_at(&s, "chat/completions", body);
        cr_expect(strstr(out, " 400 ") && strstr(out, bad[i].says), "%s: %s", bad[i].field, out);
        free(out);
    }
    char *out = live_ask_at(&s, "completions", "{\"prompt\":\"hi\",\"reasoning_budget\":1}");
    cr_expect(strstr(out, " 400 ") && strstr(out, "/v1/chat/completions"), "%s", out);
    free(out);
    live_stop(&s);
}

Test(serve_reasoning, a_model_that_does_not_reason_has_none, .timeout = 120) {
    live s;
    start(&s, plain_template, think_tokens);
    char *out =
        live_ask_at(&s, "chat/completions", "{" USER ",\"reasoning_budget\":5,\"max_tokens\":2}");
    cr_expect(strstr(out, " 400 ") && strstr(out, "reasoning_budget: this model's answers have no"),
              "%s", out);
    free(out);
    json_t *v = live_chat(&s, "{" USER ",\"max_tokens\":2,\"reasoning_budget\":-1}");
    cr_expect_null(live_at(v, "usage.completion_tokens_details"));
    json_decref(v);
    live_stop(&s);
}
