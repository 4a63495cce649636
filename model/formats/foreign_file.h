// A file that is no model file is most often one of a few other things: the message says which.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// "is a Git LFS pointer; ...": what these bytes are, with the remedy, after the file's name; NULL
/// when they are none of the known.
const char *sd_foreign_file(const uint8_t *bytes, size_t size);
