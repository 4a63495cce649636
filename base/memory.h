// Memory with checked sizes, and an arena for things that die together.
#pragma once

#include "base/status.h"

#include <stdint.h>
#include <stdlib.h>

/// a*b and a+b into *out; false on overflow (then *out is not written).
static inline bool sd_mul_size(size_t *out, size_t a, size_t b) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool sd_add_size(size_t *out, size_t a, size_t b) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/// count*size bytes, zeroed, aligned to 64; NULL when out of memory or on overflow. Freed with
/// free(). A request of 0 bytes gives a pointer that may be freed.
void *sd_alloc(size_t count, size_t size);

/// realloc with a checked product; the grown part is not zeroed and the alignment is malloc's. NULL
/// leaves p valid.
void *sd_realloc(void *p, size_t count, size_t size);

char *sd_strdup(const char *s);            // NULL when out of memory
char *sd_strndup(const char *s, size_t n); // copies n bytes and ends them with 0
/// NULL when out of memory.
char *sd_sprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// A failed allocation of everything in this file leaves a mark on its thread, and so do those of
// libraries that are given the two below as their allocator: jansson and libevent, whose calls
// forget that one failed. What was made meanwhile is looked at once, at its end, rather than at
// each of a hundred calls: a document, an answer, a verb's output.
void *sd_malloc_marked(size_t bytes);
void *sd_realloc_marked(void *p, size_t bytes);
/// True when an allocation failed on this thread since the mark was cleared. What was built since
/// then may lack a part: it is thrown away, or the process says so at its end.
bool sd_memory_lost(void);
void sd_memory_lost_mark(void); // for a failure of one's own that its caller may overlook
/// Called where something new begins on a thread that lives on: a request, an optional file.
void sd_memory_lost_clear(void);

/// True when so many bytes could be had just now: asked before a library is called that does not
/// survive a failed allocation.
bool sd_memory_has_room(size_t bytes);

// An arena gives memory that is freed all at once. Zero-initialised is a valid empty arena.
typedef struct sd_arena_block sd_arena_block;
typedef struct {
    sd_arena_block *head;
    size_t total; // bytes asked from malloc so far
    size_t limit; // 0: none; else a request that would pass it returns NULL
} sd_arena;

/// Zeroed, aligned to 16; NULL when out of memory or over the limit. Not thread-safe.
void *sd_arena_alloc(sd_arena *a, size_t count, size_t size);
char *sd_arena_strndup(sd_arena *a, const char *s, size_t n);
void sd_arena_free(sd_arena *a);

// A growable byte buffer with a mandatory ceiling. data is always followed by a 0 byte once
// anything was added.
typedef struct {
    char *data;
    size_t len, cap;
    size_t max; // ceiling in bytes
} sd_buf;

static inline sd_buf sd_buf_make(size_t max) {
    return (sd_buf){NULL, 0, 0, max};
}
/// false when out of memory or over the ceiling; the buffer is then unchanged.
bool sd_buf_add(sd_buf *b, const void *data, size_t len);
bool sd_buf_addc(sd_buf *b, char c);
bool sd_buf_adds(sd_buf *b, const char *s);
bool sd_buf_printf(sd_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sd_buf_clear(sd_buf *b); // length 0, memory kept
void sd_buf_free(sd_buf *b);
