// Paths: what stands at one, what a folder holds, and the making, renaming and removing of both.
// Links are followed unless it says otherwise.
#pragma once

#include "base/status.h"

// ---- what stands at a path

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
/// What stands behind the last '/' of path, inside path; the whole of it where there is none.
const char *sd_path_name(const char *path);

typedef struct {
    char **name; // [n] in byte order, without . and ..
    int n;
} sd_names;
/// All names in a folder, or none: a listing that breaks off is SD_EIO. SD_ENOTFOUND without one.
sd_status sd_folder_list(sd_names *out, const char *path, sd_error *err);
void sd_names_free(sd_names *l); // a zeroed one is fine

// ---- folders and names that last

sd_status sd_mkdirs(const char *path, sd_error *err);       // mkdir -p
sd_status sd_fsync_path(const char *path, sd_error *err);   // a file or a directory
sd_status sd_fsync_parent(const char *path, sd_error *err); // the directory that path stands in
/// rename without replacing (renameat2, or a look before rename where the filesystem has no such
/// flag), then fsync of the parent. SD_EINVAL when `to` exists.
sd_status sd_rename_new(const char *from, const char *to, sd_error *err);
/// Renames from to `to`, or to to.2, to.3, ... where that is there. *got: the name, malloc'ed.
sd_status sd_rename_aside(char **got, const char *from, const char *to, sd_error *err);
sd_status sd_remove_tree(const char *path, sd_error *err); // rm -rf, does not follow links

// ---- who may read

/// Where others may not read the file at path (or the folder, or a file directly in it), nothing
/// that this process makes from now on may be read by others, nor by the group unless it is the same
/// and may read that: the umask takes it away. Called with each source of something that is copied or
/// learnt from.
sd_status sd_keep_private(const char *path, sd_error *err);
/// The bits of a mode that sd_keep_private has taken so far: 0, others' or also the group's.
unsigned sd_private_bits(void);
