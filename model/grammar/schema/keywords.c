// A schema is looked at once as it is written, before anything is made of it: each keyword is
// enforced, an annotation, or refused by its name and place, and its value has the keyword's form. So
// what is merged or never reached later loses no keyword in silence.
//
// The walk sees the document from its root on and whatever a reference leads to, each reference once.
#include "model/grammar/pattern/regex.h"
#include "model/grammar/schema/private.h"

#include <stdio.h>
#include <string.h>

typedef enum {
    F_ANY,
    F_TEXT,
    F_FLAG,
    F_COUNT,
    F_NUMBER,
    F_ABOVE_0,
    F_TYPE,
    F_NAMES,      // an array of texts
    F_NAME_LISTS, // an object of these
    F_VALUES,     // an array
    F_OBJECT,
    F_PATTERN,
    F_FORMAT,
    F_REF,
    F_SCHEMA,
    F_SCHEMAS,    // an array of at least one
    F_SCHEMA_MAP, // an object of them
    F_PATTERN_MAP // likewise, by patterns
} form;

// By name. types: what the keyword speaks of; 0: of all.
static const struct sd_schema_keyword {
    const char *name;
    sd_schema_effect effect;
    form form;
    int types;
} keywords[] = {
    {"$comment", SD_K_ANNOTATION, F_ANY, 0},
    {"$defs", SD_K_ANNOTATION, F_OBJECT, 0},
    {"$id", SD_K_ANNOTATION, F_TEXT, 0}, // at the root
    {"$ref", SD_K_ENFORCED, F_REF, 0},
    {"$schema", SD_K_ANNOTATION, F_TEXT, 0},
    {"$vocabulary", SD_K_ANNOTATION, F_OBJECT, 0},
    {"additionalProperties", SD_K_ENFORCED, F_SCHEMA, SD_T_OBJECT},
    {"allOf", SD_K_ENFORCED, F_SCHEMAS, 0},
    {"anyOf", SD_K_ENFORCED, F_SCHEMAS, 0},
    {"const", SD_K_ENFORCED, F_ANY, 0},
    {"contains", SD_K_OF_VALUES, F_SCHEMA, SD_T_ARRAY},
    {"contentEncoding", SD_K_ANNOTATION, F_TEXT, 0},
    {"contentMediaType", SD_K_ANNOTATION, F_TEXT, 0},
    {"contentSchema", SD_K_ANNOTATION, F_ANY, 0},
    {"default", SD_K_ANNOTATION, F_ANY, 0},
    {"definitions", SD_K_ANNOTATION, F_OBJECT, 0},
    {"dependentRequired", SD_K_OF_VALUES, F_NAME_LISTS, SD_T_OBJECT},
    {"dependentSchemas", SD_K_OF_VALUES, F_SCHEMA_MAP, SD_T_OBJECT},
    {"deprecated", SD_K_ANNOTATION, F_ANY, 0},
    {"description", SD_K_ANNOTATION, F_ANY, 0},
    {"discriminator", SD_K_ANNOTATION, F_ANY, 0}, // of OpenAPI, beside a oneOf that says it all
    {"else", SD_K_OF_VALUES, F_SCHEMA, 0},
    {"enum", SD_K_ENFORCED, F_VALUES, 0},
    {"example", SD_K_ANNOTATION, F_ANY, 0},
    {"examples", SD_K_ANNOTATION, F_ANY, 0},
    {"exclusiveMaximum", SD_K_ENFORCED, F_NUMBER, SD_T_NUMBER},
    {"exclusiveMinimum", SD_K_ENFORCED, F_NUMBER, SD_T_NUMBER},
    {"externalDocs", SD_K_ANNOTATION, F_ANY, 0},
    {"format", SD_K_ENFORCED, F_FORMAT, SD_T_STRING | SD_T_NUMBER},
    {"if", SD_K_OF_VALUES, F_SCHEMA, 0},
    {"items", SD_K_ENFORCED, F_SCHEMA, SD_T_ARRAY},
    {"maxContains", SD_K_OF_VALUES, F_COUNT, SD_T_ARRAY},
    {"maxItems", SD_K_ENFORCED, F_COUNT, SD_T_ARRAY},
    {"maxLength", SD_K_ENFORCED, F_COUNT, SD_T_STRING},
    {"maxProperties", SD_K_ENFORCED, F_COUNT, SD_T_OBJECT},
    {"maximum", SD_K_ENFORCED, F_NUMBER, SD_T_NUMBER},
    {"minContains", SD_K_OF_VALUES, F_COUNT, SD_T_ARRAY},
    {"minItems", SD_K_ENFORCED, F_COUNT, SD_T_ARRAY},
    {"minLength", SD_K_ENFORCED, F_COUNT, SD_T_STRING},
    {"minProperties", SD_K_ENFORCED, F_COUNT, SD_T_OBJECT},
    {"minimum", SD_K_ENFORCED, F_NUMBER, SD_T_NUMBER},
    {"multipleOf", SD_K_ENFORCED, F_ABOVE_0, SD_T_NUMBER},
    {"not", SD_K_OF_VALUES, F_SCHEMA, 0},
    {"oneOf", SD_K_ENFORCED, F_SCHEMAS, 0},
    {"pattern", SD_K_ENFORCED, F_PATTERN, SD_T_STRING},
    {"patternProperties", SD_K_OF_VALUES, F_PATTERN_MAP, SD_T_OBJECT},
    {"prefixItems", SD_K_ENFORCED, F_SCHEMAS, SD_T_ARRAY},
    {"properties", SD_K_ENFORCED, F_SCHEMA_MAP, SD_T_OBJECT},
    {"propertyNames", SD_K_OF_VALUES, F_SCHEMA, SD_T_OBJECT},
    {"readOnly", SD_K_ANNOTATION, F_ANY, 0},
    {"required", SD_K_ENFORCED, F_NAMES, SD_T_OBJECT},
    {"then", SD_K_OF_VALUES, F_SCHEMA, 0},
    {"title", SD_K_ANNOTATION, F_ANY, 0},
    {"type", SD_K_ENFORCED, F_TYPE, 0},
    {"uniqueItems", SD_K_ENFORCED, F_FLAG, SD_T_ARRAY},
    {"writeOnly", SD_K_ANNOTATION, F_ANY, 0},
    {"xml", SD_K_ANNOTATION, F_ANY, 0},
};
typedef struct sd_schema_keyword keyword;
enum { KEYWORDS = sizeof keywords / sizeof keywords[0] };
enum { PART_STEPS = 20, KEY_STEPS = 12, NAME_STEPS = 2, REF_STEPS = 30 }; // of the account

