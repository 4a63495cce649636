// Names the kind of a file that is not the model file it should be, for the error message.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Says what these bytes are, with the remedy, to stand after the file's name: "is a Git LFS
/// pointer; ...". NULL when they are none of the known kinds.
const char *sd_foreign_file(const uint8_t *bytes, size_t size);
