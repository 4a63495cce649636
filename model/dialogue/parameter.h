// How a call that is written as tags writes a parameter's value: the one place that says so, for the
// grammar of calls and for the machine that reads them.
//
// A string stands there as it is, without quotes; any other value is JSON. Where a parameter may be either
// ("string or null"), a text that is JSON of a value that fits is that value, and any other text is a string.
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/// The types (SD_T_* of model/grammar/schema/schema.h) that the value of a parameter may have. Where nothing
/// is said of it, SD_T_STRING. parameters: a tool's, a JSON schema; NULL: none.
/// *steps, unless steps is NULL: an account (sd_gb_spend), off which what it took is taken.
int sd_parameter_types(const json_t *parameters, const char *key, int64_t *steps);

/// Whether a value that is no string, read from such a text, is what the text means. types: of the parameter.
bool sd_parameter_is(const json_t *parameters, const char *key, int types, const json_t *value);
