// Inside the room: the token store becomes a file.
#pragma once

#include "datasets/build/token_store.h"

/// Packs, writes the file and its manifest; fills rows and efficiency of the report.
sd_status sd_dataset_write(const char *out, const sd_token_store *g, const sd_prepare_options *o,
                           const sd_model *m, sd_prepare_report *report, sd_error *err);
