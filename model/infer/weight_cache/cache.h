// The packed form of a model's weights (kernels/ops.h) kept on disk, so that a start reads it in
// place of making it again: the kernels' layout for this class of processor, bound to the bytes it
// came from (model/infer/weight_cache/file.h has the format).
//
// A file is used when its sources have the device, inode, size and both times of change that it was
// made of, which the kernel alone can set together, or else the same SHA-256: then it gets the new
// state for a label. Every weight carries a checksum, and the threads that copy it check it on what
// they copied: a damaged file is made again, never used. The folder and the file must be this
// user's, and nobody else may write them.
#pragma once

#include "base/files/hash.h"
#include "base/pool.h"
#include "base/status.h"
#include "kernels/ops.h"
#include "model/model.h"

#include <stdatomic.h>

enum { SD_WEIGHT_CACHE_LEAST = 16 << 20 }; // a smaller model is packed sooner than it is looked for

/// Call it once for a model whose packed form is kept in dir, before a context is opened. Hands the
/// model its hash, where a kept file knows it. Waits for some milliseconds where a file of the model
/// was written just now: a write in the same tick of the clock could not be told from the one before.
void sd_weight_cache_attach(sd_model *m, const char *dir);

/// Model and folder of a packed form, and what loading and saving run with.
typedef struct {
    const char *dir;
    sd_model *model;
    const sd_ops *ops;
    sd_pool *pool;
    const atomic_bool *stop; // once set, SD_EINTERRUPTED; NULL: never
} sd_weight_cache_user;

/// p [n] <- the packed forms of w [n], read into memory of their own: huge pages decode a tenth
/// faster than the file's small ones would (kernels/LOG.md). The model gets the sums of its
/// embedding's rows from it too. SD_EINTERRUPTED ends the caller too; on any other failure the
/// caller packs: SD_ENOTFOUND when there is no such file, or one that is out of date; SD_EFORMAT when
/// it is damaged; SD_EMISMATCH when the folder is not this user's alone and must not be used.
sd_status sd_weight_cache_load(sd_packed_weight *p, const sd_weight *const *w, int n,
                               const sd_weight_cache_user *u, sd_compute compute, sd_error *err);

/// Writes p [n] for the next start, atomically, with the permissions of the source at most, and
/// removes the least recently used others beyond the cache's bound. row_sum [V] or NULL:
/// model/infer/weight_cache/row_sums.h. Hashes the source on the way (sd_model_sha256). SD_EMISMATCH, and nothing is
/// kept, when a source was replaced or changed since the model was opened, or when the folder is
/// not this user's alone.
sd_status sd_weight_cache_save(const sd_packed_weight *p, int n, const uint64_t *row_sum,
                               const sd_weight_cache_user *u, sd_error *err);

/// True when a file is kept for the model's very bytes; hashes the source where it was touched.
bool sd_weight_cache_has(const char *dir, sd_model *m, const sd_ops *ops);

/// The source's hash from a kept file, when its label says the very state that the model was opened
/// in; false otherwise.
bool sd_weight_cache_source_sha256(const char *dir, const sd_model *m, sd_sha256 *out);
/// The hash in the head of the model's current file; what is kept beside the file is bound to it.
bool sd_weight_cache_identity(sd_sha256 *out, const char *dir, const sd_model *m,
                              const sd_ops *ops);
