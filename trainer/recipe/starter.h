// A first recipe, fitted to the data: what `specdec train --init DATA -m MODEL` prints.
#pragma once

#include "base/memory.h"
#include "base/status.h"

/// Appends a commented recipe that runs as it stands. Reads all of the data to count its tokens, in
/// a temporary folder that is removed again. chat_template: a Jinja file; NULL: the model's own.
sd_status sd_recipe_init(sd_buf *out, const char *data, const char *model,
                         const char *chat_template, sd_error *err);
