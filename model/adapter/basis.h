// The basis of an adapter's factors, which its readers and writers share.
//
// The basis matters for q and k of GGUF files of architecture llama alone. There the converter
// reorders each head's rows from (half, pair) to (pair, half), so that rotation pairs stand side by
// side; the rows of B follow W, A is untouched.
#pragma once

#include "model/adapter/adapter.h"

/// Whether B's rows of linear map i change places between the base in memory and a file in the
/// given layout.
bool sd_adapter_row_moves(const sd_model *base, int i, bool file_interleaved);

/// Where row `row` of the half layout (Hugging Face) stands in the interleaved one (GGUF llama).
int sd_adapter_interleave_row(int row, int D);

/// delta [K] <- row `row` of s B A.
void sd_adapter_delta_row(float *delta, const sd_lora *l, int row, int K);
