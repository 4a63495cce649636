// Answers of all formats to content, reasoning and calls: 200 answers a format, made by a rule as the models
// write them, parsed to the same whatever the cuts.
#include "base/json.h"
#include "base/memory.h"
#include "model/dialogue/answer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// ---- what a parser told, as one text: a letter for the kind, the call, the joined text

typedef struct {
    sd_buf text;
    sd_delta_kind kind;
    int call;
    bool any;
} told;

static bool tell(void *ctx, const sd_delta *d) {
    told *t = ctx;
    bool same = t->any && t->kind == d->kind && t->call == d->call && d->kind != SD_DELTA_CALL;
    if (!same) {
        bool of_call = d->kind == SD_DELTA_CALL || d->kind == SD_DELTA_ARGUMENTS;
        sd_buf_printf(&t->text, of_call ? "\n%c%d:" : "\n%c:", "CRFA"[d->kind], d -> call);
    }
    t->any = true, t->kind = d->kind, t->call = d->call;
    return sd_buf_add(&t->text, d->text, d->len);
}

static json_t *tools;

static sd_answer_options options(sd_tool_format f) {
    static const char list[] = "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\","
                               "\"parameters\":{\"type\":\"object\","
                               "\"properties\":{\"city\":{\"type\":\"string\"},\"n\":{\"type\":"
                               "\"integer\"},\"x\":{\"type\":\"number\"},"
                               "\"b\":{\"type\":\"boolean\"},\"o\":{\"type\":\"object\"},\"l\":{"
                               "\"anyOf\":[{\"type\":\"array\"},"
                               "{\"type\":\"null\"}]},\"m\":{\"type\":[\"string\",\"null\"]}}}}},"
                               "{\"type\":\"function\",\"function\":{\"name\":\"run-it_2\"}}]";
    if (!tools) tools = json_loads(list, 0, NULL);
    cr_assert_not_null(tools);
    return (sd_answer_options){.format = f, .calls = true, .tools = tools};
}

// Parses the text cut at `cut` (ascending places); the result is the caller's.
static char *parse_cut(const sd_answer_options *o, const char *text, size_t len, const size_t *cut,
                       int n) {
    told t = {.text = sd_buf_make(16 << 20)};
    sd_answer_parser *p = NULL;
    sd_error err;
    cr_assert_eq(sd_answer_parser_open(&p, o, tell, &t, &err), SD_OK);
    size_t from = 0;
    for (int i = 0; i <= n; i++) {
        size_t to = i < n ? cut[i] : len;
        cr_assert(sd_answer_parser_add(p, text + from, to - from));
        from = to;
    }
    cr_assert(sd_answer_parser_end(p));
    sd_answer_parser_close(p);
    sd_buf_addc(&t.text, '\n');
    return t.text.data;
}

static char *parse(const sd_answer_options *o, const char *text) {
    return parse_cut(o, text, strlen(text), NULL, 0);
}

static void expect(const sd_answer_options *o, const char *text, const char *want) {
    char *got = parse(o, text);
    cr_assert_str_eq(got, want, "%s: of <<%s>> came <<%s>>, want <<%s>>",
                     sd_tool_format_name(o->format), text, got, want);
    free(got);
}

// ---- answers by a rule

static const char *const contents[] = {"", "Let me look that up.",
                                       "a < b && c > d, see <tool and [TOOL",
                                       "Gr\xC3\xBC\xC3\x9F"
                                       "e \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x8E\x89 <|",
                                       "- {not: json}\n- `x` ``y``"};
static const char *const arguments[] = {
    "{}",
    "{\"city\": \"Z\\u00fcrich \\ud83d\\ude00\", \"n\": 3}",
    "{ \"l\" : [ 1 , 2.5e3, {\"x\": null} ],\n \"b\":true }",
    "{\"city\": \"she said \\\"hi\\\" \\\\ and {[}] </tool_call> <tool_call> [TOOL_CALLS] ; "
    "<think>\"}",
    "{\"o\": {\"a\": {\"b\": [[[]], {\"c\": \"\xC3\xA9\xF0\x9F\x98\x80\"}]}}, \"city\": \"\"}",
    "{\"city\":\"line\\nline\\ttab \\/ \"}"};
