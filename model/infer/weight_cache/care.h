// The care of the cache: what is in it, what goes, what is whole.
#pragma once

#include "base/pool.h"
#include "base/status.h"

#include <stdint.h>

/// Removes the least recently used files until all together have at most `bytes`; never keep's.
void sd_pack_trim(const char *dir, int64_t bytes, const char *keep);

/// Every weight's bytes against its checksum; SD_EMISMATCH names the first that differs.
sd_status sd_pack_verify(const char *path, sd_pool *pool, sd_error *err);

typedef enum { SD_PACK_CURRENT, SD_PACK_STALE, SD_PACK_OLD, SD_PACK_DAMAGED } sd_pack_state;
const char *sd_pack_state_word(sd_pack_state s); // "current", ...

typedef struct {
    char *path, *source; // source: of the first file; NULL when the file does not say
    int64_t bytes, used; // bytes: with what is beside it; used: seconds since 1970
    sd_pack_state state; // current: the sources are still what they were; old: of another version
} sd_pack_entry;
/// All files of the cache, the last used first; costs whose packed form has gone are a damaged one.
/// A folder that is not there is empty.
sd_status sd_pack_list(sd_pack_entry **out, int *n, const char *dir, sd_error *err);
void sd_pack_list_free(sd_pack_entry *e, int n);
/// Removes a file of the list and what is beside it. One that has gone is fine.
sd_status sd_pack_remove(const char *path, sd_error *err);
