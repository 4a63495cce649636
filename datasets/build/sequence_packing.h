// Records into rows of T tokens: first-fit decreasing (Johnson 1973: at most 11/9 of the fewest
// rows + 6/9; on real length distributions above 98 % full).
#pragma once

#include "base/status.h"

#include <stdint.h>

/// row [n] <- the row of each record; place [n] <- its number within the row; *rows <- how many
/// rows. 1 <= length[i] <= T. pack false: record i alone in row i. Deterministic: records of equal
/// length are placed in their order. O(n log n + T).
sd_status sd_sequence_pack(int32_t *row, int32_t *place, int32_t *rows, const int32_t *length,
                           int32_t n, int32_t T, bool pack, sd_error *err);
