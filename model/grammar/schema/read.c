// A schema's keywords and types. What a schema becomes is decided in this order: a reference alone is
// a rule; a reference beside keywords and allOf are merged into one schema; anyOf and oneOf become
// alternatives, each with the keywords beside them; the rest is an enum, or a choice of types.
#include "model/grammar/schema/private.h"

#include "base/json.h"
#include "base/list.h"

#include <stdio.h>
#include <string.h>

// What a keyword speaks of: types, or all of them.
static const struct {
    const char *name;
    int types;
} keywords[] = {
    {"type", 0},
    {"enum", 0},
    {"const", 0},
    {"anyOf", 0},
    {"oneOf", 0},
    {"allOf", 0},
    {"$ref", 0},
    {"properties", SD_T_OBJECT},
    {"required", SD_T_OBJECT},
    {"additionalProperties", SD_T_OBJECT},
    {"minProperties", SD_T_OBJECT},
    {"maxProperties", SD_T_OBJECT},
    {"items", SD_T_ARRAY},
    {"prefixItems", SD_T_ARRAY},
    {"minItems", SD_T_ARRAY},
    {"maxItems", SD_T_ARRAY},
    {"uniqueItems", SD_T_ARRAY},
    {"pattern", SD_T_STRING},
    {"format", SD_T_STRING},
    {"minLength", SD_T_STRING},
    {"maxLength", SD_T_STRING},
    {"minimum", SD_T_NUMBER},
    {"maximum", SD_T_NUMBER},
    {"exclusiveMinimum", SD_T_NUMBER},
    {"exclusiveMaximum", SD_T_NUMBER},
    {"multipleOf", SD_T_NUMBER},
};
enum { KEYWORDS = sizeof keywords / sizeof keywords[0] };
enum {
    PART_STEPS = 150,
    KEY_STEPS = 16,
    VALUE_STEPS = 40
}; // of the account: one schema, and each of its keywords

bool sd_schema_is_annotation(const char *key) {
    static const char *const names[] = {
        "title",     "description",   "default",         "examples",
        "example",   "$comment",      "$schema",         "$id",
        "$defs",     "definitions",   "deprecated",      "readOnly",
        "writeOnly", "discriminator", "contentEncoding", "contentMediaType"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], key) == 0) return true;
    return strncmp(key, "x-", 2) == 0;
}

// ---- errors and places