static const char *const names[] = {"get_weather", "run-it_2"};
enum { ANSWERS = 200, N_CONTENTS = 5, N_ARGUMENTS = 6 };

typedef struct {
    sd_buf text, want;
    int calls;
} made;

static void content(made *m, const char *text, const char *behind) {
    sd_buf_printf(&m->text, "%s%s", text, behind);
    if (*text) sd_buf_printf(&m->want, "\nC:%s%s", text, behind);
}

static void told_call(made *m, const char *name, const char *args) {
    sd_buf_printf(&m->want, "\nF%d:%s\nA%d:%s", m->calls, name, m->calls, args);
    m->calls++;
}

// The object of a call in one of the ways in which models write it.
static void object(made *m, int way, const char *key, const char *name, const char *args) {
    if (way == 1)
        sd_buf_printf(&m->text, "{\"%s\": %s, \"name\": \"%s\"}", key, args, name);
    else if (way == 2)
        sd_buf_printf(&m->text, "{\"type\":\"function\",\"function\":{\"name\":\"%s\",\"%s\":%s}}",
                      name, key, args);
    else if (way == 3)
        sd_buf_printf(&m->text, "{\"id\": [\"}\"], \"name\" :\"%s\", \"%s\" : %s , \"more\": 1.5 }",
                      name, key, args);
    else
        sd_buf_printf(&m->text, "{\"name\": \"%s\", \"%s\": %s}", name, key, args);
    told_call(m, name, args);
}

static void make_hermes(made *m, int i, const char *name, const char *args) {
    sd_buf_adds(&m->text, i % 3 ? "<tool_call>\n" : "<tool_call>");
    object(m, i / 3 % 4, i % 7 ? "arguments" : "parameters", name, args);
    sd_buf_adds(&m->text, i % 3 ? "\n</tool_call>" : "</tool_call>");
}

static void make_coder(made *m, int i, const char *name, const char *args) {
    static const char *const way[][2] = {
        {"", "{}"},
        {"<parameter=city>\nZ\xC3\xBCrich \"x\" \\ </function> <b>\n\n</parameter>\n",
         "{\"city\": \"Z\xC3\xBCrich \\\"x\\\" \\\\ </function> <b>\\n\"}"},
        {"<parameter=n>\n42\n</parameter>\n<parameter=x>\n-1.5e3\n</parameter>\n<parameter=b>True</"
         "parameter>",
         "{\"n\": 42, \"x\": -1.5e3, \"b\": true}"},
        {"<parameter=o>\n{\"a\": [1, \"</x>\"]}\n</parameter>\n<parameter=l>null</parameter>",
         "{\"o\": {\"a\": [1, \"</x>\"]}, \"l\": null}"},
        {"<parameter=n>\nforty\n</parameter>\n<parameter=m>null</parameter><parameter=other>\n7\n</"
         "parameter>",
         "{\"n\": \"forty\", \"m\": null, \"other\": \"7\"}"},
        {"<parameter=city></parameter>\n<parameter=o>\n{broken\n</parameter>",
         "{\"city\": \"\", \"o\": \"{broken\"}"}};
    (void)args;
    // Without a schema all values are strings: the second tool has the first two ways alone.
    int w = strcmp(name, names[0]) == 0 ? i % 6 : i % 2;
    sd_buf_printf(&m->text, "<tool_call>\n<function=%s>\n%s</function>\n</tool_call>", name,
                  way[w][0]);
    told_call(m, name, way[w][1]);
}

static void make_llama(made *m, int i, const char *name, const char *args) {
    if (m->calls > 0) sd_buf_adds(&m->text, "; ");
    if (m->calls == 0 && i % 2 == 0) sd_buf_adds(&m->text, "<|python_tag|>");
    object(m, i / 2 % 4, "parameters", name, args);
}

static void make_mistral(made *m, int i, const char *name, const char *args) {
    if (i % 2) {
        sd_buf_printf(&m->text, "[TOOL_CALLS]%s%s%s", name,
                      i % 3 ? "[ARGS]" : "[CALL_ID]abcDEF123[ARGS]", args);
        told_call(m, name, args);
        return;
    }
    sd_buf_adds(&m->text, m->calls ? ", " : "[TOOL_CALLS] [");
    object(m, i / 2 % 4, "arguments", name, args);
}

