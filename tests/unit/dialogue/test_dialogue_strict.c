// Strict functions: whatever an answer that the grammar lets pass is read as, its calls keep to their schemas;
// and what has no schema to keep to is free.
#include "base/clock.h"
#include "base/rng.h"
#include "model/dialogue/parameter.h"
#include "model/grammar/schema/schema.h"
#include "tests/unit/dialogue/support_rules.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char weather[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"strict\":true,\"parameters\":"
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"enum\":[\"Bern\","
    "\"Basel\"]},"
    "\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":[\"city\",\"days\"],"
    "\"additionalProperties\":false}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"free\"}}]";

static void setup(void) {
    rules_open(weather);
}

static json_t *function_of(json_t *list, size_t i) {
    return json_object_get(json_array_get(list, i), "function");
}

// ---- qwen3-coder: raw texts and JSON

#define DEFS                                                                                       \
    "\"$defs\":{\"Colour\":{\"enum\":[\"red\",\"dark blue\"]},\"Node\":{\"type\":\"object\","      \
    "\"properties\":{\"v\":{\"type\":\"string\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/"        \
    "Node\"},"                                                                                     \
    "{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"],\"additionalProperties\":false}}"

static const struct {
    const char *schema;
    const char *good[4][2]; // what stands in the tag, what it is read as
    const char *bad[3];
} parameters[] = {
    {"{\"type\":[\"string\",\"null\"]}",
     {{"Bern", "\"Bern\""}, {"null", "null"}, {"\"Bern\"", "\"\\\"Bern\\\"\""}, {"3", "\"3\""}},
     {"a</parameter>"}},
    {"{\"type\":\"string\",\"minLength\":1}", {{"ab", "\"ab\""}}, {"", "a</parameter>"}},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"default\":null,\"title\":\"T\"}",
     {{"Bern", "\"Bern\""}, {"null", "null"}, {"", "\"\""}},
     {NULL}},
    {"{\"anyOf\":[{\"$ref\":\"#/$defs/Colour\"},{\"type\":\"null\"}]}",
     {{"dark blue", "\"dark blue\""}, {"null", "null"}},
     {"green", "\"red\""}},
    {"{\"allOf\":[{\"$ref\":\"#/$defs/Colour\"}],\"description\":\"d\"}",
     {{"red", "\"red\""}},
     {"green", "\"red\""}},
    {"{\"$ref\":\"#/properties/p/$defs/"
     "own\",\"$defs\":{\"own\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}}}",
     {{"ab", "\"ab\""}, {"abc", "\"abc\""}},
     {"a", "abcd"}},
    {"{\"enum\":[\"a b\",3,null,true,\"4\"]}",
     {{"a b", "\"a b\""}, {"3", "3"}, {"true", "true"}, {"4", "\"4\""}},
     {"\"a b\"", "5"}},
    {"{\"anyOf\":[{\"$ref\":\"#/$defs/Node\"},{\"type\":\"null\"}]}",
     {{"{\"v\": \"x\", \"next\": null}", "{\"v\": \"x\", \"next\": null}"}, {"null", "null"}},
     {"x", "{\"v\": \"x\"}"}},
    {"{\"type\":\"integer\",\"minimum\":5}", {{"7", "7"}}, {"3", "\"7\"", "x"}},
    {"{\"anyOf\":[{\"type\":\"string\",\"pattern\":\"^[a-z0-9]+$\"},{\"type\":\"integer\","
     "\"minimum\":5}]}",
     {{"7", "7"}, {"3", "\"3\""}, {"abc", "\"abc\""}},
     {"A", "-7"}},
    {"{\"type\":\"string\",\"format\":\"date\"}", {{"2026-01-31", "\"2026-01-31\""}}, {"x", ""}},
    {"{\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\"}},\"required\":[\"s\"],"
     "\"additionalProperties\":false}",
     {{"{\"s\": \"a</parameter>b\"}", "{\"s\": \"a</parameter>b\"}"},
      {"{\"s\": \"\\\"</parameter>\"}", "{\"s\": \"\\\"</parameter>\"}"}},
     {"x"}},
    // What keywords speak of narrows nothing that values or branches name.
    {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"minLength\":1}",
     {{"Bern", "\"Bern\""}, {"null", "null"}},
     {""}},
    {"{\"enum\":[\"a\",\"b\"],\"minimum\":3}", {{"a", "\"a\""}}, {"c", "3"}},
    {"{\"$ref\":\"#/properties/p/$defs/own\",\"minimum\":3,\"$defs\":{\"own\":{\"type\":[\"null\","
     "\"integer\"]}}}",
     {{"null", "null"}, {"3", "3"}},
     {"2", "a"}},
    {"{\"allOf\":[{\"minLength\":2},{\"minimum\":3}]}", {{"ab", "\"ab\""}, {"4", "4"}}, {"a"}},
    {"{\"type\":\"string\",\"maxLength\":600}",
     {{"a\xc2\xa0\xe3\x80\x80\xef\xbb\xbf", "\"a\xc2\xa0\xe3\x80\x80\xef\xbb\xbf\""}},
     {"a</parameter>"}},
    // Keys of an object may repeat: it is that object all the same.
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
     {{"{\"a\": 1, \"a\": 2}", "{\"a\": 2}"}},
     {"{\"a\": \"b\"}"}},
    {"{\"type\":[\"boolean\",\"array\"],\"items\":{\"type\":\"string\"}}",
     {{"[\"a\", \"b\"]", "[\"a\", \"b\"]"}, {"false", "false"}},
     {"a", "[1]"}},
};
enum { PARAMETERS = sizeof parameters / sizeof parameters[0] };

