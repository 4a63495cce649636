// Temporary files and archives for tests.
#pragma once

#include <stddef.h>

/// A fresh path ending in `name` inside a folder of this process; the folder is removed at exit.
/// Valid until 64 further calls.
const char *temp_file(const char *name);
/// temp_file(name) with these bytes.
const char *temp_bytes(const char *name, const void *data, size_t len);
const char *temp_text(const char *name, const char *text);

typedef struct {
    const char *name, *data;
    size_t len;
    const char *symlink, *hardlink; // a link instead of data
} archive_file;
/// An archive (format "ustar" or "zip", filter "none", "gzip", "zstd", "xz") of n entries.
const char *temp_archive(const char *name, const char *format, const char *filter,
                         const archive_file *files, int n);
/// One file, compressed.
const char *temp_compressed(const char *name, const char *filter, const void *data, size_t len);
