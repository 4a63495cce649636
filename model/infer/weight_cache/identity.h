// The label of a packed form (model/infer/weight_cache/file.h): in which state the files of a model are, taken
// from the descriptors that it was opened with.
#pragma once

#include "model/model.h"

#include <jansson.h>

/// {"sources": [...]} of the files as they were opened; NULL when out of memory or when a path has
/// gone.
json_t *sd_weight_label(const sd_model *m);
/// The label's files are in the very state that the model's were opened in. False for NULL.
bool sd_weight_label_same_state(const json_t *label, const sd_model *m);
/// The label has as many files as the model, of the same sizes.
bool sd_weight_label_same_sizes(const json_t *label, const sd_model *m);
/// The files at the label's paths are in its state now. *first: the first path, malloc'ed.
bool sd_weight_label_is_current(const json_t *label, char **first);
/// SD_EMISMATCH when a file was written, or another one put in its place, since the open.
sd_status sd_weight_cache_check_sources(const sd_model *m, sd_error *err);
/// Permissions that all sources have in common; the owner may always read and write.
uint32_t sd_weight_cache_sources_mode(const sd_model *m);
/// Waits until the time stamp of a new write to a source would differ from the last one's.
void sd_weight_cache_settle(const sd_model *m);
