// The API's bodies: each bad field is named, null is absent, and what is not built is never
// ignored.
#include "decode/serve/api/openai/request.h"
#include "decode/serve/http/http.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define CHAT(fields) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" fields "}"
#define TEXT(fields) "{\"prompt\":\"hi\"" fields "}"
#define TOOL(function) CHAT(",\"tools\":[{\"type\":\"function\",\"function\":" function "}]")

static int parse(sd_api_request *r, sd_api_kind kind, const char *body, sd_api_error *e) {
    return sd_api_request_parse(r, kind, body, strlen(body), e);
}

// Chat bodies that must be a 400 and the field the error must name.
static const struct {
    const char *param, *body;
} bad_chat[] = {
    {"", ""},
    {"", "[]"},
    {"", "{"},
    {"", "{\"messages\":[],\"messages\":[]}"},
    {"", "{\"a\":\"\xff\"}"},
    {"messages", "{}"},
    {"messages", "{\"messages\":null}"},
    {"messages", "{\"messages\":[]}"},
    {"messages", "{\"messages\":\"hi\"}"},
    {"messages[0]", "{\"messages\":[\"hi\"]}"},
    {"messages[0].role", "{\"messages\":[{\"content\":\"hi\"}]}"},
    {"messages[0].role", "{\"messages\":[{\"role\":\"function\",\"content\":\"hi\"}]}"},
    {"messages[0].role", "{\"messages\":[{\"role\":7,\"content\":\"hi\"}]}"},
    {"messages[0].content", "{\"messages\":[{\"role\":\"user\"}]}"},
    {"messages[0].content", "{\"messages\":[{\"role\":\"user\",\"content\":7}]}"},
    {"messages[0].content[1]",
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
     "{\"type\":\"image_url\"}]}]}"},
    {"messages[0].tool_calls[0]",
     "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}"},
    {"model", CHAT(",\"model\":7")},
    {"temperature", CHAT(",\"temperature\":2.5")},
    {"temperature", CHAT(",\"temperature\":-1")},
    {"temperature", CHAT(",\"temperature\":\"1\"")},
    {"top_p", CHAT(",\"top_p\":1.5")},
    {"top_k", CHAT(",\"top_k\":-2")},
    {"top_k", CHAT(",\"top_k\":1.5")},
    {"min_p", CHAT(",\"min_p\":-0.5")},
    {"seed", CHAT(",\"seed\":\"x\"")},
    {"seed", CHAT(",\"seed\":18446744073709551616")},
    {"seed", CHAT(",\"seed\":1.5")},
    {"temperature", CHAT(",\"temperature\":1e999")},
    {"temperature", CHAT(",\"temperature\":NaN")},
    {"model", CHAT(",\"model\":99999999999999999999")},
    {"model", CHAT(",\"model\":\"a\\u0000b\"")},
    {"stop", CHAT(",\"stop\":\"a\\u0000b\"")},
    {"stop", CHAT(",\"stop\":99999999999999999999")},
    {"messages[0].role", "{\"messages\":[{\"role\":\"user\\u0000x\",\"content\":\"hi\"}]}"},
    {"messages[0]", "{\"messages\":[{\"role\":\"user\",\"content\":99999999999999999999}]}"},
    {"messages[0]", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"x\":[1e999]}]}"},
    {"chat_template_kwargs", CHAT(",\"chat_template_kwargs\":{\"a\":-99999999999999999999}")},
    {"n", CHAT(",\"n\":0")},
    {"n", CHAT(",\"n\":1000")},
    {"max_tokens", CHAT(",\"max_tokens\":0")},
    {"max_completion_tokens", CHAT(",\"max_completion_tokens\":-5")},
    {"stop", CHAT(",\"stop\":7")},
    {"stop", CHAT(",\"stop\":\"\"")},
    {"stop", CHAT(",\"stop\":[1]")},
    {"stop", CHAT(",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\","
                  "\"12\",\"13\",\"14\",\"15\",\"16\",\"17\"]")},
    {"stop_token_ids", CHAT(",\"stop_token_ids\":[\"a\"]")},
    {"stream", CHAT(",\"stream\":1")},
    {"stream_options", CHAT(",\"stream_options\":{}")},
    {"stream_options", CHAT(",\"stream\":true,\"stream_options\":7")},
    {"include_usage", CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":1}")},
    {"logprobs", CHAT(",\"logprobs\":5")},
    {"top_logprobs", CHAT(",\"top_logprobs\":5")},
    {"top_logprobs", CHAT(",\"logprobs\":true,\"top_logprobs\":21")},
    {"priority", CHAT(",\"priority\":\"high\"")},
    {"priority", CHAT(",\"priority\":2147483648")},
    {"user", CHAT(",\"user\":7")},
    {"user", CHAT(",\"user\":\"a\\u0000b\"")},
    {"cache_salt", CHAT(",\"cache_salt\":7")},
    {"cache_salt", CHAT(",\"cache_salt\":\"\"")},
    {"cache_salt", CHAT(",\"cache_salt\":\"a\\u0000b\"")},
    {"speculative", CHAT(",\"speculative\":true")},
    {"k", CHAT(",\"speculative\":{\"k\":49}")},
    {"k", CHAT(",\"speculative\":{\"k\":-1}")},
    {"add_generation_prompt", CHAT(",\"add_generation_prompt\":1")},
    {"continue_final_message", CHAT(",\"continue_final_message\":\"yes\"")},
    {"continue_final_message", CHAT(",\"continue_final_message\":true")}, // a user's
    {"continue_final_message", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],"
                               "\"continue_final_message\":true,\"add_generation_prompt\":true}"},
    {"max_tokens", CHAT(",\"max_tokens\":0")},
    {"max_tokens", CHAT(",\"max_tokens\":8.5")},
    {"max_tokens", CHAT(",\"max_tokens\":1e300")},
    {"ignore_eos", CHAT(",\"ignore_eos\":1")},
    {"chat_template_kwargs", CHAT(",\"chat_template_kwargs\":[]")},
    // What shapes logits.
    {"presence_penalty", CHAT(",\"presence_penalty\":2.5")},
    {"presence_penalty", CHAT(",\"presence_penalty\":\"0\"")},
    {"presence_penalty", CHAT(",\"presence_penalty\":NaN")},
    {"frequency_penalty", CHAT(",\"frequency_penalty\":-2.01")},
    {"frequency_penalty", CHAT(",\"frequency_penalty\":true")},
    {"repetition_penalty", CHAT(",\"repetition_penalty\":0")},
    {"repetition_penalty", CHAT(",\"repetition_penalty\":-1.1")},
    {"repetition_penalty", CHAT(",\"repetition_penalty\":1e999")},
    {"logit_bias", CHAT(",\"logit_bias\":[1]")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"a\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"-1\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"05\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\" 5\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"5.0\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"2147483648\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"99999999999999999999999\":1}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"5\":\"1\"}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"5\":null}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"5\":101}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"5\":-100.5}")},
    {"logit_bias", CHAT(",\"logit_bias\":{\"5\":1e999}")},
    {"min_tokens", CHAT(",\"min_tokens\":-1")},
    {"min_tokens", CHAT(",\"min_tokens\":1.5")},
    {"min_tokens", CHAT(",\"min_tokens\":6,\"max_tokens\":5")},
    {"min_tokens", CHAT(",\"min_tokens\":16777217")},
    {"bad_words", CHAT(",\"bad_words\":\"a\"")},
    {"bad_words", CHAT(",\"bad_words\":[1]")},
    {"bad_words", CHAT(",\"bad_words\":[\"a\",\"\"]")},
    {"bad_words", CHAT(",\"bad_words\":[[1,2]]")},
    {"allowed_token_ids", CHAT(",\"allowed_token_ids\":[]")},
    {"allowed_token_ids", CHAT(",\"allowed_token_ids\":5")},
    {"allowed_token_ids", CHAT(",\"allowed_token_ids\":[1,-1]")},
    {"allowed_token_ids", CHAT(",\"allowed_token_ids\":[1,\"2\"]")},
    {"allowed_token_ids", CHAT(",\"allowed_token_ids\":[1,2147483648]")},
    // Known, not built.
    {"tools[0]", CHAT(",\"tools\":[{\"type\":\"function\"}]")},
    {"tools[0]", CHAT(",\"tools\":[7]")},
    {"tools[0]", CHAT(",\"tools\":[{\"type\":\"web_search\",\"function\":{\"name\":\"f\"}}]")},
    {"tools", CHAT(",\"tools\":{}")},
    {"tools[0].function", TOOL("{\"name\":\"a b\"}")},
    {"tools[0].function", TOOL("{\"name\":\"\"}")},
    {"tools[0].function", TOOL("{}")},
    {"tools[0].function",
     TOOL("{\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}")},
    {"tools[0].function", TOOL("{\"name\":\"f\",\"parameters\":[]}")},
    {"strict", TOOL("{\"name\":\"f\",\"strict\":1}")},
    {"description", TOOL("{\"name\":\"f\",\"description\":1}")},
    {"tools", TOOL("{\"name\":\"f\",\"parameters\":{\"maximum\":1e999}}")},
    {"tools[1].function", CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
                               "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]")},
    {"tool_choice", CHAT(",\"tool_choice\":\"required\"")},
    {"tool_choice", CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
                         "\"tool_choice\":\"any\"")},
    {"tool_choice", CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
                         "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}")},
    {"parallel_tool_calls", CHAT(",\"parallel_tool_calls\":1")},
    {"reasoning_effort", CHAT(",\"reasoning_effort\":\"huge\"")},
    {"reasoning_budget", CHAT(",\"reasoning_budget\":-2")},
    {"messages[0].tool_calls[0]", "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[7]}]}"},
    {"messages[0].tool_calls[0].function", "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":["
                                           "{\"function\":{\"arguments\":\"\"}}]}]}"},
    {"messages[0].tool_calls[0]",
     "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":"
     "{\"name\":\"f\",\"arguments\":[1]}}]}]}"},
    {"messages[0].tool_calls",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[{}]}]}"},
    {"messages[0].tool_call_id",
     "{\"messages\":[{\"role\":\"tool\",\"content\":\"\",\"tool_call_id\":7}]}"},
    {"functions", CHAT(",\"functions\":[{}]")},
    {"response_format", CHAT(",\"response_format\":\"text\"")},
    {"repeat_penalty", CHAT(",\"repeat_penalty\":1.1")},
    {"guided_grammar", CHAT(",\"guided_grammar\":\"root ::= x\"")},
    {"chat_template", CHAT(",\"chat_template\":\"{{ messages }}\"")},
};
static const struct {
    const char *param, *body;
} bad_text[] = {
    {"tools", "{\"prompt\":\"a\",\"tools\":[{}]}"},
    {"prompt", "{}"},
    {"prompt", "{\"prompt\":7}"},
    {"prompt", "{\"prompt\":[]}"},
    {"prompt", "{\"prompt\":[[]]}"},
    {"prompt[1]", "{\"prompt\":[1,\"a\"]}"},
    {"prompt", "{\"prompt\":[1,-1]}"},
    {"prompt", "{\"prompt\":[{}]}"},
    {"prompt", "{\"prompt\":99999999999999999999}"},
    {"prompt", "{\"prompt\":[1,99999999999999999999]}"},
    {"n", "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\"],\"n\":16}"},
    {"logprobs", TEXT(",\"logprobs\":true")},
    {"logprobs", TEXT(",\"logprobs\":21")},
    {"echo", TEXT(",\"echo\":1")},
    {"max_tokens", TEXT(",\"max_tokens\":0")},
    {"max_tokens", TEXT(",\"max_tokens\":-1,\"echo\":true")},
    {"best_of", TEXT(",\"best_of\":3")},
    {"suffix", TEXT(",\"suffix\":\"x\"")},
    {"min_tokens", TEXT(",\"min_tokens\":17")}, // max_tokens is 16 there
};

