#include "base/json_keys.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>

json_t *sd_key(const json_t *o, const char *key) {
    json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

sd_status sd_key_refuse(const json_t *value, const char *key, const char *want, const char *file,
                        sd_error *err) {
    char *text = NULL;
    sd_status st = sd_json_dump(&text, value, JSON_COMPACT | JSON_ENCODE_ANY, err);
    if (st != SD_OK) return st;
    st = sd_fail(err, SD_EFORMAT, "%s: %s is %.80s, where %s is needed; correct it", file, key,
                 text, want);
    free(text);
    return st;
}

bool sd_json_whole(const json_t *v, int64_t *out) {
    if (json_is_integer(v)) return *out = json_integer_value(v), true;
    double d = json_real_value(v);
    if (!json_is_real(v) || d != floor(d) || !(fabs(d) <= 0x1p53)) return false;
    return *out = (int64_t)d, true;
}

sd_status sd_key_bool(bool *out, const json_t *o, const char *key, bool def, const char *file,
                      sd_error *err) {
    const json_t *v = sd_key(o, key);
    *out = v ? json_is_true(v) : def;
    return !v || json_is_boolean(v) ? SD_OK : sd_key_refuse(v, key, "true or false", file, err);
}

sd_status sd_key_int(int64_t *out, const json_t *o, const char *key, int64_t def, int64_t min,
                     int64_t max, const char *file, sd_error *err) {
    const json_t *v = sd_key(o, key);
    *out = def;
    if (!v) return SD_OK;
    if (!sd_json_whole(v, out) || *out < min || *out > max) {
        *out = def;
        return sd_key_refuse(v, key, "a whole number in range", file, err);
    }
    return SD_OK;
}

sd_status sd_key_number(double *out, const json_t *o, const char *key, double def, const char *file,
                        sd_error *err) {
    const json_t *v = sd_key(o, key);
    double d = json_number_value(v);
    *out = v ? d : def;
    if (!v || (json_is_number(v) && isfinite(d) && fabs(d) <= 1e30)) return SD_OK;
    return sd_key_refuse(v, key, "a number in range", file, err);
}

sd_status sd_key_str(const char **out, const json_t *o, const char *key, const char *def,
                     const char *file, sd_error *err) {
    const json_t *v = sd_key(o, key);
    *out = v ? json_string_value(v) : def;
    return !v || json_is_string(v) ? SD_OK : sd_key_refuse(v, key, "a text", file, err);
}

sd_status sd_key_object(json_t **out, const json_t *o, const char *key, const char *file,
                        sd_error *err) {
    *out = sd_key(o, key);
    if (!*out || json_is_object(*out)) return SD_OK;
    return sd_key_refuse(*out, key, "an object", file, err);
}

sd_status sd_key_array(json_t **out, const json_t *o, const char *key, const char *file,
                       sd_error *err) {
    *out = sd_key(o, key);
    if (!*out || json_is_array(*out)) return SD_OK;
    return sd_key_refuse(*out, key, "an array", file, err);
}
