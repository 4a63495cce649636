// Typed access to the keys of a JSON object out of a file. An absent key and null are the default;
// a key that holds another type is SD_EFORMAT with the file, the key and what stands there: a
// default in its place would be another model, another adapter or another text.
#pragma once

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

/// NULL for an absent key and for null.
json_t *sd_key(const json_t *o, const char *key);
sd_status sd_key_bool(bool *out, const json_t *o, const char *key, bool def, const char *file,
                      sd_error *err);
/// A whole number from min to max; 4096.0 is one.
sd_status sd_key_int(int64_t *out, const json_t *o, const char *key, int64_t def, int64_t min,
                     int64_t max, const char *file, sd_error *err);
/// A finite number of at most 1e30.
sd_status sd_key_number(double *out, const json_t *o, const char *key, double def, const char *file,
                        sd_error *err);
/// In the JSON's memory; def may be NULL.
sd_status sd_key_str(const char **out, const json_t *o, const char *key, const char *def,
                     const char *file, sd_error *err);
/// NULL when absent or null; anything but an object (an array) is SD_EFORMAT.
sd_status sd_key_object(json_t **out, const json_t *o, const char *key, const char *file,
                        sd_error *err);
sd_status sd_key_array(json_t **out, const json_t *o, const char *key, const char *file,
                       sd_error *err);
/// SD_EFORMAT: "FILE: KEY is VALUE, where WANT is needed", for conditions of a caller's own.
sd_status sd_key_refuse(const json_t *value, const char *key, const char *want, const char *file,
                        sd_error *err);
bool sd_json_whole(const json_t *v, int64_t *out); // an integer, or a real that is one
