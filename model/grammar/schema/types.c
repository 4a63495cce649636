// Which types a value may have, without reading what else a schema says of it: for whoever must know how a
// value is written before it comes.
#include "model/grammar/schema/private.h"

enum { DEPTH = 32, STEPS = 20000 };

typedef struct {
    const json_t *root;
    int left; // steps
} walk;

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

static int types_of(walk *w, const json_t *schema, int depth);

static int any_of(walk *w, const json_t *list, int depth) {
    int types = 0;
    for (size_t i = 0; i < json_array_size(list) && types != SD_T_ALL; i++)
        types |= types_of(w, json_array_get(list, i), depth);
    return types;
}

static int values(walk *w, const json_t *list) {
    int types = 0;
    for (size_t i = 0; i < json_array_size(list) && types != SD_T_ALL; i++) {
        if (--w->left < 0) return SD_T_ALL;
        types |= type_of_value(json_array_get(list, i));
    }
    return types;
}

static int types_of(walk *w, const json_t *schema, int depth) {
    const json_t *v;
    if (json_is_false(schema)) return 0;
    if (!json_is_object(schema) || depth > DEPTH || --w->left < 0) return SD_T_ALL;
    int types =
        json_object_get(schema, "type") ? sd_schema_types(schema) : sd_schema_implied_types(schema);
    if (types < 0) types = SD_T_ALL;
    if (types & SD_T_NUMBER) types |= SD_T_INTEGER;
    if ((v = json_object_get(schema, "enum"))) types &= values(w, v);
    if ((v = json_object_get(schema, "const"))) types &= type_of_value(v);
    if ((v = json_object_get(schema, "anyOf"))) types &= any_of(w, v, depth + 1);
    if ((v = json_object_get(schema, "oneOf"))) types &= any_of(w, v, depth + 1);
    for (size_t i = 0; i < json_array_size(json_object_get(schema, "allOf")); i++)
        types &= types_of(w, json_array_get(json_object_get(schema, "allOf"), i), depth + 1);
    if ((v = json_object_get(schema, "$ref")) && json_is_string(v))
        types &= types_of(w, sd_schema_resolve(w->root, json_string_value(v)), depth + 1);
    return types;
}

int sd_schema_value_types(const json_t *root, const json_t *part) {
    walk w = {root, STEPS};
    return types_of(&w, part, 0);
}
