// A tiny model and a folder for its packed form. What must not fail here aborts.
#pragma once

#include "model/infer/forward.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/care.h"
#include "tests/unit/support/tiny/model.h"

#include <sys/types.h>

enum { PACK_T = 20 };

typedef struct {
    char *dir, *model, *cache;
    sd_tiny_model t;
} pack_place;

/// Only plain C runs here: weights are used as stored.
bool pack_nothing_to_test(void);
pack_place pack_make_place(void);
void pack_drop_place(pack_place *p);
/// The last row's logits [V] of a fresh start, malloc'ed; cache NULL: without one.
float *pack_start(const pack_place *p, const char *cache, sd_compute compute);
sd_model *pack_open_model(const pack_place *p, const char *cache);
const sd_map *pack_file_of(const sd_model *m);
sd_status pack_list_status(const char *dir);
int pack_files_in(const char *dir);
uint64_t pack_inode_of(const char *path);
off_t pack_size_of(const char *path);
sd_weight_cache_state pack_only_state(const pack_place *p);
bool pack_same_logits(const pack_place *p, const float *a, const float *b);
char *pack_only_file(const pack_place *p);
/// Adds `change` to the byte `at` bytes before (at < 0) the end or after the beginning.
void pack_change_byte(const char *path, long at, int change);