static int by_name(const void *name, const void *k) {
    return strcmp(name, ((const keyword *)k)->name);
}

static const keyword *find(const char *name) {
    return bsearch(name, keywords, KEYWORDS, sizeof keywords[0], by_name);
}

sd_schema_effect sd_schema_effect_of(const char *key) {
    const keyword *k = find(key);
    if (k) return k->effect;
    return strncmp(key, "x-", 2) == 0 ? SD_K_ANNOTATION : SD_K_UNKNOWN;
}

bool sd_schema_is_annotation(const char *key) {
    return sd_schema_effect_of(key) == SD_K_ANNOTATION;
}

static int format_types(const json_t *format) {
    const char *name = json_string_value(format);
    return name && sd_format_kind_of(name) == SD_FORMAT_NUMBER ? SD_T_NUMBER : SD_T_STRING;
}

int sd_schema_implied_types(const json_t *schema) {
    int types = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v) {
        const keyword *k = find(key);
        if (k) types |= k->form == F_FORMAT ? format_types(v) : k->types;
    }
    return types ? types : SD_T_ALL;
}

// ---- forms of values

static bool is_names(const json_t *v) {
    size_t i;
    json_t *name;
    json_array_foreach(v, i, name) if (!json_is_string(name)) return false;
    return json_is_array(v);
}

static bool is_name_lists(const json_t *v) {
    const char *key;
    json_t *names;
    json_object_foreach((json_t *)(uintptr_t)v, key, names) if (!is_names(names)) return false;
    return json_is_object(v);
}

