// The formats read a record's fields so: a field that is null is absent, and a list may stand as
// JSON inside a string, as tables have it.
#include "datasets/read/format_json.h"

#include "base/json.h"
#include "datasets/read/record_json.h"

const json_t *sd_field(const json_t *object, const char *name) {
    const json_t *j = json_object_get(object, name);
    return json_is_null(j) ? NULL : j;
}

sd_status sd_want_array(const json_t **out, json_t **inside, const json_t *value, const char *field,
                        sd_error *err) {
    *out = value;
    *inside = NULL;
    if (json_is_string(value)) {
        *out = *inside = sd_json_inside(value);
        if (!json_is_array(*out))
            return sd_fail(err, SD_EFORMAT, "%s: is a string that is not a JSON array", field);
    }
    if (json_is_array(*out)) return SD_OK;
    return sd_fail(err, SD_EFORMAT, "%s: is %s, want an array", field, sd_json_type_word(value));
}

sd_status sd_refuse_odd_numbers(const json_t *tree, const char *field, sd_error *err) {
    const char *number = sd_json_odd_number(tree);
    if (!number) return SD_OK;
    return sd_fail(
        err, SD_EFORMAT,
        "%s: holds the number %.40s, which does not fit in 64 bits; write it as a string", field,
        number);
}
