// OpenAI's Responses API: what its bodies become, what is refused and by which name, and what comes back, whole and
// as events.
#include "decode/serve/api/openai/responses.h"
#include "tests/unit/support/thinker.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define ASK(fields) "{\"input\":\"hi\"" fields "}"
#define ITEMS(items) "{\"input\":[" items "]}"
#define TOOL "{\"type\":\"function\",\"name\":\"get\",\"parameters\":{\"type\":\"object\"}}"

static int parse(sd_api_request *r, const char *body, sd_api_error *e) {
    return sd_responses_parse(r, body, strlen(body), e);
}

static const struct {
    const char *names, *body;
} bad[] = {
    {"", "{"},
    {"input", "{}"},
    {"input", "{\"input\":7}"},
    {"input", "{\"input\":[]}"},
    {"input[0]", ITEMS("7")},
    {"input[0]", ITEMS("{\"type\":\"item_reference\",\"id\":\"a\"}")},
    {"input[0].role", ITEMS("{\"role\":\"tool\",\"content\":\"a\"}")},
    {"input[0].content", ITEMS("{\"role\":\"user\"}")},
    {"input[0].content[0]", ITEMS("{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}")},
    {"input[0]", ITEMS("{\"role\":\"user\",\"content\":99999999999999999999}")},
    {"input[1]",
     ITEMS("{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"function_call\",\"name\":\"f\","
           "\"arguments\":\"{}\"}")},
    {"input[0]", ITEMS("{\"type\":\"function_call\",\"call_id\":\"c\",\"arguments\":\"{}\"}")},
    {"input[0]", ITEMS("{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\"}")},
    {"input[0]", ITEMS("{\"type\":\"function_call_output\",\"output\":\"a\"}")},
    {"input[0].output", ITEMS("{\"type\":\"function_call_output\",\"call_id\":\"c\"}")},
    {"input[0].content", ITEMS("{\"type\":\"reasoning\",\"content\":7}")},
    {"instructions", ASK(",\"instructions\":7")},
    {"previous_response_id", ASK(",\"previous_response_id\":\"resp_1\"")},
    {"conversation", ASK(",\"conversation\":\"c\"")},
    {"prompt", ASK(",\"prompt\":{\"id\":\"p\"}")},
    {"background", ASK(",\"background\":true")},
    {"background", ASK(",\"background\":7")},
    {"include", ASK(",\"include\":\"message.output_text.logprobs\"")},
    {"top_logprobs", ASK(",\"top_logprobs\":2")},
    {"top_logprobs", ASK(",\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":21")},
    {"max_output_tokens", ASK(",\"max_output_tokens\":0")},
    {"temperature", ASK(",\"temperature\":3")},
    {"tools", ASK(",\"tools\":{}")},
    {"tools[0]", ASK(",\"tools\":[7]")},
    {"tools[0]", ASK(",\"tools\":[{\"name\":\"f\"}]")},
    {"tools[1]", ASK(",\"tools\":[" TOOL ",{\"type\":\"function\",\"name\":\"a b\"}]")},
    {"tools[0]", ASK(",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":7}]")},
    {"tools[0]", ASK(",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"strict\":7}]")},
    {"tool_choice", ASK(",\"tool_choice\":\"any\"")},
    {"tool_choice", ASK(",\"tool_choice\":\"required\"")},
    {"tool_choice", ASK(",\"tools\":[" TOOL "],\"tool_choice\":{\"type\":\"web_search\"}")},
    {"tool_choice",
     ASK(",\"tools\":[" TOOL "],\"tool_choice\":{\"type\":\"function\",\"name\":\"x\"}")},
    {"parallel_tool_calls", ASK(",\"parallel_tool_calls\":7")},
    {"text", ASK(",\"text\":7")},
    {"text.format", ASK(",\"text\":{\"format\":{\"type\":\"xml\"}}")},
    {"text.format", ASK(",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"a\"}}")},
    {"reasoning", ASK(",\"reasoning\":7")},
    {"reasoning_effort", ASK(",\"reasoning\":{\"effort\":\"most\"}")},
};

Test(responses, every_bad_field_is_a_400_that_names_it) {
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_api_request r;
        sd_api_error e;
        cr_expect_eq(parse(&r, bad[i].body, &e), 400, "accepted: %s", bad[i].body);
        cr_expect(strstr(e.message, bad[i].names), "'%s' does not name %s: %s", e.message,
                  bad[i].names, bad[i].body);
        cr_expect_null(r.root);
    }
}

#define CALL(id)                                                                                   \
    "{\"type\":\"function_call\",\"call_id\":\"" id "\",\"name\":\"f\",\"arguments\":\"{}\"}"
#define CALLED(id)                                                                                 \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"

Test(responses, items_become_messages_in_their_order) {
    static const char body[] =
        "{\"instructions\":\"s\",\"store\":true,\"metadata\":{\"a\":\"b\"},\"truncation\":\"auto\","
        "\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\"},"
        "{\"type\":\"input_text\",\"text\":\"b\"}]},{\"type\":\"reasoning\",\"summary\":[],"
        "\"content\":["
        "{\"type\":\"reasoning_text\",\"text\":\"hm\"}]},{\"type\":\"message\",\"role\":"
        "\"assistant\","
        "\"content\":[{\"type\":\"output_text\",\"text\":\"c\"}]}," CALL("1") "," CALL(
            "2") ",{\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":\"7\"},"
                 "{\"type\":\"function_call_output\",\"call_id\":\"2\",\"output\":[{\"type\":"
                 "\"input_text\","
                 "\"text\":\"8\"}]}," CALL(
                     "3") ",{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"d\"},"
                          "{\"role\":\"developer\",\"content\":\"e\"}],\"n\":4,\"logprobs\":true}";
    static const char want[] =
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"ab\"},"
        "{\"role\":\"assistant\",\"content\":\"c\",\"reasoning_content\":\"hm\",\"tool_calls\":"
        "[" CALLED("1") "," CALLED(
            "2") "]},{\"role\":\"tool\",\"content\":\"7\",\"tool_call_id\":\"1\"},"
                 "{\"role\":\"tool\",\"content\":\"8\",\"tool_call_id\":\"2\"},"
                 "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[" CALLED(
                     "3") "]},"
                          "{\"role\":\"assistant\",\"content\":\"d\"},{\"role\":\"system\","
                          "\"content\":\"e\"}]";
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(parse(&r, body, &e), 0, "%s", e.message);
    json_t *v = json_loads(want, 0, NULL);
    cr_expect(json_equal(r.messages, v), "%s", json_dumps(r.messages, 0));
    cr_expect(r.n == 1 && r.logprobs == -1 && r.max_tokens == 0 && !r.continues);
    json_decref(v);
    sd_api_request_free(&r);
}

Test(responses, fields_have_their_meaning) {
    sd_api_request r;
    sd_api_error e;
    const char *body = ASK(
        ",\"tools\":[{\"type\":\"web_search\"}," TOOL
        ",{\"type\":\"custom\",\"name\":\"apply_patch\"}],"
        "\"tool_choice\":{\"type\":\"function\",\"name\":\"get\"},\"parallel_tool_calls\":false,"
        "\"max_output_tokens\":9.0,\"reasoning\":{\"effort\":\"low\",\"summary\":\"auto\"},"
        "\"previous_response_id\":null,\"include\":[\"reasoning.encrypted_content\"]");
    cr_assert_eq(parse(&r, body, &e), 0, "%s", e.message);
    cr_expect(r.tool_choice == SD_API_TOOL_NAMED && r.tool_index == 0 && !r.parallel_calls);
    cr_expect_str_eq(r.skipped, "web_search, custom");
    cr_expect_eq(r.max_tokens, 9);
    cr_expect_str_eq(json_string_value(json_object_get(r.template_arguments, "reasoning_effort")),
                     "low");
    sd_api_request_free(&r);
    body =
        ASK(",\"text\":{\"verbosity\":\"low\",\"format\":{\"type\":\"json_schema\",\"name\":\"a\","
            "\"strict\":true,\"schema\":{\"type\":\"object\"}}}");
    cr_assert_eq(parse(&r, body, &e), 0, "%s", e.message);
    cr_expect_eq(r.constraint, SD_GRAMMAR_SCHEMA);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, ASK(",\"text\":{\"format\":{\"type\":\"json_object\"}}"), &e), 0);
    cr_expect_eq(r.constraint, SD_GRAMMAR_OBJECT);
    sd_api_request_free(&r);
}

