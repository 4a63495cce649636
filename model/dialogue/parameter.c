#include "model/dialogue/parameter.h"

#include "model/grammar/schema/schema.h"

enum { STEPS = 200000 }; // of looking whether a value fits: some 2 ms

static const json_t *schema_of(const json_t *parameters, const char *key) {
    return json_object_get(json_object_get(parameters, "properties"), key);
}

int sd_parameter_types(const json_t *parameters, const char *key, int64_t *steps) {
    const json_t *schema = schema_of(parameters, key);
    int types = schema ? sd_schema_value_types(parameters, schema, steps) : SD_T_ALL;
    return types == SD_T_ALL ? SD_T_STRING : types;
}

bool sd_parameter_is(const json_t *parameters, const char *key, int types, const json_t *value) {
    int own = json_is_number(value)    ? SD_T_NUMBER | SD_T_INTEGER
              : json_is_boolean(value) ? SD_T_BOOLEAN
              : json_is_null(value)    ? SD_T_NULL
              : json_is_object(value)  ? SD_T_OBJECT
              : json_is_array(value)   ? SD_T_ARRAY
                                       : 0;
    int64_t steps = STEPS;
    sd_error err;
    if (!(types & own)) return false;
    // Where it can be no string, it is that value although it does not fit.
    return !(types & SD_T_STRING) || sd_schema_validate_part(parameters, schema_of(parameters, key),
                                                             value, &steps, &err) != SD_EMISMATCH;
}
