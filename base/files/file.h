// Files: read-only mappings, bounded reads, and replacements that are either the old file or the
// new one, never half.
//
// A replacement is written to "<path>.tmp.<pid>.<n>", fsync'ed, renamed over the path, and the
// directory is fsync'ed. A failed fsync is never retried (the kernel may have dropped the pages):
// the operation fails and the old file stays.
#pragma once

#include "base/files/map.h"
#include "base/memory.h"
#include "base/status.h"

#include <stdint.h>
#include <stdio.h>

/// The sentence for errno after a call on path that was `doing` ("open", "write").
sd_status sd_fail_errno(sd_error *err, const char *path, const char *doing);

/// The whole file into a malloc'ed, 0-terminated buffer. More than max bytes is SD_ELIMIT; what is
/// no regular file (a pipe would be waited for) is refused as by sd_map_open.
sd_status sd_file_read(char **data, size_t *len, const char *path, size_t max, sd_error *err);
/// The same for a path that the user gives for text: pipes and devices too (/dev/stdin, <(...)).
sd_status sd_stream_read(char **data, size_t *len, const char *path, size_t max, sd_error *err);
/// The first bytes of a regular file; *got is less than `bytes` where the file is shorter.
sd_status sd_file_head(void *head, size_t bytes, size_t *got, const char *path, sd_error *err);
/// A descriptor for reading and the size in bytes. Never waits: SD_EINVAL for a folder, SD_EFORMAT
/// for a pipe, socket or device.
sd_status sd_open_regular(int *fd, size_t *size, const char *path, sd_error *err);

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
/// Between the two calls, which take the same pointer, a file or an empty folder at path goes when
/// the program is interrupted. Every open replacement does this by itself.
void sd_unfinished(char *path);
void sd_finished(char *path); // harmless for NULL and for what was never unfinished
/// For a signal handler that then calls _exit: only unlink and rmdir.
void sd_remove_unfinished(void);
/// A folder of one's own under $TMPDIR, for files that are wanted for a while; *dir malloc'ed. It
/// goes with all its files (no folders inside) at the close and when the program is interrupted.
sd_status sd_scratch_open(char **dir, const char *name, sd_error *err);
void sd_scratch_close(char *dir); // frees dir; NULL is fine
/// SD_OK when a file can be made at path: asked before long work whose result goes there.
sd_status sd_check_writable(const char *path, sd_error *err);
sd_status sd_replace_commit(sd_replace *r, sd_error *err);
void sd_replace_abort(sd_replace *r); // harmless after a commit and on a zeroed struct
/// Removes the temporary files that killed replacements left in dir. Only for a folder where nobody
/// else writes; one that is not there is fine.
sd_status sd_replace_sweep(const char *dir, sd_error *err);

sd_status sd_mkdirs(const char *path, sd_error *err);     // mkdir -p
sd_status sd_fsync_path(const char *path, sd_error *err); // a file or a directory
/// rename without replacing (renameat2, or a look before rename where the filesystem has no such
/// flag), then fsync of the parent. SD_EINVAL when `to` exists.
sd_status sd_rename_new(const char *from, const char *to, sd_error *err);
/// Renames from to `to`, or to to.2, to.3, ... where that is there. *got: the name, malloc'ed.
sd_status sd_rename_aside(char **got, const char *from, const char *to, sd_error *err);
sd_status sd_remove_tree(const char *path, sd_error *err); // rm -rf, does not follow links

// ---- what stands at a path; links are followed

typedef enum { SD_PATH_NONE, SD_PATH_FILE, SD_PATH_FOLDER, SD_PATH_OTHER } sd_path_kind;
/// SD_PATH_NONE is said only where nothing can be there (ENOENT, ENOTDIR, ENAMETOOLONG); every
/// other failure of the look is SD_EIO.
sd_status sd_path_look(sd_path_kind *kind, const char *path, sd_error *err);
/// The same of folder/name.
sd_status sd_path_look_in(sd_path_kind *kind, const char *folder, const char *name, sd_error *err);
/// Both are there and are one file, by whatever names: an output must not replace its own input.
bool sd_same_file(const char *a, const char *b);
/// "dir/name" in malloc'ed memory; NULL when out of memory.
char *sd_path_join(const char *dir, const char *name);

typedef struct {
    char **name; // [n] in byte order, without . and ..
    int n;
} sd_names;
/// All names in a folder, or none: a listing that breaks off is SD_EIO. SD_ENOTFOUND without one.
sd_status sd_folder_list(sd_names *out, const char *path, sd_error *err);
void sd_names_free(sd_names *l); // a zeroed one is fine

/// Where others may not read the file at path (or the folder, or a file directly in it), nothing
/// that this process makes from now on may be read by others, nor by the group unless it is the same
/// and may read that: the umask takes it away. Called with each source of something that is copied or
/// learnt from.
sd_status sd_keep_private(const char *path, sd_error *err);
