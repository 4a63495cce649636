// The findings of `specdec inspect` about a thing, as JSON; the verb prints it as it is or for people.
#pragma once

#include "base/status.h"

#include <jansson.h>

typedef struct {
    bool metadata; // GGUF: every key
    bool tensors;  // every tensor
} sd_inspect_options;

// Each sets *out to a new object whose first key is "kind".
sd_status sd_inspect_model(json_t **out, const char *path, const sd_inspect_options *o,
                           sd_error *err);
/// A GGUF file without tensors, or a folder with a tokenizer alone (sd_vocabulary_is).
sd_status sd_inspect_vocabulary(json_t **out, const char *path, const sd_inspect_options *o,
                                sd_error *err);
sd_status sd_inspect_gguf_adapter(json_t **out, const char *path, const sd_inspect_options *o,
                                  sd_error *err);
sd_status sd_inspect_peft(json_t **out, const char *folder, const sd_inspect_options *o,
                          sd_error *err);
sd_status sd_inspect_safetensors(json_t **out, const char *path, const sd_inspect_options *o,
                                 sd_error *err);
sd_status sd_inspect_dataset(json_t **out, const char *path, sd_error *err);
sd_status sd_inspect_corpus(json_t **out, const char *path, sd_error *err);
sd_status sd_inspect_run(json_t **out, const char *folder, sd_error *err);

/// Where models can run on this machine, and what is missing for the rest.
sd_status sd_inspect_devices(json_t **out, sd_error *err);

/// Any bytes as a JSON string: what is no UTF-8 becomes U+FFFD.
json_t *sd_json_text(const char *bytes, size_t len);
