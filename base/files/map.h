// Files mapped read-only, and what a file is (sd_file_id).
//
// A mapped file may be cut or its disk may fail while it is read: the kernel then sends SIGBUS. A
// guard turns that into a value: the missing pages become zeros, the map counts as lost, and
// whoever reads asks sd_map_check before it believes what it read.
//
//     sd_map m;
//     SD_TRY(sd_map_open(&m, path, err));
//     parse(m.data, m.size);                // zeros where the file has gone
//     SD_TRY(sd_map_check(&m, path, err));  // nothing was lost, nobody wrote meanwhile
#pragma once

#include "base/status.h"

#include <stdint.h>

/// What a file was at one moment. The same id means the same bytes: writing changes the time of the
/// inode's last change, which no program can set.
typedef struct {
    uint64_t device, inode, links;
    int64_t size;                              // bytes
    int64_t changed_s, changed_ns;             // st_mtim: of the contents; programs may set it
    int64_t inode_changed_s, inode_changed_ns; // st_ctim: of anything; the kernel alone sets it
    uint32_t mode;                             // the permissions
} sd_file_id;

sd_status sd_file_id_of(sd_file_id *out, int fd, const char *path, sd_error *err);
/// links and mode do not count.
bool sd_file_id_equal(const sd_file_id *a, const sd_file_id *b);

/// A file mapped read-only. Zeroed is a valid closed map.
typedef struct {
    const uint8_t *data;
    size_t size;   // bytes; an empty file has data NULL and size 0
    int fd;        // where data is not NULL
    int guard;     // its place among the guards
    sd_file_id id; // when it was opened
} sd_map;

/// SD_ENOTFOUND when the path does not exist, SD_EFORMAT when it is not a regular file, SD_ELIMIT
/// when thousands are open, SD_EIO otherwise.
sd_status sd_map_open(sd_map *m, const char *path, sd_error *err);
void sd_map_close(sd_map *m);

typedef enum {
    SD_MAP_SAME,     // as it was opened
    SD_MAP_RELINKED, // only names were made or removed (a rename over it): the bytes are its own
    SD_MAP_CHANGED,  // somebody wrote, or may have
    SD_MAP_LOST      // a part could not be read
} sd_map_state;
/// One fstat. An empty file is always the same.
sd_map_state sd_map_look(const sd_map *m);
/// SD_EIO when the map was lost or may have changed since it was opened.
sd_status sd_map_check(const sd_map *m, const char *path, sd_error *err);
/// What it is now counts from here on as what was opened: for callers that have looked at the
/// bytes.
void sd_map_accept(sd_map *m, const sd_file_id *now);

/// Takes the mapped pages out of this process; what is read again comes back from the page cache, a
/// few pages at a time. Any thread may read meanwhile.
void sd_map_forget(const sd_map *m);
/// Bytes of the map at `from` without mapping a page: a fault maps sixteen. False when the file
/// cannot be read any more. from must lie in the map.
bool sd_map_read(void *to, const sd_map *m, const void *from, size_t bytes);
bool sd_map_holds(const sd_map *m, const void *p, size_t bytes);

/// A regular file's bytes in memory of their own, aligned to 64, for free(): what is small and used
/// for long is read, not mapped. SD_EIO when it was cut meanwhile; otherwise as sd_map_open.
sd_status sd_file_load(void **data, size_t *size, const char *path, sd_error *err);
