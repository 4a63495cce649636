// Objects and arrays.
//
// An object's members come in the order of its properties. What may follow the first k of them is a
// rule of its own, once for "something stands before" and once for "nothing does": two rules a
// property, however many are optional.
#include "model/grammar/schema/private.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    const json_t *schema; // NULL: any value
    bool required;
} property;

typedef struct {
    property *p; // [n]
    int n;
    const json_t *further; // additionalProperties; NULL: none may follow
    bool further_any;      // any value may
} object;

static bool is_required(const json_t *list, const char *name) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (strcmp(json_string_value(v), name) == 0) return true;
    return false;
}

// The listed properties, then required ones that are not listed.
static bool collect(sd_schema_reader *r, object *o, const json_t *schema) {
    const json_t *props = json_object_get(schema, "properties"),
                 *required = json_object_get(schema, "required"),
                 *more = json_object_get(schema, "additionalProperties");
    size_t most = json_object_size(props) + json_array_size(required);
    if (most > SD_SCHEMA_PARTS)
        return sd_schema_fail(r, "more than %d properties", SD_SCHEMA_PARTS), false;
    if (!sd_gb_spend(r->b, (int64_t)(json_array_size(required) * json_object_size(props) / 2), 0))
        return false;
    o->p = sd_alloc(most + 1, sizeof *o->p);
    if (!o->p) return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema"), false;
    o->further_any = json_is_true(more) || (!more && !props);
    o->further = json_is_object(more) ? more : NULL;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)props, key, value) o->p[o->n++] =
        (property){key, value, is_required(required, key)};
    size_t i;
    json_array_foreach(required, i, value) {
        if (json_object_get(props, json_string_value(value))) continue;
        bool twice = false;
        if (!sd_gb_spend(r->b, 2 * (o->n - (int)json_object_size(props)), 0)) return false;
        for (int k = (int)json_object_size(props); k < o->n; k++)
            twice |= strcmp(o->p[k].name, json_string_value(value)) == 0;
        // Without "properties" and additionalProperties any value may stand there.
        if (!twice)
            o->p[o->n++] =
                (property){json_string_value(value), json_is_false(more) ? more : o->further, true};
    }
    return true;
}

static int key_of(sd_schema_reader *r, const char *name) {
    json_t *key = json_string(name);
    if (!key) return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a key");
    int e = sd_gb_json_constant(r->b, key);
    json_decref(key);
    return e;
}

static int member(sd_schema_reader *r, int key, int value) {
    int e[] = {key, sd_gb_json_colon(r->b), value};
    return sd_gb_seq(r->b, e, 3);
}

// Members that are not listed, behind the others.
static int further_members(sd_schema_reader *r, const object *o, bool before) {
    if (!o->further && !o->further_any) return sd_gb_empty(r->b);
    const char **name = sd_alloc((size_t)o->n + 1, sizeof *name);
    if (!name) return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    for (int i = 0; i < o->n; i++) name[i] = o->p[i].name;
    int value = o->further_any ? sd_schema_any(r)
                               : sd_schema_read_at(r, o->further, "additionalProperties");
    int key = o->n ? sd_gb_json_other_key(r->b, name, o->n) : sd_gb_json_string(r->b, 0, -1);
    free(name);
    int one = member(r, key, value), next[] = {sd_gb_json_comma(r->b), one};
    int rest = sd_gb_repeat(r->b, sd_gb_seq(r->b, next, 2), 0, -1);
    if (before) return rest;
    int all[] = {one, rest};
    return sd_gb_repeat(r->b, sd_gb_seq(r->b, all, 2), 0, 1);
}

static int read_member(sd_schema_reader *r, const property *p) {
    size_t back = sd_schema_enter(r, "properties");
    int key = key_of(r, p->name);
    int value = p->schema ? sd_schema_read_at(r, p->schema, p->name) : sd_schema_any(r);
    sd_schema_leave(r, back);
    return member(r, key, value);
}

// tail[before] <- references to the rules of what follows, from the last property to the first.
static bool read_tails(sd_schema_reader *r, const object *o, int tail[2], const int *one) {
    int first_required = 0;
    while (first_required < o->n && !o->p[first_required].required) first_required++;
    for (int i = o->n; i >= 0 && r->b->err.status == SD_OK; i--) {
        int now[2] = {-1, -1};
        for (int before = 0; before < 2; before++) {
            // Nothing stands before a property only up to the first required one.
            if (!before && i > first_required) continue;
            int e;
            if (i == o->n) {
                e = further_members(r, o, before);
            } else {
                int part[3], n = 0;
                if (before) part[n++] = sd_gb_json_comma(r->b);
                part[n++] = one[i], part[n++] = tail[1];
                e = sd_gb_seq(r->b, part, n);
                if (!o->p[i].required) {
                    int any[] = {e, tail[before]};
                    e = sd_gb_any_of(r->b, any, 2);
                }
            }
            int rule = sd_gb_rule(r->b);
            sd_gb_define(r->b, rule, e);
            now[before] = sd_gb_ref(r->b, rule);
        }
        tail[0] = now[0], tail[1] = now[1];
    }
    return r->b->err.status == SD_OK;
}

