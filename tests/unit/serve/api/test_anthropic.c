// Anthropic's Messages API: what its bodies become, what is refused and by which name, and what comes back,
// whole and as events.
#include "decode/serve/api/anthropic/request.h"
#include "decode/serve/api/dialect.h"
#include "tests/unit/support/thinker.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define ASK(fields)                                                                                \
    "{\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" fields "}"
#define BLOCKS(role, blocks)                                                                       \
    "{\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"" role     \
    "\",\"content\":[" blocks "]}]}"
#define TOOL "{\"name\":\"get\",\"input_schema\":{\"type\":\"object\"}}"

static int parse(sd_api_request *r, const char *body, sd_api_error *e) {
    return sd_anthropic_parse(r, false, body, strlen(body), e);
}

static const struct {
    const char *names, *body;
} bad[] = {
    {"", "["},
    {"max_tokens", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"},
    {"max_tokens", "{\"max_tokens\":0,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"},
    {"messages", "{\"max_tokens\":8}"},
    {"messages", "{\"max_tokens\":8,\"messages\":[]}"},
    {"messages[0]", "{\"max_tokens\":8,\"messages\":[7]}"},
    {"messages[0].role", "{\"max_tokens\":8,\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}"},
    {"messages[0].content", "{\"max_tokens\":8,\"messages\":[{\"role\":\"user\"}]}"},
    {"messages[0]",
     "{\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":99999999999999999999}]}"},
    {"messages[1].content", BLOCKS("user", "")},
    {"messages[1].content[0]", BLOCKS("user", "{\"type\":\"image\",\"source\":{}}")},
    {"messages[1].content[1]", BLOCKS("user", "{\"type\":\"text\",\"text\":\"a\"},7")},
    {"messages[1].content[0].text", BLOCKS("user", "{\"type\":\"text\"}")},
    {"messages[1].content[0]", BLOCKS("user", "{\"type\":\"tool_use\",\"id\":\"a\"}")},
    {"messages[1].content[0]", BLOCKS("user", "{\"type\":\"tool_result\",\"content\":\"a\"}")},
    {"messages[1].content[0].content",
     BLOCKS("user", "{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":7}")},
    {"messages[1].content[0].content[0]",
     BLOCKS("user",
            "{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":[{\"type\":\"image\"}]}")},
    {"messages[1].content[0]", BLOCKS("assistant", "{\"type\":\"tool_use\",\"name\":\"a\"}")},
    {"messages[1].content[0]", BLOCKS("assistant", "{\"type\":\"tool_use\",\"id\":\"a\"}")},
    {"messages[1].content[0]",
     BLOCKS("assistant", "{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"b\",\"input\":\"{}\"}")},
    {"messages[1].content[0]", BLOCKS("assistant", "{\"type\":\"thinking\"}")},
    {"messages[1].content[0]", BLOCKS("assistant", "{\"type\":\"tool_result\"}")},
    {"system", ASK(",\"system\":7")},
    {"system[0]", ASK(",\"system\":[{\"type\":\"image\"}]")},
    {"temperature", ASK(",\"temperature\":9")},
    {"top_k", ASK(",\"top_k\":\"a\"")},
    {"stream", ASK(",\"stream\":1")},
    {"stop_sequences", ASK(",\"stop_sequences\":\"a\"")},
    {"stop_sequences[1]", ASK(",\"stop_sequences\":[\"a\",\"\"]")},
    {"stop_sequences[0]", ASK(",\"stop_sequences\":[\"a\\u0000\"]")},
    {"tools", ASK(",\"tools\":{}")},
    {"tools[0]", ASK(",\"tools\":[7]")},
    {"tools[0]", ASK(",\"tools\":[{\"name\":\"a b\",\"input_schema\":{}}]")},
    {"tools[1]", ASK(",\"tools\":[" TOOL ",{\"name\":\"b\"}]")},
    {"tools[0]", ASK(",\"tools\":[{\"name\":\"b\",\"input_schema\":{},\"description\":7}]")},
    {"tools[0]", ASK(",\"tools\":[{\"name\":\"b\",\"input_schema\":{},\"strict\":7}]")},
    {"tool_choice", ASK(",\"tool_choice\":\"auto\"")},
    {"tool_choice", ASK(",\"tools\":[" TOOL "],\"tool_choice\":{\"type\":\"tool\"}")},
    {"tool_choice",
     ASK(",\"tools\":[" TOOL "],\"tool_choice\":{\"type\":\"tool\",\"name\":\"x\"}")},
    {"tool_choice", ASK(",\"tool_choice\":{\"type\":\"any\"}")},
    {"disable_parallel_tool_use",
     ASK(",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":1}")},
    {"thinking", ASK(",\"thinking\":{\"type\":\"on\"}")},
    {"budget_tokens", ASK(",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":-1}")},
    {"output_config", ASK(",\"output_config\":7")},
    {"output_config.effort", ASK(",\"output_config\":{\"effort\":\"most\"}")},
    {"output_config.format", ASK(",\"output_config\":{\"format\":{\"type\":\"json\"}}")},
    {"output_format", ASK(",\"output_format\":{\"type\":\"json_schema\"}")},
};

Test(anthropic, every_bad_field_is_a_400_that_names_it) {
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_api_request r;
        sd_api_error e;
        cr_expect_eq(parse(&r, bad[i].body, &e), 400, "accepted: %s", bad[i].body);
        cr_expect(strstr(e.message, bad[i].names), "'%s' does not name %s: %s", e.message,
                  bad[i].names, bad[i].body);
        cr_expect_null(r.root);
    }
}

#define USED "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"get\",\"input\":{\"n\":1}}"

Test(anthropic, blocks_become_messages_in_their_order) {
    static const char body[] =
        "{\"max_tokens\":8,\"system\":[{\"type\":\"text\",\"text\":\"x-anthropic-billing-header: "
        "a=1\"},{\"type\":\"text\",\"text\":\"One.\",\"cache_control\":{\"type\":\"ephemeral\"}},"
        "{\"type\":\"text\",\"text\":\"Two.\"}],\"messages\":["
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
        "\"text\":"
        "\"b\"}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
        "\"signature\":\"\"},{\"type\":\"redacted_thinking\",\"data\":\"x\"},{\"type\":\"text\","
        "\"text\":\"c\"}," USED "]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
        "\"tool_use_id\":\"t1\",\"content\":[{\"type\":\"text\",\"text\":\"7\"}]},"
        "{\"type\":\"tool_result\",\"tool_use_id\":\"t2\",\"is_error\":true},"
        "{\"type\":\"text\",\"text\":\"d\"}]}],\"betas\":[\"x\"],\"metadata\":{\"user_id\":\"u\"},"
        "\"context_management\":{\"edits\":[]},\"n\":3,\"logprobs\":true}";
    static const char want[] =
        "[{\"role\":\"system\",\"content\":\"One.\\n\\nTwo.\"},"
        "{\"role\":\"user\",\"content\":\"a\\n\\nb\"},"
        "{\"role\":\"assistant\",\"content\":\"c\",\"reasoning_content\":\"hm\",\"tool_calls\":["
        "{\"id\":\"t1\",\"type\":\"function\",\"function\":{\"name\":\"get\",\"arguments\":{\"n\":"
        "1}}}"
        "]},{\"role\":\"tool\",\"content\":\"7\",\"tool_call_id\":\"t1\"},"
        "{\"role\":\"tool\",\"content\":\"\",\"tool_call_id\":\"t2\"},"
        "{\"role\":\"user\",\"content\":\"d\"}]";
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(parse(&r, body, &e), 0, "%s", e.message);
    json_t *v = json_loads(want, 0, NULL);
    cr_expect(json_equal(r.messages, v), "%s", json_dumps(r.messages, 0));
    cr_expect(r.n == 1 && r.logprobs == -1 && r.max_tokens == 8 && !r.continues);
    json_decref(v);
    sd_api_request_free(&r);
}

Test(anthropic, fields_have_their_meaning) {
    sd_api_request r;
    sd_api_error e;
    const char *body = ASK(
        ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}," TOOL
        ",{\"type\":\"bad\\r\\nX: y\",\"name\":\"z\"}],\"tool_choice\":{\"type\":\"tool\",\"name\":"
        "\"get\",\"disable_parallel_tool_use\":true},\"stop_sequences\":[\"a\",\"b\"],"
        "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},\"temperature\":0.5");
    cr_assert_eq(parse(&r, body, &e), 0, "%s", e.message);
    cr_expect(r.tool_choice == SD_API_TOOL_NAMED && r.tool_index == 0 && !r.parallel_calls);
    cr_expect_eq(json_array_size(r.tools), 1);
    cr_expect_str_eq(r.skipped, "web_search_20250305, unknown");
    cr_expect(r.reasoning_budget == 1024 && r.budget_is_wish && r.n_stop == 2);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, ASK(",\"tools\":[" TOOL "],\"tool_choice\":{\"type\":\"any\"}"), &e), 0);
    cr_expect_eq(r.tool_choice, SD_API_TOOL_REQUIRED);
    sd_api_request_free(&r);
    cr_assert_eq(
        parse(&r,
              ASK(",\"thinking\":{\"type\":\"disabled\"},\"output_config\":{\"effort\":\"max\"}"),
              &e),
        0);
    cr_expect(json_is_false(json_object_get(r.template_arguments, "enable_thinking")));
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r,
                       ASK(",\"output_config\":{\"effort\":\"max\",\"format\":{\"type\":\"json_"
                           "schema\",\"schema\":{\"type\":\"object\"}}}"),
                       &e),
                 0);
    cr_expect_str_eq(json_string_value(json_object_get(r.template_arguments, "reasoning_effort")),
                     "xhigh");
    cr_expect_eq(r.constraint, SD_GRAMMAR_SCHEMA);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, BLOCKS("assistant", "{\"type\":\"text\",\"text\":\"It is\"}"), &e), 0);
    cr_expect(r.continues);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, BLOCKS("assistant", USED), &e), 0, "%s", e.message);
    cr_expect(!r.continues);
    sd_api_request_free(&r);
    static const char count[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    cr_assert_eq(sd_anthropic_parse(&r, true, count, sizeof count - 1, &e), 0, "%s", e.message);
    sd_api_request_free(&r);
}

