// The prefix cache: what sequences of a pool have computed is found again by its tokens.
//
// A full page that a sequence has committed becomes a node of a tree: it is known by its tokens, by the page
// before it, and at the root by whose it is. A search goes down from the root, page by page. A hash,
// chained over all tokens and keyed by random numbers of this process, only finds the candidates: the
// tokens and the page before are compared, so what is found is what was computed, for no other owner.
// Keys and values depend on just that (model/infer/forward.h), so a hit has the bits of a miss.
//
// Pages that a sequence reads stay. Those that nobody reads stay until others need them
// (model/infer/kv_pages.c), the longest unread first, and of a text its end before its begin. The last
// page of a text is mostly not full: a search copies of it, or of a page that differs further on,
// what is the same.
//
// A sequence in layers with a window needs the window's pages before it, and is found only as far as
// those are there.
//
//     SD_TRY(sd_prefix_open(pool, err));
//     sd_prefix_begin(kv, &owner);                    // kv is empty
//     sd_prefix_take(kv, ids, n - 1);                 // kv->len positions are there
//     ... sd_kv_reserve, sd_forward, kv->len = n: committed ...
//     sd_prefix_publish(kv, ids);                     // others may find them
//     sd_prefix_end(kv, ids);                         // kv is empty again, what it had can be found
//
// Committed means: the token of each position below kv->len is in ids and will not change. A draft
// that was not accepted is never below kv->len.
//
// SGLang's RadixAttention (arXiv:2312.07104) and vLLM's automatic prefix caching have the same purpose.
#pragma once

#include "model/infer/kv_cache.h"

/// Those whose pages are never another's.
typedef struct {
    uint64_t tenant;
    uint64_t adapter; // generation; 0: the base
} sd_prefix_owner;

/// The pool's pages are kept from now on. It ends with the pool.
sd_status sd_prefix_open(sd_kv_pool *p, sd_error *err);

/// kv, which is empty, belongs to the owner until it is empty again. Without a cache this and what
/// follows does nothing, but for sd_prefix_end.
void sd_prefix_begin(sd_kv *kv, const sd_prefix_owner *owner);
/// kv has as many of the first positions [positions <= kv->ctx] of ids as are found, if they are more
/// than it has; pages that it reserved beyond kv->len may be gone. Returns kv->len.
int sd_prefix_take(sd_kv *kv, const int32_t *ids, int positions);
/// kv's full pages can be found. Where another sequence was quicker, kv reads that one's.
void sd_prefix_publish(sd_kv *kv, const int32_t *ids);
/// All that kv has can be found, and kv is empty.
void sd_prefix_end(sd_kv *kv, const int32_t *ids);

/// Pages that were forgotten, so far, because others needed them.
int64_t sd_prefix_forgotten(const sd_kv_pool *p);

/// Whether all counts and links of the pool are what the n sequences, all that there are, say. For tests.
bool sd_prefix_sound(const sd_kv_pool *p, sd_kv *const *kv, int n);
