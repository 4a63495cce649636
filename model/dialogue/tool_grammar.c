#include "model/dialogue/tool_grammar.h"

#include "base/json.h"
#include "model/dialogue/tool_grammar_private.h"

#include <stdio.h>
#include <string.h>

static int text(const sd_tool_maker *m, const char *s) {
    return sd_gb_literal(m->b, s, strlen(s));
}

static int marker(const sd_tool_maker *m, const char *s) {
    int32_t id = sd_tokenizer_find(m->r->t, s);
    bool special = id >= 0 && sd_tokenizer_is_special(m->r->t, id);
    return special ? sd_gb_token(m->b, id) : text(m, s);
}

static int seq(const sd_tool_maker *m, const int *e, int n) {
    return sd_gb_seq(m->b, e, n);
}

// Any text in which none of the markers stands, spelled in whatever tokens: the machine that reads answers sees
// their bytes alone. A marker that is a special token is no text anyway.
static int without(const sd_tool_maker *m, const char *const *s, int n) {
    size_t len[SD_MAX_MARKERS];
    for (int i = 0; i < n; i++) len[i] = strlen(s[i]);
    return sd_gb_free_text(m->b, &(sd_free_text){.without = s, .len = len, .n = n});
}

// e, then further ones behind a separator where several are allowed.
static int several(const sd_tool_maker *m, int e, const char *separator) {
    if (!m->r->parallel) return e;
    int more = seq(m, (int[]){text(m, separator), e}, 2);
    return seq(m, (int[]){e, sd_gb_repeat(m->b, more, 0, -1)}, 2);
}

// ---- calls

// {"name": "f", "arguments": {...}}
static int object(sd_tool_maker *m, int i, const char *key) {
    return seq(m,
               (int[]){text(m, "{\"name\": \""), text(m, sd_rules_name(m, i)), text(m, "\", \""),
                       text(m, key), text(m, "\": "), sd_tool_arguments(m, i), text(m, "}")},
               7);
}

// One call without what stands around a list of them.
static int call(sd_tool_maker *m, int i) {
    const char *name = sd_rules_name(m, i);
    switch (m->r->d->format) {
    case SD_TOOL_QWEN3_CODER:
        return seq(m,
                   (int[]){marker(m, "<tool_call>"), text(m, "\n<function="), text(m, name),
                           text(m, ">\n"), sd_tool_arguments(m, i), text(m, "</function>\n"),
                           marker(m, "</tool_call>")},
                   7);
    case SD_TOOL_LLAMA3:
        return object(m, i, "parameters");
    case SD_TOOL_MISTRAL:
        if (m->r->d->args_marker)
            return seq(m,
                       (int[]){marker(m, "[TOOL_CALLS]"), text(m, name), marker(m, "[ARGS]"),
                               sd_tool_arguments(m, i)},
                       4);
        return object(m, i, "arguments");
    case SD_TOOL_GEMMA:
        return seq(
            m, (int[]){text(m, "```tool_code\n"), object(m, i, "parameters"), text(m, "\n```")}, 3);
    case SD_TOOL_PHI4:
        return object(m, i, "arguments");
    case SD_TOOL_HARMONY:
        return seq(m,
                   (int[]){marker(m, "<|channel|>"), text(m, "commentary to=functions."),
                           text(m, name), text(m, " "), marker(m, "<|constrain|>"), text(m, "json"),
                           marker(m, "<|message|>"), sd_tool_arguments(m, i)},
                   8);
    default:
        return seq(m,
                   (int[]){marker(m, "<tool_call>"), text(m, "\n"), object(m, i, "arguments"),
                           text(m, "\n"), marker(m, "</tool_call>")},
                   5);
    }
}

static int any_call(sd_tool_maker *m) {
    int e[SD_RULES_TOOLS], n = 0, tools = (int)json_array_size(m->r->tools);
    for (int i = 0; i < tools && i < SD_RULES_TOOLS; i++)
        if (m->r->only < 0 || m->r->only == i) e[n++] = call(m, i);
    return n ? sd_gb_any_of(m->b, e, n) : -1;
}

