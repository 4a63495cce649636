// One open arena at a time serves small requests from its front. Freed memory is not used again
// before the whole arena goes, because the weights of a model come and go together.
#include "kernels/huge_arena.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, ARENA_BYTES = 32 << 20 };

struct sd_huge_arena {
    void *map; // with room to align
    size_t map_bytes;
    uint8_t *data; // aligned to HUGE_PAGE
    size_t used, cap;
    int tenants;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sd_huge_arena *open_arena; // the one that small requests come from; counts as a tenant of it

static sd_huge_arena *make(size_t cap) {
    if (cap > SIZE_MAX / 2) return NULL;
    cap = (cap + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    sd_huge_arena *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->map_bytes = cap + HUGE_PAGE;
    s->map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->map == MAP_FAILED) {
        free(s);
        return NULL;
    }
    uintptr_t at = ((uintptr_t)s->map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    s->data = (uint8_t *)s->map + (at - (uintptr_t)s->map);
    s->cap = cap;
    madvise(s->data, cap, MADV_HUGEPAGE); // a wish: without it the pages are small
    return s;
}

static void drop(sd_huge_arena *s) { // under the lock
    if (!s || --s->tenants > 0) return;
    munmap(s->map, s->map_bytes);
    free(s);
}

void *sd_huge_arena_alloc(sd_huge_arena **owner, size_t bytes) {
    void *p = NULL;
    *owner = NULL;
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 63) / 64 * 64;
    pthread_mutex_lock(&lock);
    sd_huge_arena *s = open_arena;
    if (bytes > ARENA_BYTES / 4) {
        s = make(bytes);
    } else if (!s || s->cap - s->used < bytes) {
        s = make(ARENA_BYTES);
        if (s) {
            drop(open_arena);
            open_arena = s;
            s->tenants = 1;
        }
    }
    if (s) {
        p = s->data + s->used;
        s->used += bytes;
        s->tenants++;
        *owner = s;
    }
    pthread_mutex_unlock(&lock);
    return p;
}

void sd_huge_arena_release(sd_huge_arena *owner) {
    if (!owner) return;
    pthread_mutex_lock(&lock);
    drop(owner);
    if (open_arena && open_arena->tenants == 1) { // only itself
        drop(open_arena);
        open_arena = NULL;
    }
    pthread_mutex_unlock(&lock);
}
