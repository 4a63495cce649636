// Opening below one folder, for paths that come from clients: whatever such a path says, and whatever links
// stand on its way, nothing outside the folder is opened.
//
// The kernel resolves the path (openat2, Linux 5.6: RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS), so there is
// no moment between a check and the open. It is asked by all that opens files here: while a thread stays
// below a root, each of its paths that begin with the root's lead below it or nowhere. Its other paths are
// opened as always: readers of an adapter also read the model that it is for.
//
//     sd_root root;
//     SD_TRY(sd_root_open(&root, "/srv/adapters", SIZE_MAX, err));
//     SD_TRY(sd_root_path(&path, &root, name, err));    // name: of a client
//     sd_root_enter(&root);
//     st = sd_adapter_open(&a, path, ...);
//     sd_root_leave();
//     sd_root_close(&root);
#pragma once

#include "base/status.h"

#include <sys/stat.h>

typedef struct {
    int fd;
    char *path; // of the folder, without '/' at its end
    size_t most;
} sd_root;

/// most: bytes of a regular file that may be opened below it. SD_EINVAL where the kernel cannot resolve
/// paths so: nothing else is as safe. r is to be closed in any case.
sd_status sd_root_open(sd_root *r, const char *folder, size_t most, sd_error *err);
void sd_root_close(sd_root *r); // a zeroed one is fine
/// *out <- the root's path with `name` behind it, malloc'ed. A name that begins with '/' must begin with the
/// root's own path. SD_EINVAL, too, for one that is empty or has 4096 bytes or more.
sd_status sd_root_path(char **out, const sd_root *r, const char *name, sd_error *err);

/// This thread, until it leaves. r stays the caller's.
void sd_root_enter(const sd_root *r);
void sd_root_leave(void);

// ---- for what opens files (base/files)

/// As open and stat, below the thread's root where the path begins with it. errno is EXDEV where the path
/// leads out of it, or through links without end.
int sd_beneath_open(const char *path, int flags);
int sd_beneath_stat(const char *path, struct stat *sb);
/// SD_ELIMIT where the path begins with the thread's root and the file has more bytes than that allows.
sd_status sd_beneath_check_size(const char *path, long long size, sd_error *err);
