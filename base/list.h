// Growing lists: an array, the number of its elements, and the number that it has room for.
//
//     if (!SD_GROW(l->item, l->n + 1, l->cap)) return out_of_memory;
//     l->item[l->n++] = x;
#pragma once

#include "base/memory.h"

/// What SD_GROW calls: *list (a T *) gets room for `need` elements of `size` bytes, at least double
/// of what it had; the room it then has, or `cap` (and *list as it was) when out of memory or when
/// more than `most` would be needed.
size_t sd_list_grow(void *list, size_t need, size_t cap, size_t size, size_t most);

/// True when the array p then has room for `need` elements; cap, any integer, is the room it has.
/// False: out of memory, p and cap are as they were. New elements are not zeroed; free(p) ends it.
/// p, need and cap are read more than once.
#define SD_GROW(p, need, cap)                                                                      \
    ((size_t)(need) <= (size_t)(cap) ||                                                            \
     (size_t)((cap) = (__typeof__(cap))sd_list_grow(                                               \
                  &(p), (size_t)(need), (size_t)(cap), sizeof *(p),                                \
                  sizeof(cap) < sizeof(size_t) ? INT32_MAX : PTRDIFF_MAX)) >= (size_t)(need))