#define TAGGED(value)                                                                              \
    "<tool_call>\n<function=f>\n<parameter=p>\n%s\n</parameter>\n</function>\n</tool_call>", value

static json_t *list_of(const char *schema) {
    char text[2048];
    snprintf(text, sizeof text,
             "[{\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":\"object\","
             "\"properties\":{\"p\":%s},\"required\":[\"p\"]," DEFS "}}}]",
             schema);
    json_t *v = json_loads(text, 0, NULL);
    cr_assert_not_null(v, "%s", text);
    return v;
}

static const sd_dialogue coder = {.format = SD_TOOL_QWEN3_CODER};

static sd_tool_rules rules_for(const sd_dialogue *d, const json_t *list, bool required) {
    return (sd_tool_rules){.d = d,
                           .t = rules_model.tokenizer,
                           .tools = list,
                           .only = -1,
                           .required = required,
                           .parallel = true};
}

// A read answer's only call: its value of "p".
static json_t *value_of(const rules_found *f) {
    cr_assert(f->n == 1 && f->content == 0, "<<%s>>", f->text.data);
    json_t *v = json_loadb(f->arguments[0].data, f->arguments[0].len, 0, NULL);
    cr_assert_not_null(v, "<<%s>>", f->arguments[0].data);
    json_t *p = json_incref(json_object_get(v, "p"));
    json_decref(v);
    cr_assert_not_null(p);
    return p;
}

Test(dialogue_strict, a_tagged_value_is_read_as_the_grammar_meant_it, .init = setup,
     .fini = rules_close) {
    for (int i = 0; i < PARAMETERS; i++) {
        json_t *list = list_of(parameters[i].schema);
        sd_tool_rules r = rules_for(&coder, list, true);
        sd_answer_options o = {
            .format = SD_TOOL_QWEN3_CODER, .calls = true, .held = true, .tools = list};
        sd_grammar *g = rules_compile(&r);
        char text[512];
        for (int k = 0; k < 4 && parameters[i].good[k][0]; k++) {
            int n = snprintf(text, sizeof text, TAGGED(parameters[i].good[k][0]));
            cr_assert(rules_pass(g, text), "%s: %s", parameters[i].schema, text);
            rules_found *f = rules_read(text, (size_t)n, &o);
            json_t *got = value_of(f),
                   *want = json_loads(parameters[i].good[k][1], JSON_DECODE_ANY, NULL);
            cr_assert(json_equal(got, want), "%s: %s became %s", parameters[i].schema, text,
                      f->arguments[0].data);
            json_decref(got), json_decref(want);
            rules_found_free(f);
        }
        for (int k = 0; k < 3 && parameters[i].bad[k]; k++) {
            snprintf(text, sizeof text, TAGGED(parameters[i].bad[k]));
            cr_assert(!rules_pass(g, text), "%s: %s", parameters[i].schema, text);
        }
        sd_grammar_release(g);
        json_decref(list);
    }
}

Test(dialogue_strict, tagged_values_of_a_model_that_knows_nothing_keep_to_their_schemas,
     .init = setup, .fini = rules_close) {
    uint64_t seed = 7;
    for (int i = 0; i < PARAMETERS; i++) {
        json_t *list = list_of(parameters[i].schema), *f = function_of(list, 0);
        sd_tool_rules r = rules_for(&coder, list, true);
        r.parallel = false;
        sd_answer_options o = {
            .format = SD_TOOL_QWEN3_CODER, .calls = true, .held = true, .tools = list};
        sd_grammar *g = rules_compile(&r);
        for (int k = 0; k < 40; k++) {
            sd_error err;
            rules_found *found = rules_walk(g, &o, &seed);
            json_t *p = value_of(found), *all = json_pack("{s:o}", "p", p);
            cr_assert_eq(sd_schema_validate(json_object_get(f, "parameters"), all, &err), SD_OK,
                         "%s: %s: <<%s>>", parameters[i].schema, err.message, found->text.data);
            json_decref(all);
            rules_found_free(found);
        }
        sd_grammar_release(g);
        json_decref(list);
    }
}

