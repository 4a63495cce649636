// A value against its schema, keyword by keyword as the specification says. It knows nothing of the
// automata: patterns are PCRE2's (match.h), formats are checked by hand, numbers are int64 or doubles. So
// what it finds in an answer that was held to a mask is an error of one of the two.
#include "model/grammar/schema/match.h"
#include "model/grammar/schema/schema.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// A step is some 10 ns. Values that are compared lie anywhere in memory.
enum { DEPTH = 2 * SD_SCHEMA_DEPTH, STEPS = 4000000, CHECK_STEPS = 30, EQUAL_STEPS = 9 };

typedef struct {
    const json_t *root;
    sd_error *err;
    int depth;
    int64_t *steps; // that are left
    char path[256]; // of the value, as a JSON pointer
} reader;

static sd_status check(reader *r, const json_t *schema, const json_t *value);

static sd_status fail(reader *r, const char *keyword, const char *what) {
    return sd_fail(r->err, SD_EMISMATCH, "the value at \"%s\" does not fit \"%s\"%s", r->path,
                   keyword, what);
}

static sd_status check_at(reader *r, const json_t *schema, const json_t *value, const char *key) {
    size_t n = strlen(r->path);
    snprintf(r->path + n, sizeof r->path - n, "/%s", key);
    sd_status st = check(r, schema, value);
    r->path[n] = '\0';
    return st;
}

static sd_status used_up(reader *r) {
    return sd_fail(r->err, SD_ELIMIT, "the value takes too many steps to be checked");
}

bool sd_schema_equal(const json_t *a, const json_t *b, int64_t *steps) {
    if ((*steps -= EQUAL_STEPS) < 0) return false;
    if (json_is_number(a) && json_is_number(b)) {
        if (json_is_integer(a) && json_is_integer(b))
            return json_integer_value(a) == json_integer_value(b);
        long double x = sd_json_number(a), y = sd_json_number(b);
        return x <= y && x >= y;
    }
    if (json_is_array(a) && json_is_array(b)) {
        bool same = json_array_size(a) == json_array_size(b);
        for (size_t i = 0; same && i < json_array_size(a); i++)
            same = sd_schema_equal(json_array_get(a, i), json_array_get(b, i), steps);
        return same;
    }
    if (json_is_object(a) && json_is_object(b)) {
        const char *key;
        json_t *v;
        bool same = json_object_size(a) == json_object_size(b);
        json_object_foreach((json_t *)(uintptr_t)a, key, v) {
            if (!same) break;
            *steps -= 2 + (int64_t)strlen(key) / 8;
            const json_t *other = json_object_get(b, key);
            same = other && sd_schema_equal(v, other, steps);
        }
        return same;
    }
    if (json_is_string(a) && json_is_string(b) && json_string_length(a) == json_string_length(b))
        *steps -= (int64_t)json_string_length(a) / 64;
    return json_equal(a, b);
}

// ---- patterns

static sd_status match_pattern(reader *r, const char *pattern, size_t p_len, const char *text,
                               size_t len, const char *keyword) {
    sd_status st = sd_match_pattern(pattern, p_len, text, len, r->steps, r->err);
    return st == SD_EMISMATCH ? fail(r, keyword, "") : st;
}

// ---- types