static void make_gemma(made *m, int i, const char *name, const char *args) {
    static const char *const way[][3] = {{"", "()", "{}"},
                                         {"print(", "(city='Z\xC3\xBCrich \"a\" \\'b\\'', n=-3))",
                                          "{\"city\": \"Z\xC3\xBCrich \\\"a\\\" 'b'\", \"n\": -3}"},
                                         {"[", "(l=[1, None, (True, 2.5)], o={'k': \"v\"},)]",
                                          "{\"l\": [1,null,[true,2.5]], \"o\": {\"k\":\"v\"}}"}};
    if (i % 4 < 3) {
        sd_buf_printf(&m->text, "```tool_code\n%s%s%s", way[i % 4][0], name, way[i % 4][1]);
        told_call(m, name, way[i % 4][2]);
    } else {
        sd_buf_adds(&m->text, i % 8 == 3 ? "```json\n" : "```tool_call\n");
        object(m, i / 4 % 4, "parameters", name, args);
    }
    sd_buf_adds(&m->text, "\n```");
}

static void make_phi(made *m, int i, const char *name, const char *args) {
    sd_buf_adds(&m->text, m->calls ? ", " : i % 2 ? "<|tool_call|>[" : "<|tool_call|> [ ");
    object(m, i / 2 % 4, "arguments", name, args);
}

static void make_harmony(made *m, int i, const char *name, const char *args) {
    if (m->text.len) sd_buf_adds(&m->text, "<|start|>assistant");
    sd_buf_printf(&m->text,
                  i % 2 ? " to=functions.%s<|channel|>commentary json<|message|>"
                        : "<|channel|>commentary to=functions.%s <|constrain|>json<|message|>",
                  name);
    sd_buf_printf(&m->text, "%s<|call|>", args);
    told_call(m, name, args);
}

typedef void (*maker)(made *m, int i, const char *name, const char *args);
static const maker makers[SD_TOOL_FORMAT_COUNT] = {
    [SD_TOOL_HERMES] = make_hermes,  [SD_TOOL_QWEN3_CODER] = make_coder,
    [SD_TOOL_LLAMA3] = make_llama,   [SD_TOOL_MISTRAL] = make_mistral,
    [SD_TOOL_GEMMA] = make_gemma,    [SD_TOOL_PHI4] = make_phi,
    [SD_TOOL_HARMONY] = make_harmony};

// Texts that are no calls, and stay as they are.
static const char *const broken[SD_TOOL_FORMAT_COUNT][4] = {
    [SD_TOOL_HERMES] = {"<tool_call>\nnot JSON\n</tool_call>",
                        "<tool_call>{\"name\": 5}</tool_call>",
                        "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
                        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}"},
    [SD_TOOL_QWEN3_CODER] = {"<tool_call>\nnothing\n</tool_call>", "<function=a b>\n</function>",
                             "<tool_call>\n<function=\n", "<tool_call>{\"name\": \"f\""},
    [SD_TOOL_LLAMA3] = {"<|python_tag|>print(1)", "<|python_tag|>{\"name\": 5}",
                        "<|python_tag|>{\"a\": 1", "<|python_tag|>{\"name\": \"f g\"}"},
    [SD_TOOL_MISTRAL] = {"[TOOL_CALLS]none at all", "[TOOL_CALLS][]", "[TOOL_CALLS]f[ARGS]1",
                         "[TOOL_CALLS][{\"name\": \"f\""},
    [SD_TOOL_GEMMA] = {"```tool_code\nx = 1\n```",
                       "```json\n{\"name\": \"unknown\", \"parameters\": {}}\n```",
                       "```tool_code\nf(a=b)\n```", "```tool_code\nf(a='b"},
    [SD_TOOL_PHI4] = {"<|tool_call|>nothing<|/tool_call|>", "<|tool_call|>[]<|/tool_call|>",
                      "<|tool_call|>[{\"name\": \"f\"", "<|tool_call|>[{\"n\": 1}]"},
    [SD_TOOL_HARMONY] = {"<|channel|>", "<|channel|>final", "<|start|>assistant<|chan",
                         "<|start|>"},
};

