// JSON as people's files have it: all of RFC 8259, where jansson alone stops at numbers beyond 64
// bits and at \u0000, and Python's words for values that are no numbers.
//
// A number that jansson cannot hold becomes a marked string. It does no harm in a field that nobody
// reads; a reader of the field asks sd_json_odd_number and refuses it by the field's name.
#pragma once

#include "base/memory.h"
#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

/// One JSON text into *out, which the caller owns. `line` is where it begins in the file that
/// `where` names. SD_EFORMAT names file, line and what is wrong, UTF-16 and bytes that are no UTF-8
/// included.
sd_status sd_json_parse(json_t **out, const char *bytes, size_t len, const char *where,
                        int64_t line, sd_error *err);
/// The same; anything but an object is an error.
sd_status sd_json_record(json_t **out, const char *bytes, size_t len, const char *where,
                         int64_t line, sd_error *err);
/// JSON inside a string of a record. NULL when it is none, or out of memory.
json_t *sd_json_inside(const json_t *text);

/// Appends the text with each number that jansson cannot hold as such a string; *changed: there was
/// one. False when out of memory or over out's ceiling.
bool sd_json_mark_numbers(sd_buf *out, const char *text, size_t len, bool *changed);
/// The first number in the tree that no 64 bits hold, as it was written; NULL when there is none.
const char *sd_json_odd_number(const json_t *tree);

/// True when every byte is part of a valid UTF-8 sequence; else *at is the first that is not.
bool sd_valid_utf8(const char *s, size_t len, size_t *at);
