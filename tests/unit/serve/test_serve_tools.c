// Tool calls and reasoning from the engine's tokens to the wire. The model's answer is forced: each of its
// tokens has a bias, and a repetition penalty takes it away once it was said.
#include "base/files/path.h"
#include "base/memory.h"
#include "model/dialogue/format.h"
#include "model/grammar/internal.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const call_tokens[] = {
    "Let me see.\n", "<tool_call>", "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Z",
    "\xC3\xBCrich\"}}\n", "</tool_call>"};
static const char *const think_tokens[] = {"\nHm", ".\n", "</think>", "\n\nYes", "."};
static const char call_template[] =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}"
    "[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if false %}<tool_call>{% endif %}";
static const char think_template[] = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n";
#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":"     \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}]"
#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
// The five tokens behind 288 in their order, then the end.
#define FORCED                                                                                     \
    "\"temperature\":0,\"max_tokens\":20,\"repetition_penalty\":100,\"logit_bias\":{\"288\":100,"  \
    "\"289\":90,\"290\":80,\"291\":70,\"292\":60,\"287\":50}"

static void start_with(live *s, const char *template, const char *const *added,
                       void (*on_constraint)(void *, sd_grammar *)) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.ctx = 4096;
    t.V = 296;
    t.added = added, t.n_added = 5;
    t.chat_template = template;
    *s = (live){.o = {.drain_s = 20, .on_constraint = on_constraint}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(s->model, &t, &s->err), SD_OK, "%s", s->err.message);
    live_start_with(s, 2048, 4, 16, NULL);
}

static void start(live *s, const char *template, const char *const *added) {
    start_with(s, template, added, NULL);
}

