// Several schemas that hold at once become one: keyword by keyword. What one of them says of properties
// that the other does not list is said of the other's.
#include "model/grammar/schema/private.h"

#include "base/list.h"

#include <string.h>

enum {
    MEMBER_STEPS = 60,
    MEMBER_BYTES = 112,
    MADE_STEPS = 60,
    MADE_BYTES = 600,
    DISJOINT_STEPS = 80
};

// The account pays for a member that is copied.
static bool pay_member(sd_schema_reader *r, const char *key) {
    return sd_gb_spend(r->b, MEMBER_STEPS, MEMBER_BYTES + (int64_t)strlen(key));
}

static json_t *keep(sd_schema_reader *r, json_t *v) {
    if (!v || json_array_append_new(r->made, v) != 0) {
        sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
        return NULL;
    }
    return v;
}

static json_t *mutable(const json_t *v) { // iterators and counts want it so; values are only read
    return (json_t *)(uintptr_t)v;
}

const json_t *sd_schema_without(sd_schema_reader *r, const json_t *schema, const char *key) {
    if (!sd_gb_spend(r->b, MADE_STEPS, MADE_BYTES)) return NULL;
    json_t *out = keep(r, json_object());
    const char *k;
    json_t *v;
    json_object_foreach(mutable(schema), k, v) {
        if (!pay_member(r, k)) return NULL;
        if (!out || strcmp(k, key) == 0 || sd_schema_is_annotation(k)) continue;
        if (json_object_set(out, k, v) != 0) {
            sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
            return NULL;
        }
    }
    return out;
}

// Both of two schemas, without looking into them. The same two are one schema, whose rule may then
// contain itself.
static json_t *both(sd_schema_reader *r, const json_t *a, const json_t *b) {
    if (a == b) return json_incref(mutable(a));
    if (!sd_gb_spend(r->b, MADE_STEPS + r->n_both / 8, MADE_BYTES)) return NULL;
    for (int i = 0; i < r->n_both; i++)
        if (r->both[i].a == a && r->both[i].b == b) return json_incref(r->both[i].made);
    json_t *made = keep(r, json_pack("{s:[O,O]}", "allOf", mutable(a), mutable(b)));
    if (!made || !SD_GROW(r->both, r->n_both + 1, r->cap_both)) return NULL;
    r->both[r->n_both++] = (sd_schema_pair){a, b, made};
    return json_incref(made);
}

// ---- keywords that two schemas have. Each gives a new value, or NULL.

static json_t *common_types(const json_t *a, const json_t *b) {
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    json_t *wrapped_a = json_pack("{s:O}", "type", mutable(a)),
           *wrapped_b = json_pack("{s:O}", "type", mutable(b)), *out = json_array();
    int x = sd_schema_types(wrapped_a), y = sd_schema_types(wrapped_b);
    json_decref(wrapped_a), json_decref(wrapped_b);
    if (x < 0 || y < 0) x = y = 0;
    if (x & SD_T_NUMBER) x |= SD_T_INTEGER;
    if (y & SD_T_NUMBER) y |= SD_T_INTEGER;
    int types = x & y;
    if (types & SD_T_NUMBER) types &= ~SD_T_INTEGER;
    for (int i = 0; i < 7; i++)
        if (types >> i & 1) json_array_append_new(out, json_string(names[i]));
    return out;
}

// Whether a list has a value; false as well once the account is used up.
static bool has_value(sd_schema_reader *r, const json_t *list, const json_t *v) {
    for (size_t i = 0; i < json_array_size(list) && r->b->steps_left >= 0; i++)
        if (sd_schema_equal(json_array_get(list, i), v, &r->b->steps_left)) return true;
    return false;
}

static json_t *common_values(sd_schema_reader *r, const json_t *a, const json_t *b) {
    json_t *out = json_array(), *v;
    size_t i;
    json_array_foreach(a, i, v) {
        if (has_value(r, b, v)) json_array_append(out, v);
        if (!sd_gb_spend(r->b, 0, 8)) break;
    }
    return out;
}

