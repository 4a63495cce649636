// Strict functions: whatever an answer that the grammar lets pass is read as, its calls keep to their schemas;
// and what has no schema to keep to is free.
#include "base/rng.h"
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
        json_object_set_new(rules_function(list, i), "strict", json_true());
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
        json_object_set_new(rules_function(list, i), "parameters",
                            json_pack("{s:s, s:o}", "type", "object", "properties", properties));
    }
    r = rules_for(&dialogues[2], list, true);
    sd_grammar_release(rules_compile(&r));
    json_decref(list);
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