static void check_id(const char *id) {
    cr_assert(strncmp(id, "call_", 5) == 0 && strlen(id) == 29, "%s", id);
    cr_assert_eq(strspn(id + 5, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
                 24u);
}

#define ARGUMENTS "{\"city\": \"Z\xC3\xBCrich\"}"

Test(serve_tools, a_call_is_part_of_the_message_and_of_the_finish_reason, .timeout = 120) {
    live s;
    start(&s, call_template, call_tokens);
    json_t *v = live_chat(&s, "{" USER "," TOOLS "," FORCED ",\"n\":2,\"logprobs\":true}");
    for (int i = 0; i < 2; i++) {
        const json_t *c = json_array_get(json_object_get(v, "choices"), (size_t)i);
        cr_assert_str_eq(live_text_at(c, "message.content"), "Let me see.\n");
        cr_assert_str_eq(live_text_at(c, "message.tool_calls.0.type"), "function");
        cr_assert_str_eq(live_text_at(c, "message.tool_calls.0.function.name"), "get_weather");
        cr_assert_str_eq(live_text_at(c, "message.tool_calls.0.function.arguments"), ARGUMENTS);
        cr_assert_str_eq(live_text_at(c, "finish_reason"), "tool_calls");
        cr_assert_eq(json_array_size(live_at(c, "message.tool_calls")), 1u);
        cr_assert_eq(json_array_size(live_at(c, "logprobs.content")), 5u, "of all tokens");
        check_id(live_text_at(c, "message.tool_calls.0.id"));
    }
    cr_assert_str_neq(live_text_at(v, "choices.0.message.tool_calls.0.id"),
                      live_text_at(v, "choices.1.message.tool_calls.0.id"));
    cr_assert_eq(json_integer_value(live_at(v, "usage.completion_tokens")), 12);
    json_decref(v);
    // A call alone: the content is null.
    v = live_chat(&s, "{" USER "," TOOLS
                      ",\"temperature\":0,\"max_tokens\":20,\"repetition_penalty\":100,"
                      "\"logit_bias\":{\"289\":90,\"290\":80,\"291\":70,\"292\":60,\"287\":50}}");
    cr_assert(json_is_null(live_at(v, "choices.0.message.content")));
    cr_assert_str_eq(live_text_at(v, "choices.0.message.tool_calls.0.function.arguments"),
                     ARGUMENTS);
    json_decref(v);
    // Not offered, it is text, in which special tokens do not appear.
    v = live_chat(&s, "{" USER "," TOOLS "," FORCED ",\"tool_choice\":\"none\"}");
    cr_assert_null(live_at(v, "choices.0.message.tool_calls"));
    cr_assert_str_eq(live_text_at(v, "choices.0.finish_reason"), "stop");
    cr_assert_str_eq(live_text_at(v, "choices.0.message.content"),
                     "Let me see.\n{\"name\": \"get_weather\", \"arguments\": " ARGUMENTS "}\n");
    json_decref(v);
    live_stop(&s);
}

// The deltas of choice `index`, joined: content, arguments, the id, the finish; logprobs counted.
typedef struct {
    char content[256], reasoning[256], arguments[256], name[64], id[64], finish[32];
    int heads, pieces, logprobs;
} joined;

static joined join(const char *stream, int index) {
    joined j = {0};
    for (const char *at = stream; (at = strstr(at, "data: {")); at++) {
        json_t *v = json_loads(at + 6, JSON_DISABLE_EOF_CHECK, NULL);
        const json_t *c = live_at(v, "choices.0"), *d = json_object_get(c, "delta");
        if (c && json_integer_value(json_object_get(c, "index")) == index) {
            const json_t *call = live_at(d, "tool_calls.0");
            j.logprobs += (int)json_array_size(live_at(c, "logprobs.content"));
            if (live_at(d, "content")) strcat(j.content, live_text_at(d, "content"));
            if (live_at(d, "reasoning_content"))
                strcat(j.reasoning, live_text_at(d, "reasoning_content"));
            if (call && live_at(call, "id")) {
                j.heads++;
                strcpy(j.id, live_text_at(call, "id"));
                strcpy(j.name, live_text_at(call, "function.name"));
                cr_assert_str_eq(live_text_at(call, "type"), "function");
                cr_assert_str_eq(live_text_at(call, "function.arguments"), "");
                cr_assert_eq(json_integer_value(live_at(call, "index")), 0);
            } else if (call) {
                j.pieces++;
                cr_assert_eq(json_object_size(call), 2u, "index and arguments alone");
                strcat(j.arguments, live_text_at(call, "function.arguments"));
            }
            if (json_is_string(live_at(c, "finish_reason")))
                strcpy(j.finish, live_text_at(c, "finish_reason"));
        }
        json_decref(v);
    }
    return j;
}

Test(serve_tools, a_stream_has_openais_deltas, .timeout = 120) {
    live s;
    start(&s, call_template, call_tokens);
    char *out =
        live_ask_at(&s, "chat/completions",
                    "{" USER "," TOOLS "," FORCED ",\"n\":2,\"logprobs\":true,\"stream\":true}");
    cr_assert(strstr(out, "data: [DONE]"), "%s", out);
    joined one = join(out, 0), two = join(out, 1);
    for (int i = 0; i < 2; i++) {
        joined *j = i ? &two : &one;
        cr_assert_str_eq(j->content, "Let me see.\n");
        cr_assert_str_eq(j->name, "get_weather");
        cr_assert_str_eq(j->arguments, ARGUMENTS);
        cr_assert_str_eq(j->finish, "tool_calls");
        cr_assert_eq(j->heads, 1);
        cr_assert_geq(j->pieces, 1);
        cr_assert_eq(j->logprobs, 5);
        check_id(j->id);
    }
    cr_assert_str_neq(one.id, two.id);
    free(out);
    live_stop(&s);
}

Test(serve_tools, reasoning_that_the_prompt_opened_is_apart, .timeout = 120) {
    live s;
    start(&s, think_template, think_tokens);
    json_t *v = live_chat(&s, "{" USER "," FORCED "}");
    cr_assert_str_eq(live_text_at(v, "choices.0.message.reasoning_content"), "Hm.");
    cr_assert_str_eq(live_text_at(v, "choices.0.message.content"), "Yes.");
    cr_assert_str_eq(live_text_at(v, "choices.0.finish_reason"), "stop");
    json_decref(v);
    char *out = live_ask_at(&s, "chat/completions", "{" USER "," FORCED ",\"stream\":true}");
    joined j = join(out, 0);
    cr_assert_str_eq(j.reasoning, "Hm.");
    cr_assert_str_eq(j.content, "Yes.");
    free(out);
    live_stop(&s);
}

Test(serve_tools, format_none_leaves_answers_as_they_are, .timeout = 120) {
    live s;
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.V = 296, t.added = think_tokens, t.n_added = 5, t.chat_template = think_template;
    s = (live){.o = {.drain_s = 20, .tool_format = 1 + SD_TOOL_NONE}, .dir = sd_tiny_dir()};
    s.model = sd_path_join(s.dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(s.model, &t, &s.err), SD_OK);
    live_start_with(&s, 512, 4, 16, NULL);
    json_t *v = live_chat(&s, "{" USER "," FORCED "}");
    cr_assert_str_eq(live_text_at(v, "choices.0.message.content"), "\nHm.\n\n\nYes.");
    json_decref(v);
    char *out = live_ask_at(&s, "chat/completions", "{" USER "," TOOLS "}");
    cr_assert(strstr(out, " 400 ") && strstr(out, "--tool-format"), "%s", out);
    free(out);
    live_stop(&s);
}

Test(serve_tools, a_tool_loops_history_is_taken_by_any_template, .timeout = 120) {
    static const char history[] =
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
        "\"q\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_1\",\"type\":"
        "\"function\","
        "\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\": \\\"Bern\\\"}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":[{\"type\":\"text\",\"text\":"
        "\"sun\"}]}]";
    static const char *const templates[] = {call_template,
                                            "{% for m in messages %}{{ m.content }}{% endfor %}"};
    for (int i = 0; i < 2; i++) {
        live s;
        char body[2048];
        start(&s, templates[i], call_tokens);
        snprintf(body, sizeof body, "%s,\"max_tokens\":2}", history);
        json_decref(live_chat(&s, body));
        snprintf(body, sizeof body, "%s," TOOLS ",\"tool_choice\":\"none\",\"max_tokens\":2}",
                 history);
        json_decref(live_chat(&s, body));
        snprintf(body, sizeof body, "%s," TOOLS ",\"max_tokens\":2}", history);
        json_decref(live_chat(&s, body));
        live_stop(&s);
    }
}

#define STRICT                                                                                     \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"strict\":true,"    \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"enum\":"  \
    "[\"Bern\",\"Z\xC3\xBCrich\"]}},\"required\":[\"city\"],\"additionalProperties\":false}}},"    \
    "{\"type\":\"function\",\"function\":{\"name\":\"off\",\"strict\":true}}]"

// Whether it is a call that the tools allow; its name.
static const char *check_call(const json_t *call) {
    const char *name = live_text_at(call, "function.name");
    json_t *v = json_loads(live_text_at(call, "function.arguments"), 0, NULL);
    cr_assert_not_null(v, "%s", live_text_at(call, "function.arguments"));
    const char *city = live_text_at(v, "city");
    bool weather = strcmp(name, "get_weather") == 0;
    cr_assert(weather || strcmp(name, "off") == 0, "%s", name);
    cr_assert_eq(json_object_size(v), weather ? 1u : 0u);
    cr_assert(!weather || strcmp(city, "Bern") == 0 || strcmp(city, "Z\xC3\xBCrich") == 0, "%s",
              city);
    json_decref(v);
    return name;
}

// A model that knows nothing, drawn from at temperature 1.
Test(serve_tools, forced_calls_come_and_keep_to_their_schemas, .timeout = 240) {
    static const struct {
        const char *choice, *name;
    } row[] = {{"\"required\"", NULL},
               {"{\"type\":\"function\",\"function\":{\"name\":\"off\"}}", "off"},
               {"{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}", "get_weather"}};
    live s;
    char body[2048];
    start(&s, call_template, call_tokens);
    for (int i = 0; i < 12; i++) {
        snprintf(body, sizeof body,
                 "{" USER "," STRICT
                 ",\"tool_choice\":%s,\"parallel_tool_calls\":false,\"seed\":%d,"
                 "\"max_tokens\":300}",
                 row[i % 3].choice, i);
        json_t *v = live_chat(&s, body);
        cr_assert_str_eq(live_text_at(v, "choices.0.finish_reason"), "tool_calls");
        cr_assert(json_is_null(live_at(v, "choices.0.message.content")));
        cr_assert_eq(json_array_size(live_at(v, "choices.0.message.tool_calls")), 1u);
        const char *name = check_call(live_at(v, "choices.0.message.tool_calls.0"));
        cr_assert(!row[i % 3].name || strcmp(name, row[i % 3].name) == 0, "%s", name);
        // Forced tokens are drafted as well: without speculation the same answer.
        strcpy(strrchr(body, '}'), ",\"speculative\":{\"enabled\":false}}");
        json_t *off = live_chat(&s, body);
        const char *call = "choices.0.message.tool_calls.0.function";
        cr_assert(json_equal(live_at(v, call), live_at(off, call)), "answer %d", i);
        cr_assert(json_equal(live_at(v, "usage.completion_tokens"),
                             live_at(off, "usage.completion_tokens")));
        json_decref(v), json_decref(off);
    }
    live_stop(&s);
}

// ---- the check at an answer's end

static sd_grammar_check_fn its_own;
static bool changed;

// What a bug of the masks would look like: the grammar's own check gets another city.
static sd_status check_changed(const void *ctx, const char *answer, size_t len, sd_error *err) {
    char copy[512];
    cr_assert(len < sizeof copy);
    memcpy(copy, answer, len);
    // A model may write `"city":"Bern"` as well as `"city": "Bern"`.
    char *key = memmem(copy, len, "\"city\"", 6);
    char *at = key ? memchr(key + 6, '"', len - (size_t)(key + 6 - copy)) : NULL;
    cr_assert(at, "%.*s", (int)len, answer);
    if (changed) at[1] = 'X';
    return its_own(ctx, copy, len, err);
}

static void give_check(void *ctx, sd_grammar *g) {
    (void)ctx;
    if (g->check == check_changed) return; // found, not compiled
    cr_assert(g->check, "calls of strict functions are checked");
    its_own = g->check;
    g->check = check_changed;
}

Test(serve_tools, a_strict_call_that_does_not_fit_is_a_500_and_counted, .timeout = 240) {
#define NAMED                                                                                      \
    USER "," STRICT ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"              \
         "\"get_weather\"}},\"max_tokens\":300"
    live s;
    start_with(&s, call_template, call_tokens, give_check);
    changed = false;
    json_t *v = live_chat(&s, "{" NAMED "}");
    check_call(live_at(v, "choices.0.message.tool_calls.0"));
    json_decref(v);
    cr_expect(live_wait_metric(&s, "constraint_failures_total", 0));
    changed = true;
    char *out = live_ask_at(&s, "chat/completions", "{" NAMED "}");
    cr_expect(strstr(out, " 500 ") && strstr(out, "does not fit") && !strstr(out, "tool_calls"),
              "%s", out);
    free(out);
    cr_expect(live_wait_metric(&s, "constraint_failures_total", 1));
    // A stream has begun: its end is the error, and nobody is told that the call is whole.
    out = live_ask_at(&s, "chat/completions", "{" NAMED ",\"stream\":true}");
    cr_expect(strstr(out, "does not fit") && !strstr(out, "\"finish_reason\":\"tool_calls\"") &&
                  !strstr(out, "[DONE]"),
              "%s", out);
    free(out);
    cr_expect(live_wait_metric(&s, "constraint_failures_total", 2));
    changed = false;
    v = live_chat(&s, "{" NAMED "}");
    check_call(live_at(v, "choices.0.message.tool_calls.0"));
    json_decref(v);
    cr_expect(live_wait_metric(&s, "constraint_failures_total", 2));
    live_stop(&s);
}

Test(serve_tools, what_cannot_be_forced_is_refused_by_its_name, .timeout = 120) {
    static const struct {
        const char *more, *says;
    } row[] = {{"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,"
                "\"parameters\":"
                "{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{\"type\":\"null\"}}}}}}]",
                "not"},
               {TOOLS ",\"response_format\":{\"type\":\"json_object\"}", "response_format"}};
    live s;
    start(&s, call_template, call_tokens);
    for (int i = 0; i < 2; i++) {
        char body[1024];
        snprintf(body, sizeof body, "{" USER ",%s}", row[i].more);
        char *out = live_ask_at(&s, "chat/completions", body);
        cr_assert(strstr(out, " 400 ") && strstr(out, row[i].says), "%s", out);
        free(out);
    }
    live_stop(&s);
}
