// The rows of the embedding are read from the model's file for as long as a context lives: they are
// a fifth of a small model, and a step needs a few of them. What the file holds then may be another
// thing than what was loaded, so every row has a checksum, taken when the model was loaded and kept
// beside its packed form, and a row that does not fit it is an error, not a token.
#pragma once

#include "base/pool.h"
#include "model/model.h"

/// The file that the rows are read from; NULL where they are in memory.
const sd_map *sd_model_row_file(const sd_model *m);

/// XXH3 of 64 bits of the bytes of one row.
uint64_t sd_row_sum(const void *row, size_t bytes);

/// *out [V] <- the sums of all rows, in the model's memory; taken at the first call. SD_EIO when
/// the files changed since the model was opened.
sd_status sd_model_row_sums(const uint64_t **out, sd_model *m, sd_pool *pool, sd_error *err);

/// The same as kept with the model's packed form [V]; copied. Those that are there already stay.
sd_status sd_model_keep_row_sums(sd_model *m, const uint64_t *sum, sd_error *err);
