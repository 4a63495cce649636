// Patterns for the check of values: PCRE2's matcher, which shares nothing with the automata.
//
//     int64_t steps = 4000000;
//     sd_status st = sd_match_pattern("^a+$", 4, "aa", 2, &steps, &err); // SD_OK
//
// The pattern is one that sd_regex_parse has taken. It is spelled anew where PCRE2 reads it otherwise than
// ECMAScript; what it means then is ECMAScript's, with the flag u.
#pragma once

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/// SD_OK where the pattern stands somewhere in the text (UTF-8); SD_EMISMATCH, without a message, where it does
/// not. Takes what it costs off *steps, of some 10 ns each. SD_ELIMIT: they are used up, or the pattern is
/// too large for PCRE2; *steps may be below 0 then.
sd_status sd_match_pattern(const char *pattern, size_t p_len, const char *text, size_t len,
                           int64_t *steps, sd_error *err);
