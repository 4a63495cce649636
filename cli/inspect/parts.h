// Parts of a model file's or an adapter's findings.
#pragma once

#include "cli/inspect/inspect.h"
#include "model/formats/gguf.h"
#include "model/formats/safetensors.h"

json_t *sd_inspect_text(const char *s); // sd_json_text of a 0-terminated string
/// Adds "types" (and "tensors") of a GGUF file or of safetensors; shapes are row-major in both.
void sd_inspect_add_tensors(json_t *o, const sd_gguf *g, const sd_safetensors *s, bool list);
/// Adds "metadata": every key.
void sd_inspect_add_metadata(json_t *o, const sd_gguf *g);
