#include "base/memory.h"

#include "base/list.h"

#include <stdio.h>
#include <string.h>

enum { ALIGN = 64, ARENA_BLOCK = 64 * 1024 };

static _Thread_local bool lost;

void *sd_malloc_marked(size_t bytes) {
    void *p = malloc(bytes);
    if (!p) lost = true;
    return p;
}

void *sd_realloc_marked(void *p, size_t bytes) {
    void *q = realloc(p, bytes);
    if (!q && bytes) lost = true;
    return q;
}

bool sd_memory_lost(void) {
    return lost;
}

void sd_memory_lost_mark(void) {
    lost = true;
}

void sd_memory_lost_clear(void) {
    lost = false;
}

bool sd_memory_has_room(size_t bytes) {
    char *p = sd_malloc_marked(bytes);
    if (p) *(volatile char *)p = 0; // or the compiler would take both calls out
    free(p);
    return p != NULL;
}

void *sd_alloc(size_t count, size_t size) {
    size_t bytes;
    if (!sd_mul_size(&bytes, count, size) || bytes > SIZE_MAX - ALIGN) return NULL;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (bytes == 0) bytes = ALIGN;
    void *p = aligned_alloc(ALIGN, bytes);
    if (p)
        memset(p, 0, bytes);
    else
        lost = true;
    return p;
}

void *sd_realloc(void *p, size_t count, size_t size) {
    size_t bytes;
    if (!sd_mul_size(&bytes, count, size)) return NULL;
    return sd_realloc_marked(p, bytes ? bytes : 1);
}

// The list is any T **: its pointer is moved as bytes, since void ** may not stand for it.
size_t sd_list_grow(void *list, size_t need, size_t cap, size_t size, size_t most) {
    void *p;
    size_t room = cap ? cap : 8;
    if (need > most) return cap;
    while (room < need || room == cap) room = room > most / 2 ? most : room * 2;
    memcpy(&p, list, sizeof p);
    p = sd_realloc(p, room, size);
    if (!p) return cap;
    memcpy(list, &p, sizeof p);
    return room;
}

char *sd_strndup(const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *p = sd_malloc_marked(n + 1);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *sd_strdup(const char *s) {
    return sd_strndup(s, strlen(s));
}

char *sd_sprintf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *p = NULL;
    int n = vasprintf(&p, fmt, ap);
    va_end(ap);
    if (n < 0) lost = true;
    return n < 0 ? NULL : p;
}

struct sd_arena_block {
    sd_arena_block *next;
    size_t used, cap;
    _Alignas(16) unsigned char data[];
};

void *sd_arena_alloc(sd_arena *a, size_t count, size_t size) {
    size_t bytes;
    if (!sd_mul_size(&bytes, count, size) || bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    sd_arena_block *b = a->head;
    if (!b || b->cap - b->used < bytes) {
        size_t cap = bytes > ARENA_BLOCK ? bytes : ARENA_BLOCK;
        if (a->limit && (cap > a->limit || a->total > a->limit - cap)) return NULL;
        b = calloc(1, sizeof *b + cap);
        if (!b) {
            lost = true;
            return NULL;
        }
        b->cap = cap;
        b->next = a->head;
        a->head = b;
        a->total += cap;
    }
    void *p = b->data + b->used;
    b->used += bytes;
    return p;
}

char *sd_arena_strndup(sd_arena *a, const char *s, size_t n) {
    char *p = n == SIZE_MAX ? NULL : sd_arena_alloc(a, n + 1, 1);
    if (p) memcpy(p, s, n);
    return p;
}

void sd_arena_free(sd_arena *a) {
    for (sd_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (sd_arena){.limit = a->limit};
}

static bool reserve(sd_buf *b, size_t more) {
    if (more > b->max || b->len > b->max - more) return false;
    size_t need = b->len + more;
    if (b->data && need < b->cap) return true; // one byte stays free for the closing 0
    size_t cap = b->cap ? b->cap : 128;
    while (cap <= need) {
        if (cap > SIZE_MAX / 2) return false;
        cap *= 2;
    }
    char *p = sd_realloc_marked(b->data, cap);
    if (!p) return false;
    b->data = p;
    b->cap = cap;
    return true;
}

bool sd_buf_add(sd_buf *b, const void *data, size_t len) {
    if (!reserve(b, len)) return false;
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return true;
}

bool sd_buf_addc(sd_buf *b, char c) {
    return sd_buf_add(b, &c, 1);
}

bool sd_buf_adds(sd_buf *b, const char *s) {
    return sd_buf_add(b, s, strlen(s));
}

bool sd_buf_printf(sd_buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    bool ok = n >= 0 && reserve(b, (size_t)n + 1);
    if (ok) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return ok;
}

void sd_buf_clear(sd_buf *b) {
    b->len = 0;
    if (b->data) b->data[0] = '\0';
}

void sd_buf_free(sd_buf *b) {
    free(b->data);
    *b = (sd_buf){.max = b->max};
}