static bool check_pattern(sd_schema_reader *r, const char *key, const char *pattern, size_t len) {
    sd_regex tree;
    sd_error err = {0};
    if (!sd_gb_spend(r->b, REF_STEPS + 2 * (int64_t)len, 0)) return false;
    if (sd_regex_parse(&tree, pattern, len, &err) != SD_OK)
        return sd_schema_fail(r, "\"%s\": %s", key, err.message), false;
    sd_regex_free(&tree);
    return true;
}

// A format is one that is enforced, or whose texts are any; and the schema's types have it.
static bool check_format(sd_schema_reader *r, const json_t *schema, const json_t *format) {
    const char *name = json_string_value(format);
    if (!name) return sd_schema_fail(r, "\"format\" is not a text"), false;
    if (sd_format_kind_of(name) == SD_FORMAT_UNKNOWN)
        return sd_schema_fail(r, "the format \"%.80s\" is not supported; leave it out", name),
               false;
    int types = sd_schema_types(schema), of = format_types(format);
    if (types > 0 && types & SD_T_INTEGER) types |= SD_T_NUMBER;
    if (types > 0 && !(types & of))
        return sd_schema_fail(r,
                              "the format \"%.80s\" says nothing of the schema's \"type\"; leave "
                              "it out",
                              name),
               false;
    return true;
}

static bool check_form(sd_schema_reader *r, const json_t *schema, const keyword *k,
                       const json_t *v) {
    const char *want = NULL;
    int count = 0;
    switch (k->form) {
    case F_ANY:
        break;
    case F_TEXT:
    case F_REF:
        want = json_is_string(v) ? NULL : "is no text";
        break;
    case F_FLAG:
        want = json_is_boolean(v) ? NULL : "is neither true nor false";
        break;
    case F_COUNT:
        return sd_schema_count(r, schema, k->name, &count);
    case F_NUMBER:
        want = json_is_number(v) ? NULL : "is not a number";
        break;
    case F_ABOVE_0:
        want = json_is_number(v) && json_number_value(v) > 0 ? NULL : "is not a number above 0";
        break;
    case F_TYPE:
        want = sd_schema_types(schema) >= 0 ? NULL : "is not a type or a list of types";
        break;
    case F_NAMES:
        want = is_names(v) ? NULL : "is not an array of names";
        break;
    case F_NAME_LISTS:
        want = is_name_lists(v) ? NULL : "is not an object of arrays of names";
        break;
    case F_VALUES:
        want = json_is_array(v) ? NULL : "is not an array";
        break;
    case F_OBJECT:
    case F_SCHEMA_MAP:
    case F_PATTERN_MAP:
        want = json_is_object(v) ? NULL : "is not an object";
        break;
    case F_PATTERN:
        if (json_is_string(v))
            return check_pattern(r, k->name, json_string_value(v), json_string_length(v));
        want = "is not a text";
        break;
    case F_FORMAT:
        return check_format(r, schema, v);
    case F_SCHEMA:
        if (json_is_array(v) && strcmp(k->name, "items") == 0)
            want = "is an array, as in older drafts; use prefixItems";
        break; // what it is else, the walk sees
    case F_SCHEMAS:
        if (strcmp(k->name, "anyOf") != 0 && strcmp(k->name, "oneOf") != 0)
            want = json_array_size(v) ? NULL : "is not an array of at least one schema";
        else if (json_array_size(v) == 0 || json_array_size(v) > SD_SCHEMA_VALUES)
            return sd_schema_fail(r, "\"%s\" is not an array of 1 to %d schemas", k->name,
                                  SD_SCHEMA_VALUES),
                   false;
        break;
    }
    if (want) sd_schema_fail(r, "\"%s\" %s", k->name, want);
    return !want;
}

// ---- the walk

typedef struct {
    sd_schema_reader *r;
    json_t *seen;  // an object: the references that were met
    json_t *ahead; // an array of them, in the order they were met
    int depth, parts;
} walk;

static bool visit(walk *w, const json_t *schema);

static bool visit_at(walk *w, const json_t *schema, const char *key) {
    size_t back = sd_schema_enter(w->r, key);
    bool ok = visit(w, schema);
    sd_schema_leave(w->r, back);
    return ok;
}

