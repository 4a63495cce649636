// The CPU tables and what they share.
#pragma once

#include "kernels/ops.h"

/// Positions of one key block of attention: fixed, counted from position 0.
enum { SD_KEY_BLOCK = 64 };

extern const sd_ops sd_ops_plain;
/// attention_scratch of what keeps the scores of one key block, and the largest, for a head of a
/// row.
size_t sd_attention_scratch_of_block(const sd_attention_shape *s, int N);
