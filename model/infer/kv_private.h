// What the two files that count pages share: kv_pages.c lends them, prefix_cache.c keeps what they hold.
#pragma once

#include "model/infer/backend.h"

// ---- kv_pages.c

/// The pages of group g, in order of position.
static inline int32_t *sd_kv_table_of(const sd_kv *kv, int g) {
    return kv->page + (size_t)g * (size_t)sd_kv_pages(kv->ctx);
}
/// The first page that rows from position pos on need in group g.
static inline int sd_kv_first_needed(const sd_kv_pool *p, int g, int pos) {
    return sd_attention_first(p->group[g].window, pos + 1) / SD_KV_PAGE;
}
/// One more sequence reads it.
void sd_kv_page_read(sd_kv_group *g, int32_t page);
/// One fewer does. The last one leaves it to the prefix cache, where that keeps it, else to anyone.
void sd_kv_page_release(sd_kv_group *g, int32_t page);
/// The node that keeps it is another one now, or none (-1).
void sd_kv_page_keep(sd_kv_group *g, int32_t page, int32_t node);
/// The page that was unread for longest of those that are kept; -1: there is none.
int32_t sd_kv_page_oldest(const sd_kv_group *g);

// ---- prefix_cache.c

/// A page that is kept and that nobody reads is wanted: it holds nothing any more.
void sd_prefix_forget(sd_kv_pool *p, int g, int32_t page);
/// The sequence has so many full pages at most.
void sd_prefix_cut(sd_kv *kv, int pages);
void sd_prefix_close(struct sd_prefix_cache *c); // NULL is fine
/// What sd_prefix_open takes for a pool of these pages.
size_t sd_prefix_bytes(const sd_kv_pool *p);
/// SD_ELIMIT: they are too many.
sd_status sd_prefix_check(const sd_kv_pool *p, sd_error *err);