// ---- answers

#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"name\":\"get\",\"strict\":true,\"parameters\":{\"type\":" \
    "\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},"        \
    "\"required\":[\"n\"],\"additionalProperties\":false}}],\"tool_choice\":\"required\""

static void expect_events(const json_t *list, const char *const *want) {
    size_t i = 0;
    for (; want[i]; i++) {
        char path[64];
        snprintf(path, sizeof path, "%zu.type", i);
        cr_expect_str_eq(live_text_at(list, path) + strlen("response."), want[i], "event %zu", i);
        snprintf(path, sizeof path, "%zu.sequence_number", i);
        cr_expect_eq((size_t)json_integer_value(live_at(list, path)), i);
    }
    cr_expect_eq(json_array_size(list), i);
}

// The items without what differs from answer to answer.
static json_t *items_of(const json_t *response) {
    json_t *items = json_deep_copy(json_object_get(response, "output")), *item;
    size_t i;
    json_array_foreach(items, i, item) {
        json_object_del(item, "id");
        json_object_del(item, "call_id");
    }
    return items;
}

Test(responses, reasoning_and_text_are_items_whole_and_streamed, .timeout = 120) {
    live s;
    thinker_start(&s);
    json_t *v = live_json(&s, "responses", ASK("," THINKER_SAYS ",\"max_output_tokens\":30"), 200);
    cr_expect_str_eq(live_text_at(v, "object"), "response");
    cr_expect_str_eq(live_text_at(v, "status"), "completed");
    cr_expect_str_eq(live_text_at(v, "output.0.content.0.text"), "Hm.");
    cr_expect_str_eq(live_text_at(v, "output.1.content.0.text"), "Yes.");
    cr_expect_eq(json_integer_value(live_at(v, "usage.output_tokens")), 6);
    cr_expect_eq(json_integer_value(live_at(v, "usage.output_tokens_details.reasoning_tokens")), 2);
    char *out = live_ask_at(&s, "responses",
                            ASK("," THINKER_SAYS ",\"max_output_tokens\":30,\"stream\":true"));
    json_t *list = thinker_events(out);
    expect_events(list, (const char *const[]){
                            "created", "in_progress", "output_item.added", "content_part.added",
                            "reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done",
                            "content_part.done", "output_item.done", "output_item.added",
                            "content_part.added", "output_text.delta", "output_text.delta",
                            "output_text.done", "content_part.done", "output_item.done",
                            "completed", NULL});
    const json_t *last = live_at(list, "16.response");
    json_t *whole = items_of(v), *streamed = items_of(last);
    cr_expect(json_equal(whole, streamed), "%s", out);
    cr_expect(json_equal(live_at(last, "output.1"), live_at(list, "15.item")));
    cr_expect(json_equal(live_at(last, "id"), live_at(list, "0.response.id")));
    cr_expect(json_equal(live_at(last, "usage.output_tokens"), live_at(v, "usage.output_tokens")));
    cr_expect_eq(json_integer_value(live_at(list, "11.output_index")), 1);
    cr_expect(json_equal(live_at(list, "11.item_id"), live_at(list, "9.item.id")));
    json_decref(whole), json_decref(streamed), json_decref(v), json_decref(list);
    free(out);
    v = live_json(&s, "responses", ASK("," THINKER_SAYS ",\"max_output_tokens\":4"), 200);
    cr_expect_str_eq(live_text_at(v, "status"), "incomplete");
    cr_expect_str_eq(live_text_at(v, "incomplete_details.reason"), "max_output_tokens");
    cr_expect_str_eq(live_text_at(v, "output.0.status"), "completed");
    cr_expect_str_eq(live_text_at(v, "output.1.status"), "incomplete");
    json_decref(v);
    v = live_json(&s, "responses", ASK(",\"previous_response_id\":\"r\""), 400);
    cr_expect_str_eq(live_text_at(v, "error.param"), "previous_response_id");
    json_decref(v);
    live_stop(&s);
}