static bool has_type(const char *word, const json_t *v) {
    if (strcmp(word, "null") == 0) return json_is_null(v);
    if (strcmp(word, "boolean") == 0) return json_is_boolean(v);
    if (strcmp(word, "number") == 0) return json_is_number(v);
    if (strcmp(word, "string") == 0) return json_is_string(v);
    if (strcmp(word, "array") == 0) return json_is_array(v);
    if (strcmp(word, "object") == 0) return json_is_object(v);
    if (strcmp(word, "integer") != 0) return false;
    return json_is_integer(v) ||
           (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
}

static sd_status check_general(reader *r, const json_t *s, const json_t *v) {
    const json_t *type = json_object_get(s, "type"), *list = json_object_get(s, "enum"),
                 *one = json_object_get(s, "const");
    if (json_is_string(type) && !has_type(json_string_value(type), v)) return fail(r, "type", "");
    if (json_is_array(type)) {
        bool any = false;
        *r->steps -= (int64_t)json_array_size(type);
        for (size_t i = 0; i < json_array_size(type) && *r->steps >= 0; i++) {
            const char *word = json_string_value(json_array_get(type, i));
            any |= word && has_type(word, v);
        }
        if (!any) return fail(r, "type", "");
    }
    if (one && !sd_schema_equal(one, v, r->steps)) return fail(r, "const", "");
    if (list) {
        bool any = false;
        for (size_t i = 0; !any && i < json_array_size(list); i++)
            any = sd_schema_equal(json_array_get(list, i), v, r->steps);
        if (!any) return fail(r, "enum", "");
    }
    return SD_OK;
}

// ---- combinations

static sd_status check_condition(reader *r, const json_t *s, const json_t *v) {
    const json_t *condition = json_object_get(s, "if");
    if (!condition) return SD_OK;
    sd_status st = check(r, condition, v);
    if (st != SD_OK && st != SD_EMISMATCH) return st;
    const json_t *then = json_object_get(s, st == SD_OK ? "then" : "else");
    return then ? check(r, then, v) : SD_OK;
}

static sd_status check_combinations(reader *r, const json_t *s, const json_t *v) {
    static const char *const keys[] = {"allOf", "anyOf", "oneOf"};
    for (int k = 0; k < 3; k++) {
        const json_t *list = json_object_get(s, keys[k]);
        size_t n = json_array_size(list), fit = 0;
        if (!list) continue;
        for (size_t i = 0; i < n; i++) {
            sd_status st = check(r, json_array_get(list, i), v);
            if (st != SD_OK && st != SD_EMISMATCH) return st;
            fit += st == SD_OK;
        }
        if (k == 0 ? fit < n : k == 1 ? fit == 0 : fit != 1) return fail(r, keys[k], "");
    }
    const json_t *none = json_object_get(s, "not"), *ref = json_object_get(s, "$ref");
    if (none) {
        sd_status st = check(r, none, v);
        if (st != SD_EMISMATCH) return st == SD_OK ? fail(r, "not", "") : st;
    }
    sd_status st = check_condition(r, s, v);
    if (st != SD_OK || !ref) return st;
    const char *text = json_string_value(ref);
    const json_t *to = NULL;
    if (text) {
        *r->steps -= (int64_t)strlen(text);
        if (*r->steps < 0) return used_up(r);
        to = sd_schema_resolve(r->root, text);
    }
    if (!to) return sd_fail(r->err, SD_EFORMAT, "\"$ref\" leads to nothing in the schema");
    return check(r, to, v);
}

// ---- objects and arrays

static bool is_count(const json_t *s, const char *key, double *out) {
    const json_t *v = json_object_get(s, key);
    *out = json_number_value(v);
    return json_is_number(v);
}

// A member's name, and what patternProperties say of it; *listed becomes true where they do.
static sd_status check_name(reader *r, const json_t *s, const json_t *member, const char *key,
                            bool *listed) {
    const json_t *names = json_object_get(s, "propertyNames");
    const char *pattern;
    json_t *schema;
    if (names) {
        json_t *name = json_string(key);
        if (!name) return sd_fail(r->err, SD_ENOMEM, "out of memory for a name");
        sd_status st = check_at(r, names, name, key);
        json_decref(name);
        if (st != SD_OK) return st;
    }
    json_object_foreach(json_object_get(s, "patternProperties"), pattern, schema) {
        sd_status st =
            match_pattern(r, pattern, strlen(pattern), key, strlen(key), "patternProperties");
        if (st == SD_OK)
            *listed = true, st = check_at(r, schema, member, key);
        else if (st == SD_EMISMATCH)
            continue;
        if (st != SD_OK) return st;
    }
    return SD_OK;
}

static sd_status check_dependents(reader *r, const json_t *s, const json_t *v) {
    const char *key;
    json_t *list, *schema, *name;
    size_t i;
    json_object_foreach(json_object_get(s, "dependentRequired"), key, list) {
        if (!json_object_get(v, key)) continue;
        *r->steps -= 4 * (int64_t)json_array_size(list);
        json_array_foreach(
            list, i, name) if (json_is_string(name) &&
                               !json_object_get(
                                   v, json_string_value(name))) return fail(r, "dependentRequired",
                                                                            "");
    }
    json_object_foreach(json_object_get(s, "dependentSchemas"), key, schema) {
        sd_status st = json_object_get(v, key) ? check(r, schema, v) : SD_OK;
        if (st != SD_OK) return st;
    }
    return SD_OK;
}

static sd_status check_object(reader *r, const json_t *s, const json_t *v) {
    const json_t *props = json_object_get(s, "properties"),
                 *required = json_object_get(s, "required"),
                 *more = json_object_get(s, "additionalProperties");
    double n;
    *r->steps -= 4 * (int64_t)(json_array_size(required) + json_object_size(v));
    if (*r->steps < 0) return used_up(r);
    if (is_count(s, "minProperties", &n) && (double)json_object_size(v) < n)
        return fail(r, "minProperties", "");
    if (is_count(s, "maxProperties", &n) && (double)json_object_size(v) > n)
        return fail(r, "maxProperties", "");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name && !json_object_get(v, name)) return fail(r, "required", "");
    }
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)v, key, member) {
        const json_t *own = json_object_get(props, key);
        bool listed = own;
        sd_status st = own ? check_at(r, own, member, key) : SD_OK;
        if (st == SD_OK) st = check_name(r, s, member, key, &listed);
        if (st == SD_OK && more && !listed) st = check_at(r, more, member, key);
        if (st != SD_OK) return st;
    }
    return check_dependents(r, s, v);
}

