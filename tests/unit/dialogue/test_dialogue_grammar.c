// Answers with calls as grammars: what they let pass, and that the machine which reads answers finds in each
// of them the calls that keep to their schemas.
#include "base/memory.h"
#include "base/rng.h"
#include "model/dialogue/answer.h"
#include "model/dialogue/tool_grammar.h"
#include "model/grammar/schema/schema.h"
#include "tests/unit/dialogue/support_rules.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char tool_list[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"strict\":true,\"parameters\":"
    "{\"type\":"
    "\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"enum\":[\"Bern\",\"Z\xC3\xBCrich\"]"
    "},\"days\":{\"type\":"
    "\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":[\"city\",\"days\"],"
    "\"additionalProperties\":false}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"off\",\"strict\":true}}]";

static void setup(void) {
    rules_open(tool_list);
}

#define ARGS "{\"city\": \"Bern\", \"days\": 3}"
#define HERMES(name, args)                                                                         \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " args "}\n</tool_call>"
#define PLAIN(name, args) "{\"name\": \"" name "\", \"arguments\": " args "}"
#define LLAMA(name, args) "{\"name\": \"" name "\", \"parameters\": " args "}"

typedef struct {
    sd_tool_format format;
    sd_think_style think;
    bool args_marker, required, parallel, in_reasoning;
    int only;
    const char *text;
    bool good;
} row;

static const row rows[] = {
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, HERMES("get_weather", ARGS), true},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, HERMES("get_weather", ARGS) "\n" HERMES("off", "{}"), true},
    {SD_TOOL_HERMES, 0, 0, 1, 0, 0, -1, HERMES("get_weather", ARGS) "\n" HERMES("off", "{}"),
     false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, "", false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, "Hi", false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, HERMES("other", "{}"), false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, HERMES("get_weather", "{\"city\": \"Rom\", \"days\": 3}"),
     false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, -1, HERMES("get_weather", "{\"city\": \"Bern\"}"), false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, 1, HERMES("get_weather", ARGS), false},
    {SD_TOOL_HERMES, 0, 0, 1, 1, 0, 1, HERMES("off", "{}"), true},
    {SD_TOOL_HERMES, 0, 0, 0, 1, 0, -1, "", true},
    {SD_TOOL_HERMES, 0, 0, 0, 1, 0, -1, "Hi, <tool or not.", true},
    {SD_TOOL_HERMES, 0, 0, 0, 1, 0, -1,
     "So: " HERMES("off", "{}") " and\n" HERMES("get_weather", ARGS) ".", true},
    {SD_TOOL_HERMES, 0, 0, 0, 0, 0, -1, "So: " HERMES("off", "{}") HERMES("off", "{}"), false},
    {SD_TOOL_HERMES, 0, 0, 0, 1, 0, -1, "So: <tool_call> x", false},
    {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, 1, 0, -1,
     "<think>\nHm.\n</think>\n\n" HERMES("off", "{}"), true},
    {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, 1, 0, -1, HERMES("off", "{}"), true},
    {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, 1, 1, -1, "Hm.\n</think>\n\n" HERMES("off", "{}"), true},
    {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, 1, 1, -1, HERMES("off", "{}"), false},
    {SD_TOOL_QWEN3_CODER, 0, 0, 1, 1, 0, -1,
     "<tool_call>\n<function=get_weather>\n<parameter=city>\nBern\n</"
     "parameter>\n<parameter=days>\n3\n</parameter>\n"
     "</function>\n</tool_call>",
     true},
    {SD_TOOL_QWEN3_CODER, 0, 0, 1, 1, 0, -1,
     "<tool_call>\n<function=get_weather>\n<parameter=city>\nRom\n</parameter>\n", false},
    {SD_TOOL_QWEN3_CODER, 0, 0, 1, 1, 0, -1,
     "<tool_call>\n<function=off>\n</function>\n</tool_call>", true},
    {SD_TOOL_LLAMA3, 0, 0, 1, 1, 0, -1, LLAMA("get_weather", ARGS) "; " LLAMA("off", "{}"), true},
    {SD_TOOL_LLAMA3, 0, 0, 0, 1, 0, -1, LLAMA("off", "{}"), true},
    {SD_TOOL_LLAMA3, 0, 0, 0, 1, 0, -1, "Hi {there}", true},
    {SD_TOOL_LLAMA3, 0, 0, 0, 1, 0, -1, "{\"a\": 1}", false},
    {SD_TOOL_MISTRAL, 0, 0, 1, 1, 0, -1,
     "[TOOL_CALLS][" PLAIN("off", "{}") ", " PLAIN("get_weather", ARGS) "]", true},
    {SD_TOOL_MISTRAL, 0, 1, 1, 1, 0, -1,
     "[TOOL_CALLS]off[ARGS]{}[TOOL_CALLS]get_weather[ARGS]" ARGS, true},
    {SD_TOOL_MISTRAL, 0, 1, 0, 1, 0, -1, "Hi[TOOL_CALLS]off[ARGS]{}", true},
    {SD_TOOL_GEMMA, 0, 0, 1, 1, 0, -1, "```tool_code\n" LLAMA("get_weather", ARGS) "\n```", true},
    {SD_TOOL_PHI4, 0, 0, 1, 1, 0, -1,
     "<|tool_call|>[" PLAIN("off", "{}") ", " PLAIN("get_weather", ARGS) "]<|/tool_call|>", true},
};