Test(responses, calls_are_items_whole_and_streamed, .timeout = 240) {
    live s;
    thinker_start(&s);
    for (int seed = 0; seed < 4; seed++) {
        char body[1024];
        snprintf(body, sizeof body,
                 ASK("," TOOLS ",\"max_output_tokens\":400,\"seed\":%d,\"temperature\":1"), seed);
        json_t *v = live_json(&s, "responses", body, 200), *whole = items_of(v);
        cr_expect_str_eq(live_text_at(v, "tool_choice"), "required");
        strcpy(strrchr(body, '}'), ",\"stream\":true}");
        char *out = live_ask_at(&s, "responses", body);
        json_t *list = thinker_events(out);
        size_t n = json_array_size(list);
        char path[32];
        snprintf(path, sizeof path, "%zu.response", n - 1);
        json_t *streamed = items_of(live_at(list, path));
        cr_expect(json_equal(whole, streamed), "%s", out);
        const json_t *last = json_array_get(whole, json_array_size(whole) - 1);
        bool completed = strcmp(live_text_at(v, "status"), "completed") == 0;
        cr_expect(!completed || strcmp(live_text_at(last, "type"), "function_call") == 0);
        json_decref(whole), json_decref(streamed), json_decref(v), json_decref(list);
        free(out);
    }
    live_stop(&s);
}

