// The CPU tables and what they share.
#pragma once

#include "kernels/ops.h"

/// Positions of one key block of attention: fixed, counted from position 0.
enum { SD_KEY_BLOCK = 64 };

extern const sd_ops sd_ops_plain;