static void check_refusal(sd_api_kind kind, const char *param, const char *body) {
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(parse(&r, kind, body, &e), 400, "accepted: %s", body);
    cr_assert_str_eq(e.type, "invalid_request_error");
    cr_assert(e.message[0]);
    cr_assert(strncmp(e.param, param, strlen(e.param)) == 0 && (e.param[0] || !param[0]),
              "param '%s', want '%s': %s", e.param, param, body);
    cr_assert(strstr(e.message, param), "'%s' does not name %s", e.message, param);
    cr_assert_null(r.root);
}

Test(api, every_bad_chat_field_is_a_400_that_names_it) {
    for (size_t i = 0; i < sizeof bad_chat / sizeof bad_chat[0]; i++)
        check_refusal(SD_API_CHAT, bad_chat[i].param, bad_chat[i].body);
}

Test(api, every_bad_completion_field_is_a_400_that_names_it) {
    for (size_t i = 0; i < sizeof bad_text / sizeof bad_text[0]; i++)
        check_refusal(SD_API_COMPLETION, bad_text[i].param, bad_text[i].body);
}

Test(api, more_template_arguments_than_any_template_has_are_refused_by_their_number) {
    sd_buf b = sd_buf_make(1 << 20);
    for (int n = 64; n <= 65; n++) {
        sd_api_request r;
        sd_api_error e = {0};
        sd_buf_clear(&b);
        sd_buf_adds(&b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                        "\"chat_template_kwargs\":{");
        for (int i = 0; i < n; i++) sd_buf_printf(&b, "%s\"k%d\":0", i ? "," : "", i);
        sd_buf_adds(&b, "}}");
        int status = sd_api_request_parse(&r, SD_API_CHAT, b.data, b.len, &e);
        cr_expect_eq(status, n == 64 ? 0 : 400, "%d: %s", n, e.message);
        if (n == 65) cr_expect(strstr(e.message, "65 names; at most 64"), "%s", e.message);
        sd_api_request_free(&r);
    }
    sd_buf_free(&b);
}

