// Inside the room: what decides a prepared file's contents, as JSON and as one hash.
#pragma once

#include "datasets/build/prepare.h"

#include <jansson.h>

/// The options that change a file's contents, as JSON.
json_t *sd_prepare_recipe(const sd_prepare_options *o); // NULL when out of memory
/// SD_EINVAL names the option that is out of range.
sd_status sd_prepare_check(const sd_prepare_options *o, const sd_model *m, sd_error *err);
/// *out <- [{"path", "sha256", "bytes", "format"}], *bytes <- of all together; id [n_sources]: the
/// files whose bytes were hashed; NULL when not wanted.
sd_status sd_prepare_sources(json_t **out, int64_t *bytes, sd_file_id *id,
                             const sd_prepare_options *o, sd_error *err);
/// The hash of options, sources, tokenizer and template; see sd_dataset_key.
sd_status sd_prepare_key(sd_sha256 *out, const sd_prepare_options *o, const json_t *sources,
                         const sd_model *m, sd_error *err);
