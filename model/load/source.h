// The files behind a model, for what reads them again: the weight cache, exports, inspect. All else
// sees the model only.
#pragma once

#include "base/files/map.h"
#include "model/formats/gguf.h"
#include "model/formats/safetensors.h"
#include "model/model.h"

/// One of these two is what the model was read from, the other is NULL.
const sd_gguf *sd_model_gguf(const sd_model *m);
const sd_safetensors *sd_model_safetensors(const sd_model *m);

/// The files that the weights are read from: one GGUF, the parts of a split
/// one in order, or safetensors in name order.
int sd_model_source_count(const sd_model *m);
const char *sd_model_source_path(const sd_model *m, int i);
sd_map *sd_model_source(const sd_model *m, int i);
/// SD_EIO when one of them was cut, could not be read, or is in another state than when it was
/// opened.
sd_status sd_model_check_sources(const sd_model *m, sd_error *err);

/// The file that [p, p + bytes) of a weight lies in; NULL where it is in memory.
const sd_map *sd_model_map_of(const sd_model *m, const void *p, size_t bytes);
/// Lets the pages of the files that are in memory go: nobody reads the weights for a while.
void sd_model_forget(const sd_model *m);
