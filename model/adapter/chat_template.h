// The chat template that an adapter was trained with, where it is not its base's own. It travels with
// the weights: chat_template.jinja in the PEFT folder, tokenizer.chat_template in a GGUF-LoRA file. A
// run's manifest names its hash.
#pragma once

#include "model/model.h"

#define SD_TEMPLATE_FILE "chat_template.jinja"
#define SD_GGUF_TEMPLATE_KEY "tokenizer.chat_template"

/// The template beside the adapter at `path`, a path that sd_adapter_open has taken; the caller closes
/// it. *out NULL: it was trained with its base's own. Refused: one that cannot be read, and one that
/// is not what the run's manifest names.
sd_status sd_adapter_template(sd_template **out, const char *path, sd_error *err);
/// The base takes that template, where there is one: before anything else uses it.
sd_status sd_adapter_bring_template(sd_model *base, const char *path, sd_error *err);
/// Writes the base's template into the PEFT folder, when it is one that the base has taken.
sd_status sd_adapter_write_template(const char *dir, const sd_model *base, sd_error *err);
