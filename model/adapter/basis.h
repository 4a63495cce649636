// What the reader and the writers of adapters share. The row order of q and k: see the top of
// model/adapter/adapter.c.
#pragma once

#include "model/adapter/adapter.h"

/// Whether B's rows of this projection change places between the base in memory and a file in the
/// given layout.
bool sd_adapter_row_moves(const sd_model *base, sd_proj p, bool file_interleaved);

/// Where row `row` of the half layout (Hugging Face) stands in the interleaved one (GGUF llama).
int sd_adapter_interleave_row(int row, int D);

/// delta [K] <- row `row` of s B A.
void sd_adapter_delta_row(float *delta, const sd_lora *l, int row, int K);