static int calls(sd_tool_maker *m) {
    int one = any_call(m);
    switch (m->r->d->format) {
    case SD_TOOL_LLAMA3:
        return several(m, one, "; ");
    case SD_TOOL_MISTRAL:
        if (m->r->d->args_marker) return several(m, one, "");
        return seq(
            m,
            (int[]){marker(m, "[TOOL_CALLS]"), text(m, "["), several(m, one, ", "), text(m, "]")},
            4);
    case SD_TOOL_PHI4:
        return seq(m,
                   (int[]){marker(m, "<|tool_call|>"), text(m, "["), several(m, one, ", "),
                           text(m, "]"), marker(m, "<|/tool_call|>")},
                   5);
    case SD_TOOL_HARMONY:
        return one; // its end token ends the answer
    default:
        return several(m, one, "\n");
    }
}

// ---- calls without a marker, which are the whole answer

// Those of strict functions; no text where there are none.
static int bare_calls(sd_tool_maker *m) {
    const sd_bare_call *form;
    int e[SD_RULES_TOOLS], forms = sd_tool_bare_calls(&form, m->r->d->format), n = 0,
                           tools = (int)json_array_size(m->r->tools);
    for (int i = 0; forms > 0 && i < tools && i < SD_RULES_TOOLS; i++) {
        int any[4];
        if (!sd_rules_strict(m, i)) continue;
        for (int k = 0; k < forms; k++)
            any[k] = seq(m,
                         (int[]){text(m, form[k].open), text(m, sd_rules_name(m, i)),
                                 text(m, form[k].middle), sd_tool_arguments(m, i),
                                 text(m, form[k].close)},
                         5);
        e[n++] = sd_gb_any_of(m->b, any, forms);
    }
    return n ? sd_gb_any_of(m->b, e, n) : sd_gb_chars(m->b, NULL, 0);
}

// ---- text

// What no text beside calls holds.
static const char *open_of(const sd_dialogue *d) {
    switch (d->format) {
    case SD_TOOL_MISTRAL:
        return "[TOOL_CALLS]";
    case SD_TOOL_GEMMA:
        return "```tool_c";
    case SD_TOOL_PHI4:
        return "<|tool_call|>";
    case SD_TOOL_LLAMA3:
        return "<|python_tag|>";
    default:
        return "<tool_call>";
    }
}

// Text that is no call. The answer's first one begins neither as reasoning does nor as a call without a marker.
static int free_text(const sd_tool_maker *m, bool first) {
    enum { WORD = 72 };
    char word[SD_RULES_TOOLS][WORD];
    const char *mark = open_of(m->r->d), *words[SD_RULES_TOOLS], *opener[4], *whole[2];
    const sd_bare_call *form;
    sd_think_marks think = sd_think_marks_of(m->r->d->think);
    size_t len = strlen(mark);
    sd_free_text x = {.without = &mark, .len = &len, .n = 1};
    x.begun = (sd_beginnings){.whole = whole, .opener = opener, .word = words};
    if (!first) return sd_gb_free_text(m->b, &x);
    int forms = sd_tool_bare_calls(&form, m->r->d->format);
    for (int i = 0; forms > 0 && i < (int)json_array_size(m->r->tools) && i < SD_RULES_TOOLS; i++) {
        if (!sd_rules_strict(m, i)) continue;
        snprintf(word[i], WORD, "%.64s%c", sd_rules_name(m, i), form->middle[0]);
        words[x.begun.n_words++] = word[i];
    }
    for (int i = 0; i < forms; i++) opener[x.begun.n_openers++] = form[i].open;
    if (think.open && !m->r->in_reasoning) whole[x.begun.n_whole++] = think.open;
    if (m->r->d->format == SD_TOOL_LLAMA3) whole[x.begun.n_whole++] = "{"; // any call
    return sd_gb_free_text(m->b, &x);
}

