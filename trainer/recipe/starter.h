// A first recipe, fitted to the data: what `specdec train --init DATA -m MODEL` prints.
#pragma once

#include "base/memory.h"
#include "base/status.h"

/// Appends a commented recipe that runs as it stands. Reads all of the data to count its tokens, in
/// a temporary folder that is removed again.
sd_status sd_recipe_init(sd_buf *out, const char *data, const char *model, sd_error *err);
