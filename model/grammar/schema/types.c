// Which types a value may have, without reading what else a schema says of it: for whoever must know how a
// value is written before it comes.
#include "model/grammar/schema/private.h"

#include <string.h>

// A step is a schema, so many keywords of it, values of an enum or bytes of a reference, some 300 ns: so many
// of an account's.
enum { DEPTH = 32, STEPS = 2000, ACCOUNT = 40, KEYS = 4, VALUES = 32, REF_BYTES = 16 };

typedef struct {
    const json_t *root;
    int64_t left; // steps
} walk;

// Types that are named, by "type" or by values, and those that keywords speak of, which hold where none are
// named. Schemas that hold at once are one schema, also in what they imply.
typedef struct {
    int named, implied; // implied 0: none
} said;

static int type_of_value(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_NULL:
        return SD_T_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return SD_T_BOOLEAN;
    case JSON_INTEGER:
        return SD_T_INTEGER;
    case JSON_REAL:
        return SD_T_NUMBER | SD_T_INTEGER; // 1.0 is an integer
    case JSON_STRING:
        return SD_T_STRING;
    case JSON_ARRAY:
        return SD_T_ARRAY;
    case JSON_OBJECT:
        return SD_T_OBJECT;
    }
    return SD_T_ALL;
}

static said read_said(walk *w, const json_t *schema, int depth);

// Once the steps are used up, what is implied further on is not known.
static int settle(const walk *w, said s) {
    return s.named == SD_T_ALL && s.implied && w->left >= 0 ? s.implied : s.named;
}

static int any_of(walk *w, const json_t *list, int depth) {
    int types = 0;
    for (size_t i = 0; i < json_array_size(list) && types != SD_T_ALL && w->left >= 0; i++)
        types |= settle(w, read_said(w, json_array_get(list, i), depth));
    return w->left < 0 ? SD_T_ALL : types;
}

static int values(walk *w, const json_t *list) {
    int types = 0;
    w->left -= (int64_t)(json_array_size(list) / VALUES);
    if (w->left < 0) return SD_T_ALL;
    for (size_t i = 0; i < json_array_size(list) && types != SD_T_ALL; i++)
        types |= type_of_value(json_array_get(list, i));
    return types;
}

static void add(said *s, said other) {
    s->named &= other.named, s->implied |= other.implied;
}

static said read_said(walk *w, const json_t *schema, int depth) {
    const json_t *v;
    const char *ref;
    said s = {SD_T_ALL, 0};
    w->left -= 1 + (int64_t)(json_object_size(schema) / KEYS);
    if (json_is_false(schema)) return (said){0, 0};
    if (!json_is_object(schema) || depth > DEPTH || w->left < 0) return s;
    int implied = sd_schema_implied_types(schema);
    if (json_object_get(schema, "type")) s.named = sd_schema_types(schema);
    if (s.named < 0) s.named = SD_T_ALL;
    if (s.named & SD_T_NUMBER) s.named |= SD_T_INTEGER;
    if (implied != SD_T_ALL) s.implied = implied & SD_T_NUMBER ? implied | SD_T_INTEGER : implied;
    if ((v = json_object_get(schema, "enum"))) s.named &= values(w, v);
    if ((v = json_object_get(schema, "const"))) s.named &= type_of_value(v);
    if ((v = json_object_get(schema, "anyOf"))) s.named &= any_of(w, v, depth + 1);
    if ((v = json_object_get(schema, "oneOf"))) s.named &= any_of(w, v, depth + 1);
    v = json_object_get(schema, "allOf");
    for (size_t i = 0; i < json_array_size(v) && w->left >= 0; i++)
        add(&s, read_said(w, json_array_get(v, i), depth + 1));
    if (!(ref = json_string_value(json_object_get(schema, "$ref")))) return s;
    w->left -= (int64_t)(strlen(ref) / REF_BYTES);
    if (w->left >= 0) add(&s, read_said(w, sd_schema_resolve(w->root, ref), depth + 1));
    return s;
}

int sd_schema_value_types(const json_t *root, const json_t *part, int64_t *steps) {
    walk w = {root, STEPS};
    int types = settle(&w, read_said(&w, part, 0));
    if (steps) *steps -= ACCOUNT * (STEPS - w.left);
    return types;
}