Test(dialogue_strict, enums_are_whole_and_names_of_tags_are_checked, .init = setup,
     .fini = rules_close) {
    sd_buf schema = sd_buf_make(1 << 16);
    for (int i = 0; i < 300; i++) sd_buf_printf(&schema, "%s\"v%d\"", i ? "," : "{\"enum\":[", i);
    cr_assert(sd_buf_adds(&schema, "]}") && schema.len < 60000);
    json_t *enumeration = json_loads(schema.data, 0, NULL);
    json_t *list =
        json_pack("[{s:{s:s, s:b, s:{s:s, s:{s:o}, s:[s]}}}]", "function", "name", "f", "strict", 1,
                  "parameters", "type", "object", "properties", "p", enumeration, "required", "p");
    sd_tool_rules r = rules_for(&coder, list, true);
    sd_grammar *g = rules_compile(&r);
    char text[256];
    snprintf(text, sizeof text, TAGGED("v299"));
    cr_assert(rules_pass(g, text), "the last of 300 values");
    snprintf(text, sizeof text, TAGGED("v300"));
    cr_assert(!rules_pass(g, text));
    sd_grammar_release(g);
    sd_buf_free(&schema);
    static const struct {
        const char *parameters, *says;
    } bad[] = {{"{\"properties\":{\"a\":{}},\"required\":[\"a\",\"missing\"]}", "'missing' of f"},
               {"{\"properties\":{\"a>b\":{}}}", "'a>b' of f"},
               {"{\"properties\":{\"\":{}}}", "'' of f"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"not\":{}}}}", "\"not\""},
               {"{\"patternProperties\":{}}", "'patternProperties' of f"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":4000}}}",
                "#/a: \"maxLength\" is 4000"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":90000}}}",
                "#/a: \"maxLength\" is 90000"},
               {"{\"properties\":{\"a\":{\"type\":\"string\",\"minLength\":4000}}}",
                "#/a: \"minLength\" is 4000"},
               {"{\"type\":\"array\"}", "'parameters' of f"},
               {"{\"type\":[\"object\",\"null\"]}", "'parameters' of f"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_error err;
        json_object_set_new(function_of(list, 0), "parameters",
                            json_loads(bad[i].parameters, 0, NULL));
        cr_assert_null(rules_try(&r, &err), "%s", bad[i].parameters);
        cr_assert(strstr(err.message, bad[i].says), "%s", err.message);
    }
    // A function that is not strict is not looked at, and free.
    json_object_set_new(function_of(list, 0), "strict", json_false());
    g = rules_compile(&r);
    cr_assert(rules_pass(g, "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n"
                            "<parameter=y z>\n</x>\n\n</parameter>\n</function>\n</tool_call>"));
    cr_assert(rules_pass(g, "<tool_call>\n<function=f>\n</function>\n</tool_call>"));
    sd_grammar_release(g);
    json_decref(list);
}

// ---- "auto": no way around the grammar

#define GOOD "{\"city\": \"Bern\", \"days\": 3}"
#define BAD "{\"city\": \"Rom\", \"days\": 3}"

static const char *const openings[] = {
    "",
    "Hi. ",
    "\n \n",
    "<think>Hm.</think>",
    "<think>\n</think>\n\n\n",
    "```json\n{\"a\": 1}\n```\n",
    "{\"a\": 1}",
    "<tool_call>\n{\"name\": \"free\", \"arguments\": {\"a\": 1}}\n</tool_call>\n",
    "{\"name\": \"free\", \"arguments\": {}}\n",
    "<function=free>\n</function>\n",
    "functools[{\"name\": \"free\", \"arguments\": {}}, ",
    "<|channel|>commentary<|message|>Hm.<|end|><|start|>assistant"};
// %s: the arguments.
static const char *const forms[] = {
    "{\"name\": \"get_weather\", \"arguments\": %s}",
    "{\"name\": \"get_weather\", \"parameters\": %s}",
    "{\"name\":\"get_weather\",\"arguments\":%s}",
    "{\"arguments\": %s, \"name\": \"get_weather\"}",
    "{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"arguments\": %s}}",
    "{\n  \"name\": \"get_weather\",\n  \"arguments\": %s\n}",
    "[{\"name\": \"get_weather\", \"arguments\": %s}]",
    "```json\n{\"name\": \"get_weather\", \"arguments\": %s}\n```",
    "```json\n{\n  \"name\": \"get_weather\",\n  \"arguments\": %s\n}\n```",
    "```json {\"name\": \"get_weather\", \"arguments\": %s}\n```",
    "```tool_code\n{\"name\": \"get_weather\", \"parameters\": %s}\n```",
    "```tool_call\n{\"name\": \"get_weather\", \"parameters\": %s}\n```",
    "```tool_code\nget_weather(city=\"Rom\", days=3)\n```",
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": %s}\n</tool_call>",
    "<tool_call>{\"name\": \"get_weather\", \"arguments\": %s}",
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nRom\n</parameter>\n</function>\n"
    "</tool_call>",
    "<function=get_weather>\n<parameter=city>\nRom\n</parameter>\n</function>",
    "<function=get_weather>%s</function>",
    "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": %s}",
    "; {\"name\": \"get_weather\", \"parameters\": %s}",
    "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": %s}]",
    "[TOOL_CALLS]get_weather[ARGS]%s",
    "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": %s}]<|/tool_call|>",
    "functools[{\"name\": \"get_weather\", \"arguments\": %s}]",
    "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>%s",
    " to=functions.get_weather<|channel|>commentary<|message|>%s",
    "to=functions.get_weather<|message|>%s"};