// A message's log probabilities, as a chat says them; whole and streamed the same, behind reasoning and before calls.
#define LOGPROBS ",\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":2"

Test(responses, log_probabilities_are_those_of_a_chat, .timeout = 240) {
    live s;
    live_start(&s, 512, 2, 8);
    json_t *v = live_json(&s, "responses",
                          ASK(LOGPROBS ",\"temperature\":0,\"max_output_tokens\":9"), 200),
           *chat = live_chat(
               &s, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"logprobs\":true,"
                   "\"top_logprobs\":2,\"temperature\":0,\"max_tokens\":9}");
    const json_t *list = live_at(v, "output.0.content.0.logprobs");
    cr_assert_gt(json_array_size(list), 1);
    cr_assert(json_equal(list, live_at(chat, "choices.0.logprobs.content")));
    json_decref(v), json_decref(chat);
    live_stop(&s);
}

// Of all deltas of a message, behind one another.
static json_t *delta_logprobs(const json_t *events) {
    json_t *out = json_array(), *event;
    size_t i;
    json_array_foreach(events, i, event) if (strcmp(live_text_at(event, "type"),
                                                    "response.output_text.delta") == 0)
        json_array_extend(out, json_object_get(event, "logprobs"));
    return out;
}

static void same_logprobs(const live *s, const char *fields, bool deltas) {
    char body[1024];
    snprintf(body, sizeof body, ASK(LOGPROBS "%s"), fields);
    json_t *v = live_json(s, "responses", body, 200), *whole = items_of(v);
    strcpy(strrchr(body, '}'), ",\"stream\":true}");
    char *out = live_ask_at(s, "responses", body), path[48];
    json_t *list = thinker_events(out), *said = delta_logprobs(list);
    snprintf(path, sizeof path, "%zu.response", json_array_size(list) - 1);
    json_t *streamed = items_of(live_at(list, path));
    cr_expect(json_equal(whole, streamed), "%s", out);
    if (deltas) cr_expect(json_equal(said, live_at(v, "output.1.content.0.logprobs")), "%s", out);
    json_decref(v), json_decref(whole), json_decref(list), json_decref(said), json_decref(streamed);
    free(out);
}

Test(responses, log_probabilities_of_a_stream_are_those_of_the_whole, .timeout = 240) {
    live s;
    thinker_start(&s);
    same_logprobs(&s, "," THINKER_SAYS ",\"max_output_tokens\":30", true);
    for (int seed = 0; seed < 4; seed++) {
        char fields[768];
        snprintf(fields, sizeof fields,
                 "," TOOLS ",\"max_output_tokens\":400,\"seed\":%d,\"temperature\":1", seed);
        same_logprobs(&s, fields, false);
    }
    live_stop(&s);
}
