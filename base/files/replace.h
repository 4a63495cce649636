// Replacements of files that leave either the old file or the new one, never half.
//
// A replacement is written to "<path>.tmp.<pid>.<n>", fsync'ed, renamed over the path, and the
// directory is fsync'ed. A failed fsync is never retried (the kernel may have dropped the pages):
// the operation fails and the old file stays.
#pragma once

#include "base/status.h"

#include <stdio.h>

/// Replaces path with these bytes, atomically and durably.
sd_status sd_file_write(const char *path, const void *data, size_t len, sd_error *err);

/// A replacement written piece by piece. Open, write through `f`, then commit; abort (or abort
/// after a failed commit) removes the temporary file. Errors of fwrite are found by commit.
typedef struct {
    FILE *f;
    char *path, *tmp;
} sd_replace;
sd_status sd_replace_open(sd_replace *r, const char *path, sd_error *err);
/// With a mode of open(2), such as 0600; the process's umask still takes bits away.
sd_status sd_replace_open_mode(sd_replace *r, const char *path, unsigned mode, sd_error *err);
sd_status sd_replace_commit(sd_replace *r, sd_error *err);
void sd_replace_abort(sd_replace *r); // harmless after a commit and on a zeroed struct
/// Removes the temporary files that killed replacements left in dir. Only for a folder where nobody
/// else writes; one that is not there is fine.
sd_status sd_replace_sweep(const char *dir, sd_error *err);
/// SD_OK when a file can be made at path: asked before long work whose result goes there.
sd_status sd_check_writable(const char *path, sd_error *err);
