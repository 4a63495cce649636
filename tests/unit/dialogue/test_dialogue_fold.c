// What templates take, found by trying them out, and conversations folded into it. The templates are short
// ones with the traits of real families.
#include "base/memory.h"
#include "model/dialogue/dialogue.h"
#include "model/template/template.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define TURNS(inside) "{% for m in messages %}[{{ m.role }}]" inside "{% endfor %}"
#define CALLS(arguments)                                                                           \
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} " arguments  \
    "</tool_call>{% endfor %}"
#define TOOLS "{% if tools %}{{ tools | tojson }}{% endif %}"

// Tools, calls and late system turns, all written.
static const char qwen[] = TOOLS TURNS(CALLS("{{ c.function.arguments | tojson }}"));
static const char coder[] = TOOLS TURNS(
    CALLS("{% for k, v in c.function.arguments | items %}<parameter={{ k }}>{{ v }}{% endfor %}"));
static const char texts[] = TOOLS TURNS(CALLS("{{ c.function.arguments }}"));
static const char plain[] = TURNS("{{ m.content }}");
// Ids of nine, a system turn at the beginning alone.
static const char nine[] =
    TOOLS "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ "
          "raise_exception('no') }}"
          "{% endif %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}{% if c.id | "
          "length != 9 %}"
          "{{ raise_exception('nine') }}{% endif %}[TOOL_CALLS]{{ c.id }} {{ c.function.name }} "
          "{{ c.function.arguments | tojson }}{% endfor %}{% if m.role == 'tool' %}{% if "
          "m.tool_call_id | length "
          "!= 9 %}{{ raise_exception('nine') }}{% endif %}({{ m.tool_call_id }} {{ m.name }}){% "
          "endif %}{% endfor %}";
static const char single[] =
    TOOLS "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length != 1 %}{{ "
          "raise_exception('one') }}"
          "{% endif %}[{{ m.role }}]" CALLS("{{ c.function.arguments | tojson }}") "{% endfor %}";
// No system turn, and user and assistant take turns.
static const char gemma[] = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 "
                            "== 0) %}{{ raise_exception('alternate') }}"
                            "{% endif %}<start_of_turn>[{{ m.role }}]{{ m.content }}{% endfor %}";
// Only the last call and the last system turn are written.
static const char last_alone[] =
    TOOLS "{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}{% set "
          "ns.s = m.content %}"
          "{% endif %}{% endfor %}{{ ns.s }}{% for m in messages %}{% if m.role != 'system' %}[{{ "
          "m.role }}]{{ m.content }}"
          "{% if m.tool_calls %}<tool_call>{{ m.tool_calls[-1].function | tojson }}{% endif %}{% "
          "endif %}{% endfor %}";
// Tools in a way of its own, which no format here reads.
static const char foreign[] = TOOLS TURNS(
    "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c | tojson }}{% endfor %}");
static const char first_only[] = // later system turns are dropped without a word
    "{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}]{{ m.content "
    "}}{% endif %}"
    "{% endfor %}";

typedef struct {
    sd_template *t;
    sd_dialogue d;
} tried;