Test(api, null_is_absent_and_unknown_fields_are_ignored) {
    sd_api_request r;
    sd_api_error e;
    const char *body = CHAT(
        ",\"model\":null,\"temperature\":null,\"n\":null,\"stop\":null,\"stream\":null,"
        "\"stream_options\":null,\"tools\":null,\"response_format\":null,\"logit_bias\":null,"
        "\"presence_penalty\":0,\"frequency_penalty\":0.0,\"repetition_penalty\":1,"
        "\"min_tokens\":null,\"bad_words\":null,\"allowed_token_ids\":null,"
        "\"tool_choice\":\"none\",\"max_tokens\":null,\"user\":null,\"brand_new\":{\"x\":[1]}");
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    cr_assert_eq(r.n, 1);
    cr_assert_eq(r.max_tokens, 0);
    cr_assert_eq(r.logprobs, -1);
    cr_assert_float_eq(r.sampling.temperature, 1, 0);
    cr_assert_null(r.model);
    cr_assert_not(r.stream);
    cr_assert_not(r.has_seed);
    sd_api_request_free(&r);
}

Test(api, a_prompt_is_scored_and_a_message_goes_on_where_that_is_asked) {
    sd_api_request r;
    sd_api_error e;
    const char *scored = "{\"prompt\":[1.0,2],\"echo\":true,\"logprobs\":1.0,\"max_tokens\":0}";
    cr_assert_eq(parse(&r, SD_API_COMPLETION, scored, &e), 0, "%s", e.message);
    cr_assert(r.score && r.no_answer && r.echo && r.logprobs == 1);
    cr_assert(r.prompt[0].n_ids == 2 && r.prompt[0].ids[0] == 1);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, SD_API_COMPLETION, TEXT(",\"echo\":true,\"max_tokens\":8.0"), &e), 0);
    cr_assert(!r.score && !r.no_answer && r.max_tokens == 8);
    sd_api_request_free(&r);
    const char *on = "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],"
                     "\"continue_final_message\":true,\"add_generation_prompt\":false,"
                     "\"speculative\":{\"k\":3}}";
    cr_assert_eq(parse(&r, SD_API_CHAT, on, &e), 0, "%s", e.message);
    cr_assert(r.continues && r.no_turn && r.speculate && r.max_draft == 3);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, SD_API_CHAT, CHAT(",\"speculative\":{\"k\":0}"), &e), 0);
    cr_assert(!r.speculate);
    sd_api_request_free(&r);
}