enum { OPENINGS = sizeof openings / sizeof *openings, FORMS = sizeof forms / sizeof *forms };

// Calls of the strict function whose arguments do not keep to its schema.
static int bad_calls(const rules_found *f) {
    int bad = 0;
    for (int i = 0; i < f->n; i++) {
        sd_error err;
        const char *text = f->arguments[i].data ? f->arguments[i].data : "";
        bad += sd_tool_call_check(rules_tools, f->name[i], text, f->arguments[i].len, &err) ==
               SD_EMISMATCH;
    }
    return bad;
}

static const sd_dialogue dialogues[] = {
    {.format = SD_TOOL_HERMES},
    {.format = SD_TOOL_HERMES, .think = SD_THINK_TAGS},
    {.format = SD_TOOL_QWEN3_CODER},
    {.format = SD_TOOL_QWEN3_CODER, .think = SD_THINK_TAGS},
    {.format = SD_TOOL_LLAMA3},
    {.format = SD_TOOL_LLAMA3, .think = SD_THINK_TAGS},
    {.format = SD_TOOL_MISTRAL},
    {.format = SD_TOOL_MISTRAL, .think = SD_THINK_BRACKETS, .args_marker = true},
    {.format = SD_TOOL_GEMMA},
    {.format = SD_TOOL_PHI4},
    {.format = SD_TOOL_PHI4, .think = SD_THINK_TAGS},
    {.format = SD_TOOL_HARMONY}};
enum { DIALOGUES = sizeof dialogues / sizeof *dialogues };

Test(dialogue_strict, no_form_of_a_call_gets_around_the_grammar, .init = setup, .fini = rules_close,
     .timeout = 120) {
    char call[512], text[2048];
    int escaped = 0;
    for (int d = 0; d < DIALOGUES; d++) {
        sd_tool_rules r = rules_for(&dialogues[d], rules_tools, false);
        sd_grammar *g = rules_compile(&r);
        sd_answer_options o = {.format = dialogues[d].format,
                               .think = dialogues[d].think,
                               .calls = true,
                               .held = true,
                               .tools = rules_tools};
        int passed = 0, before = escaped;
        for (int a = 0; a < OPENINGS; a++)
            for (int b = 0; b < FORMS; b++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                snprintf(call, sizeof call, forms[b], BAD);
#pragma GCC diagnostic pop
                int n = snprintf(text, sizeof text, "%s%s", openings[a], call);
                o.held = false; // as an answer that nothing holds is read
                rules_found *f = rules_read(text, (size_t)n, &o);
                bool is_call = bad_calls(f) > 0;
                rules_found_free(f);
                o.held = true;
                if (!rules_pass(g, text)) continue;
                passed++;
                f = rules_read(text, (size_t)n, &o);
                cr_assert_eq(bad_calls(f), 0, "%s, think %d: <<%s>>", sd_tool_format_name(o.format),
                             (int)o.think, text);
                escaped += is_call;
                rules_found_free(f);
            }
        cr_assert(passed > 0 || o.format == SD_TOOL_HARMONY, "%s", sd_tool_format_name(o.format));
        if (o.format == SD_TOOL_HERMES || o.format == SD_TOOL_QWEN3_CODER ||
            o.format == SD_TOOL_GEMMA)
            cr_assert_gt(escaped, before, "%s: such answers pass, and are content",
                         sd_tool_format_name(o.format));
        sd_grammar_release(g);
    }
}