static bool check_counts(sd_schema_reader *r, const object *o, int min, int max) {
    int required = 0;
    for (int i = 0; i < o->n; i++) required += o->p[i].required;
    bool open = o->further || o->further_any;
    if (min <= required && (max < 0 || (!open && max >= o->n))) return true;
    return sd_schema_fail(r, "\"%s\" beside \"properties\" is not supported; list what is required",
                          min > required ? "minProperties" : "maxProperties"),
           false;
}

int sd_schema_object(sd_schema_reader *r, const json_t *schema) {
    object o = {0};
    int min = 0, max = -1, e = -1, *one = NULL, tail[2] = {-1, -1};
    if (!sd_schema_count(r, schema, "minProperties", &min) ||
        !sd_schema_count(r, schema, "maxProperties", &max) || !collect(r, &o, schema))
        goto out;
    if (max >= 0 && max < min) {
        e = sd_schema_never(r);
        goto out;
    }
    if (o.n == 0 && (o.further || o.further_any)) {
        if (min > 1) {
            sd_schema_fail(r,
                           "\"minProperties\" above 1 is not supported, as a key may be repeated; "
                           "list what is required");
            goto out;
        }
        int value = o.further_any ? sd_schema_any(r)
                                  : sd_schema_read_at(r, o.further, "additionalProperties");
        e = sd_gb_json_object_of(r->b, value, min, max);
        goto out;
    }
    if (!check_counts(r, &o, min, max)) goto out;
    one = sd_alloc((size_t)o.n + 1, sizeof *one);
    if (!one) {
        sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
        goto out;
    }
    for (int i = 0; i < o.n && r->b->err.status == SD_OK; i++) one[i] = read_member(r, &o.p[i]);
    if (!read_tails(r, &o, tail, one)) goto out;
    int part[] = {sd_gb_text(r->b, "{"), tail[0], sd_gb_text(r->b, "}")};
    e = sd_gb_seq(r->b, part, 3);
out:
    free(o.p), free(one);
    return e;
}

// ---- arrays

static int read_item(sd_schema_reader *r, const json_t *schema, const json_t *prefix, int i) {
    if (i >= (int)json_array_size(prefix)) {
        const json_t *items = json_object_get(schema, "items");
        return items ? sd_schema_read_at(r, items, "items") : sd_schema_any(r);
    }
    size_t back = sd_schema_enter(r, "prefixItems");
    char index[16];
    snprintf(index, sizeof index, "%d", i);
    int e = sd_schema_read_at(r, json_array_get(prefix, (size_t)i), index);
    sd_schema_leave(r, back);
    return e;
}

int sd_schema_array(sd_schema_reader *r, const json_t *schema) {
    const json_t *prefix = json_object_get(schema, "prefixItems"),
                 *items = json_object_get(schema, "items"),
                 *unique = json_object_get(schema, "uniqueItems");
    int min = 0, max = -1, n = (int)json_array_size(prefix);
    if (!sd_schema_count(r, schema, "minItems", &min) ||
        !sd_schema_count(r, schema, "maxItems", &max))
        return -1;
    if (n > SD_GRAMMAR_NESTING / 4)
        return sd_schema_fail(r, "\"prefixItems\" has %d schemas; at most %d are possible", n,
                              SD_GRAMMAR_NESTING / 4);
    if (json_is_true(unique) && (max < 0 || max > 1))
        return sd_schema_fail(r, "the keyword \"uniqueItems\" is supported beside enum or const "
                                 "alone; leave it out");
    if (max >= 0 && max < min) return sd_schema_never(r);
    if (n == 0 || max == 0)
        return sd_gb_json_array_of(
            r->b, max == 0 ? sd_gb_empty(r->b) : read_item(r, schema, NULL, 0), min, max);
    // Items behind prefixItems only where "items" or minItems asks for them.
    int rest_min = min > n ? min - n : 0, rest_max = max < 0 ? -1 : max > n ? max - n : 0;
    int e = sd_gb_empty(r->b);
    if (!items && rest_min == 0) rest_max = 0;
    if (rest_max != 0) {
        int next[] = {sd_gb_json_comma(r->b), read_item(r, schema, prefix, n)};
        e = sd_gb_repeat(r->b, sd_gb_seq(r->b, next, 2), rest_min, rest_max);
    }
    for (int i = n - 1; i >= 0; i--) {
        int part[3], k = 0;
        if (max >= 0 && i >= max) continue;
        if (i > 0) part[k++] = sd_gb_json_comma(r->b);
        part[k++] = read_item(r, schema, prefix, i), part[k++] = e;
        e = sd_gb_seq(r->b, part, k);
        if (i >= min) e = sd_gb_repeat(r->b, e, 0, 1);
    }
    int all[] = {sd_gb_text(r->b, "["), e, sd_gb_text(r->b, "]")};
    return sd_gb_seq(r->b, all, 3);
}