static void make(made *m, sd_tool_format f, int i) {
    *m = (made){.text = sd_buf_make(1 << 20), .want = sd_buf_make(1 << 20)};
    int calls = i % 4;
    bool harmony = f == SD_TOOL_HARMONY;
    const char *before = contents[i / 4 % N_CONTENTS], *after = contents[i / 20 % N_CONTENTS];
    if (f == SD_TOOL_LLAMA3 && calls && i % 2)
        before = ""; // without its tag the object is all there is
    if (harmony) {
        if (i % 3) {
            sd_buf_printf(&m->text, "<|channel|>analysis<|message|>Hm %d<|end|>", i);
            sd_buf_printf(&m->want, "\nR:Hm %d", i);
        }
        if (*before) {
            if (m->text.len) sd_buf_adds(&m->text, "<|start|>assistant");
            sd_buf_printf(&m->text, "<|channel|>commentary<|message|>%s<|end|>", before);
            sd_buf_printf(&m->want, "\nC:%s", before);
        }
    } else {
        content(m, before, *before ? "\n" : "");
    }
    for (int k = 0; k < calls; k++) {
        const char *name = f == SD_TOOL_GEMMA ? names[0] : names[(i + k) % 2];
        // A list is one way of writing for all its calls.
        bool list = f == SD_TOOL_MISTRAL || f == SD_TOOL_PHI4 || f == SD_TOOL_LLAMA3;
        makers[f](m, list ? i : i + k, name, arguments[(i + 5 * k) % N_ARGUMENTS]);
        if (!list && !harmony) sd_buf_adds(&m->text, k % 2 ? "\n" : " \n\n");
    }
    if (calls && f == SD_TOOL_MISTRAL && i % 2 == 0) sd_buf_adds(&m->text, "]");
    if (calls && f == SD_TOOL_PHI4) sd_buf_adds(&m->text, "]<|/tool_call|>");
    const char *bad = i % 5 == 0 ? broken[f][i / 5 % 4] : "";
    if (!*bad && !*after) {
        sd_buf_adds(&m->want, "\n");
        return;
    }
    if (harmony && !*bad) {
        sd_buf_printf(&m->text, "%s<|channel|>final<|message|>%s",
                      m->text.len ? "<|start|>assistant" : "", after);
        sd_buf_printf(&m->want, m->text.len && !calls && *before ? "\nC:%s\n" : "\nC:%s\n", after);
        return;
    }
    if (calls && !harmony) sd_buf_adds(&m->text, "\n");
    sd_buf_printf(&m->text, "%s%s", harmony ? "" : after, bad);
    // Content behind content is one.
    bool joins = !calls && *before && !harmony;
    sd_buf_printf(&m->want, "%s%s%s\n", joins ? "" : "\nC:", harmony ? "" : after, bad);
}

// Content behind content in harmony's messages is told as one: the texts are joined here as well.
static void join_contents(sd_buf *want) {
    for (char *p; want->data && (p = strstr(want->data, "\nC:"));) {
        char *q = strstr(p + 1, "\nC:"), *other = NULL;
        for (char *s = p + 1; (s = strchr(s, '\n')) && (!q || s < q); s++)
            if (s[1] && strchr("RFA", s[1]) && (s[2] == ':' || (s[2] && s[3] == ':'))) other = s;
        p[1] = '\x01'; // seen
        if (!q || other) continue;
        memmove(q, q + 3, strlen(q + 3) + 1);
        want->len -= 3;
    }
    for (char *p = want->data; p && *p; p++)
        if (*p == '\x01') *p = 'C';
}

static sd_answer_options options_of(sd_tool_format f) {
    return options(f);
}

