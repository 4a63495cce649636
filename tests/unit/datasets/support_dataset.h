// Datasets prepared from small files.
#pragma once

#include "datasets/build/prepare.h"
#include "datasets/dataset.h"

extern const char dataset_conversations[]; // JSON Lines of three conversations

sd_prepare_options dataset_options(const sd_data_source *s, int n, int T, bool packing);
/// Prepares into a temporary file of that name and returns its path.
const char *dataset_prepare(const char *name, const sd_prepare_options *o, sd_model *m,
                            sd_prepare_report *r);
sd_dataset *dataset_open(const char *path);
