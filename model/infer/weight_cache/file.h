// One file of the cache: its bytes, and how it is opened in a folder that others may have touched.
//
//      0   8  "SDPACK3\n"
//      8   8  u64 length of the file
//     16   8  u64 where the label begins, a multiple of 4096
//     24   8  u64 where the data begins, a multiple of 4096
//     32   8  u64 length of the body
//     40  64  SHA-256 of bytes 0..39 and of the body, hexadecimal
//    104      the body, JSON: {"layout", "sha256", "row_sums", "weights": [{"type", "rows", "cols",
//             "at", "bytes", "xxh128"}]}; at: from where the data begins, a multiple of 64
//  label   8  u64 length of the label's JSON
//         64  its SHA-256, hexadecimal
//             the label, JSON: {"sources": [{"path", "size", "device", "inode", "changed",
//             "inode_changed"}]}, zeros up to the data
//   data      the weights' packed forms, then u64 sums of the embedding's rows
//
// The body says what the data is and is never written again; the label says which files it was
// found in and is written in place when the same bytes are found in another state. A label that was
// torn is as good as none: the source is hashed again.
#pragma once

#include "base/files/hash.h"
#include "base/files/map.h"
#include "kernels/ops.h"

#include <jansson.h>

enum { SD_WEIGHT_FILE_PAGE = 4096, SD_WEIGHT_FILE_ALIGN = 64, SD_WEIGHT_SUM_HEX = 32 };

typedef struct {
    int fd;
    size_t size, label_at, data_at;
    sd_sha256 identity;   // the hash in the head
    json_t *body, *label; // label: NULL when it is torn
} sd_weight_file;

typedef struct {
    const void *data;
    size_t bytes;
} sd_weight_part;

/// The folder is this user's, no link, and nobody else may write in it: SD_EMISMATCH when not,
/// SD_ENOTFOUND when it is not there.
sd_status sd_weight_cache_check_dir(const char *dir, sd_error *err);

/// A descriptor of a file of this user that nobody else may write, in a folder that passes the
/// above; links are not followed. SD_ENOTFOUND when there is none such.
sd_status sd_weight_cache_open_own(int *fd, const char *path, int flags, sd_error *err);

/// SD_ENOTFOUND: not there; SD_EINVAL: of another version's format; SD_EFORMAT: damaged, as far as
/// the head goes; SD_EMISMATCH: in a folder that is not this user's alone.
/// flags: O_RDONLY or O_RDWR.
sd_status sd_weight_file_open(sd_weight_file *f, const char *path, int flags, sd_error *err);
void sd_weight_file_close(sd_weight_file *f); // a zeroed one with fd -1 is fine

/// Place of a weight, or of the row sums, in the file; false when it is outside the file.
bool sd_weight_file_place(size_t *at, size_t *bytes, const json_t *row, const sd_weight_file *f);
/// Reads `bytes` at `at` into to, in pieces that stay in the processor's cache, each added to the
/// checksum. False when it cannot be read, differs from want (SD_WEIGHT_SUM_HEX digits), or *stop.
bool sd_weight_file_read(void *to, const sd_weight_file *f, size_t at, size_t bytes,
                         const char *want, const atomic_bool *stop);
/// Checks the checksum alone; what was read is dropped.
bool sd_weight_file_check(const sd_weight_file *f, size_t at, size_t bytes, const char *want);
/// hex [SD_WEIGHT_SUM_HEX + 1] <- XXH3 of 128 bits; false when out of memory.
bool sd_weight_sum(char *hex, const void *data, size_t bytes);

/// Writes a file atomically, with the permissions `mode` at most. Once *stop is set: SD_EINTERRUPTED,
/// and nothing is left behind.
sd_status sd_weight_file_write(const char *path, uint32_t mode, json_t *body, json_t *label,
                               const sd_weight_part *part, int parts, const atomic_bool *stop,
                               sd_error *err);
/// Writes the label in place; f was opened with O_RDWR. False when there is no room or the file cannot
/// be written; then the file has its old label or none.
bool sd_weight_file_relabel(const sd_weight_file *f, json_t *label);