static json_t *all_names(sd_schema_reader *r, const json_t *a, const json_t *b) {
    int64_t n = (int64_t)json_array_size(a) + (int64_t)json_array_size(b);
    if (!sd_gb_spend(r->b, MADE_STEPS + 4 * n, MADE_BYTES + 16 * n)) return NULL;
    json_t *out = json_copy(mutable(a)), *v;
    size_t i;
    json_array_foreach(b, i, v) json_array_append(out, v);
    return out;
}

// The value of one keyword that both have; NULL: they do not go together, or the builder failed.
static json_t *combine(sd_schema_reader *r, const char *key, const json_t *a, const json_t *b) {
    static const char *const greatest[] = {"minimum",  "exclusiveMinimum", "minLength",
                                           "minItems", "minProperties",    NULL},
                             *const least[] = {"maximum",  "exclusiveMaximum", "maxLength",
                                               "maxItems", "maxProperties",    NULL};
    if (sd_schema_equal(a, b, &r->b->steps_left)) return json_incref(mutable(a));
    if (!sd_gb_spend(r->b, MADE_STEPS, 0)) return NULL;
    if (strcmp(key, "type") == 0) return common_types(a, b);
    if (strcmp(key, "enum") == 0) return common_values(r, a, b);
    if (strcmp(key, "required") == 0) return all_names(r, a, b);
    if (strcmp(key, "allOf") == 0) return all_names(r, a, b);
    if (strcmp(key, "items") == 0) return both(r, a, b);
    for (int i = 0; greatest[i]; i++)
        if (strcmp(key, greatest[i]) == 0)
            return json_incref(mutable(sd_json_number(a) >= sd_json_number(b) ? a : b));
    for (int i = 0; least[i]; i++)
        if (strcmp(key, least[i]) == 0)
            return json_incref(mutable(sd_json_number(a) <= sd_json_number(b) ? a : b));
    return NULL;
}

// ---- properties

// out <- the properties of x, each also held to what y says of a name that it does not list.
static bool put_properties(sd_schema_reader *r, json_t *out, const json_t *x, const json_t *y) {
    const json_t *mine = json_object_get(x, "properties"),
                 *theirs = json_object_get(y, "properties"),
                 *more = json_object_get(y, "additionalProperties");
    const char *key;
    json_t *v;
    json_object_foreach(mutable(mine), key, v) {
        json_t *other = json_object_get(theirs, key), *merged;
        if (!pay_member(r, key)) return false;
        if (json_object_get(out, key)) continue;
        if (other)
            merged = both(r, v, other);
        else if (!more || json_is_true(more))
            merged = json_incref(v);
        else
            merged = json_is_false(more) ? json_false() : both(r, v, more);
        if (json_object_set_new(out, key, merged) != 0) return false;
    }
    return true;
}

static bool merge_objects(sd_schema_reader *r, json_t *out, const json_t *a, const json_t *b) {
    const json_t *x = json_object_get(a, "additionalProperties"),
                 *y = json_object_get(b, "additionalProperties");
    json_t *props = json_object();
    bool any = json_object_get(a, "properties") || json_object_get(b, "properties");
    bool ok = put_properties(r, props, a, b) && put_properties(r, props, b, a);
    if (any) ok = ok && json_object_set(out, "properties", props) == 0;
    json_decref(props);
    json_t *more = NULL;
    if (x && y)
        more = json_is_false(x) || json_is_true(y)   ? json_incref(mutable(x))
               : json_is_false(y) || json_is_true(x) ? json_incref(mutable(y))
                                                     : both(r, x, y);
    else if (x || y)
        more = json_incref(mutable(x ? x : y));
    return ok && (!more || json_object_set_new(out, "additionalProperties", more) == 0);
}

