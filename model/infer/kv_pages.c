// Which sequence has which page: counted on the host, whatever memory the pages lie in.
#include "model/infer/backend.h"

#include "base/memory.h"

// ---- the pool

sd_status sd_kv_pool_open(sd_kv_pool **out, const sd_context *cx, int pages, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_kv_pool *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    SD_CHECK(pages > 0, err, SD_EINVAL, "a context of %d pages is not possible; give 1 or more",
             pages);
    SD_TRY(sd_context_backend(cx)->kv_open(&p->memory, cx, pages, err));
    p->pages = p->left = pages;
    p->free_page = sd_alloc((size_t)pages, sizeof *p->free_page);
    p->readers = sd_alloc((size_t)pages, sizeof *p->readers);
    SD_CHECK_ALLOC(p->free_page && p->readers, err);
    for (int i = 0; i < pages; i++) p->free_page[i] = pages - 1 - i; // the first is lent first
    *out = p;
    p = NULL;
out:
    sd_kv_pool_close(p);
    return st;
}

void sd_kv_pool_close(sd_kv_pool *p) {
    if (!p) return;
    if (p->memory) p->memory->backend->kv_close(p->memory);
    free(p->free_page);
    free(p->readers);
    free(p);
}

size_t sd_kv_pool_bytes(const sd_kv_pool *p) {
    return p->memory->bytes;
}

int sd_kv_pool_left(const sd_kv_pool *p) {
    return p->left;
}

// ---- sequences

sd_status sd_kv_open_in(sd_kv **out, sd_kv_pool *pool, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_kv *kv = sd_alloc(1, sizeof *kv);
    SD_CHECK_ALLOC(kv, err);
    SD_CHECK(ctx > 0, err, SD_EINVAL, "a context of %d positions is not possible; give 1 or more",
             ctx);
    kv->pool = pool;
    kv->id = pool->sequences++;
    kv->ctx = ctx;
    kv->page = sd_alloc((size_t)sd_kv_pages(ctx), sizeof *kv->page);
    SD_CHECK_ALLOC(kv->page, err);
    *out = kv;
    kv = NULL;
out:
    sd_kv_close(kv);
    return st;
}

sd_status sd_kv_open(sd_kv **out, const sd_context *cx, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    sd_kv_pool *pool = NULL;
    *out = NULL;
    SD_CHECK(ctx > 0, err, SD_EINVAL, "a context of %d positions is not possible; give 1 or more",
             ctx);
    SD_TRY(sd_kv_pool_open(&pool, cx, sd_kv_pages(ctx), err));
    SD_TRY(sd_kv_open_in(out, pool, ctx, err));
    (*out)->owns_pool = true;
    (void)sd_kv_reserve(*out, ctx); // the pool is as large
    pool = NULL;
out:
    sd_kv_pool_close(pool);
    return st;
}

void sd_kv_close(sd_kv *kv) {
    if (!kv) return;
    if (kv->page) sd_kv_truncate(kv, 0);
    if (kv->owns_pool) sd_kv_pool_close(kv->pool);
    free(kv->page);
    free(kv);
}

bool sd_kv_reserve(sd_kv *kv, int positions) {
    sd_kv_pool *p = kv->pool;
    int more = sd_kv_pages(positions) - kv->pages;
    if (positions > kv->ctx || more > p->left) return false;
    for (; more > 0; more--) {
        int32_t page = p->free_page[--p->left];
        p->readers[page] = 1;
        kv->page[kv->pages++] = page;
        kv->version++;
    }
    return true;
}

int sd_kv_reuse(sd_kv *kv, const sd_kv *from, int positions) {
    int most = positions < from->len ? positions : from->len;
    if (most > kv->ctx) most = kv->ctx;
    if (kv->pages > 0 || kv->pool != from->pool) return kv->len;
    for (; kv->pages < most / SD_KV_PAGE; kv->pages++) {
        kv->page[kv->pages] = from->page[kv->pages];
        kv->pool->readers[kv->page[kv->pages]]++;
        kv->version++;
    }
    return kv->len = kv->pages * SD_KV_PAGE;
}

int sd_kv_truncate(sd_kv *kv, int len) {
    sd_kv_pool *p = kv->pool;
    if (len < kv->len) kv->len = len;
    int cut = kv->len % SD_KV_PAGE;
    if (cut && p->readers[kv->page[kv->len / SD_KV_PAGE]] > 1) kv->len -= cut;
    for (int keep = sd_kv_pages(kv->len); kv->pages > keep;) {
        int32_t page = kv->page[--kv->pages];
        if (--p->readers[page] == 0) p->free_page[p->left++] = page;
        kv->version++;
    }
    return kv->len;
}

bool sd_kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    const sd_kv_memory *m = a->pool->memory;
    return m->backend == b->pool->memory->backend && m->backend->kv_equal(a, b, positions);
}