static int bytes(const sd_tool_maker *m, int lo, int hi) {
    uint32_t set[8] = {0};
    for (int c = lo; c <= hi; c++) set[c / 32] |= 1u << c % 32;
    return sd_gb_bytes(m->b, set);
}

// The text of reasoning. The last token of a budget may end within a character, and what ends the reasoning then
// stands behind its first bytes; so characters without their ends may stand anywhere.
static int reasoning_text(const sd_tool_maker *m, const char *const *ends, int n) {
    int more = bytes(m, 0x80, 0xBF), whole = without(m, ends, n);
    int cut = sd_gb_any_of(
        m->b,
        (int[]){bytes(m, 0xC2, 0xDF),
                seq(m, (int[]){bytes(m, 0xE0, 0xEF), sd_gb_repeat(m->b, more, 0, 1)}, 2),
                seq(m, (int[]){bytes(m, 0xF0, 0xF4), sd_gb_repeat(m->b, more, 0, 2)}, 2)},
        3);
    return seq(m, (int[]){sd_gb_repeat(m->b, seq(m, (int[]){whole, cut}, 2), 0, -1), whole}, 2);
}

static int reasoning(const sd_tool_maker *m) {
    sd_think_marks think = sd_think_marks_of(m->r->d->think);
    if (!think.open) return sd_gb_empty(m->b);
    int inside = seq(m,
                     (int[]){reasoning_text(m, &think.close, 1), marker(m, think.close),
                             sd_gb_repeat(m->b, text(m, "\n"), 0, 2)},
                     3);
    if (m->r->in_reasoning) return inside;
    return sd_gb_repeat(m->b, seq(m, (int[]){marker(m, think.open), inside}, 2), 0, 1);
}

// ---- harmony: a row of messages, of which the last is a call or the final one