Test(dialogue_strict, calls_without_a_marker_are_held_where_they_are_the_answer, .init = setup,
     .fini = rules_close) {
    static const struct {
        sd_tool_format format;
        const char *form;
    } row[] = {
        {SD_TOOL_HERMES, "{\"name\": \"get_weather\", \"arguments\": %s}"},
        {SD_TOOL_HERMES, "{\n  \"name\": \"get_weather\",\n  \"arguments\": %s\n}"},
        {SD_TOOL_HERMES, "```json\n{\"name\": \"get_weather\", \"arguments\": %s}\n```"},
        {SD_TOOL_HERMES, "```json\n{\n  \"name\": \"get_weather\",\n  \"arguments\": %s\n}\n```"},
        {SD_TOOL_GEMMA, "{\"name\": \"get_weather\", \"parameters\": %s}"},
        {SD_TOOL_GEMMA, "```json\n{\"name\": \"get_weather\", \"parameters\": %s}\n```"},
        {SD_TOOL_PHI4, "functools[{\"name\": \"get_weather\", \"arguments\": %s}]"},
        {SD_TOOL_LLAMA3, "{\"name\": \"get_weather\", \"parameters\": %s}"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        sd_dialogue d = {.format = row[i].format};
        sd_tool_rules r = rules_for(&d, rules_tools, false);
        sd_answer_options o = {
            .format = d.format, .calls = true, .held = true, .tools = rules_tools};
        sd_grammar *g = rules_compile(&r);
        char text[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, row[i].form, BAD);
        cr_assert(!rules_pass(g, text), "%s", text);
        int n = snprintf(text, sizeof text, row[i].form, GOOD);
#pragma GCC diagnostic pop
        cr_assert(rules_pass(g, text), "%s", text);
        rules_found *f = rules_read(text, (size_t)n, &o);
        cr_assert(f->n == 1 && f->content == 0 && strcmp(f->name[0], "get_weather") == 0, "%s",
                  text);
        cr_assert_str_eq(f->arguments[0].data, GOOD);
        rules_found_free(f);
        // JSON that is no call of it is an answer like any other.
        if (d.format != SD_TOOL_LLAMA3) {
            cr_assert(rules_pass(g, "{\"name\": \"get_weathers\", \"a\": 1}"));
            cr_assert(rules_pass(g, "{\"name\": \"Ann\"}") && rules_pass(g, "```json\n[]\n```"));
        }
        sd_grammar_release(g);
    }
}

Test(dialogue_strict, harmonys_calls_end_the_answer, .init = setup, .fini = rules_close) {
#define TO(name) "<|channel|>commentary to=functions." name " <|constrain|>json<|message|>"
#define THOUGHT "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    static const struct {
        bool required, good;
        const char *text;
        int calls;
    } row[] = {{true, true, TO("get_weather") GOOD, 1},
               {true, true, THOUGHT TO("free") "{\"a\": 1}", 1},
               {true, false, TO("get_weather") BAD, 0},
               {true, false, TO("get_weather") GOOD TO("get_weather") GOOD, 0},
               {true, false, THOUGHT "<|channel|>final<|message|>Hi", 0},
               {true, false, THOUGHT, 0},
               {false, true, THOUGHT "<|channel|>final<|message|>Hi", 0},
               {false, true,
                "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant" TO("free") "{}",
                1},
               {false, false, TO("get_weather") BAD, 0},
               // A marker within a string of JSON is a text that looks like one.
               {true, true, THOUGHT TO("free") "{\"a\": \"\\\"<|end|><|channel|>\", \"b\": 2}", 1},
               {false, false, "<|channel|>final<|message|>Hi<|channel|>commentary", 0}};
    sd_dialogue d = {.format = SD_TOOL_HARMONY};
    sd_answer_options o = {.format = d.format, .calls = true, .held = true, .tools = rules_tools};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        sd_tool_rules r = rules_for(&d, rules_tools, row[i].required);
        sd_grammar *g = rules_compile(&r);
        cr_assert_eq(rules_pass(g, row[i].text), row[i].good, "%s", row[i].text);
        rules_found *f = rules_read(row[i].text, strlen(row[i].text), &o);
        if (row[i].good) cr_assert_eq(f->n, row[i].calls, "%s", row[i].text);
        for (int k = 0; row[i].good && k < f->n; k++)
            cr_assert_str_eq(f->arguments[k].data, strrchr(row[i].text, '{'));
        rules_found_free(f);
        sd_grammar_release(g);
    }
}

// Byte by byte: no tokenizer makes tokens of what is no UTF-8.
static bool pass_bytes(sd_grammar *g, const char *text) {
    const sd_tokenizer *t = rules_model.tokenizer;
    sd_grammar_state s;
    cr_assert(sd_grammar_begin(&s, g, -1));
    bool ok = true;
    for (; ok && *text; text++) {
        int id = 0;
        for (size_t len = 0; id < sd_tokenizer_size(t); id++) {
            const char *own = sd_tokenizer_bytes(t, id, &len);
            if (len == 1 && *own == *text && !sd_tokenizer_is_special(t, id)) break;
        }
        ok = sd_grammar_accept(&s, id);
    }
    ok = ok && sd_grammar_can_end(&s);
    sd_grammar_end(&s);
    return ok;
}

// The last token of a budget may end within a character; what closes the reasoning follows all the same.
Test(dialogue_strict, reasoning_may_be_cut_within_a_character, .init = setup, .fini = rules_close) {
    static const char *const cut[] = {"\xC3", "\xE2",     "\xE2\x82",
                                      "\xF0", "\xF0\x9F", "\xF0\x9F\x98"};
    static const sd_dialogue tags = {.format = SD_TOOL_HERMES, .think = SD_THINK_TAGS},
                             channels = {.format = SD_TOOL_HARMONY};
    for (int k = 0; k < 4; k++) {
        const sd_dialogue *d = k < 2 ? &tags : &channels;
        bool form = k % 2;
        sd_tool_rules r = rules_for(d, form ? NULL : rules_tools, true);
        r.in_reasoning = d == &tags;
        if (form) r.form = (sd_grammar_spec){SD_GRAMMAR_CHOICE, "[\"yes\"]", 7};
        sd_grammar *g = rules_compile(&r);
        for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
            char text[512];
            snprintf(text, sizeof text, "%sHm %s%s%s",
                     d == &tags ? "" : "<|channel|>analysis<|message|>", cut[i],
                     d == &tags ? "\n</think>\n\n" : "<|end|><|start|>assistant",
                     form ? (d == &tags ? "yes" : "<|channel|>final<|message|>yes")
                     : d == &tags
                         ? "<tool_call>\n{\"name\": \"free\", \"arguments\": {}}\n</tool_call>"
                         : TO("free") "{}");
            cr_assert(pass_bytes(g, text), "%s", text);
        }
        sd_grammar_release(g);
    }
}