static void check_answers(sd_tool_format f) {
    sd_answer_options o = options_of(f);
    for (int i = 0; i < ANSWERS; i++) {
        made m;
        make(&m, f, i);
        join_contents(&m.want);
        if (!m.text.data) sd_buf_adds(&m.text, "");
        const char *text = m.text.data ? m.text.data : "";
        size_t len = m.text.len;
        char *got = parse_cut(&o, text, len, NULL, 0);
        cr_assert_str_eq(got, m.want.data, "%s, answer %d <<%s>>: came <<%s>>, want <<%s>>",
                         sd_tool_format_name(f), i, text, got, m.want.data);
        free(got);
        for (size_t cut = 1; cut < len; cut++) {
            got = parse_cut(&o, text, len, &cut, 1);
            cr_assert_str_eq(got, m.want.data, "%s, answer %d cut at %zu: came <<%s>>, want <<%s>>",
                             sd_tool_format_name(f), i, cut, got, m.want.data);
            free(got);
        }
        size_t *all = calloc(len + 1, sizeof *all);
        for (size_t k = 1; k < len; k++) all[k - 1] = k;
        got = parse_cut(&o, text, len, all, len ? (int)len - 1 : 0);
        cr_assert_str_eq(got, m.want.data, "%s, answer %d byte by byte: came <<%s>>",
                         sd_tool_format_name(f), i, got);
        free(got);
        // Every pair of the borders of tokens of 1 to 4 bytes, for a few.
        for (size_t a = 1; i % 50 == 7 && a < len; a += 1 + a % 4)
            for (size_t b = a + 1; b < len; b += 1 + b % 4) {
                got = parse_cut(&o, text, len, (size_t[]){a, b}, 2);
                cr_assert_str_eq(got, m.want.data, "%s, answer %d cut at %zu and %zu: came <<%s>>",
                                 sd_tool_format_name(f), i, a, b, got);
                free(got);
            }
        free(all);
        sd_buf_free(&m.text);
        sd_buf_free(&m.want);
    }
}

Test(dialogue_answer, hermes_in_any_cuts) {
    check_answers(SD_TOOL_HERMES);
}
Test(dialogue_answer, qwen3_coder_in_any_cuts) {
    check_answers(SD_TOOL_QWEN3_CODER);
}
Test(dialogue_answer, llama3_in_any_cuts) {
    check_answers(SD_TOOL_LLAMA3);
}
Test(dialogue_answer, mistral_in_any_cuts) {
    check_answers(SD_TOOL_MISTRAL);
}
Test(dialogue_answer, gemma_in_any_cuts) {
    check_answers(SD_TOOL_GEMMA);
}
Test(dialogue_answer, phi4_in_any_cuts) {
    check_answers(SD_TOOL_PHI4);
}
Test(dialogue_answer, harmony_in_any_cuts) {
    check_answers(SD_TOOL_HARMONY);
}

// ---- reasoning

Test(dialogue_answer, reasoning_is_split_where_it_stands_first_or_was_opened_by_the_prompt) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    o.think = SD_THINK_TAGS;
    expect(&o, "<think>\nHm, <tool_call> or\n\nnot?\n</think>\n\nYes.",
           "\nR:Hm, <tool_call> or\n\nnot?\nC:Yes.\n");
    expect(&o, "\n<think></think>\n\n<tool_call>{\"name\":\"f\"}</tool_call>", "\nF0:f\nA0:{}\n");
    expect(&o, "Use <think> here.</think>", "\nC:Use <think> here.</think>\n");
    expect(&o, "<think>cut off </thi", "\nR:cut off </thi\n");
    o.in_reasoning = true;
    expect(&o, "\nHm\n</think>\n\nYes <think>.", "\nR:Hm\nC:Yes <think>.\n");
    expect(&o, "Hm", "\nR:Hm\n");
    sd_answer_options m = options(SD_TOOL_MISTRAL);
    m.think = SD_THINK_BRACKETS;
    expect(&m, "[THINK]Hm[/THINK]Yes[TOOL_CALLS]f[ARGS]{}", "\nR:Hm\nC:Yes\nF0:f\nA0:{}\n");
}

Test(dialogue_answer, without_tools_calls_are_content) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    o.calls = false;
    expect(&o, " <tool_call>{\"name\":\"f\"}</tool_call>\n",
           "\nC: <tool_call>{\"name\":\"f\"}</tool_call>\n\n");
    sd_answer_options h = options(SD_TOOL_HARMONY);
    h.calls = false;
    expect(&h,
           "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>"
           "Yes<|return|>",
           "\nR:Hm\nC:Yes\n");
    sd_answer_options none = {.format = SD_TOOL_NONE};
    expect(&none, "  a <think> b\n", "\nC:  a <think> b\n\n");
}

// ---- particular cases

