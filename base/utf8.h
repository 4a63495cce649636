// UTF-8 (Unicode 15, table 3-7): one step of a decoder, and lossy conversion.
//
// Whatever is not well-formed becomes U+FFFD once for each maximal subpart, which is what Python's
// errors="replace", Rust's from_utf8_lossy and the WHATWG decoder all do.
#pragma once

#include "base/memory.h"

#include <stdint.h>

enum { SD_REPLACEMENT = 0xFFFD };

/// The code point at s (len > 0 bytes left) and how many bytes it takes. Malformed: *cp is -1 and
/// the result is the length of the maximal subpart (1 to 3). An unfinished but so far correct
/// sequence at the end counts as malformed; *truncated (may be NULL) tells the two apart.
int sd_utf8_next(const char *s, size_t len, int32_t *cp, bool *truncated);

/// The position of the character before position `at` > 0 of well-formed s.
static inline size_t sd_utf8_back(const char *s, size_t at) {
    do at--;
    while (at > 0 && ((unsigned char)s[at] & 0xC0) == 0x80);
    return at;
}

/// Writes cp (a scalar value) to out [4] and gives its length.
int sd_utf8_put(char *out, int32_t cp);

/// Bytes of the longest well-formed prefix; len when all of it is.
size_t sd_utf8_valid_prefix(const char *s, size_t len);

/// Appends s with every malformed part replaced; false when out is full or memory is out.
bool sd_utf8_lossy(sd_buf *out, const char *s, size_t len);

/// The encoding that the first bytes of a text betray when it is not UTF-8: "UTF-16", "UTF-32", or
/// NULL.
const char *sd_odd_encoding(const char *bytes, size_t len);