// ---- many tools

Test(dialogue_strict, calls_of_128_functions_can_be_forced, .init = setup, .fini = rules_close,
     .timeout = 60) {
    json_t *list = json_array();
    for (int i = 0; i < 128; i++) {
        char name[24];
        snprintf(name, sizeof name, "tool_%d", i);
        json_array_append_new(list, json_pack("{s:{s:s}}", "function", "name", name));
    }
    for (int d = 0; d < DIALOGUES; d++) {
        sd_error err;
        sd_tool_rules r = rules_for(&dialogues[d], list, true);
        sd_grammar *g = rules_try(&r, &err);
        cr_assert_not_null(g, "%s: %s", sd_tool_format_name(dialogues[d].format), err.message);
        sd_grammar_release(g);
    }
    sd_tool_rules r = rules_for(&dialogues[0], list, true);
    sd_grammar *g = rules_compile(&r);
    cr_assert(rules_pass(
        g, "<tool_call>\n{\"name\": \"tool_127\", \"arguments\": {\"a\": [{}]}}\n</tool_call>"));
    sd_grammar_stats stats;
    sd_grammar_get_stats(g, &stats);
    cr_assert_lt(stats.nodes, 128 * 200, "%d nodes: any object is made once", stats.nodes);
    sd_grammar_release(g);
    // Strict ones as well, where calls without a marker are held too.
    for (size_t i = 0; i < 128; i++)
        json_object_set_new(function_of(list, i), "strict", json_true());
    for (int d = 0; d < DIALOGUES; d++) {
        r = rules_for(&dialogues[d], list, false);
        sd_grammar_release(rules_compile(&r));
    }
    // With many strings that may be anything, or null.
    for (size_t i = 0; i < 128; i++) {
        json_t *properties = json_object();
        for (int k = 0; k < 16; k++) {
            char name[24];
            snprintf(name, sizeof name, "p%d", k);
            json_object_set_new(
                properties, name,
                k % 2 ? json_pack("{s:s}", "type", "string")
                      : json_pack("{s:[{s:s},{s:s}]}", "anyOf", "type", "string", "type", "null"));
        }
        json_object_set_new(function_of(list, i), "parameters",
                            json_pack("{s:s, s:o}", "type", "object", "properties", properties));
    }
    r = rules_for(&coder, list, true);
    sd_grammar_release(rules_compile(&r));
    json_decref(list);
}

// ---- arguments are an object

Test(dialogue_strict, arguments_are_an_object_whatever_the_schema, .init = setup,
     .fini = rules_close) {
    json_t *list = json_pack("[{s:{s:s, s:b}}]", "function", "name", "f", "strict", 1);
    static const sd_dialogue hermes = {.format = SD_TOOL_HERMES};
    sd_tool_rules r = rules_for(&hermes, list, true);
    sd_error err;
    static const char *const bad[] = {
        "{\"type\":\"array\"}", "{\"type\":[\"object\",\"string\"]}", "{\"minLength\":1}",
        "{\"anyOf\":[{\"type\":\"object\"},{\"type\":\"null\"}]}", "{\"enum\":[{},1]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_object_set_new(function_of(list, 0), "parameters", json_loads(bad[i], 0, NULL));
        cr_assert_null(rules_try(&r, &err), "%s", bad[i]);
        cr_assert(err.status == SD_EINVAL && strstr(err.message, "'parameters' of f"), "%s",
                  err.message);
        cr_assert(strstr(err.message, "\"type\": \"object\""), "%s", err.message);
    }
    // One that says nothing lets any object through, one that names an object what it says.
    static const struct {
        const char *parameters, *arguments;
        bool good;
    } row[] = {{"{}", "5", false},
               {"{}", "\"x\"", false},
               {"{}", "{\"a\": [1]}", true},
               {"{\"$comment\":\"c\",\"x-own\":1,\"$defs\":{}}", "{\"a\": 1}", true},
               {"{\"$comment\":\"c\",\"x-own\":1,\"$defs\":{}}", "[]", false},
               {"{\"additionalProperties\":{\"type\":\"null\"}}", "{\"a\": null}", true},
               {"{\"additionalProperties\":{\"type\":\"null\"}}", "{\"a\": 1}", false},
               {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"object\"}}}", "{}", true}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[256];
        json_object_set_new(function_of(list, 0), "parameters",
                            json_loads(row[i].parameters, 0, NULL));
        snprintf(text, sizeof text,
                 "<tool_call>\n{\"name\": \"f\", \"arguments\": %s}\n</tool_call>",
                 row[i].arguments);
        sd_grammar *g = rules_compile(&r);
        cr_assert_eq(rules_pass(g, text), row[i].good, "%s: %s", row[i].parameters, text);
        sd_grammar_release(g);
    }
    // As tags: annotations are none of its business, and any parameter may come where nothing is said.
    r.d = &coder;
    char text[256];
    static const char *const said[] = {
        "{\"$comment\":\"c\",\"examples\":[1],\"x-own\":1,\"$id\":\"https://example.com/"
        "a\",\"properties\":{\"p\":{\"type\":\"string\"}}}",
        "{}"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        json_object_set_new(function_of(list, 0), "parameters", json_loads(said[i], 0, NULL));
        sd_grammar *g = rules_compile(&r);
        snprintf(text, sizeof text, TAGGED("a"));
        cr_assert(rules_pass(g, text), "%s", said[i]);
        sd_grammar_release(g);
    }
    json_decref(list);
}

