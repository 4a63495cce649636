// Replacements of files that leave either the old file or the new one, never half.
//
// A replacement is written to "<path>.tmp.<pid>.<n>", fsync'ed, renamed over the path, and the
// directory is fsync'ed. A failed fsync is never retried (the kernel may have dropped the pages):
// the operation fails and the old file stays.
//
// The path may be the user's, so what stands there decides:
//     nothing, a regular file    replaced; a file's mode stays, less what sd_keep_private takes
//     a link                     the file that it leads to is replaced or made, and the link stays
//     a pipe or a device         written to directly, as a shell's > does: nothing is renamed over it
//     a folder, a socket, a block device    SD_EINVAL
// So is the path "-", which elsewhere means standard output.
#pragma once

#include "base/status.h"

#include <stdio.h>

/// Replaces path with these bytes, atomically and durably.
sd_status sd_file_write(const char *path, const void *data, size_t len, sd_error *err);

/// A replacement written piece by piece. Open, write through `f`, then commit; abort (or abort
/// after a failed commit) removes the temporary file. Errors of fwrite are found by commit.
typedef struct {
    FILE *f;
    char *path, *tmp; // tmp: NULL where a pipe or a device is written to; path: behind links
} sd_replace;
sd_status sd_replace_open(sd_replace *r, const char *path, sd_error *err);
/// With a mode of open(2), such as 0600, also over a file; the process's umask still takes bits away.
sd_status sd_replace_open_mode(sd_replace *r, const char *path, unsigned mode, sd_error *err);
/// For content that does not go through `f` in order: a pipe and a device are SD_EINVAL too.
sd_status sd_replace_open_whole(sd_replace *r, const char *path, sd_error *err);
/// For a path in a folder that is the program's own: the file takes the place of whatever stands
/// there, a link too.
sd_status sd_replace_open_own(sd_replace *r, const char *path, unsigned mode, sd_error *err);
sd_status sd_replace_commit(sd_replace *r, sd_error *err);
void sd_replace_abort(sd_replace *r); // harmless after a commit and on a zeroed struct
/// Removes the temporary files that killed replacements left in dir. Only for a folder where nobody
/// else writes; one that is not there is fine.
sd_status sd_replace_sweep(const char *dir, sd_error *err);
/// SD_OK when sd_replace_open can succeed: asked before long work whose result goes there. A pipe is
/// not opened for that, as its reader would take the close for the end.
sd_status sd_check_writable(const char *path, sd_error *err);
sd_status sd_check_writable_whole(const char *path, sd_error *err); // of sd_replace_open_whole