Test(api, values_reach_the_request) {
    sd_api_request r;
    sd_api_error e;
    const char *body = CHAT(",\"model\":\"m\",\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,"
                            "\"min_p\":0.1,\"seed\":-3,\"n\":2,\"stop\":[\"a\",\"b\"],"
                            "\"max_completion_tokens\":7,\"logprobs\":true,\"top_logprobs\":3,"
                            "\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                            "\"speculative\":{\"enabled\":false},\"stop_token_ids\":[4,5],"
                            "\"priority\":-7,\"cache_salt\":\"s\"");
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    cr_assert_str_eq(r.model, "m");
    cr_assert_eq(r.sampling.top_k, 0);
    cr_assert_eq(r.sampling.seed, (uint64_t)-3);
    cr_assert_eq(r.n, 2);
    cr_assert_eq(r.n_stop, 2);
    cr_assert_str_eq(r.stop[1], "b");
    cr_assert_eq(r.stop_token[1], 5);
    cr_assert_eq(r.max_tokens, 7);
    cr_assert_eq(r.priority, -7);
    cr_assert_str_eq(r.cache_salt, "s");
    cr_assert_eq(r.logprobs, 3);
    cr_assert(r.stream && r.include_usage && r.has_seed);
    cr_assert_not(r.speculate);
    sd_api_request_free(&r);
}