static const char *const ends[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"};

static int message(const sd_tool_maker *m, const char *channel, int body) {
    return seq(
        m, (int[]){marker(m, "<|channel|>"), text(m, channel), marker(m, "<|message|>"), body}, 4);
}

static int analysis(const sd_tool_maker *m) {
    return message(m, "analysis", reasoning_text(m, ends, 5));
}

static int harmony_next(const sd_tool_maker *m) {
    return seq(m, (int[]){marker(m, "<|end|>"), marker(m, "<|start|>"), text(m, "assistant")}, 3);
}

static int harmony(sd_tool_maker *m) {
    int before = analysis(m), last = calls(m);
    if (!m->r->required) {
        before =
            sd_gb_any_of(m->b, (int[]){before, message(m, "commentary", without(m, ends, 5))}, 2);
        last = sd_gb_any_of(m->b, (int[]){last, message(m, "final", without(m, ends, 5))}, 2);
    }
    before = sd_gb_repeat(m->b, seq(m, (int[]){before, harmony_next(m)}, 2), 0, -1);
    return seq(m, (int[]){before, last}, 2);
}

// ---- answers

static int form(sd_tool_maker *m) {
    int e = sd_gb_spec(m->b, &m->r->form, m->err);
    if (m->r->d->format != SD_TOOL_HARMONY) return seq(m, (int[]){reasoning(m), e}, 2);
    int before = seq(m, (int[]){analysis(m), harmony_next(m)}, 2);
    return seq(m,
               (int[]){sd_gb_repeat(m->b, before, 0, -1), marker(m, "<|channel|>"),
                       text(m, "final"), marker(m, "<|message|>"), e},
               5);
}

bool sd_tool_grammar_has(sd_tool_format f) {
    return f != SD_TOOL_NONE;
}

int sd_gb_tool_answer(sd_grammar_builder *b, const sd_tool_rules *r, sd_error *err) {
    sd_tool_maker m = {.b = b, .r = r, .err = err, .any = -1, .text = -1};
    for (int i = 0; i < SD_RULES_TOOLS; i++) m.arguments[i] = -1;
    if (r->form.kind != SD_GRAMMAR_NONE) return form(&m);
    if (r->d->format == SD_TOOL_HARMONY) return harmony(&m);
    int before = reasoning(&m), all = calls(&m);
    if (r->required) return seq(&m, (int[]){before, all}, 2);
    int first = free_text(&m, true);
    // Llama's calls are the whole answer; elsewhere text may stand around them.
    if (r->d->format == SD_TOOL_LLAMA3)
        return seq(&m, (int[]){before, sd_gb_any_of(b, (int[]){all, first}, 2)}, 2);
    int behind = seq(&m, (int[]){all, free_text(&m, false)}, 2);
    int marked = seq(&m, (int[]){first, sd_gb_repeat(b, behind, 0, r->parallel ? -1 : 1)}, 2);
    return seq(&m, (int[]){before, sd_gb_any_of(b, (int[]){bare_calls(&m), marked}, 2)}, 2);
}

// ---- as a text

sd_status sd_tool_rules_write(char **out, const sd_tool_rules *r, sd_error *err) {
    json_t *v =
        json_pack("{s:i, s:i, s:b, s:i, s:b, s:b, s:b, s:O?, s:i, s:s%}", "format",
                  (int)r->d->format, "think", (int)r->d->think, "args_marker", r->d->args_marker,
                  "only", r->only, "required", r->required, "parallel", r->parallel, "in_reasoning",
                  r->in_reasoning, "tools", (json_t *)(uintptr_t)r->tools, "form",
                  (int)r->form.kind, "form_text", r->form.len ? r->form.text : "", r->form.len);
    sd_status st = sd_json_dump(out, v, JSON_COMPACT, err);
    json_decref(v);
    return st;
}

static int int_of(const json_t *v, const char *key) {
    return (int)json_integer_value(json_object_get(v, key));
}

static bool bool_of(const json_t *v, const char *key) {
    return json_is_true(json_object_get(v, key));
}

int sd_gb_tool_rules(sd_grammar_builder *b, const sd_tokenizer *t, const char *text, size_t len,
                     sd_error *err) {
    enum { MAX_PARSED = 64 << 20 };
    json_t *v = NULL;
    int e = -1;
    if (sd_json_load_within(&v, text, len, JSON_REJECT_DUPLICATES, MAX_PARSED, NULL, err) != SD_OK)
        return -1;
    sd_dialogue d = {.format = (sd_tool_format)int_of(v, "format"),
                     .think = (sd_think_style)int_of(v, "think"),
                     .args_marker = bool_of(v, "args_marker")};
    sd_tool_rules r = {.d = &d,
                       .t = t,
                       .tools = json_object_get(v, "tools"),
                       .only = int_of(v, "only"),
                       .required = bool_of(v, "required"),
                       .parallel = bool_of(v, "parallel"),
                       .in_reasoning = bool_of(v, "in_reasoning"),
                       .form = {(sd_grammar_kind)int_of(v, "form"),
                                json_string_value(json_object_get(v, "form_text")),
                                json_string_length(json_object_get(v, "form_text"))}};
    size_t n = json_array_size(r.tools);
    bool forms = r.form.kind > SD_GRAMMAR_NONE && r.form.kind < SD_GRAMMAR_CALLS && r.form.text;
    if ((n == 0 && !forms) || n > SD_RULES_TOOLS || d.format >= SD_TOOL_FORMAT_COUNT ||
        !sd_tool_grammar_has(d.format))
        sd_fail(err, SD_EFORMAT, "these are no rules for tool calls");
    else
        e = sd_gb_tool_answer(b, &r, err);
    if (e >= 0 && sd_gb_check_answer(b, &r, err) != SD_OK) e = -1;
    json_decref(v);
    return e;
}