static sd_tool_rules rules_of(const row *x, sd_dialogue *d) {
    *d = (sd_dialogue){.format = x->format, .think = x->think, .args_marker = x->args_marker};
    return (sd_tool_rules){.d = d,
                           .t = rules_model.tokenizer,
                           .tools = rules_tools,
                           .only = x->only,
                           .required = x->required,
                           .parallel = x->parallel,
                           .in_reasoning = x->in_reasoning};
}

Test(dialogue_grammar, only_answers_that_keep_to_the_rules_pass, .init = setup,
     .fini = rules_close) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_dialogue d;
        sd_tool_rules r = rules_of(&rows[i], &d);
        sd_grammar *g = rules_compile(&r);
        cr_assert_eq(rules_pass(g, rows[i].text), rows[i].good, "row %zu, %s: <<%s>>", i,
                     sd_tool_format_name(d.format), rows[i].text);
        sd_grammar_release(g);
    }
}

// ---- what a model that knows nothing writes under the grammar

static void walk(sd_grammar *g, const sd_dialogue *d, uint64_t *seed) {
    sd_answer_options o = {.format = d->format, .calls = true, .held = true, .tools = rules_tools};
    rules_found *f = rules_walk(g, &o, seed);
    sd_error err;
    cr_assert(f->n >= 1 && f->content == 0, "%s: %d calls in <<%s>>",
              sd_tool_format_name(d->format), f->n, f->text.data);
    const json_t *schema =
        json_object_get(json_object_get(json_array_get(rules_tools, 0), "function"), "parameters");
    for (int i = 0; i < f->n; i++) {
        json_t *v = json_loadb(f->arguments[i].data, f->arguments[i].len, 0, NULL);
        bool weather = strcmp(f->name[i], "get_weather") == 0;
        cr_assert(v && (weather || strcmp(f->name[i], "off") == 0), "<<%s>>", f->text.data);
        cr_assert(!weather || sd_schema_validate(schema, v, &err) == SD_OK, "%s: <<%s>>",
                  err.message, f->text.data);
        json_decref(v);
    }
    rules_found_free(f);
}

Test(dialogue_grammar, forced_calls_are_read_as_such_and_keep_to_their_schemas, .init = setup,
     .fini = rules_close) {
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].required || rows[i].think) continue;
        sd_dialogue d;
        sd_tool_rules r = rules_of(&rows[i], &d);
        sd_grammar *g = rules_compile(&r);
        for (int k = 0; k < 20; k++) walk(g, &d, &seed);
        sd_grammar_release(g);
    }
}

// What tags cannot enforce is refused by its name where the function is strict, and let be where it is not.
Test(dialogue_grammar, a_keyword_that_tags_do_not_enforce_is_named, .init = setup,
     .fini = rules_close) {
    static const struct {
        const char *parameters, *names;
    } bad[] = {{"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":["
                "\"a\",\"b\"]}",
                "'b' of f is required"},
               {"{\"type\":\"object\",\"anyOf\":[{}]}", "anyOf"}};
    for (int i = 0; i < 4; i++) {
        sd_error err = {0};
        sd_dialogue d = {.format = SD_TOOL_QWEN3_CODER};
        json_t *list = json_pack("[{s:{s:s, s:b, s:o}}]", "function", "name", "f", "strict", i < 2,
                                 "parameters", json_loads(bad[i % 2].parameters, 0, NULL));
        sd_tool_rules r = {
            .d = &d, .t = rules_model.tokenizer, .tools = list, .only = -1, .required = true};
        sd_grammar_builder *b = sd_grammar_builder_open();
        int e = sd_gb_tool_answer(b, &r, &err);
        cr_assert_eq(e < 0, i < 2, "%s", bad[i % 2].parameters);
        cr_assert(i >= 2 || strstr(err.message, bad[i % 2].names), "%s", err.message);
        sd_grammar_builder_close(b);
        json_decref(list);
    }
}

Test(dialogue_grammar, texts_that_are_no_rules_are_refused, .init = setup, .fini = rules_close) {
    static const char *const texts[] = {"", "{}", "[]", "{\"format\": 1, \"tools\": []}",
                                        "{\"format\": 99, \"tools\": [{}]}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        sd_error err = {0};
        sd_grammar_builder *b = sd_grammar_builder_open();
        cr_assert_eq(sd_gb_tool_rules(b, rules_model.tokenizer, texts[i], strlen(texts[i]), &err),
                     -1, "%s", texts[i]);
        cr_assert_neq(err.status, SD_OK, "%s", texts[i]);
        sd_grammar_builder_close(b);
    }
}
