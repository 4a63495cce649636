#include "model/dialogue/tool_grammar.h"

#include "base/json.h"
#include "base/memory.h"
#include "model/grammar/schema/schema.h"

#include <string.h>

enum { MAX_TOOLS = 128, MAX_PARAMETERS = 256, FREE_DEPTH = 16 };

typedef struct {
    sd_grammar_builder *b;
    const sd_tool_rules *r;
    sd_error *err; // what the builder does not know
} maker;

static int text(const maker *m, const char *s) {
    return sd_gb_literal(m->b, s, strlen(s));
}

static int special(const maker *m, const char *marker) {
    int32_t id = sd_tokenizer_find(m->r->t, marker);
    return id >= 0 && sd_tokenizer_is_special(m->r->t, id) ? id : -1;
}

static int marker(const maker *m, const char *s) {
    int32_t id = special(m, s);
    return id >= 0 ? sd_gb_token(m->b, id) : text(m, s);
}

// Any text in which the marker does not stand. A special token is never a part of a text.
static int without(const maker *m, const char *s) {
    static const int32_t all[][2] = {{0, 0x10FFFF}};
    return special(m, s) >= 0 ? sd_gb_repeat(m->b, sd_gb_chars(m->b, all, 1), 0, -1)
                              : sd_gb_text_without(m->b, s, strlen(s));
}

static int seq(const maker *m, const int *e, int n) {
    return sd_gb_seq(m->b, e, n);
}

// e, then further ones behind a separator where several are allowed.
static int several(const maker *m, int e, const char *separator) {
    if (!m->r->parallel) return e;
    int more = seq(m, (int[]){text(m, separator), e}, 2);
    return seq(m, (int[]){e, sd_gb_repeat(m->b, more, 0, -1)}, 2);
}

static const json_t *function_of(const json_t *tool) {
    return json_object_get(tool, "function");
}

static const char *name_of(const json_t *tool) {
    const char *s = json_string_value(json_object_get(function_of(tool), "name"));
    return s ? s : "";
}

static int arguments(const maker *m, const json_t *tool) {
    const json_t *f = function_of(tool), *parameters = json_object_get(f, "parameters");
    if (!json_is_true(json_object_get(f, "strict"))) return sd_gb_json_object(m->b, FREE_DEPTH);
    return json_is_object(parameters) ? sd_gb_json_schema(m->b, parameters) : text(m, "{}");
}

// {"name": "f", "arguments": {...}}
static int object(const maker *m, const json_t *tool, const char *key) {
    return seq(m,
               (int[]){text(m, "{\"name\": \""), text(m, name_of(tool)), text(m, "\", \""),
                       text(m, key), text(m, "\": "), arguments(m, tool), text(m, "}")},
               7);
}

// ---- qwen3-coder

// A parameter's schema with the definitions of the whole one.
static json_t *with_definitions(const json_t *schema, const json_t *root) {
    static const char *const keys[] = {"$defs", "definitions"};
    json_t *copy = json_copy((json_t *)(uintptr_t)schema);
    for (int i = 0; copy && i < 2; i++) {
        json_t *defs = json_object_get(root, keys[i]);
        if (defs && json_object_set(copy, keys[i], defs) != 0) break;
    }
    return copy;
}

// A strict function's schema says nothing that its tags do not enforce.
static bool enforced(const maker *m, const json_t *tool, const json_t *schema,
                     const char *const *keys, int n, const char *where) {
    const char *key;
    json_t *v, *given = (json_t *)(uintptr_t)schema;
    if (!json_is_true(json_object_get(function_of(tool), "strict"))) return true;
    json_object_foreach(given, key, v) {
        bool known = false;
        for (int i = 0; i < n; i++) known |= strcmp(key, keys[i]) == 0;
        if (known) continue;
        sd_fail(m->err, SD_EINVAL, "'%.64s' of %.64s%s%.64s is not enforced in calls of this form",
                key, name_of(tool), *where ? "." : "", where);
        return false;
    }
    return true;
}