// ---- what takes many steps for its size

// Refused for the account, and soon: a bound that only work without an account passes.
static void expect_refused(json_t *parameters) {
    json_t *list = json_pack("[{s:{s:s, s:b, s:o}}]", "function", "name", "f", "strict", 1,
                             "parameters", parameters);
    sd_tool_rules r = rules_for(&coder, list, true);
    sd_error err;
    double begin = sd_now_s();
    cr_assert_null(rules_try(&r, &err));
    cr_assert_eq(err.status, SD_ELIMIT, "%s", err.message);
    cr_assert_lt(sd_now_s() - begin, 2, "%g s", sd_now_s() - begin);
    json_decref(list);
}

// d0: a string; di: one of four d(i - 1).
static json_t *four_ways(int levels) {
    json_t *defs = json_pack("{s:{s:s}}", "d0", "type", "string");
    for (int i = 1; i <= levels; i++) {
        char name[16], ref[32];
        snprintf(name, sizeof name, "d%d", i);
        snprintf(ref, sizeof ref, "#/$defs/d%d", i - 1);
        json_object_set_new(defs, name,
                            json_pack("{s:[{s:s},{s:s},{s:s},{s:s}]}", "anyOf", "$ref", ref, "$ref",
                                      ref, "$ref", ref, "$ref", ref));
    }
    return defs;
}

Test(dialogue_strict, types_of_parameters_are_found_on_the_account, .init = setup,
     .fini = rules_close) {
    json_t *properties = json_object(), *defs = four_ways(7);
    char name[16];
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "p%d", i);
        json_object_set_new(properties, name, json_pack("{s:s}", "$ref", "#/$defs/d7"));
    }
    json_t *parameters =
        json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "$defs", defs);
    // A walk is charged, and ends: 4^7 schemas are more than it looks at.
    int64_t left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "p0", &left), SD_T_STRING);
    cr_assert(left < 950000 && left > 800000, "%lld", (long long)left);
    expect_refused(parameters);
    // An enum that is read is looked at whole; what is said beside too many schemas holds.
    json_t *values = json_array(), *many = json_array();
    for (int i = 0; i < 4096; i++) json_array_append_new(values, json_integer(i));
    for (int i = 0; i < 18000; i++) json_array_append_new(many, json_true());
    parameters = json_pack("{s:{s:{s:o}, s:{s:s, s:o}}}", "properties", "p", "enum", values, "q",
                           "type", "null", "allOf", many);
    left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "p", &left), SD_T_INTEGER);
    cr_assert(left > 990000 && left < 999000, "%lld", (long long)left);
    left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "q", &left), SD_T_NULL);
    cr_assert(left < 950000 && left > 800000, "%lld", (long long)left);
    json_decref(parameters);
    // A reference is paid for by its length.
    sd_buf ref = sd_buf_make(1 << 17);
    for (int i = 0; i < 40000; i++) sd_buf_adds(&ref, i ? "/a" : "#");
    parameters = json_pack("{s:{s:{s:s}}}", "properties", "p", "$ref", ref.data);
    left = 1000000;
    cr_assert_eq(sd_parameter_types(parameters, "p", &left), SD_T_STRING);
    cr_assert_lt(left, 900000, "%lld", (long long)left);
    json_decref(parameters);
    sd_buf_free(&ref);
}

Test(dialogue_strict, required_properties_are_looked_up_on_the_account, .init = setup,
     .fini = rules_close) {
    json_t *properties = json_object(), *required = json_array();
    for (int i = 0; i < 15000; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        json_object_set_new(properties, name, json_pack("{s:s}", "type", "null"));
        json_array_insert_new(required, 0, json_string(name));
    }
    expect_refused(json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties,
                             "required", required));
}