static tried try_out(const char *source) {
    tried r = {0};
    sd_model m = {0};
    sd_error err;
    cr_assert_eq(sd_template_open(&r.t, source, strlen(source), &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_dialogue_of(&r.d, &m, r.t, -1, &err), SD_OK, "%s", err.message);
    return r;
}

Test(dialogue_fold, what_a_template_takes_is_found_by_trying) {
    static const struct {
        const char *source;
        sd_tool_format format;
        bool tools, history, one_call, text_arguments, short_ids, system, late_system;
    } row[] = {{qwen, SD_TOOL_HERMES, true, true, false, false, false, true, true},
               {coder, SD_TOOL_HERMES, true, true, false, false, false, true, true},
               {texts, SD_TOOL_HERMES, true, true, false, true, false, true, true},
               {plain, SD_TOOL_HERMES, false, false, false, false, false, true, true},
               {nine, SD_TOOL_MISTRAL, true, true, false, false, true, true, false},
               {single, SD_TOOL_HERMES, true, true, true, false, false, true, true},
               {gemma, SD_TOOL_GEMMA, false, false, false, false, false, false, false},
               {last_alone, SD_TOOL_HERMES, true, true, true, false, false, true, false},
               {foreign, SD_TOOL_HERMES, false, false, false, false, false, true, true},
               {first_only, SD_TOOL_HERMES, false, false, false, false, false, true, false}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        tried r = try_out(row[i].source);
        cr_assert_eq(r.d.format, row[i].format, "%zu", i);
        cr_assert_eq(r.d.tools, row[i].tools, "%zu: tools", i);
        cr_assert_eq(r.d.history, row[i].history, "%zu: history", i);
        cr_assert_eq(r.d.one_call, row[i].one_call, "%zu: one call", i);
        cr_assert_eq(r.d.text_arguments, row[i].text_arguments, "%zu: text", i);
        cr_assert_eq(r.d.short_ids, row[i].short_ids, "%zu: ids", i);
        cr_assert_eq(r.d.system, row[i].system, "%zu: system", i);
        cr_assert_eq(r.d.late_system, row[i].late_system, "%zu: late system", i);
        sd_template_close(r.t);
    }
}

// ---- the loop of an agent

#define SAY(role, text) "{\"role\":\"" role "\",\"content\":\"" text "\"}"
#define CALL(id, city)                                                                             \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"weather\",\"arguments\":"   \
    "\"{\\\"city\\\": \\\"" city "\\\"}\"}}"
#define RESULT(id, text) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"" text "\"}"
static const char two_calls[] = "[" SAY("system", "S") "," SAY(
    "user",
    "q") ",{\"role\":\"assistant\",\"content\":\"Hm.\","
         "\"tool_calls\":[" CALL("call_aaaaaaaaaaaaaaaBern1", "Bern") "," CALL(
             "call_2",
             "Rom") "]}," RESULT("call_2",
                                 "rain") "," RESULT("call_aaaaaaaaaaaaaaaBern1",
                                                    "sun") "," SAY("assistant",
                                                                   "ok") "," SAY("system",
                                                                                 "L") "," SAY("use"
                                                                                              "r",
                                                                                              "w") "]";
static const char offered[] = "[{\"type\":\"function\",\"function\":{\"name\":\"weather\","
                              "\"parameters\":{\"type\":\"object\"}}}]";

static void expect(const char *source, const char *messages, const char *tools, const char *want) {
    tried r = try_out(source);
    sd_error err;
    json_t *given = json_loads(messages, 0, NULL),
           *list = tools ? json_loads(tools, 0, NULL) : NULL, *folded = NULL;
    char *before = json_dumps(given, 0);
    cr_assert_not_null(given, "%s", messages);
    cr_assert_eq(sd_dialogue_fold(&folded, &r.d, given, list, &err), SD_OK, "%s", err.message);
    char *after = json_dumps(given, 0);
    cr_assert_str_eq(after, before, "what was given has changed");
    sd_buf text = sd_buf_make(1 << 20);
    cr_assert_eq(
        sd_template_render(r.t, folded, r.d.tools ? list : NULL, NULL, true, "", "", &text, &err),
        SD_OK, "%s", err.message);
    cr_assert_str_eq(text.data, want);
    free(before), free(after);
    json_decref(given), json_decref(list), json_decref(folded);
    sd_buf_free(&text);
    sd_template_close(r.t);
}

Test(dialogue_fold, a_template_that_knows_all_gets_what_was_said) {
    expect(qwen, two_calls, NULL,
           "[system]S[user]q[assistant]Hm.<tool_call>weather {\"city\": "
           "\"Bern\"}</tool_call><tool_call>weather "
           "{\"city\": \"Rom\"}</tool_call>[tool]rain[tool]sun[assistant]ok[system]L[user]w");
    expect(coder, two_calls, NULL,
           "[system]S[user]q[assistant]Hm.<tool_call>weather "
           "<parameter=city>Bern</tool_call><tool_call>weather "
           "<parameter=city>Rom</tool_call>[tool]rain[tool]sun[assistant]ok[system]L[user]w");
    expect(texts, two_calls, NULL,
           "[system]S[user]q[assistant]Hm.<tool_call>weather {\"city\": "
           "\"Bern\"}</tool_call><tool_call>weather "
           "{\"city\": \"Rom\"}</tool_call>[tool]rain[tool]sun[assistant]ok[system]L[user]w");
}

Test(dialogue_fold, ids_calls_and_late_turns_become_what_a_template_insists_on) {
    expect(nine, two_calls, NULL,
           "[system]S[user]q[assistant]Hm.[TOOL_CALLS]aaaaBern1 weather {\"city\": "
           "\"Bern\"}[TOOL_CALLS]0000call2 "
           "weather {\"city\": \"Rom\"}[tool]rain(0000call2 weather)[tool]sun(aaaaBern1 "
           "weather)[assistant]ok"
           "[user]L\n\nw");
    expect(single, two_calls, NULL,
           "[system]S[user]q[assistant]Hm.<tool_call>weather {\"city\": "
           "\"Bern\"}</tool_call>[tool]sun[assistant]"
           "<tool_call>weather {\"city\": "
           "\"Rom\"}</tool_call>[tool]rain[assistant]ok[system]L[user]w");
    expect(first_only, "[" SAY("user", "a") "," SAY("assistant", "b") "," SAY("system", "L") "]",
           NULL, "[user]a[assistant]b[user]L");
}

#define CALLED(city)                                                                               \
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"" city "\"}}\n</tool_call>"

Test(dialogue_fold, a_template_without_tools_gets_them_as_text) {
    expect(plain, two_calls, NULL,
           "[system]S[user]q[assistant]Hm.\n" CALLED("Bern") "\n" CALLED(
               "Rom") "[user]<tool_response>\nrain\n</tool_response>\n\n<tool_response>\nsun\n</"
                      "tool_response>"
                      "[assistant]ok[system]L[user]w");
    static const char described[] =
        "You may call one or more of these functions to answer. Each is described by a line of "
        "JSON:\n"
        "{\"name\": \"weather\", \"parameters\": {\"type\": \"object\"}}\n"
        "To call a function, write its name and its arguments as JSON in exactly this form, and "
        "nothing behind it:\n"
        "<tool_call>\n{\"name\": NAME, \"arguments\": {ARGUMENTS}}\n</tool_call>";
    char *want = sd_sprintf("[system]S\n\n%s[user]q", described);
    expect(plain, "[" SAY("system", "S") "," SAY("user", "q") "]", offered, want);
    free(want);
    want = sd_sprintf("[system]%s[user]q", described);
    expect(plain, "[" SAY("user", "q") "]", offered, want);
    free(want);
    expect(plain, "[" SAY("user", "q") "]", NULL, "[user]q");
}

Test(dialogue_fold, a_template_that_alternates_keeps_alternating) {
    static const char block[] =
        "```tool_code\n{\"name\": \"weather\", \"parameters\": {\"city\": \"";
    char *want = sd_sprintf(
        "<start_of_turn>[user]S\n\nq<start_of_turn>[assistant]Hm.\n%sBern\"}}\n```\n%sRom\"}}\n```"
        "<start_of_turn>[user]<tool_response>\nrain\n</tool_response>\n\n<tool_response>\nsun\n"
        "</tool_response><start_of_turn>[assistant]ok<start_of_turn>[user]L\n\nw",
        block, block);
    expect(gemma, two_calls, NULL, want);
    free(want);
}

Test(dialogue_fold, arguments_that_are_no_object_reach_the_template_as_one) {
    expect(coder,
           "[" SAY("user", "q") ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":"
                                "\"1\",\"function\":"
                                "{\"name\":\"f\",\"arguments\":\"{broken\"}},{\"function\":{"
                                "\"name\":\"g\",\"arguments\":\"\"}},"
                                "{\"function\":{\"name\":\"h\",\"arguments\":{\"a\":1}}}]}]",
           NULL,
           "[user]q[assistant]<tool_call>f <parameter=arguments>{broken</tool_call><tool_call>g "
           "</tool_call>"
           "<tool_call>h <parameter=a>1</tool_call>");
}

// Thousands of turns that are folded take time in proportion.
Test(dialogue_fold, many_folded_turns_are_joined_at_once, .timeout = 20) {
    enum { N = 4096, EACH = 2000 };
    tried r = try_out(plain);
    sd_error err;
    json_t *list = json_array(), *folded = NULL;
    char *text = malloc(EACH + 1);
    memset(text, 'x', EACH);
    text[EACH] = '\0';
    for (int i = 0; i < N; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "role", i % 2 ? "tool" : "user", "content", text));
    cr_assert_eq(sd_dialogue_fold(&folded, &r.d, list, NULL, &err), SD_OK);
    cr_assert_eq(json_array_size(folded), 1u);
    cr_assert_gt(json_string_length(json_object_get(json_array_get(folded, 0), "content")),
                 (size_t)N * EACH);
    json_decref(list), json_decref(folded);
    sd_template_close(r.t);
    free(text);
}