static int choice(const maker *m, const json_t *values) {
    const char *s[MAX_PARAMETERS];
    size_t len[MAX_PARAMETERS], i;
    int n = 0;
    json_t *v;
    json_array_foreach(values, i, v) if (json_is_string(v) && n < MAX_PARAMETERS) {
        s[n] = json_string_value(v);
        len[n++] = json_string_length(v);
    }
    return n ? sd_gb_choice(m->b, s, len, n) : -1;
}

static int value(const maker *m, const json_t *tool, const char *key, const json_t *schema,
                 const json_t *root) {
    static const char *const keys[] = {"type",  "enum",    "pattern", "description",
                                       "title", "default", "examples"};
    const char *type = json_string_value(json_object_get(schema, "type"));
    const json_t *values = json_object_get(schema, "enum"),
                 *pattern = json_object_get(schema, "pattern");
    if (type && strcmp(type, "string") == 0) {
        if (!enforced(m, tool, schema, keys, 7, key)) return -1;
        if (json_array_size(values) > 0 && pattern) {
            sd_fail(m->err, SD_EINVAL, "%.64s.%.64s has both enum and pattern; give one",
                    name_of(tool), key);
            return -1;
        }
        if (json_array_size(values) > 0) return choice(m, values);
        if (pattern)
            return sd_gb_regex(m->b, json_string_value(pattern), json_string_length(pattern));
        return sd_gb_text_without(m->b, "\n</parameter>", strlen("\n</parameter>"));
    }
    json_t *whole = with_definitions(schema, root);
    int e = whole ? sd_gb_json_schema(m->b, whole) : -1;
    json_decref(whole);
    return e;
}

static bool is_required(const json_t *root, const char *key) {
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(root, "required"), i,
                       v) if (json_is_string(v) &&
                              strcmp(json_string_value(v), key) == 0) return true;
    return false;
}

static int parameters(const maker *m, const json_t *tool) {
    const json_t *root = json_object_get(function_of(tool), "parameters");
    json_t *properties = json_object_get(root, "properties"), *schema;
    static const char *const keys[] = {"type",  "properties",  "required", "additionalProperties",
                                       "$defs", "definitions", "$schema",  "description",
                                       "title"};
    const char *key;
    int e[MAX_PARAMETERS], n = 0;
    if (!enforced(m, tool, root, keys, 9, "")) return -1;
    json_object_foreach(properties, key, schema) {
        if (n == MAX_PARAMETERS) return -1;
        int one = seq(m,
                      (int[]){text(m, "<parameter="), text(m, key), text(m, ">\n"),
                              value(m, tool, key, schema, root), text(m, "\n</parameter>\n")},
                      5);
        e[n++] = is_required(root, key) ? one : sd_gb_repeat(m->b, one, 0, 1);
    }
    return n ? seq(m, e, n) : sd_gb_empty(m->b);
}

// ---- calls

// One call without what stands around a list of them.
static int call(const maker *m, const json_t *tool) {
    switch (m->r->d->format) {
    case SD_TOOL_QWEN3_CODER:
        return seq(m,
                   (int[]){marker(m, "<tool_call>"), text(m, "\n<function="),
                           text(m, name_of(tool)), text(m, ">\n"), parameters(m, tool),
                           text(m, "</function>\n"), marker(m, "</tool_call>")},
                   7);
    case SD_TOOL_LLAMA3:
        return object(m, tool, "parameters");
    case SD_TOOL_MISTRAL:
        if (m->r->d->args_marker)
            return seq(m,
                       (int[]){marker(m, "[TOOL_CALLS]"), text(m, name_of(tool)),
                               marker(m, "[ARGS]"), arguments(m, tool)},
                       4);
        return object(m, tool, "arguments");
    case SD_TOOL_GEMMA:
        return seq(
            m, (int[]){text(m, "```tool_code\n"), object(m, tool, "parameters"), text(m, "\n```")},
            3);
    case SD_TOOL_PHI4:
        return object(m, tool, "arguments");
    default:
        return seq(m,
                   (int[]){marker(m, "<tool_call>"), text(m, "\n"), object(m, tool, "arguments"),
                           text(m, "\n"), marker(m, "</tool_call>")},
                   5);
    }
}