int sd_schema_fail(sd_schema_reader *r, const char *fmt, ...) {
    char text[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return sd_gb_fail(r->b, SD_EINVAL, "json schema: #%s: %s", r->path, text);
}

size_t sd_schema_enter(sd_schema_reader *r, const char *key) {
    size_t n = strlen(r->path), at = n;
    const size_t room = sizeof r->path - 1;
    if (n < room) r->path[n++] = '/';
    for (; *key && n + 2 < room; key++) { // '~' and '/' as a pointer writes them
        if (*key == '~' || *key == '/') {
            r->path[n++] = '~';
            r->path[n++] = *key == '~' ? '0' : '1';
        } else {
            r->path[n++] = *key;
        }
    }
    r->path[n] = '\0';
    return at;
}

void sd_schema_leave(sd_schema_reader *r, size_t to) {
    r->path[to] = '\0';
}

int sd_schema_read_at(sd_schema_reader *r, const json_t *schema, const char *key) {
    size_t back = sd_schema_enter(r, key);
    int e = sd_schema_read(r, schema);
    sd_schema_leave(r, back);
    return e;
}

bool sd_schema_count(sd_schema_reader *r, const json_t *schema, const char *key, int *out) {
    const json_t *v = json_object_get(schema, key);
    if (!v) return true;
    double d = json_number_value(v);
    if (!json_is_number(v) || d < 0 || d != (double)(int64_t)d)
        return sd_schema_fail(r, "\"%s\" is not a whole number of at least 0", key), false;
    *out = d > INT32_MAX ? INT32_MAX : (int)d;
    return true;
}

int sd_schema_any(sd_schema_reader *r) {
    if (r->any < 0) r->any = sd_gb_json_value(r->b, SD_SCHEMA_ANY_DEPTH);
    return r->any;
}

int sd_schema_never(sd_schema_reader *r) {
    return sd_gb_chars(r->b, NULL, 0);
}

// ---- references

static int hex_digit(char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

const json_t *sd_schema_resolve(const json_t *root, const char *ref) {
    if (*ref != '#') return NULL;
    const json_t *at = root;
    for (ref++; *ref && at;) {
        char key[256];
        size_t n = 0;
        if (*ref++ != '/') return NULL;
        for (; *ref && *ref != '/'; ref++) {
            char c = *ref;
            int high, low;
            if (c == '~' && (ref[1] == '0' || ref[1] == '1'))
                c = *++ref == '0' ? '~' : '/';
            else if (c == '%' && (high = hex_digit(ref[1])) >= 0 && (low = hex_digit(ref[2])) >= 0)
                c = (char)(high << 4 | low), ref += 2;
            if (n >= sizeof key - 1) return NULL;
            key[n++] = c;
        }
        key[n] = '\0';
        char *end = NULL;
        if (json_is_array(at)) {
            unsigned long i = strtoul(key, &end, 10);
            at = n && !*end ? json_array_get(at, i) : NULL;
        } else {
            at = json_object_get(at, key);
        }
    }
    return at;
}

const json_t *sd_schema_lead(sd_schema_reader *r, const char *ref) {
    return sd_gb_spend(r->b, (int64_t)strlen(ref), 0) ? sd_schema_resolve(r->root, ref) : NULL;
}

const json_t *sd_schema_target(sd_schema_reader *r, const json_t *schema) {
    const json_t *ref = json_object_get(schema, "$ref");
    const char *text = json_string_value(ref);
    const json_t *to = text ? sd_schema_lead(r, text) : NULL;
    if (!to)
        sd_schema_fail(r, "\"$ref\" %.200s%s", text ? text : "is no text",
                       text ? " leads to nothing in this schema; only references into it work"
                            : "");
    return to;
}

// The rule of a schema that is referred to, read once.
static int rule_of(sd_schema_reader *r, const json_t *target) {
    if (!sd_gb_spend(r->b, r->n_refs / 8, 0)) return -1;
    for (int i = 0; i < r->n_refs; i++)
        if (r->ref[i].target == target) return r->ref[i].rule;
    if (!SD_GROW(r->ref, r->n_refs + 1, r->cap_refs))
        return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    int rule = sd_gb_rule(r->b);
    r->ref[r->n_refs++] = (sd_schema_ref){target, rule};
    sd_gb_define(r->b, rule, sd_schema_read(r, target));
    return rule;
}

// ---- types

int sd_schema_types(const json_t *schema) {
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    const json_t *type = json_object_get(schema, "type");
    if (!type) return SD_T_ALL;
    size_t n = json_is_array(type) ? json_array_size(type) : 1;
    int all = 0;
    if (n > 7) return -1; // each at most once
    for (size_t i = 0; i < n; i++) {
        const char *word = json_string_value(json_is_array(type) ? json_array_get(type, i) : type);
        int found = 0;
        for (int k = 0; word && k < 7; k++)
            if (strcmp(word, names[k]) == 0) found = 1 << k;
        if (!found) return -1;
        all |= found;
    }
    return all ? all : -1;
}

// Without "type": what the keywords speak of.
static int implied_types(const json_t *schema) {
    int types = 0;
    for (int i = 0; i < KEYWORDS; i++)
        if (keywords[i].types && json_object_get(schema, keywords[i].name))
            types |= keywords[i].types;
    return types ? types : SD_T_ALL;
}

static int read_types(sd_schema_reader *r, const json_t *schema) {
    int types = sd_schema_types(schema), any[8], n = 0;
    if (types < 0) return sd_schema_fail(r, "\"type\" is not a type or a list of types");
    if (!json_object_get(schema, "type")) types = implied_types(schema);
    if (types == SD_T_ALL && implied_types(schema) == SD_T_ALL) return sd_schema_any(r);
    if (types & SD_T_OBJECT) any[n++] = sd_schema_object(r, schema);
    if (types & SD_T_ARRAY) any[n++] = sd_schema_array(r, schema);
    if (types & SD_T_STRING) any[n++] = sd_schema_string(r, schema);
    if (types & SD_T_NUMBER)
        any[n++] = sd_schema_number(r, schema, false);
    else if (types & SD_T_INTEGER)
        any[n++] = sd_schema_number(r, schema, true);
    if (types & SD_T_BOOLEAN)
        any[n++] = sd_gb_text(r->b, "true"), any[n++] = sd_gb_text(r->b, "false");
    if (types & SD_T_NULL) any[n++] = sd_gb_text(r->b, "null");
    return sd_gb_any_of(r->b, any, n);
}

// ---- enum and const

// What stands beside an enum or a constant. It is read for its errors alone: no value is offered that
// the same keywords would refuse elsewhere. NULL after an error.
static const json_t *read_beside(sd_schema_reader *r, const json_t *schema) {
    const json_t *rest = sd_schema_without(r, schema, "enum");
    const json_t *bare = rest ? sd_schema_without(r, rest, "const") : NULL;
    if (!bare) return NULL;
    size_t types = json_object_get(bare, "type") != NULL;
    if (types && sd_schema_types(bare) < 0)
        return sd_schema_fail(r, "\"type\" is not a type or a list of types"), NULL;
    if (json_object_size(bare) > types && read_types(r, bare) < 0) return NULL;
    return json_object_get(schema, "enum") ? rest
                                           : bare; // the values are the enum's, or the constant
}

// The values that the other keywords allow as well. Scalars become one choice along a trie.
static int read_values(sd_schema_reader *r, const json_t *schema) {
    const json_t *list = json_object_get(schema, "enum"), *one = json_object_get(schema, "const");
    size_t n = list ? json_array_size(list) : 1;
    if (list && !json_is_array(list)) return sd_schema_fail(r, "\"enum\" is not an array");
    if (n > SD_SCHEMA_VALUES)
        return sd_schema_fail(r, "\"enum\" has %zu values; at most %d are possible", n,
                              SD_SCHEMA_VALUES);
    const json_t *beside = read_beside(r, schema);
    if (!beside) return -1;
    char **text = sd_alloc(n + 1, sizeof *text);
    size_t *len = sd_alloc(n + 1, sizeof *len);
    int *any = sd_alloc(n + 1, sizeof *any), n_any = 0, n_text = 0, e = -1;
    if (!text || !len || !any) {
        sd_gb_fail(r->b, SD_ENOMEM, "out of memory for an enum");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *v = list ? json_array_get(list, i) : one;
        sd_error err;
        sd_status st = sd_schema_validate_part(r->root, beside, v, &r->b->steps_left, &err);
        if (!sd_gb_spend(r->b, VALUE_STEPS, 0)) goto out;
        if (st == SD_EMISMATCH) continue;
        if (st != SD_OK) {
            sd_schema_fail(r, "%s", err.message);
            goto out;
        }
        if (json_is_object(v) || json_is_array(v) || json_is_real(v)) {
            any[n_any++] = sd_gb_json_constant(r->b, v);
            continue;
        }
        if (sd_json_dump(&text[n_text], v, JSON_ENCODE_ANY, &err) != SD_OK) {
            sd_gb_fail_with(r->b, &err);
            goto out;
        }
        len[n_text] = strlen(text[n_text]);
        n_text++;
    }
    if (n_text) any[n_any++] = sd_gb_choice(r->b, (const char *const *)text, len, n_text);
    e = n_any ? sd_gb_any_of(r->b, any, n_any) : sd_schema_never(r);
out:
    for (int i = 0; i < n_text; i++) free(text[i]);
    free(text), free(len), free(any);
    return e;
}

// ---- combinations

static int read_branches(sd_schema_reader *r, const json_t *schema, const char *key) {
    const json_t *list = json_object_get(schema, key);
    int n = (int)json_array_size(list), e = -1;
    if (!json_is_array(list) || n == 0 || n > SD_SCHEMA_VALUES)
        return sd_schema_fail(r, "\"%s\" is not an array of 1 to %d schemas", key,
                              SD_SCHEMA_VALUES);
    if (strcmp(key, "oneOf") == 0)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < i; k++) {
                if (++r->parts > SD_SCHEMA_PARTS)
                    return sd_schema_fail(r, "more than %d parts", SD_SCHEMA_PARTS);
                bool apart = sd_schema_disjoint(r, json_array_get(list, (size_t)i),
                                                json_array_get(list, (size_t)k), 0);
                if (r->b->err.status) return -1;
                if (!apart)
                    return sd_schema_fail(
                        r,
                        "\"oneOf\": branches %d and %d may fit the same value, and exactly one "
                        "cannot be enforced; use anyOf or give each a constant of its own",
                        k, i);
            }
    const json_t *base = sd_schema_without(r, schema, key);
    int *any = sd_alloc((size_t)n, sizeof *any);
    if (!any || !base) {
        free(any);
        return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    }
    size_t back = sd_schema_enter(r, key);
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        char index[16];
        snprintf(index, sizeof index, "%d", i);
        size_t inner = sd_schema_enter(r, index);
        const json_t *branch = json_array_get(list, (size_t)i);
        if (json_object_size(base)) branch = sd_schema_merge(r, base, branch);
        any[i] = branch ? sd_schema_read(r, branch) : -1;
        ok = any[i] >= 0;
        sd_schema_leave(r, inner);
    }
    sd_schema_leave(r, back);
    if (ok) e = sd_gb_any_of(r->b, any, n);
    free(any);
    return e;
}

