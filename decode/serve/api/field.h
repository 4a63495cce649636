// Typed access to the fields of a JSON request. Each getter leaves its output alone when the field
// is absent or null, and returns false after filling the error when type or range is wrong.
#pragma once

#include "decode/serve/api/request.h"

bool sd_field_bool(const json_t *o, const char *key, bool *out, sd_api_error *e);
/// Also a number written as 8.0.
bool sd_field_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out,
                  sd_api_error *e);
/// Integers count as numbers.
bool sd_field_number(const json_t *o, const char *key, double min, double max, double *out,
                     sd_api_error *e);
/// Without NUL characters.
bool sd_field_string(const json_t *o, const char *key, const char **out, sd_api_error *e);
/// NULL when absent or null.
const json_t *sd_field_get(const json_t *o, const char *key);
/// Is it a string? A number that no 64 bits hold is kept as one (datasets/read/record_json.h) and is none.
bool sd_json_is_text(const json_t *v);
/// "a string", "an array", ... for messages.
const char *sd_field_type_word(const json_t *v);
/// Looks at JSON text before it is parsed, because a byte of it may cost a hundred of memory. NULL,
/// or which limit of openai/request.h it passes: a phrase such as "is nested deeper than 64 levels".
const char *sd_json_over_limit(const char *text, size_t len);

/// Refuses what is known but not built, unless its value means "off".
bool sd_field_refuse_unsupported(const json_t *root, sd_api_error *e);

/// The field's text; NULL where it is missing, no text, or has a zero byte.
const char *sd_field_text(const json_t *o, const char *key);
/// A 400 that names the field at `path` and says what is wrong with it; false.
bool sd_api_refuse(sd_api_error *e, const char *path, const char *what);
