// The row order of q and k: see the top of model/adapter.c. Shared by the reader and the writers.
#pragma once

#include "model/model.h"

/// Whether B's rows of this projection change places between the base in memory and a file in the
/// given layout.
bool sd_adapter_row_moves(const sd_model *base, sd_proj p, bool file_interleaved);

/// Where row `row` of the half layout (Hugging Face) stands in the interleaved one (GGUF llama).
int sd_adapter_interleave_row(int row, int D);