// allOf, and a reference beside keywords: one schema of all of them.
static int read_merged(sd_schema_reader *r, const json_t *schema) {
    const json_t *list = json_object_get(schema, "allOf"), *all = schema;
    if (list && !json_is_array(list)) return sd_schema_fail(r, "\"allOf\" is not an array");
    if (json_object_get(schema, "$ref")) {
        const json_t *target = sd_schema_target(r, schema);
        all = target ? sd_schema_without(r, schema, "$ref") : NULL;
        if (list && all) all = sd_schema_without(r, all, "allOf");
        all = all ? sd_schema_merge(r, all, target) : NULL;
    } else {
        all = sd_schema_without(r, schema, "allOf");
    }
    for (size_t i = 0; all && i < json_array_size(list); i++)
        all = sd_schema_merge(r, all, json_array_get(list, i));
    if (!all) return -1;
    return sd_schema_read(r, all);
}

// ---- one schema

// Whether each keyword is known; *alone: nothing but a reference is said of values.
static bool check_keywords(sd_schema_reader *r, const json_t *schema, bool *alone) {
    *alone = true;
    if (!sd_gb_spend(r->b, KEY_STEPS * (int64_t)json_object_size(schema), 0)) return false;
    const char *dialect = json_string_value(json_object_get(schema, "$schema")), *key;
    if (dialect && !strstr(dialect, "json-schema.org/"))
        return sd_schema_fail(r, "the dialect \"$schema\" %.100s is not supported", dialect), false;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value) {
        bool known = sd_schema_is_annotation(key);
        if (strcmp(key, "$id") == 0 && schema != r->root)
            return sd_schema_fail(r, "\"$id\" below the root is not supported"), false;
        if (known) continue;
        for (int i = 0; i < KEYWORDS && !known; i++) known = strcmp(keywords[i].name, key) == 0;
        if (!known)
            return sd_schema_fail(r, "the keyword \"%.80s\" is not supported; leave it out", key),
                   false;
        *alone &= strcmp(key, "$ref") == 0;
    }
    return true;
}