Test(dialogue_answer, a_call_that_began_keeps_what_the_model_wrote) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    expect(&o, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": 'x'}}\n</tool_call> ok",
           "\nF0:f\nA0:{\"a\": 'x'}}\n\nC:ok\n");
    expect(&o, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": \"x", "\nF0:f\nA0:{\"a\": \"x\n");
    expect(&o, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": [1}}</tool_call>",
           "\nF0:f\nA0:{\"a\": [1}}\n");
    expect(&o, "<tool_call>{\"name\":\"f\",\"arguments\":{}}}</tool_call>",
           "\nF0:f\nA0:{}\nC:}</tool_call>\n");
}

Test(dialogue_answer, arguments_in_a_string_are_the_text_that_it_holds) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    expect(&o,
           "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": "
           "\\\"\\ud83d\\ude00\\u00e9\\\\n\\\"}\"}</tool_call>",
           "\nF0:f\nA0:{\"a\": \"\xF0\x9F\x98\x80\xC3\xA9\\n\"}\n");
    expect(&o, "<tool_call>{\"arguments\":\"{\\\"a\\\": 1}\",\"name\":\"f\"}</tool_call>",
           "\nF0:f\nA0:{\"a\": 1}\n");
    expect(&o, "<tool_call>{\"name\":\"f\",\"arguments\":\"\\ud83d.\"}</tool_call>",
           "\nF0:f\nA0:\xEF\xBF\xBD.\n");
    expect(&o, "<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>", "\nF0:f\nA0:{}\n");
}

Test(dialogue_answer, an_answer_in_json_is_no_call_unless_it_names_a_tool) {
    sd_answer_options o = options(SD_TOOL_LLAMA3);
    expect(&o, "{\"name\": \"Ada\", \"parameters\": {}}",
           "\nC:{\"name\": \"Ada\", \"parameters\": {}}\n");
    expect(&o, "{\"name\": \"get_weather\", \"parameters\": {}}", "\nF0:get_weather\nA0:{}\n");
    sd_answer_options h = options(SD_TOOL_HERMES);
    expect(&h, "```json\n{\"name\": \"get_weather\",\n \"arguments\": {\"a\": 1}}\n```",
           "\nF0:get_weather\nA0:{\"a\": 1}\n");
    expect(&h, "{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call>",
           "\nF0:get_weather\nA0:{}\n");
    expect(&h, "So:\n```json\n{\"name\": \"Ada\"}\n```",
           "\nC:So:\n```json\n{\"name\": \"Ada\"}\n```\n");
    sd_answer_options p = options(SD_TOOL_PHI4);
    expect(&p, "functools[{\"name\": \"f\", \"arguments\": {}}]", "\nF0:f\nA0:{}\n");
    expect(&p, "functools[x]", "\nC:functools[x]\n");
}

Test(dialogue_answer, a_function_tag_may_hold_json) {
    sd_answer_options o = options(SD_TOOL_QWEN3_CODER);
    expect(
        &o,
        "<function=f>{\"a\": "
        "\"</function>\"}</function>\n<tool_call>\n<function=g>\n{}\n</function>\n</tool_call> ok",
        "\nF0:f\nA0:{\"a\": \"</function>\"}\nF1:g\nA1:{}\nC:ok\n");
}

Test(dialogue_answer, further_calls_than_are_wanted_are_left_out) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    o.max_calls = 1;
    expect(&o,
           "<tool_call>{\"name\":\"f\"}</tool_call><tool_call>{\"name\":\"g\",\"arguments\":{}}</"
           "tool_call>.",
           "\nF0:f\nA0:{}\nC:.\n");
}

// Without a marker the first key that no call has ends the waiting.
Test(dialogue_answer, an_answer_in_json_is_not_held_back) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    told t = {.text = sd_buf_make(4096)};
    sd_answer_parser *p = NULL;
    sd_error err;
    const char *text = "{\"city\": \"Be";
    cr_assert_eq(sd_answer_parser_open(&p, &o, tell, &t, &err), SD_OK);
    cr_assert(sd_answer_parser_add(p, text, strlen(text)));
    cr_assert_str_eq(t.text.data, "\nC:{\"city\": \"Be");
    sd_answer_parser_close(p);
    sd_buf_free(&t.text);
}

