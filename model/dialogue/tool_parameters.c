// Arguments of calls. Those of a strict function keep to its schema; others are any object, or any tags.
#include "base/json.h"
#include "base/memory.h"
#include "model/dialogue/answer.h"
#include "model/dialogue/parameter.h"
#include "model/dialogue/tool_grammar_private.h"
#include "model/grammar/schema/schema.h"

#include <string.h>

enum { FREE_DEPTH = 16, FREE_KEY = 64 };

// What ends a value (answer_xml.c); the line break in front of it is not the value's.
static const char end[] = "</parameter>";

static int text(const sd_tool_maker *m, const char *s) {
    return sd_gb_literal(m->b, s, strlen(s));
}

static int as_rule(const sd_tool_maker *m, int e) {
    int rule = sd_gb_rule(m->b);
    if (e >= 0) sd_gb_define(m->b, rule, e);
    return e < 0 ? -1 : sd_gb_ref(m->b, rule);
}

// ---- qwen3-coder

static int tag(const sd_tool_maker *m, int key, int value) {
    return sd_gb_seq(m->b,
                     (int[]){text(m, "<parameter="), key, text(m, ">\n"), value, text(m, "\n"),
                             text(m, end), text(m, "\n")},
                     7);
}

static int any_tags(const sd_tool_maker *m) {
    static const int32_t key[][2] = {{0x20, ';'}, {'=', '='}, {'?', 0x10FFFF}};
    int one = tag(m, sd_gb_repeat(m->b, sd_gb_chars(m->b, key, 3), 1, FREE_KEY),
                  sd_gb_text_without(m->b, end, strlen(end)));
    return sd_gb_repeat(m->b, one, 0, -1);
}

static int refuse(const sd_tool_maker *m, int i, const char *key, const char *what) {
    sd_fail(m->err, SD_EINVAL, "'%.64s' of %.64s %s", key, sd_rules_name(m, i), what);
    return -1;
}

// Beside the properties a schema says nothing that tags do not enforce.
static bool enforced(const sd_tool_maker *m, int i, const json_t *root) {
    static const char *const keys[] = {"type", "properties", "required", "additionalProperties"};
    const char *key;
    json_t *v;
    size_t k;
    json_object_foreach((json_t *)(uintptr_t)root, key, v) {
        bool known = sd_schema_is_annotation(key);
        for (size_t n = 0; n < sizeof keys / sizeof keys[0]; n++)
            known |= strcmp(key, keys[n]) == 0;
        if (!known) return refuse(m, i, key, "is not enforced in calls of this form"), false;
    }
    const json_t *properties = json_object_get(root, "properties"),
                 *required = json_object_get(root, "required");
    if (properties && !json_is_object(properties))
        return refuse(m, i, "properties", "is no object"), false;
    if (required && !json_is_array(required)) return refuse(m, i, "required", "is no array"), false;
    json_array_foreach(required, k, v) {
        const char *name = json_string_value(v);
        if (!name || !json_object_get(properties, name))
            return refuse(m, i, name ? name : "required",
                          name ? "is required and none of its properties"
                               : "has something that is no name"),
                   false;
    }
    return true;
}

static bool is_required(const json_t *root, const char *key) {
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(root, "required"), i,
                       v) if (json_is_string(v) &&
                              strcmp(json_string_value(v), key) == 0) return true;
    return false;
}

// Any string: made once, as most parameters are one. As in JSON, no NUL is written.
static int any_text(sd_tool_maker *m) {
    const char *const none[] = {end, ""};
    const size_t len[] = {strlen(end), 1};
    if (m->text < 0)
        m->text =
            as_rule(m, sd_gb_free_text(m->b, &(sd_free_text){.without = none, .len = len, .n = 2}));
    return m->text;
}

// A string as it is, any other value in JSON, as the machine that reads answers takes them.
static int value(sd_tool_maker *m, const json_t *root, const char *key, const json_t *schema) {
    int64_t left = 0;
    int types = sd_parameter_types(root, key, &left), any[2], n = 0;
    if (!sd_gb_spend(m->b, -left, 0)) return -1;
    sd_schema_part p = {.root = root, .part = schema, .key = key};
    if (types & ~SD_T_STRING) {
        p.spelling = SD_SPELL_OTHERS;
        any[n++] = sd_gb_json_schema_part(m->b, &p);
    }
    if (types & SD_T_STRING) {
        p.spelling = SD_SPELL_TEXT, p.without = end, p.text = any_text(m);
        any[n++] = sd_gb_json_schema_part(m->b, &p);
    }
    return n ? sd_gb_any_of(m->b, any, n) : sd_gb_chars(m->b, NULL, 0);
}

