// A context reads rows of the embedding from the model's file as long as it lives: the embedding is a
// fifth of a small model, and a step needs a few of its rows. The file may change meanwhile. So every
// row has a checksum, taken when the model was loaded and kept with its packed form, and a row that
// does not fit its checksum is an error, not a token.
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

/// Gives the model the sums [V] that were kept with its packed form; copied. Sums that it has already
/// stay.
sd_status sd_model_keep_row_sums(sd_model *m, const uint64_t *sum, sd_error *err);