// ---- answers

#define FORCED "\"max_tokens\":30," THINKER_SAYS
#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOLS                                                                                      \
    "\"tools\":[{\"name\":\"get\",\"strict\":true,\"input_schema\":{\"type\":\"object\","          \
    "\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":["     \
    "\"n\"],\"additionalProperties\":false}}],\"tool_choice\":{\"type\":\"any\"}"

static void expect_events(const json_t *list, const char *const *want) {
    size_t i = 0;
    for (; want[i]; i++) {
        char path[32];
        snprintf(path, sizeof path, "%zu.type", i);
        cr_expect_str_eq(live_text_at(list, path), want[i], "event %zu", i);
    }
    cr_expect_eq(json_array_size(list), i);
}

Test(anthropic, reasoning_and_text_are_blocks_whole_and_streamed, .timeout = 120) {
    live s;
    thinker_start(&s);
    json_t *v = live_json(&s, "messages", "{" USER "," FORCED "}", 200);
    cr_expect_str_eq(live_text_at(v, "content.0.type"), "thinking");
    cr_expect_str_eq(live_text_at(v, "content.0.thinking"), "Hm.");
    cr_expect_str_eq(live_text_at(v, "content.1.text"), "Yes.");
    cr_expect_str_eq(live_text_at(v, "stop_reason"), "end_turn");
    cr_expect(json_is_null(live_at(v, "stop_sequence")));
    cr_expect_eq(json_integer_value(live_at(v, "usage.output_tokens")), 6);
    cr_expect_eq(json_integer_value(live_at(v, "usage.output_tokens_details.thinking_tokens")), 2);
    json_decref(v);
    char *out = live_ask_at(&s, "messages", "{" USER "," FORCED ",\"stream\":true}");
    json_t *list = thinker_events(out);
    expect_events(list, (const char *const[]){
                            "message_start", "content_block_start", "content_block_delta",
                            "content_block_delta", "content_block_delta", "content_block_stop",
                            "content_block_start", "content_block_delta", "content_block_delta",
                            "content_block_stop", "message_delta", "message_stop", NULL});
    cr_expect_str_eq(live_text_at(list, "1.content_block.type"), "thinking");
    cr_expect_str_eq(live_text_at(list, "4.delta.type"), "signature_delta");
    cr_expect_str_eq(live_text_at(list, "7.delta.text"), "Yes");
    cr_expect_eq(json_integer_value(live_at(list, "7.index")), 1);
    cr_expect_str_eq(live_text_at(list, "10.delta.stop_reason"), "end_turn");
    // What was found in the cache is no input that was read.
    const int in = (int)json_integer_value(live_at(list, "0.message.usage.input_tokens"));
    const int found =
        (int)json_integer_value(live_at(list, "0.message.usage.cache_read_input_tokens"));
    cr_expect(found > 0 && in > 0);
    json_decref(list);
    free(out);
    v = live_json(&s, "messages/count_tokens", "{" USER "}", 200);
    cr_expect_eq(json_integer_value(live_at(v, "input_tokens")), in + found);
    json_decref(v);
    v = live_json(&s, "messages",
                  "{" USER "," FORCED ",\"stop_sequences\":[\"zz\",\"es\"],\"thinking\":{\"type\":"
                  "\"enabled\",\"budget_tokens\":0}}",
                  200);
    cr_expect_str_eq(live_text_at(v, "stop_sequence"), "es");
    cr_expect_str_eq(live_text_at(v, "stop_reason"), "stop_sequence");
    cr_expect_str_eq(live_text_at(v, "content.0.type"), "text");
    json_decref(v);
    live_stop(&s);
}

Test(anthropic, calls_are_blocks_whole_and_streamed, .timeout = 240) {
    live s;
    thinker_start(&s);
    for (int seed = 0; seed < 4; seed++) {
        char body[1024];
        snprintf(body, sizeof body,
                 "{" USER "," TOOLS
                 ",\"max_tokens\":400,\"seed\":%d,\"thinking\":{\"type\":\"enabled\","
                 "\"budget_tokens\":2}}",
                 seed);
        json_t *v = live_json(&s, "messages", body, 200);
        size_t n = json_array_size(live_at(v, "content"));
        char path[64];
        cr_expect_str_eq(live_text_at(v, "stop_reason"), "tool_use");
        snprintf(path, sizeof path, "content.%zu.input", n - 1);
        json_t *input = json_incref((json_t *)(uintptr_t)live_at(v, path));
        cr_expect(json_integer_value(json_object_get(input, "n")) >= 1);
        snprintf(path, sizeof path, "content.%zu.id", n - 1);
        cr_expect_eq(strncmp(live_text_at(v, path), "toolu_", 6), 0);
        json_decref(v);
        strcpy(strrchr(body, '}'), ",\"stream\":true}");
        char *out = live_ask_at(&s, "messages", body), text[512] = "";
        json_t *list = thinker_events(out), *event;
        size_t i;
        json_array_foreach(list, i, event) {
            const char *part = live_text_at(event, "delta.partial_json");
            if (strcmp(live_text_at(event, "content_block.type"), "tool_use") == 0) text[0] = '\0';
            if (strcmp(part, "(none)") != 0) strcat(text, part);
        }
        v = json_loads(text, 0, NULL); // of the last call
        cr_expect(json_equal(v, input), "%s", text);
        json_decref(v), json_decref(input), json_decref(list);
        free(out);
    }
    live_stop(&s);
}

Test(anthropic, errors_have_its_shape_and_a_wish_is_none, .timeout = 120) {
    live s;
    live_start(&s, 64, 2, 8); // its model does not reason
    json_t *v = live_json(&s, "messages", "{" USER "}", 400);
    cr_expect_str_eq(live_text_at(v, "type"), "error");
    cr_expect_str_eq(live_text_at(v, "error.type"), "invalid_request_error");
    cr_expect(strstr(live_text_at(v, "error.message"), "max_tokens is missing"));
    json_decref(v);
    v = live_json(&s, "messages", "{" USER ",\"max_tokens\":2,\"model\":\"none\"}", 404);
    cr_expect_str_eq(live_text_at(v, "error.type"), "not_found_error");
    json_decref(v);
    v = live_json(&s, "messages/nothing", "{}", 404);
    cr_expect_str_eq(live_text_at(v, "type"), "error");
    json_decref(v);
    v = live_json(
        &s, "messages",
        "{" USER ",\"max_tokens\":2,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}}", 200);
    cr_expect_str_eq(live_text_at(v, "type"), "message");
    json_decref(v);
    live_stop(&s);
}