Test(api, what_shapes_logits_reaches_the_request) {
    sd_api_request r;
    sd_api_error e;
    const char *body = CHAT(",\"presence_penalty\":-2,\"frequency_penalty\":0.25,"
                            "\"repetition_penalty\":1.5,\"min_tokens\":7,\"max_tokens\":7,"
                            "\"logit_bias\":{\"0\":-100,\"2147483647\":100,\"17\":0.5},"
                            "\"allowed_token_ids\":[3,2,3],\"bad_words\":[\"a\",\" b\\u0000c\"]");
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    const sd_request_shaping *h = &r.shaping;
    cr_assert(h->presence == -2 && h->frequency == .25f && h->repetition == 1.5f);
    cr_assert_eq(h->min_tokens, 7);
    float bias = 0;
    cr_assert_eq(h->n_bias, 3);
    for (int i = 0; i < 3; i++) {
        int32_t t = h->bias[i].token;
        cr_assert(t == 0 || t == INT32_MAX || t == 17);
        bias += h->bias[i].bias * (t == 0 ? 1 : t == 17 ? 10 : 3);
    }
    cr_assert_eq(bias, -100 + 5 + 300);
    cr_assert(h->n_allowed == 3 && h->allowed[0] == 3 && h->allowed[1] == 2);
    cr_assert_eq(r.n_bad_words, 2);
    cr_assert_eq(json_string_length(r.bad_word[1]), 4);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, SD_API_CHAT, CHAT(",\"logit_bias\":{},\"bad_words\":[]"), &e), 0);
    cr_assert(r.shaping.n_bias == 0 && r.n_bad_words == 0 && r.shaping.n_allowed == 0);
    sd_api_request_free(&r);
}

// {"prompt":"a","FIELD":OPEN item,item,... CLOSE} with n items: each its number of so many digits
// as a string, and `tail`.
static int parse_list(const char *field, const char *open, int digits, const char *tail,
                      const char *close, int n, sd_api_error *e) {
    sd_buf b = sd_buf_make(1 << 20);
    sd_api_request r;
    sd_buf_printf(&b, "{\"prompt\":\"a\",\"%s\":%s", field, open);
    for (int i = 0; i < n; i++) {
        if (i) sd_buf_adds(&b, ",");
        sd_buf_printf(&b, "\"%0*d\"%s", digits, i, tail);
    }
    sd_buf_printf(&b, "%s}", close);
    int status = sd_api_request_parse(&r, SD_API_COMPLETION, b.data, b.len, e);
    if (status == 0) sd_api_request_free(&r);
    sd_buf_free(&b);
    return status;
}

Test(api, biases_and_bad_words_have_a_most) {
    sd_api_error e;
    cr_assert_eq(parse_list("logit_bias", "{", 1, ":1", "}", 1024, &e), 0, "%s", e.message);
    cr_assert_eq(parse_list("logit_bias", "{", 1, ":1", "}", 1025, &e), 400);
    cr_assert(strstr(e.message, "at most 1024"), "%s", e.message);
    cr_assert_eq(parse_list("bad_words", "[", 1, "", "]", 64, &e), 0, "%s", e.message);
    cr_assert_eq(parse_list("bad_words", "[", 1, "", "]", 65, &e), 400);
    cr_assert(strstr(e.message, "at most 64"), "%s", e.message);
    cr_assert_eq(parse_list("bad_words", "[", 1025, "", "]", 1, &e), 400);
    cr_assert_eq(parse_list("bad_words", "[", 1024, "", "]", 1, &e), 0, "%s", e.message);
}