// A schema's reference is followed until it has keywords of its own.
static const json_t *open_up(sd_schema_reader *r, const json_t *s) {
    for (int i = 0; s && json_is_object(s) && json_object_get(s, "$ref"); i++) {
        const json_t *target = i < SD_SCHEMA_DEPTH ? sd_schema_target(r, s) : NULL;
        if (!target) {
            sd_schema_fail(r, "\"$ref\" leads round in a circle");
            return NULL;
        }
        const json_t *rest = sd_schema_without(r, s, "$ref");
        if (!rest) return NULL;
        if (json_object_size(rest)) {
            if (++r->depth > SD_SCHEMA_DEPTH)
                return sd_schema_fail(r, "references in a circle"), NULL;
            s = sd_schema_merge(r, rest, target);
            r->depth--;
            return s;
        }
        s = target;
    }
    return s;
}

// What a schema says with keywords of values cannot be taken apart from what else it says.
static bool may_merge(sd_schema_reader *r, const json_t *s) {
    const char *key;
    json_t *v;
    json_object_foreach(
        mutable(s), key,
        v) if (sd_schema_effect_of(key) ==
               SD_K_OF_VALUES) return sd_schema_fail(r,
                                                     "the keyword \"%s\" is supported beside enum "
                                                     "or const alone; leave it out",
                                                     key),
        false;
    return true;
}

const json_t *sd_schema_merge(sd_schema_reader *r, const json_t *a, const json_t *b) {
    if (++r->parts > SD_SCHEMA_PARTS)
        return sd_schema_fail(r, "the schema has more than %d parts once merged", SD_SCHEMA_PARTS),
               NULL;
    a = open_up(r, a), b = a ? open_up(r, b) : NULL;
    if (!a || !b) return NULL;
    if (json_is_false(a) || json_is_true(b)) return a;
    if (json_is_false(b) || json_is_true(a)) return b;
    // A schema that says nothing costs no copy.
    if (json_object_size(a) == 0) return b;
    if (json_object_size(b) == 0) return a;
    if (!may_merge(r, a) || !may_merge(r, b)) return NULL;
    if (!sd_gb_spend(r->b, MADE_STEPS, MADE_BYTES)) return NULL;
    json_t *out = keep(r, json_object());
    const char *key;
    json_t *v;
    if (!out) return NULL;
    bool prefix = json_object_get(a, "prefixItems") || json_object_get(b, "prefixItems");
    bool ok = merge_objects(r, out, a, b);
    for (int side = 0; side < 2; side++) {
        const json_t *mine = side ? b : a, *other = side ? a : b;
        json_object_foreach(mutable(mine), key, v) {
            const json_t *theirs = json_object_get(other, key);
            if (!pay_member(r, key)) return NULL;
            if (json_object_get(out, key) || sd_schema_is_annotation(key)) continue;
            bool array = strcmp(key, "items") == 0 || strcmp(key, "prefixItems") == 0;
            json_t *value = !theirs ? json_incref(v)
                            : array && prefix && !sd_schema_equal(v, theirs, &r->b->steps_left)
                                ? NULL
                                : combine(r, key, v, theirs);
            if (!sd_gb_spend(r->b, 0, 0)) {
                json_decref(value);
                return NULL;
            }
            if (!value ||
                (array && prefix && !theirs &&
                 json_object_get(other, "items") != json_object_get(mine, "items") &&
                 (json_object_get(other, "items") || json_object_get(other, "prefixItems")))) {
                json_decref(value);
                return sd_schema_fail(r,
                                      "two schemas that hold at once differ in \"%s\", which is "
                                      "not supported",
                                      key),
                       NULL;
            }
            if (strcmp(key, "type") == 0 && json_is_array(value) && json_array_size(value) == 0 &&
                theirs) { // no type is both: nothing fits
                json_decref(value);
                return keep(r, json_false());
            }
            ok = ok && json_object_set_new(out, key, value) == 0;
        }
    }
    if (!ok) sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    return ok ? out : NULL;
}

// ---- branches that exclude one another

static const json_t *values_of(const json_t *s, const json_t **one) {
    *one = json_object_get(s, "const");
    return json_object_get(s, "enum");
}

static bool fits_values(sd_schema_reader *r, const json_t *list, const json_t *one,
                        const json_t *v) {
    return one ? sd_schema_equal(one, v, &r->b->steps_left) : has_value(r, list, v);
}

