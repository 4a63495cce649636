// The packed form of a model's weights (kernels/ops.h) kept on disk, so that a start reads it in
// place of making it again: the kernels' layout for this class of processor, bound to the files it
// came from.
//
//     <dir>/<16 hex digits>.pack = "SDPACK2\n", u64 length of the JSON, u64 length of the file, 64
//                                  hex digits of the JSON's SHA-256, the JSON, zeros, and from the
//                                  next page on the data
//
// The JSON names the layout, the sources (path, size, inode, time of the last change), their
// SHA-256, and each weight's type, shape, place and SHA-256. A file is used only when it belongs to
// this user, is as long as it says, and sources and weights are what the model has now; what a
// start cannot afford, the check of every byte, is `specdec pack`.
#pragma once

#include "base/file.h"
#include "base/hash.h"
#include "base/pool.h"
#include "kernels/ops.h"
#include "model/model.h"

#include <jansson.h>

enum { SD_PACK_LEAST = 16 << 20 }; // a smaller model is packed sooner than it is looked for

/// $XDG_CACHE_HOME/specdec/packed or ~/.cache/specdec/packed, malloc'ed; NULL when neither variable
/// is set or memory is out.
char *sd_pack_cache_dir(void);

/// From here on contexts of the model look for its packed form in dir and leave it there; least:
/// bytes from which it is worth a file.
sd_status sd_model_use_pack_cache(sd_model *m, const char *dir, size_t least, sd_error *err);

/// Where the model's packed form for these ops is or would be; NULL without a cache or when these
/// ops use the stored form. malloc'ed.
char *sd_pack_path(const sd_model *m, const sd_ops *ops);

/// p [n] <- the packed forms of w [n], read into memory of their own: huge pages decode a tenth
/// faster than the file's small ones would (kernels/LOG.md). SD_ENOTFOUND when there is no such
/// file or one that is out of date; SD_EFORMAT when it is damaged. Neither is a failure of the
/// caller: it packs.
sd_status sd_pack_load(sd_packed *p, const sd_weight *const *w, int n, sd_model *m,
                       const sd_ops *ops, sd_compute compute, sd_pool *pool, sd_error *err);

/// Writes p [n] for the next start, atomically, and removes the least recently used others beyond
/// the cache's bound. Hashes the source on the way (sd_model_sha256).
sd_status sd_pack_save(const sd_packed *p, int n, sd_model *m, const sd_ops *ops, sd_pool *pool,
                       sd_error *err);

/// Removes the least recently used files until all together have at most `bytes`; never keep's.
void sd_pack_trim(const char *dir, int64_t bytes, const char *keep);

/// Every weight's bytes against its SHA-256; SD_EMISMATCH names the first that differs.
sd_status sd_pack_verify(const char *path, sd_pool *pool, sd_error *err);

/// The hash of the source as a current file records it; false without one.
bool sd_pack_source_sha256(const sd_model *m, sd_sha256 *out);
/// The hash in the head of the model's current file: what lies beside it is bound to this.
bool sd_pack_identity(sd_sha256 *out, const sd_model *m, const sd_ops *ops);
/// Of what is beside it there is the costs of steps (model/step_cost.h): where, malloc'ed.
char *sd_pack_costs_path(const char *path);
/// A file of the cache that another user left there is not used.
bool sd_pack_is_mine(const char *path);

typedef struct {
    char *path, *source; // source: of the first file; NULL when the file is damaged
    int64_t bytes, used; // bytes: with what is beside it; used: seconds since 1970
    bool current;        // the sources are still what they were
} sd_pack_entry;
/// All files of the cache, the last used first; costs whose packed form has gone are a damaged one.
/// A folder that is not there is empty.
sd_status sd_pack_list(sd_pack_entry **out, int *n, const char *dir, sd_error *err);
void sd_pack_list_free(sd_pack_entry *e, int n);
/// Removes a file of the list and what is beside it. One that has gone is fine.
sd_status sd_pack_remove(const char *path, sd_error *err);
