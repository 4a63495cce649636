// A schema's combinations and types. What a schema becomes is decided in this order: a reference alone
// is a rule; an enum is those of its values that everything else lets through; a reference beside
// keywords and allOf are merged into one schema; anyOf and oneOf become alternatives, each with the
// keywords beside them; the rest is a choice of types.
#include "model/grammar/schema/private.h"

#include "base/json.h"
#include "base/list.h"

#include <stdio.h>
#include <string.h>

enum { PART_STEPS = 150, VALUE_STEPS = 40 }; // of the account

// ---- errors and places

int sd_schema_fail(sd_schema_reader *r, const char *fmt, ...) {
    char text[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return sd_gb_fail(r->b, SD_EINVAL, "json schema: #%s: %s", r->path, text);
}

int sd_schema_fail_with(sd_schema_reader *r, const char *key, const sd_error *err) {
    return key ? sd_gb_fail(r->b, err->status, "json schema: #%s: \"%s\": %s", r->path, key,
                            err->message)
               : sd_gb_fail(r->b, err->status, "json schema: #%s: %s", r->path, err->message);
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
    if (!json_is_number(v) || d < 0 || (d < 1e15 && d != (double)(int64_t)d))
        return sd_schema_fail(r, "\"%s\" is not a whole number of at least 0", key), false;
    *out = d > INT32_MAX ? INT32_MAX : (int)d;
    return true;
}

int sd_schema_any(sd_schema_reader *r) {
    if (r->spelling == SD_SPELL_TEXT) return r->text;
    if (r->spelling == SD_SPELL_OTHERS) return sd_schema_never(r); // fewer are offered
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
    const json_t *to = sd_schema_lead(r, json_string_value(json_object_get(schema, "$ref")));
    if (!to) sd_schema_fail(r, "\"$ref\" leads to nothing"); // or the account is used up
    return to;
}

static int read_merged(sd_schema_reader *r, const json_t *schema);

// The rule of a schema that is referred to, or (merged) that is several in one: read once, so that it may
// contain itself.
static int rule_of(sd_schema_reader *r, const json_t *schema, bool merged) {
    if (!sd_gb_spend(r->b, r->n_refs / 8, 0)) return -1;
    for (int i = 0; i < r->n_refs; i++)
        if (r->ref[i].schema == schema && r->ref[i].merged == merged &&
            r->ref[i].spelling == r->spelling)
            return sd_gb_ref(r->b, r->ref[i].rule);
    if (!SD_GROW(r->ref, r->n_refs + 1, r->cap_refs))
        return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    int rule = sd_gb_rule(r->b);
    r->ref[r->n_refs++] = (sd_schema_ref){schema, merged, r->spelling, rule};
    sd_gb_define(r->b, rule, merged ? read_merged(r, schema) : sd_schema_read(r, schema));
    return sd_gb_ref(r->b, rule);
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

static int read_types(sd_schema_reader *r, const json_t *schema) {
    int types = sd_schema_types(schema), implied = sd_schema_implied_types(schema), any[8], n = 0;
    const char *key;
    json_t *v;
    json_object_foreach(
        (json_t *)(uintptr_t)schema, key,
        v) if (sd_schema_effect_of(key) ==
               SD_K_OF_VALUES) return sd_schema_fail(r,
                                                     "the keyword \"%s\" is supported beside enum "
                                                     "or const alone; leave it out",
                                                     key);
    if (!json_object_get(schema, "type")) types = implied;
    if (types == SD_T_ALL && implied == SD_T_ALL) return sd_schema_any(r);
    if (r->spelling == SD_SPELL_TEXT) types &= SD_T_STRING;
    if (r->spelling == SD_SPELL_OTHERS) types &= ~SD_T_STRING;
    sd_schema_spelling own = r->spelling; // not that of values within
    r->spelling = SD_SPELL_JSON;
    if (types & SD_T_OBJECT) any[n++] = sd_schema_object(r, schema);
    if (types & SD_T_ARRAY) any[n++] = sd_schema_array(r, schema);
    r->spelling = own;
    if (types & SD_T_STRING) any[n++] = sd_schema_string(r, schema);
    if (types & SD_T_NUMBER)
        any[n++] = sd_schema_number(r, schema, false);
    else if (types & SD_T_INTEGER)
        any[n++] = sd_schema_number(r, schema, true);
    if (types & SD_T_BOOLEAN)
        any[n++] = sd_gb_text(r->b, "true"), any[n++] = sd_gb_text(r->b, "false");
    if (types & SD_T_NULL) any[n++] = sd_gb_text(r->b, "null");
    return n ? sd_gb_any_of(r->b, any, n) : sd_schema_never(r);
}

// ---- enum and const

// Whether a value is one of those that are spelled. A text with a NUL is none that answers have.
static bool is_spelled(const sd_schema_reader *r, const json_t *v) {
    if (r->spelling != SD_SPELL_TEXT) return r->spelling == SD_SPELL_JSON || !json_is_string(v);
    const char *s = json_string_value(v);
    return s && strlen(s) == json_string_length(v) && !strstr(s, r->without);
}

static sd_status spell(char **out, const sd_schema_reader *r, const json_t *v, sd_error *err) {
    if (r->spelling != SD_SPELL_TEXT) return sd_json_dump(out, v, JSON_ENCODE_ANY, err);
    *out = sd_strndup(json_string_value(v), json_string_length(v));
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory for an enum");
}

// The values that all other keywords allow as well, which the validator says of each: whatever stands
// beside an enum or a constant is enforced. Scalars become one choice along a trie.
static int read_values(sd_schema_reader *r, const json_t *schema) {
    const json_t *list = json_object_get(schema, "enum"), *one = json_object_get(schema, "const");
    size_t n = list ? json_array_size(list) : 1;
    if (n > SD_SCHEMA_VALUES)
        return sd_schema_fail(r, "\"enum\" has %zu values; at most %d are possible", n,
                              SD_SCHEMA_VALUES);
    const json_t *beside = sd_schema_without(r, schema, list ? "enum" : "const");
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
            sd_schema_fail_with(r, NULL, &err);
            goto out;
        }
        if (!is_spelled(r, v)) continue;
        if (json_is_object(v) || json_is_array(v) || json_is_real(v)) {
            any[n_any++] = sd_gb_json_constant(r->b, v);
            continue;
        }
        if (spell(&text[n_text], r, v, &err) != SD_OK) {
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

// allOf, and a reference beside keywords: one schema of all of them. anyOf and oneOf: each branch with what
// stands beside them.
static int read_merged(sd_schema_reader *r, const json_t *schema) {
    const json_t *list = json_object_get(schema, "allOf"), *all = schema;
    bool ref = json_object_get(schema, "$ref");
    if (!ref && !list)
        return read_branches(r, schema, json_object_get(schema, "anyOf") ? "anyOf" : "oneOf");
    if (ref) {
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

// Keywords that say something of values.
static int count_said(const json_t *schema) {
    int n = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v) n += !sd_schema_is_annotation(key);
    return n;
}

static int read_object(sd_schema_reader *r, const json_t *schema) {
    const json_t *ref = json_object_get(schema, "$ref"), *all = json_object_get(schema, "allOf");
    bool branches = json_object_get(schema, "anyOf") || json_object_get(schema, "oneOf");
    bool alone = count_said(schema) == 1;
    if (ref && alone) {
        const json_t *target = sd_schema_target(r, schema);
        return target ? rule_of(r, target, false) : -1;
    }
    if (json_object_get(schema, "enum") || json_object_get(schema, "const"))
        return read_values(r, schema);
    if (all && alone && json_array_size(all) == 1) { // as older Pydantic writes a reference
        size_t back = sd_schema_enter(r, "allOf");
        int e = sd_schema_read_at(r, json_array_get(all, 0), "0");
        sd_schema_leave(r, back);
        return e;
    }
    if (branches && alone) return read_merged(r, schema);
    if (ref || all || branches) return rule_of(r, schema, true);
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
    r->depth++;
    e = read_object(r, schema);
    r->depth--;
    return e;
}

static sd_schema_reader *open_reader(sd_grammar_builder *b, const json_t *root) {
    sd_schema_reader *r = b->err.status ? NULL : sd_alloc(1, sizeof *r);
    if (r) *r = (sd_schema_reader){.b = b, .root = root, .made = json_array(), .any = -1};
    if (r && r->made) return r;
    if (!b->err.status) sd_gb_fail(b, SD_ENOMEM, "out of memory for a schema");
    free(r);
    return NULL;
}

static void close_reader(sd_schema_reader *r) {
    if (!r) return;
    json_decref(r->made);
    free(r->ref), free(r->both), free(r);
}

int sd_gb_json_schema(sd_grammar_builder *b, const json_t *schema) {
    sd_schema_reader *r = open_reader(b, schema);
    int e = r && sd_schema_check(r) ? sd_schema_read(r, schema) : -1;
    close_reader(r);
    return e;
}

bool sd_gb_json_schema_check(sd_grammar_builder *b, const json_t *root) {
    sd_schema_reader *r = open_reader(b, root);
    bool ok = r && sd_schema_check(r);
    close_reader(r);
    return ok;
}

int sd_gb_json_schema_part(sd_grammar_builder *b, const sd_schema_part *p) {
    sd_schema_reader *r = open_reader(b, p->root);
    int e = -1;
    if (r) {
        r->spelling = p->spelling, r->without = p->without, r->text = p->text;
        e = sd_schema_read_at(r, p->part, p->key);
    }
    close_reader(r);
    return e;
}
