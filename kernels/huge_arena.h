// Memory for packed weights: arenas on huge pages. A decode step streams every weight once, and on
// 4 KiB pages a tenth of its time goes to address translation. The weights of small models are
// smaller than a huge page, so several share an arena.
#pragma once

#include <stddef.h>

typedef struct sd_huge_arena sd_huge_arena;

/// bytes, zeroed, aligned to 64; *owner is given back with sd_huge_arena_release, which unmaps an
/// arena with its last tenant. NULL when out of memory. Thread-safe.
void *sd_huge_arena_alloc(sd_huge_arena **owner, size_t bytes);
void sd_huge_arena_release(sd_huge_arena *owner); // NULL is fine