static sd_status check_contains(reader *r, const json_t *s, const json_t *v) {
    const json_t *schema = json_object_get(s, "contains");
    double least, most, found = 0;
    if (!schema) return SD_OK;
    if (!is_count(s, "minContains", &least)) least = 1;
    for (size_t i = 0; i < json_array_size(v); i++) {
        sd_status st = check(r, schema, json_array_get(v, i));
        if (st != SD_OK && st != SD_EMISMATCH) return st;
        found += st == SD_OK;
    }
    if (found < least) return fail(r, "contains", "");
    return is_count(s, "maxContains", &most) && found > most ? fail(r, "maxContains", "") : SD_OK;
}

static sd_status check_array(reader *r, const json_t *s, const json_t *v) {
    const json_t *prefix = json_object_get(s, "prefixItems"), *items = json_object_get(s, "items");
    size_t size = json_array_size(v);
    double n;
    *r->steps -= 4 * (int64_t)size;
    if (*r->steps < 0) return used_up(r);
    if (is_count(s, "minItems", &n) && (double)size < n) return fail(r, "minItems", "");
    if (is_count(s, "maxItems", &n) && (double)size > n) return fail(r, "maxItems", "");
    for (size_t i = 0; i < size; i++) {
        char index[24];
        const json_t *schema = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        snprintf(index, sizeof index, "%zu", i);
        sd_status st = schema ? check_at(r, schema, json_array_get(v, i), index) : SD_OK;
        if (st != SD_OK) return st;
    }
    if (json_is_true(json_object_get(s, "uniqueItems")))
        for (size_t i = 0; i < size; i++)
            for (size_t k = 0; k < i && *r->steps >= 0; k++)
                if (sd_schema_equal(json_array_get(v, i), json_array_get(v, k), r->steps))
                    return fail(r, "uniqueItems", "");
    return check_contains(r, s, v);
}

// ---- strings and numbers

static sd_status check_string(reader *r, const json_t *s, const json_t *v) {
    const json_t *pattern = json_object_get(s, "pattern"), *format = json_object_get(s, "format");
    const char *text = json_string_value(v);
    size_t len = json_string_length(v), chars = 0;
    double n;
    *r->steps -= (int64_t)len / 8;
    if (*r->steps < 0) return used_up(r);
    for (size_t i = 0; i < len; i++) chars += ((unsigned char)text[i] & 0xC0) != 0x80;
    if (is_count(s, "minLength", &n) && (double)chars < n) return fail(r, "minLength", "");
    if (is_count(s, "maxLength", &n) && (double)chars > n) return fail(r, "maxLength", "");
    bool known = false;
    if (json_is_string(format) && !sd_format_check(json_string_value(format), text, len, &known) &&
        known)
        return fail(r, "format", "");
    if (!json_is_string(pattern)) return SD_OK;
    return match_pattern(r, json_string_value(pattern), json_string_length(pattern), text, len,
                         "pattern");
}