static int read_object(sd_schema_reader *r, const json_t *schema) {
    bool alone;
    if (!check_keywords(r, schema, &alone)) return -1;
    const json_t *ref = json_object_get(schema, "$ref");
    if (ref && alone) {
        const json_t *target = sd_schema_target(r, schema);
        int rule = target ? rule_of(r, target) : -1;
        return rule < 0 ? -1 : sd_gb_ref(r->b, rule);
    }
    if (ref || json_object_get(schema, "allOf")) return read_merged(r, schema);
    if (json_object_get(schema, "anyOf")) return read_branches(r, schema, "anyOf");
    if (json_object_get(schema, "oneOf")) return read_branches(r, schema, "oneOf");
    if (json_object_get(schema, "enum") || json_object_get(schema, "const"))
        return read_values(r, schema);
    return read_types(r, schema);
}

int sd_schema_read(sd_schema_reader *r, const json_t *schema) {
    int e;
    if (!sd_gb_spend(r->b, PART_STEPS, 0)) return -1;
    if (++r->parts > SD_SCHEMA_PARTS)
        return sd_schema_fail(r, "the schema has more than %d parts", SD_SCHEMA_PARTS);
    if (r->depth >= SD_SCHEMA_DEPTH)
        return sd_schema_fail(r, "schemas are nested deeper than %d", SD_SCHEMA_DEPTH);
    if (json_is_true(schema)) return sd_schema_any(r);
    if (json_is_false(schema)) return sd_schema_never(r);
    if (!json_is_object(schema)) return sd_schema_fail(r, "not a schema; give an object");
    r->depth++;
    e = read_object(r, schema);
    r->depth--;
    return e;
}

int sd_gb_json_schema(sd_grammar_builder *b, const json_t *schema) {
    if (b->err.status) return -1;
    sd_schema_reader *r = sd_alloc(1, sizeof *r);
    if (!r) return sd_gb_fail(b, SD_ENOMEM, "out of memory for a schema");
    *r = (sd_schema_reader){.b = b, .root = schema, .made = json_array(), .any = -1};
    int e = r->made ? sd_schema_read(r, schema) : sd_gb_fail(b, SD_ENOMEM, "out of memory");
    json_decref(r->made);
    free(r->ref), free(r);
    return e;
}