Test(api, what_nobody_reads_does_no_harm) {
    sd_api_request r;
    sd_api_error e;
    const char *body =
        CHAT(",\"safety_identifier\":\"a\\u0000b\",\"metadata\":{\"id\":18446744073709551616,"
             "\"x\":[1e999,-99999999999999999999999,NaN]},"
             "\"seed\":9223372036854775807");
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    cr_assert_eq(r.sampling.seed, (uint64_t)INT64_MAX);
    sd_api_request_free(&r);
    cr_assert_eq(parse(&r, SD_API_COMPLETION, "{\"prompt\":\"a\\u0000b\"}", &e), 0, "%s",
                 e.message);
    cr_assert_eq(r.prompt[0].len, 3, "a NUL is a character of the prompt");
    sd_api_request_free(&r);
}

Test(api, a_number_beyond_64_bits_is_refused_in_the_words_it_was_written) {
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(parse(&r, SD_API_CHAT, CHAT(",\"seed\":18446744073709551616"), &e), 400);
    cr_assert_str_eq(e.message, "seed is 18446744073709551616; give an integer from "
                                "-9223372036854775808 to 9223372036854775807");
    cr_assert_eq(parse(&r, SD_API_CHAT, CHAT(",\"temperature\":1e999"), &e), 400);
    cr_assert_str_eq(e.message, "temperature is 1e999; give a number from 0 to 2");
}

Test(api, content_parts_become_one_string_and_developer_becomes_system) {
    sd_api_request r;
    sd_api_error e;
    const char *body = "{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\","
                       "\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
                       "{\"role\":\"assistant\",\"content\":null}]}";
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    const json_t *first = json_array_get(r.messages, 0);
    cr_assert_str_eq(json_string_value(json_object_get(first, "role")), "system");
    cr_assert_str_eq(json_string_value(json_object_get(first, "content")), "ab");
    sd_api_request_free(&r);
}

