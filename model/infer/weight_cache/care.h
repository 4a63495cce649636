// Listing, checking and clearing the cache.
#pragma once

#include "base/pool.h"
#include "base/status.h"

#include <stdint.h>

/// Removes the least recently used files until all together have at most `bytes`; never keep's.
void sd_weight_cache_trim(const char *dir, int64_t bytes, const char *keep);

/// Every weight's bytes against its checksum; SD_EMISMATCH names the first that differs.
sd_status sd_weight_cache_verify(const char *path, sd_pool *pool, sd_error *err);

typedef enum {
    SD_WEIGHT_CACHE_CURRENT,
    SD_WEIGHT_CACHE_STALE,
    SD_WEIGHT_CACHE_OLD,
    SD_WEIGHT_CACHE_DAMAGED
} sd_weight_cache_state;
const char *sd_weight_cache_state_word(sd_weight_cache_state s); // "current", ...

typedef struct {
    char *path, *source; // source: of the first file; NULL when the file does not say
    int64_t bytes, used; // bytes: with what is beside it; used: seconds since 1970
    sd_weight_cache_state
        state; // current: the sources are still what they were; old: of another version
} sd_weight_cache_entry;
/// All files of the cache, the last used first. A step-cost file whose packed form has gone counts as
/// damaged. A folder that is not there is empty.
sd_status sd_weight_cache_list(sd_weight_cache_entry **out, int *n, const char *dir, sd_error *err);
void sd_weight_cache_list_free(sd_weight_cache_entry *e, int n);
/// Removes a file of the list and what is beside it. One that has gone is fine.
sd_status sd_weight_cache_remove(const char *path, sd_error *err);