// The text held back does not grow with the answer, whatever it holds.
Test(dialogue_answer, what_never_becomes_a_call_is_content_in_time) {
    sd_answer_options o = options(SD_TOOL_HERMES);
    size_t n = 3 * SD_ANSWER_HELD;
    char *text = malloc(n + 64);
    int at = sprintf(text, "<tool_call>{\"arguments\": {\"a\": \"");
    memset(text + at, 'x', n);
    text[(size_t)at + n] = '\0';
    char *want = sd_sprintf("\nC:%s\n", text);
    expect(&o, text, want);
    char *bytes = NULL;
    size_t *all = calloc(strlen(text), sizeof *all);
    for (size_t k = 1; k < strlen(text); k++) all[k - 1] = k;
    bytes = parse_cut(&o, text, strlen(text), all, (int)strlen(text) - 1);
    cr_assert_str_eq(bytes, want);
    free(all), free(bytes), free(want), free(text);
}

Test(dialogue_answer, a_value_too_long_to_be_held_is_a_string) {
    sd_answer_options o = options(SD_TOOL_QWEN3_CODER);
    size_t n = SD_ANSWER_VALUE + 10000;
    char *digits = malloc(n + 1);
    memset(digits, '1', n);
    digits[n] = '\0';
    char *text = sd_sprintf("<function=get_weather><parameter=n>%s</parameter></function>", digits);
    char *want = sd_sprintf("\nF0:get_weather\nA0:{\"n\": \"%s\"}\n", digits);
    char *got = parse(&o, text);
    cr_assert_str_eq(got, want);
    free(got), free(want), free(text), free(digits);
}

// ---- the formats' markers

Test(dialogue_format, a_template_shows_its_format) {
    static const struct {
        const char *source;
        sd_tool_format format;
        sd_think_style think;
    } row[] = {{"{{ '<tool_call>' }}", SD_TOOL_HERMES, SD_THINK_NONE},
               {"<tool_call><function=x> </think>", SD_TOOL_QWEN3_CODER, SD_THINK_TAGS},
               {"<|start_header_id|> <|python_tag|>", SD_TOOL_LLAMA3, SD_THINK_NONE},
               {"[INST] [TOOL_CALLS] [THINK]", SD_TOOL_MISTRAL, SD_THINK_BRACKETS},
               {"<start_of_turn>", SD_TOOL_GEMMA, SD_THINK_NONE},
               {"<|tool|> <|end|>", SD_TOOL_PHI4, SD_THINK_NONE},
               {"<|start|>assistant<|channel|>", SD_TOOL_HARMONY, SD_THINK_NONE},
               {"<|im_start|>", SD_TOOL_NONE, SD_THINK_NONE}};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        cr_assert_eq(sd_tool_format_of_template(row[i].source), row[i].format, "%s", row[i].source);
        cr_assert_eq(sd_think_style_of_template(row[i].source), row[i].think, "%s", row[i].source);
    }
    for (int f = 0; f < SD_TOOL_FORMAT_COUNT; f++)
        cr_assert_eq(sd_tool_format_find(sd_tool_format_name((sd_tool_format)f)), f);
    cr_assert_eq(sd_tool_format_find("xml"), -1);
}

// A marker that stands in a string before what breaks the JSON may have been told already.
Test(dialogue_answer, arguments_that_break_are_told_alike_in_any_cuts) {
    static const char *const texts[] = {
        "[TOOL_CALLS]f[ARGS]{\"a\": \"x[TOOL_CALLS]8\x01 and[TOOL_CALLS]f{}",
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": \"[TOOL_CALLS]\n\"}}]",
        "[TOOL_CALLS]f{\"a\": [1[TOOL_CALLS]f{}"};
    sd_answer_options o = options(SD_TOOL_MISTRAL);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const size_t len = strlen(texts[i]);
        char *whole = parse(&o, texts[i]);
        for (size_t a = 1; a < len; a++)
            for (size_t b = a; b < len; b++) {
                char *got = parse_cut(&o, texts[i], len, (size_t[]){a, b}, 2);
                cr_assert_str_eq(got, whole, "cut at %zu and %zu", a, b);
                free(got);
            }
        free(whole);
    }
}
