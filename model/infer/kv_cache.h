// The keys and values of sequences, as a context's steps write and read them (model/infer/forward.h).
//
// They lie in pages of SD_KV_PAGE positions that a pool lends out. A sequence's pages may lie
// anywhere: attention works by blocks of that size from position 0 on, so its bits are the same. A
// full page may be read by several sequences and is written by none of them.
//
//     SD_TRY(sd_kv_pool_open(&pool, cx, pages, err));
//     SD_TRY(sd_kv_open_in(&kv, pool, ctx, err));
//     if (!sd_kv_reserve(kv, n)) ...          // no page is left: wait, or take some from another
//     ... sd_forward over rows below n, kv->len = n ...
//     sd_kv_truncate(kv, len);                // what lies behind is given back
//
// A pool and its sequences belong to one thread. Who has which page is counted on the host; the pages
// lie where the context's backend has its memory.
#pragma once

#include "base/status.h"
#include "kernels/ops.h"

typedef struct sd_context sd_context;
typedef struct sd_kv_pool sd_kv_pool;

/// `pages` pages for this context, in the memory of its backend.
sd_status sd_kv_pool_open(sd_kv_pool **out, const sd_context *cx, int pages, sd_error *err);
void sd_kv_pool_close(sd_kv_pool *p); // after its sequences, before its context; NULL is fine
size_t sd_kv_pool_bytes(const sd_kv_pool *p);
int sd_kv_pool_left(const sd_kv_pool *p); // pages that nobody has

typedef struct {
    sd_kv_pool *pool;
    int ctx;       // positions at most
    int len;       // committed positions: the only truth. What lies beyond is overwritten.
    int pages;     // it has: positions below pages * SD_KV_PAGE can be written
    int32_t *page; // [sd_kv_pages(ctx)] in order of position
    bool owns_pool;
    uint32_t id;      // among the sequences of its pool
    uint32_t version; // another one whenever `page` or `pages` has changed
} sd_kv;

static inline int sd_kv_pages(int positions) {
    return (positions + SD_KV_PAGE - 1) / SD_KV_PAGE;
}

/// A sequence without a page yet.
sd_status sd_kv_open_in(sd_kv **out, sd_kv_pool *pool, int ctx, sd_error *err);
/// A sequence with all pages that ctx positions need, out of a pool of its own.
sd_status sd_kv_open(sd_kv **out, const sd_context *cx, int ctx, sd_error *err);
void sd_kv_close(sd_kv *kv); // its pages are given back; NULL is fine

/// Pages for so many positions (at most ctx). False, and nothing changes, when too few are left.
bool sd_kv_reserve(sd_kv *kv, int positions);
/// The first positions of another sequence of the pool, as far as they fill pages that are
/// committed there, become those of kv, which is empty. Returns kv->len: a multiple of SD_KV_PAGE.
int sd_kv_reuse(sd_kv *kv, const sd_kv *from, int positions);
/// At most len positions stay, and the pages behind are given back. Within a page that others read
/// too it is cut back to the page's begin, since a page is written by one. Returns kv->len.
int sd_kv_truncate(sd_kv *kv, int len);
/// Bytes of one position for this context: what --ctx costs.
size_t sd_kv_bytes_per_position(const sd_context *cx);

/// Do the first positions hold the same bytes? For tests.
bool sd_kv_equal(const sd_kv *a, const sd_kv *b, int positions);
