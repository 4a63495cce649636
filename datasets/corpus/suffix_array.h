// Suffix arrays by induced sorting (Nong, Zhang, Chan: "Two Efficient Algorithms for Linear Time
// Suffix Array Construction", IEEE Trans. Computers 2011).
#pragma once

#include "base/status.h"

#include <stdint.h>

/// sa [n] <- the starts of the suffixes of text [n] in ascending order; a suffix that is a prefix
/// of another comes first. Letters are 0 <= text[i] < letters. O(n + letters) time, about 13 bytes
/// per letter of scratch. 0 <= n < INT32_MAX. SD_ENOMEM is the only error.
sd_status sd_suffix_array(int32_t *sa, const int32_t *text, int32_t n, int32_t letters,
                          sd_error *err);
