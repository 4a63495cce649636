// A record's fields as the formats read them, with errors that name the field.
#pragma once

#include "base/status.h"

#include <jansson.h>

/// The field's value; NULL when it is absent or null, which is the same everywhere.
const json_t *sd_field(const json_t *object, const char *name);
/// The value itself, or what a string holds as JSON, as tables have it. *inside: what the caller
/// frees. SD_EFORMAT unless the result is an array.
sd_status sd_want_array(const json_t **out, json_t **inside, const json_t *value, const char *field,
                        sd_error *err);
/// SD_EFORMAT when the tree holds a number that does not fit in 64 bits.
sd_status sd_refuse_odd_numbers(const json_t *tree, const char *field, sd_error *err);