// ---- the check at the end

// By the check that comes with the grammar: the answer's text alone is given.
Test(dialogue_strict, answers_are_read_again_and_checked, .init = setup, .fini = rules_close) {
#define FORM                                                                                       \
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]}"
    static const struct {
        sd_tool_format format;
        sd_think_style think;
        bool in_reasoning, form;
        const char *text;
        sd_status st;
    } row[] = {
        {SD_TOOL_HERMES, 0, 0, 0,
         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " GOOD "}\n</tool_call>", SD_OK},
        {SD_TOOL_HERMES, 0, 0, 0,
         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " GOOD "}\n</tool_call>\n"
         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " BAD "}\n</tool_call>",
         SD_EMISMATCH},
        {SD_TOOL_HERMES, 0, 0, 0,
         "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " BAD
         "}\n</tool_call>\n<tool_call>\n{\"name\": \"free\", \"arguments\": {}}\n</tool_call>",
         SD_EMISMATCH},
        {SD_TOOL_HERMES, SD_THINK_TAGS, 1, 0,
         "Hm.\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " BAD
         "}\n</tool_call>",
         SD_EMISMATCH},
        {SD_TOOL_HARMONY, 0, 0, 0, THOUGHT TO("get_weather") BAD, SD_EMISMATCH},
        {SD_TOOL_HARMONY, 0, 0, 0, THOUGHT TO("get_weather") GOOD, SD_OK},
        {SD_TOOL_HERMES, SD_THINK_TAGS, 1, 1, "Hm.\n</think>\n\n{\"a\": 1}", SD_OK},
        {SD_TOOL_HERMES, SD_THINK_TAGS, 1, 1, "Hm.\n</think>\n\n{\"a\": \"1\"}", SD_EMISMATCH},
        {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, "<think>Hm.</think>{\"a\": 1}", SD_OK},
        {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, "{\"a\": 1}", SD_OK},
        {SD_TOOL_HERMES, SD_THINK_TAGS, 0, 1, "{\"a\": 1.5}", SD_EMISMATCH},
        {SD_TOOL_HARMONY, 0, 0, 1, THOUGHT "<|channel|>final<|message|>{\"a\": 1}", SD_OK},
        {SD_TOOL_HARMONY, 0, 0, 1, THOUGHT "<|channel|>final<|message|>{}", SD_EMISMATCH},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        sd_error err = {0};
        sd_dialogue d = {.format = row[i].format, .think = row[i].think};
        sd_tool_rules r = rules_for(&d, row[i].form ? NULL : rules_tools, !row[i].form);
        r.in_reasoning = row[i].in_reasoning;
        if (row[i].form) r.form = (sd_grammar_spec){SD_GRAMMAR_SCHEMA, FORM, strlen(FORM)};
        sd_grammar *g = rules_compile(&r);
        // What passes is right, and what is wrong does not pass.
        cr_assert_eq(rules_pass(g, row[i].text), row[i].st == SD_OK, "%s", row[i].text);
        cr_assert_eq(sd_grammar_check(g, row[i].text, strlen(row[i].text), &err), row[i].st,
                     "%s: %s", row[i].text, err.message);
        sd_grammar_release(g);
    }
}

Test(dialogue_strict, finished_calls_are_checked_once_more, .init = setup, .fini = rules_close) {
    static const struct {
        const char *name, *arguments;
        sd_status st;
    } row[] = {{"get_weather", GOOD, SD_OK},
               {"get_weather", BAD, SD_EMISMATCH},
               {"get_weather", "{\"city\": \"Bern\"", SD_EMISMATCH},
               {"get_weather", "", SD_EMISMATCH},
               {"free", "{\"city\": \"Bern\"", SD_OK},
               {"other", BAD, SD_OK}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        sd_error err = {0};
        cr_assert_eq(sd_tool_call_check(rules_tools, row[i].name, row[i].arguments,
                                        strlen(row[i].arguments), &err),
                     row[i].st, "%s: %s", row[i].arguments, err.message);
    }
    // Where an answer stops is known, so that a call that was cut off is told from one that is wrong.
    static const struct {
        const char *text;
        bool in_call;
    } end[] = {{"<tool_call>\n{\"name\": \"free\", \"arguments\": {\"a\"", true},
               {"<tool_call>\n{\"name\": \"free\", \"arguments\": {\"a\": 1}", true},
               {"<tool_call>\n{\"name\": \"free\", \"arguments\": {\"a\": 1}}", false},
               {"<tool_call>\n{\"name\": \"free\", \"arguments\": {}}\n</tool_call> x", false},
               {"Hi", false}};
    for (size_t i = 0; i < sizeof end / sizeof *end; i++) {
        sd_answer_options o = {.format = SD_TOOL_HERMES, .calls = true, .tools = rules_tools};
        rules_found *f = rules_read(end[i].text, strlen(end[i].text), &o);
        cr_assert_eq(f->in_call, end[i].in_call, "%s", end[i].text);
        rules_found_free(f);
    }
}