static int any_call(const maker *m) {
    int e[MAX_TOOLS], n = 0;
    size_t i;
    json_t *tool;
    json_array_foreach(m->r->tools, i,
                       tool) if (n < MAX_TOOLS && (m->r->only < 0 || (size_t)m->r->only == i))
        e[n++] = call(m, tool);
    return n ? sd_gb_any_of(m->b, e, n) : -1;
}

// What text in front of calls must not hold.
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

static int calls(const maker *m) {
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
    default:
        return several(m, one, "\n");
    }
}

// Text that is no call: Llama's begins with neither a bracket nor white space.
static int free_text(const maker *m) {
    static const int32_t first[][2] = {{0x21, 0x7A}, {0x7C, 0x10FFFF}};
    int rest = without(m, open_of(m->r->d));
    if (m->r->d->format != SD_TOOL_LLAMA3) return rest;
    int begun = seq(m, (int[]){sd_gb_chars(m->b, first, 2), rest}, 2);
    return sd_gb_repeat(m->b, begun, 0, 1);
}

static int reasoning(const maker *m) {
    sd_think_marks think = sd_think_marks_of(m->r->d->think);
    if (!think.open) return sd_gb_empty(m->b);
    int inside = seq(m,
                     (int[]){without(m, think.close), marker(m, think.close),
                             sd_gb_repeat(m->b, text(m, "\n"), 0, 2)},
                     3);
    if (m->r->in_reasoning) return inside;
    return sd_gb_repeat(m->b, seq(m, (int[]){marker(m, think.open), inside}, 2), 0, 1);
}

bool sd_tool_grammar_has(sd_tool_format f) {
    return f != SD_TOOL_NONE && f != SD_TOOL_HARMONY;
}

int sd_gb_tool_answer(sd_grammar_builder *b, const sd_tool_rules *r, sd_error *err) {
    maker m = {b, r, err};
    int before = reasoning(&m), all = calls(&m);
    if (r->required) return seq(&m, (int[]){before, all}, 2);
    // Llama's calls are the whole answer; elsewhere text may stand around them.
    if (r->d->format == SD_TOOL_LLAMA3)
        return seq(&m, (int[]){before, sd_gb_any_of(b, (int[]){all, free_text(&m)}, 2)}, 2);
    int behind = seq(&m, (int[]){all, free_text(&m)}, 2);
    return seq(&m, (int[]){before, free_text(&m), sd_gb_repeat(b, behind, 0, r->parallel ? -1 : 1)},
               3);
}

// ---- as a text

sd_status sd_tool_rules_write(char **out, const sd_tool_rules *r, sd_error *err) {
    json_t *v = json_pack("{s:i, s:i, s:b, s:i, s:b, s:b, s:b, s:O}", "format", (int)r->d->format,
                          "think", (int)r->d->think, "args_marker", r->d->args_marker, "only",
                          r->only, "required", r->required, "parallel", r->parallel, "in_reasoning",
                          r->in_reasoning, "tools", (json_t *)(uintptr_t)r->tools);
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
                       .in_reasoning = bool_of(v, "in_reasoning")};
    size_t n = json_array_size(r.tools);
    if (n == 0 || n > MAX_TOOLS || d.format >= SD_TOOL_FORMAT_COUNT ||
        !sd_tool_grammar_has(d.format))
        sd_fail(err, SD_EFORMAT, "these are no rules for tool calls");
    else
        e = sd_gb_tool_answer(b, &r, err);
    json_decref(v);
    return e;
}