// Arguments are an object: a schema that lets other values through is none of arguments.
static int held_to_object(const sd_tool_maker *m, int i, const json_t *parameters, int e) {
    int64_t left = 0;
    int types = e < 0 ? SD_T_OBJECT : sd_schema_value_types(parameters, parameters, &left);
    if (types != SD_T_OBJECT)
        return refuse(m, i, "parameters",
                      "lets more through than objects, which arguments are; give it \"type\": "
                      "\"object\"");
    return sd_gb_spend(m->b, -left, 0) ? e : -1;
}

static int strict_tags(sd_tool_maker *m, int i) {
    const json_t *root = json_object_get(sd_rules_function(m, i), "parameters");
    json_t *properties = json_object_get(root, "properties"), *schema;
    const char *key;
    size_t required = json_array_size(json_object_get(root, "required"));
    if (!sd_gb_spend(m->b, (int64_t)(json_object_size(properties) * required / 2), 0)) return -1;
    if (!enforced(m, i, root) || !sd_gb_json_schema_check(m->b, root)) return -1;
    int *e = sd_alloc(json_object_size(properties) + 1, sizeof *e), n = 0, all = -1;
    if (!e) {
        sd_fail(m->err, SD_ENOMEM, "out of memory for a grammar");
        return -1;
    }
    json_object_foreach(properties, key, schema) {
        if (!*key || strlen(key) > SD_ANSWER_KEY || strpbrk(key, ">\n")) {
            refuse(m, i, key, "is no name that a tag can have: 1 to 256 bytes without '>'");
            goto out;
        }
        int one = tag(m, text(m, key), value(m, root, key, schema));
        if (one < 0) goto out;
        e[n++] = is_required(root, key) ? one : sd_gb_repeat(m->b, one, 0, 1);
    }
    all = sd_gb_seq(m->b, e, n);
out:
    free(e);
    return all;
}

// ---- all formats

static int strict_arguments(sd_tool_maker *m, int i) {
    const json_t *parameters = json_object_get(sd_rules_function(m, i), "parameters");
    bool tags = m->r->d->format == SD_TOOL_QWEN3_CODER;
    if (!json_is_object(parameters)) return tags ? sd_gb_empty(m->b) : text(m, "{}");
    return held_to_object(m, i, parameters,
                          tags ? strict_tags(m, i) : sd_gb_json_schema(m->b, parameters));
}

// A schema that says nothing lets any arguments through.
static bool is_any(const sd_tool_maker *m, int i) {
    const json_t *parameters = json_object_get(sd_rules_function(m, i), "parameters");
    const char *key;
    json_t *v;
    if (!sd_rules_strict(m, i)) return true;
    json_object_foreach((json_t *)(uintptr_t)parameters, key,
                        v) if (!sd_schema_is_annotation(key)) return false;
    return json_is_object(parameters);
}

static int any_arguments(const sd_tool_maker *m) {
    return m->r->d->format == SD_TOOL_QWEN3_CODER ? any_tags(m)
                                                  : sd_gb_json_object(m->b, FREE_DEPTH);
}

int sd_tool_arguments(sd_tool_maker *m, int i) {
    bool any = is_any(m, i);
    int *made = any ? &m->any : &m->arguments[i];
    if (*made < 0) *made = as_rule(m, any ? any_arguments(m) : strict_arguments(m, i));
    return *made;
}

// ---- checked at the end

sd_status sd_tool_call_check(const json_t *tools, const char *name, const char *arguments,
                             size_t len, sd_error *err) {
    sd_status st = SD_OK;
    json_t *v = NULL, *tool;
    const json_t *f = NULL;
    size_t i;
    json_array_foreach(tools, i, tool) {
        const json_t *own = json_object_get(tool, "function");
        const char *its = json_string_value(json_object_get(own, "name"));
        if (its && strcmp(its, name) == 0) f = own;
    }
    if (!json_is_true(json_object_get(f, "strict"))) return SD_OK;
    json_error_t why;
    SD_TRY(sd_json_load(&v, arguments, len, JSON_ALLOW_NUL, &why, err));
    SD_CHECK(json_is_object(v), err, SD_EMISMATCH, "the arguments of %.64s are no JSON object",
             name);
    if (json_is_object(json_object_get(f, "parameters")))
        st = sd_schema_validate(json_object_get(f, "parameters"), v, err);
out:
    json_decref(v);
    return st;
}
