// The part that the two readers of tokenizer.json share: from_json.c reads the model and its tokens,
// from_json_steps.c what happens to a text before and after the model.
#pragma once

#include "model/tokenizer/internal.h"

#include <jansson.h>

#define SD_TOKENIZER_JSON "tokenizer.json"

/// Reads normalizer, pre_tokenizer, post_processor and decoder into t, whose vocabulary is there.
sd_status sd_tokenizer_read_steps(sd_tokenizer *t, const json_t *root, sd_error *err);