Test(api, a_first_line_that_changes_with_every_request_does_not_reach_the_model) {
    static const struct {
        const char *messages, *want; // of the first message
    } cases[] = {
        {"[{\"role\":\"system\",\"content\":\"X-Anthropic-Billing-Header: cch=1;\\nYou "
         "are.\\nb\"}]",
         "You are.\nb"},
        {"[{\"role\":\"system\",\"content\":\"x-anthropic-billing-header: cch=1;\"}]", ""},
        {"[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":"
         "\"x-anthropic-billing-header: cch=2;\"},{\"type\":\"text\",\"text\":\"You are.\"}]}]",
         "You are."},
        // Anywhere else it is text.
        {"[{\"role\":\"user\",\"content\":\"x-anthropic-billing-header: a\\nb\"}]",
         "x-anthropic-billing-header: a\nb"},
        {"[{\"role\":\"system\",\"content\":\"a\\nx-anthropic-billing-header: b\"}]",
         "a\nx-anthropic-billing-header: b"},
        {"[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
         "{\"type\":\"text\",\"text\":\"x-anthropic-billing-header: b\"}]}]",
         "ax-anthropic-billing-header: b"},
        {"[{\"role\":\"system\",\"content\":\"x-anthropic-billing-heade\"}]",
         "x-anthropic-billing-heade"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sd_api_request r;
        sd_api_error e;
        char body[400];
        snprintf(body, sizeof body, "{\"messages\":%s}", cases[i].messages);
        cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
        cr_assert_str_eq(
            json_string_value(json_object_get(json_array_get(r.messages, 0), "content")),
            cases[i].want);
        sd_api_request_free(&r);
    }
}

Test(api, a_salt_has_a_most) {
    sd_api_request r;
    sd_api_error e;
    char salt[SD_API_MAX_SALT + 2] = {0}, body[SD_API_MAX_SALT + 200];
    for (int n = SD_API_MAX_SALT; n <= SD_API_MAX_SALT + 1; n++) {
        memset(salt, 's', (size_t)n);
        snprintf(body, sizeof body, "{\"prompt\":\"a\",\"cache_salt\":\"%s\"}", salt);
        cr_assert_eq(parse(&r, SD_API_COMPLETION, body, &e), n > SD_API_MAX_SALT ? 400 : 0);
        sd_api_request_free(&r);
    }
    cr_assert(strstr(e.message, "1025 bytes"), "%s", e.message);
}

Test(api, a_long_user_is_kept_up_to_a_whole_character) {
    sd_api_request r;
    sd_api_error e;
    const char *body = CHAT(",\"user\":\"x"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"
                            "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\"");
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    cr_assert_eq(strlen(r.user), 127); // 1 + 63 * 2: the 64th has no room for both its bytes
    sd_api_request_free(&r);
}

Test(api, every_field_of_a_message_is_kept_and_null_is_absent) {
    sd_api_request r;
    sd_api_error e;
    const char *body = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"guest\","
                       "\"weight\":0.5,\"refusal\":null,\"tool_calls\":[]},"
                       "{\"role\":\"assistant\",\"reasoning_content\":\"because\","
                       "\"extra\":{\"deep\":[1]}}]}";
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    const json_t *user = json_array_get(r.messages, 0), *assistant = json_array_get(r.messages, 1);
    cr_assert_str_eq(json_string_value(json_object_get(user, "name")), "guest");
    cr_assert_float_eq(json_number_value(json_object_get(user, "weight")), 0.5, 0);
    cr_assert_eq(json_object_size(user), 4);
    cr_assert_str_eq(json_string_value(json_object_get(assistant, "reasoning_content")), "because");
    cr_assert_str_eq(json_string_value(json_object_get(assistant, "content")), "");
    cr_assert_eq(json_array_size(json_object_get(json_object_get(assistant, "extra"), "deep")), 1);
    sd_api_request_free(&r);
}

Test(api, a_prompt_is_text_ids_or_lists_of_them) {
    static const struct {
        const char *body;
        int prompts, ids;
    } rows[] = {{"{\"prompt\":\"a\"}", 1, 0},
                {"{\"prompt\":\"\"}", 1, 0},
                {"{\"prompt\":[\"a\",\"b\"]}", 2, 0},
                {"{\"prompt\":[5,6,7]}", 1, 3},
                {"{\"prompt\":[[5,6],[7,8]]}", 2, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_api_request r;
        sd_api_error e;
        cr_assert_eq(parse(&r, SD_API_COMPLETION, rows[i].body, &e), 0, "%s", e.message);
        cr_assert_eq(r.n_prompts, rows[i].prompts);
        cr_assert_eq(r.prompt[0].n_ids, rows[i].ids);
        cr_assert_eq(r.max_tokens, 16);
        sd_api_request_free(&r);
    }
}

Test(api, deep_nesting_is_refused_before_it_is_parsed) {
    char body[4096];
    memset(body, '[', sizeof body);
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(sd_api_request_parse(&r, SD_API_CHAT, body, sizeof body, &e), 400);
    cr_assert(strstr(e.message, "nested"));
    // Brackets inside a string do not count.
    memset(body, '[', sizeof body);
    int n = snprintf(body, sizeof body, "{\"prompt\":\"\\\"");
    memcpy(body + sizeof body - 2, "\"}", 2);
    cr_assert_gt(n, 0);
    body[n] = '[';
    cr_assert_eq(sd_api_request_parse(&r, SD_API_COMPLETION, body, sizeof body, &e), 0, "%s",
                 e.message);
    sd_api_request_free(&r);
}

Test(api, top_p_zero_is_greedy) {
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(parse(&r, SD_API_CHAT, CHAT(",\"top_p\":0"), &e), 0);
    cr_assert_float_eq(r.sampling.temperature, 0, 0);
    cr_assert_float_eq(r.sampling.top_p, 1, 0);
    sd_api_request_free(&r);
}

// {"prompt":[ITEM,ITEM,...]} with n items.
static int parse_many(const char *item, int n, sd_api_error *e) {
    sd_buf b = sd_buf_make(SD_HTTP_MAX_BODY);
    sd_api_request r;
    sd_buf_adds(&b, "{\"x\":null,\"prompt\":[");
    for (int i = 0; i < n; i++) cr_assert(sd_buf_printf(&b, "%s%s", i ? "," : "", item));
    sd_buf_adds(&b, "]}");
    int status = sd_api_request_parse(&r, SD_API_COMPLETION, b.data, b.len, e);
    if (status == 0) sd_api_request_free(&r);
    sd_buf_free(&b);
    return status;
}

// Small text that becomes much memory: 16 MB of "{}," would be 1.4 GB of objects.
Test(api, json_of_more_values_than_any_request_needs_is_refused_before_it_is_parsed) {
    sd_api_error e;
    cr_assert_eq(parse_many("1", 1000000, &e), 0, "%s", e.message);
    cr_assert_eq(parse_many("1", SD_API_MAX_VALUES + 1, &e), 400);
    cr_assert(strstr(e.message, "values"), "%s", e.message);
    cr_assert_eq(parse_many("{}", SD_API_MAX_CONTAINERS, &e), 400);
    cr_assert(strstr(e.message, "arrays and objects"), "%s", e.message);
    cr_assert_eq(parse_many("\"{},,[]\"", SD_API_MAX_PROMPTS, &e), 0, "%s", e.message);
}

Test(api, tools_and_a_history_of_calls_reach_the_request) {
    sd_api_request r;
    sd_api_error e;
    const char *body =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":"
        "null,"
        "\"reasoning\":\"hm\",\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\","
        "\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"call_1\","
        "\"content\":null}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"strict\":true}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"g-2_\",\"parameters\":null}}],\"tool_"
        "choice\":"
        "{\"type\":\"function\",\"function\":{\"name\":\"g-2_\"}},\"parallel_tool_calls\":false,"
        "\"reasoning_effort\":\"none\",\"chat_template_kwargs\":{\"x\":1}}";
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 0, "%s", e.message);
    cr_assert_eq(json_array_size(r.tools), 2u);
    cr_assert_eq(r.tool_choice, SD_API_TOOL_NAMED);
    cr_assert_eq(r.tool_index, 1);
    cr_assert(r.strict && !r.parallel_calls);
    const json_t *assistant = json_array_get(r.messages, 1), *args = r.template_arguments;
    cr_assert_eq(json_array_size(json_object_get(assistant, "tool_calls")), 1u);
    cr_assert_str_eq(json_string_value(json_object_get(assistant, "content")), "");
    cr_assert_str_eq(json_string_value(json_object_get(assistant, "reasoning_content")), "hm");
    cr_assert_str_eq(json_string_value(json_object_get(json_array_get(r.messages, 2), "content")),
                     "");
    cr_assert_str_eq(json_string_value(json_object_get(args, "reasoning_effort")), "none");
    cr_assert(json_is_false(json_object_get(args, "enable_thinking")));
    cr_assert_eq(json_integer_value(json_object_get(args, "x")), 1);
    sd_api_request_drop_texts(&r);
    cr_assert_eq(json_array_size(r.tools), 2u, "the answer is read by them");
    sd_api_request_free(&r);
    static const struct {
        const char *more;
        sd_api_tool_choice choice;
    } row[] = {
        {"", SD_API_TOOL_NONE},
        {",\"tools\":[]", SD_API_TOOL_NONE},
        {",\"tool_choice\":\"auto\"", SD_API_TOOL_NONE},
        {",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", SD_API_TOOL_AUTO},
        {",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":"
         "\"none\"",
         SD_API_TOOL_NONE},
        {",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
         "\"tool_choice\":\"required\"",
         SD_API_TOOL_REQUIRED}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char text[400];
        snprintf(text, sizeof text, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]%s}",
                 row[i].more);
        cr_assert_eq(parse(&r, SD_API_CHAT, text, &e), 0, "%s", e.message);
        cr_assert_eq(r.tool_choice, row[i].choice, "%s", text);
        cr_assert(r.parallel_calls);
        sd_api_request_free(&r);
    }
}

Test(api, more_tools_than_are_possible_are_refused) {
    sd_api_request r;
    sd_api_error e;
    for (int n = 128; n <= 129; n++) {
        sd_buf b = sd_buf_make(1 << 20);
        sd_buf_adds(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"tools\":[");
        for (int i = 0; i < n; i++)
            sd_buf_printf(&b, "%s{\"type\":\"function\",\"function\":{\"name\":\"f%d\"}}",
                          i ? "," : "", i);
        sd_buf_adds(&b, "]}");
        cr_assert_eq(sd_api_request_parse(&r, SD_API_CHAT, b.data, b.len, &e), n == 128 ? 0 : 400);
        if (n == 128) sd_api_request_free(&r);
        sd_buf_free(&b);
    }
    size_t n = SD_API_MAX_TOOLS_BYTES;
    char *long_text = malloc(n + 1), *body;
    memset(long_text, 'x', n);
    long_text[n] = '\0';
    body = sd_sprintf(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"tools\":[{\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"description\":\"%s\"}}]}",
        long_text);
    cr_assert_eq(parse(&r, SD_API_CHAT, body, &e), 400);
    cr_assert_str_eq(e.param, "tools");
    free(body), free(long_text);
}