static bool meet(walk *w, const char *ref) {
    if (!sd_gb_spend(w->r->b, REF_STEPS + (int64_t)strlen(ref) / 4, 0)) return false;
    if (json_object_get(w->seen, ref)) return true;
    if (json_object_set_new(w->seen, ref, json_true()) == 0 &&
        json_array_append_new(w->ahead, json_string(ref)) == 0)
        return true;
    return sd_gb_fail(w->r->b, SD_ENOMEM, "out of memory for a schema"), false;
}

// The schemas in a keyword's value.
static bool visit_parts(walk *w, const keyword *k, const json_t *v) {
    sd_schema_reader *r = w->r;
    bool ok = true;
    const char *key;
    json_t *part;
    if (k->form == F_REF) return meet(w, json_string_value(v));
    if (k->form == F_SCHEMA) return visit_at(w, v, k->name);
    if (k->form < F_SCHEMAS) return true;
    size_t back = sd_schema_enter(r, k->name), i;
    if (k->form == F_SCHEMAS) json_array_foreach(v, i, part) {
            char index[24];
            snprintf(index, sizeof index, "%zu", i);
            if (!(ok = visit_at(w, part, index))) break;
        }
    else
        json_object_foreach((json_t *)(uintptr_t)v, key, part) {
            ok = (k->form != F_PATTERN_MAP || check_pattern(r, k->name, key, strlen(key))) &&
                 visit_at(w, part, key);
            if (!ok) break;
        }
    sd_schema_leave(r, back);
    return ok;
}

static bool visit_keyword(walk *w, const json_t *schema, const char *key, const json_t *v) {
    sd_schema_reader *r = w->r;
    const keyword *k = find(key);
    if (!sd_gb_spend(r->b, KEY_STEPS + (int64_t)strlen(key) / 8, 0)) return false;
    if (!k && strncmp(key, "x-", 2) == 0) return true;
    if (!k)
        return sd_schema_fail(r, "the keyword \"%.80s\" is not supported; leave it out", key),
               false;
    if (!check_form(r, schema, k, v)) return false;
    if (strcmp(key, "$id") == 0 && schema != r->root)
        return sd_schema_fail(r, "\"$id\" below the root is not supported"), false;
    if (strcmp(key, "$schema") == 0 && !strstr(json_string_value(v), "json-schema.org/"))
        return sd_schema_fail(r, "the dialect \"$schema\" %.100s is not supported",
                              json_string_value(v)),
               false;
    int64_t names = k->form == F_NAMES ? (int64_t)json_array_size(v) : 0;
    return sd_gb_spend(r->b, NAME_STEPS * names, 0) && visit_parts(w, k, v);
}

static bool visit(walk *w, const json_t *schema) {
    sd_schema_reader *r = w->r;
    bool ok = true;
    const char *key;
    json_t *v;
    if (!sd_gb_spend(r->b, PART_STEPS, 0)) return false;
    if (++w->parts > SD_SCHEMA_PARTS)
        return sd_schema_fail(r, "the schema has more than %d parts", SD_SCHEMA_PARTS), false;
    if (json_is_boolean(schema)) return true;
    if (!json_is_object(schema)) return sd_schema_fail(r, "not a schema; give an object"), false;
    if (w->depth >= SD_SCHEMA_DEPTH)
        return sd_schema_fail(r, "schemas are nested deeper than %d", SD_SCHEMA_DEPTH), false;
    w->depth++;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v) {
        if (!(ok = visit_keyword(w, schema, key, v))) break;
    }
    w->depth--;
    return ok;
}

bool sd_schema_check(sd_schema_reader *r) {
    walk w = {.r = r, .seen = json_object(), .ahead = json_array()};
    bool ok = w.seen && w.ahead;
    if (!ok) sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    ok = ok && visit(&w, r->root);
    for (size_t i = 0; ok && i < json_array_size(w.ahead); i++) {
        const char *ref = json_string_value(json_array_get(w.ahead, i));
        const json_t *target = sd_schema_lead(r, ref);
        if (!target) {
            sd_schema_fail(r,
                           "\"$ref\" %.200s leads to nothing in this schema; only references "
                           "into it work",
                           ref);
            ok = false;
        } else if (target != r->root) {
            snprintf(r->path, sizeof r->path, "%s", ref + 1);
            ok = visit(&w, target);
            r->path[0] = '\0';
        }
    }
    json_decref(w.seen), json_decref(w.ahead);
    return ok;
}