static bool is_bound(const json_t *s, const char *key, long double *out) {
    const json_t *v = json_object_get(s, key);
    *out = sd_json_number(v);
    return json_is_number(v);
}

static sd_status check_number(reader *r, const json_t *s, const json_t *v) {
    long double x = sd_json_number(v);
    long double bound;
    double n, min, max;
    const char *format = json_string_value(json_object_get(s, "format"));
    bool whole;
    if (format && sd_format_range(format, &min, &max, &whole) &&
        (x < min || x > max || (whole && x != floorl(x))))
        return fail(r, "format", "");
    if (is_bound(s, "minimum", &bound) && x < bound) return fail(r, "minimum", "");
    if (is_bound(s, "maximum", &bound) && x > bound) return fail(r, "maximum", "");
    if (is_bound(s, "exclusiveMinimum", &bound) && x <= bound)
        return fail(r, "exclusiveMinimum", "");
    if (is_bound(s, "exclusiveMaximum", &bound) && x >= bound)
        return fail(r, "exclusiveMaximum", "");
    if (!is_count(s, "multipleOf", &n) || !(n > 0)) return SD_OK;
    const json_t *of = json_object_get(s, "multipleOf");
    if (json_is_integer(v) && json_is_integer(of))
        return json_integer_value(v) % json_integer_value(of) == 0 ? SD_OK
                                                                   : fail(r, "multipleOf", "");
    bool fits;
    if (n == floor(n)) { // exactly
        long double rest = fmodl(x, n);
        fits = rest <= 0 && rest >= 0;
    } else { // 0.3 is a multiple of 0.1: as near as the roundings of both and of the quotient leave it
        double q = (double)x / n;
        fits = fabs(q - round(q)) <= 2 * DBL_EPSILON * fmax(fabs(q), 1);
    }
    return fits ? SD_OK : fail(r, "multipleOf", "");
}

// ---- a schema

static sd_status check_keywords(reader *r, const json_t *s, const json_t *v) {
    sd_status st = check_general(r, s, v);
    if (st == SD_OK) st = check_combinations(r, s, v);
    if (st == SD_OK && json_is_object(v)) st = check_object(r, s, v);
    if (st == SD_OK && json_is_array(v)) st = check_array(r, s, v);
    if (st == SD_OK && json_is_string(v)) st = check_string(r, s, v);
    if (st == SD_OK && json_is_number(v)) st = check_number(r, s, v);
    return st;
}

static sd_status check(reader *r, const json_t *s, const json_t *v) {
    *r->steps -= CHECK_STEPS;
    if (*r->steps < 0) return used_up(r);
    if (json_is_true(s)) return SD_OK;
    if (json_is_false(s)) return fail(r, "false", "");
    if (!json_is_object(s)) return sd_fail(r->err, SD_EFORMAT, "a part of the schema is no schema");
    if (r->depth >= DEPTH) return sd_fail(r->err, SD_ELIMIT, "the schema is nested too deeply");
    r->depth++;
    sd_status st = check_keywords(r, s, v);
    r->depth--;
    return *r->steps < 0 ? used_up(r) : st; // a comparison that was not ended says nothing
}

sd_status sd_schema_validate_part(const json_t *root, const json_t *part, const json_t *value,
                                  int64_t *steps, sd_error *err) {
    int64_t own = STEPS;
    reader r = {.root = root, .err = err, .steps = steps ? steps : &own};
    return check(&r, part, value);
}

sd_status sd_schema_validate(const json_t *schema, const json_t *value, sd_error *err) {
    return sd_schema_validate_part(schema, schema, value, NULL, err);
}