static int type_of(const json_t *v) {
    return json_is_null(v)      ? SD_T_NULL
           : json_is_boolean(v) ? SD_T_BOOLEAN
           : json_is_number(v)  ? SD_T_NUMBER | SD_T_INTEGER
           : json_is_string(v)  ? SD_T_STRING
           : json_is_array(v)   ? SD_T_ARRAY
                                : SD_T_OBJECT;
}

// The types that "type" and the values name; -1: "type" is none.
static int named_types(sd_schema_reader *r, const json_t *s) {
    int types = sd_schema_types(s), of = 0;
    const json_t *one, *many = values_of(s, &one);
    if (types < 0) return -1;
    if (types & SD_T_NUMBER) types |= SD_T_INTEGER;
    for (size_t i = 0; i < json_array_size(many) && sd_gb_spend(r->b, 1, 0); i++)
        of |= type_of(json_array_get(many, i));
    if (one) of = type_of(one);
    // A number's "type" may be integer alone.
    if (of & SD_T_NUMBER && !(types & SD_T_NUMBER)) of = (of & ~SD_T_NUMBER) | SD_T_INTEGER;
    return one || many ? types & of : types;
}

static bool disjoint_values(sd_schema_reader *r, const json_t *a, const json_t *b) {
    const json_t *x, *y, *many = values_of(a, &x), *others = values_of(b, &y);
    if ((!x && !many) || (!y && !others)) return false;
    if (x) return !fits_values(r, others, y, x);
    for (size_t i = 0; i < json_array_size(many); i++)
        if (fits_values(r, others, y, json_array_get(many, i)) || r->b->steps_left < 0)
            return false;
    return true;
}

static bool requires(sd_schema_reader *r, const json_t *s, const char *name) {
    const json_t *list = json_object_get(s, "required");
    for (size_t i = 0; i < json_array_size(list) && sd_gb_spend(r->b, 1, 0); i++) {
        const char *given = json_string_value(json_array_get(list, i));
        if (given && strcmp(given, name) == 0) return true;
    }
    return false;
}

// b needs a member that a does not let through.
static bool shut_out(sd_schema_reader *r, const json_t *a, const json_t *b) {
    if (!json_is_false(json_object_get(a, "additionalProperties")) ||
        json_object_get(a, "patternProperties"))
        return false;
    const json_t *list = json_object_get(b, "required");
    for (size_t i = 0; i < json_array_size(list) && sd_gb_spend(r->b, 8, 0); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name && !json_object_get(json_object_get(a, "properties"), name)) return true;
    }
    return false;
}

bool sd_schema_disjoint(sd_schema_reader *r, const json_t *a, const json_t *b, int depth) {
    if (!sd_gb_spend(r->b, DISJOINT_STEPS, 0)) return false;
    for (int i = 0; i < 8; i++) { // references alone say nothing
        const char *x = json_string_value(json_object_get(a, "$ref")),
                   *y = json_string_value(json_object_get(b, "$ref"));
        if (x) a = sd_schema_lead(r, x);
        if (y) b = sd_schema_lead(r, y);
    }
    if (json_is_false(a) || json_is_false(b)) return true;
    if (depth > 8 || !json_is_object(a) || !json_is_object(b)) return false;
    int x = named_types(r, a), y = named_types(r, b);
    if (x < 0 || y < 0 || r->b->steps_left < 0) return false;
    if (!(x & y) || disjoint_values(r, a, b)) return true;
    if ((x & y) != SD_T_OBJECT) return false;
    const char *key;
    json_t *v;
    json_object_foreach(mutable(json_object_get(a, "properties")), key, v) {
        const json_t *other = json_object_get(json_object_get(b, "properties"), key);
        if (!sd_gb_spend(r->b, 4, 0)) return false;
        if (other && requires(r, a, key) && requires(r, b, key) &&
            sd_schema_disjoint(r, v, other, depth + 1))
            return true;
    }
    return shut_out(r, a, b) || shut_out(r, b, a);
}
