// Which sequence has which page: counted on the host, whatever memory the pages lie in.
//
// A row of a layer with a window sees the last positions alone, so a sequence needs there the pages of
// its window and of what a step writes. It gives the others back before it asks for more, which is
// after every commit. Layers are grouped by their windows, each group with page numbers of its own; a
// model without windows has one group.
#include "model/infer/backend.h"

#include "base/memory.h"

// ---- the pool

// Pages that a sequence has at most: from the first position that the first row of a step sees to the
// last row's, wherever in a page they begin.
static int pages_in_window(int window, int ctx, int step) {
    int64_t all = sd_kv_pages(ctx), positions = (int64_t)window - 1 + step;
    int64_t some = (positions + SD_KV_PAGE - 2) / SD_KV_PAGE + 1;
    return (int)(window > 0 && some < all ? some : all);
}

// Sorts the layers by their windows.
static sd_status make_groups(sd_kv_pool *p, const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    p->L = m->hp.L;
    p->group = sd_alloc((size_t)p->L, sizeof *p->group);
    p->group_of = sd_alloc((size_t)p->L, sizeof *p->group_of);
    SD_CHECK_ALLOC(p->group && p->group_of, err);
    for (int l = 0; l < p->L; l++) {
        int g = 0;
        while (g < p->groups && p->group[g].window != m->layer[l].window) g++;
        if (g == p->groups) p->group[p->groups++].window = m->layer[l].window;
        p->group_of[l] = g;
    }
out:
    return st;
}

static sd_status fill_group(sd_kv_group *g, const sd_kv_pool_size *size, sd_error *err) {
    sd_status st = SD_OK;
    const int each = pages_in_window(g->window, size->ctx, size->step);
    const int64_t pages = (int64_t)each * size->sequences;
    SD_CHECK(pages <= INT32_MAX, err, SD_EINVAL,
             "%d sequences of %d positions are not possible; give fewer", size->sequences,
             size->ctx);
    g->pages = g->left = (int)pages;
    g->free_page = sd_alloc((size_t)pages, sizeof *g->free_page);
    g->readers = sd_alloc((size_t)pages, sizeof *g->readers);
    SD_CHECK_ALLOC(g->free_page && g->readers, err);
    for (int i = 0; i < g->pages; i++)
        g->free_page[i] = g->pages - 1 - i; // the first is lent first
out:
    return st;
}

sd_status sd_kv_pool_open(sd_kv_pool **out, const sd_context *cx, const sd_kv_pool_size *size,
                          sd_error *err) {
    sd_status st = SD_OK;
    int *pages = NULL; // of each layer
    *out = NULL;
    sd_kv_pool *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    SD_CHECK(size->sequences > 0 && size->ctx > 0 && size->step > 0, err, SD_EINVAL,
             "%d sequences of %d positions, %d a step, are not possible; give 1 or more of each",
             size->sequences, size->ctx, size->step);
    SD_TRY(make_groups(p, sd_context_model(cx), err));
    for (int g = 0; g < p->groups; g++) SD_TRY(fill_group(&p->group[g], size, err));
    pages = sd_alloc((size_t)p->L, sizeof *pages);
    SD_CHECK_ALLOC(pages, err);
    for (int l = 0; l < p->L; l++) pages[l] = p->group[p->group_of[l]].pages;
    SD_TRY(sd_context_backend(cx)->kv_open(&p->memory, cx, pages, err));
    *out = p;
    p = NULL;
out:
    free(pages);
    sd_kv_pool_close(p);
    return st;
}

void sd_kv_pool_close(sd_kv_pool *p) {
    if (!p) return;
    if (p->memory) p->memory->backend->kv_close(p->memory);
    for (int g = 0; g < p->groups; g++) {
        free(p->group[g].free_page);
        free(p->group[g].readers);
    }
    free(p->group);
    free(p->group_of);
    free(p);
}

size_t sd_kv_pool_bytes(const sd_kv_pool *p) {
    return p->memory->bytes;
}

int sd_kv_pool_left(const sd_kv_pool *p, int l) {
    return p->group[p->group_of[l]].left;
}

bool sd_kv_pool_fits(const sd_kv_pool *p, const sd_model *m) {
    if (p->L != m->hp.L) return false;
    for (int l = 0; l < p->L; l++)
        if (p->group[p->group_of[l]].window != m->layer[l].window) return false;
    return true;
}

// ---- a sequence's pages

// Those of group g, in order of position.
static int32_t *table_of(const sd_kv *kv, int g) {
    return kv->page + (size_t)g * (size_t)sd_kv_pages(kv->ctx);
}

// The first page that rows from position pos on need in group g.
static int first_needed(const sd_kv_pool *p, int g, int pos) {
    return sd_attention_first(p->group[g].window, pos + 1) / SD_KV_PAGE;
}

static void lend(sd_kv_group *g, int32_t *page) {
    *page = g->free_page[--g->left];
    g->readers[*page] = 1;
}

static void give_back(sd_kv_group *g, int32_t *page) {
    if (--g->readers[*page] == 0) g->free_page[g->left++] = *page;
    *page = -1;
}

// What no row from kv->len on sees.
static void give_back_unseen(sd_kv *kv) {
    for (int g = 0; g < kv->pool->groups; g++)
        for (int end = first_needed(kv->pool, g, kv->len); kv->first[g] < end; kv->first[g]++) {
            give_back(&kv->pool->group[g], table_of(kv, g) + kv->first[g]);
            kv->version++;
        }
}

bool sd_kv_sees(const sd_kv *kv, int pos) {
    for (int g = 0; g < kv->pool->groups; g++)
        if (kv->first[g] > first_needed(kv->pool, g, pos)) return false;
    return true;
}

// Whether another sequence reads page i too, in some layer.
static bool is_shared(const sd_kv *kv, int i) {
    for (int g = 0; g < kv->pool->groups; g++)
        if (i >= kv->first[g] && kv->pool->group[g].readers[table_of(kv, g)[i]] > 1) return true;
    return false;
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
    const size_t pages = (size_t)pool->groups * (size_t)sd_kv_pages(ctx);
    kv->page = sd_alloc(pages, sizeof *kv->page);
    kv->first = sd_alloc((size_t)pool->groups, sizeof *kv->first);
    SD_CHECK_ALLOC(kv->page && kv->first, err);
    for (size_t i = 0; i < pages; i++) kv->page[i] = -1;
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
    SD_TRY(sd_kv_pool_open(&pool, cx, &(sd_kv_pool_size){1, ctx, ctx}, err));
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
    if (kv->page && kv->first) sd_kv_truncate(kv, 0);
    if (kv->owns_pool) sd_kv_pool_close(kv->pool);
    free(kv->page);
    free(kv->first);
    free(kv);
}

bool sd_kv_reserve(sd_kv *kv, int positions) {
    sd_kv_pool *p = kv->pool;
    const int end = sd_kv_pages(positions);
    if (positions > kv->ctx) return false;
    if (!kv->owns_pool) give_back_unseen(kv);
    for (int g = 0; g < p->groups; g++)
        if (end - kv->pages > p->group[g].left) return false;
    for (; kv->pages < end; kv->pages++, kv->version++)
        for (int g = 0; g < p->groups; g++) lend(&p->group[g], table_of(kv, g) + kv->pages);
    return true;
}

int sd_kv_reuse(sd_kv *kv, const sd_kv *from, int positions) {
    sd_kv_pool *p = kv->pool;
    int most = positions < from->len ? positions : from->len;
    const int pages = most / SD_KV_PAGE, len = pages * SD_KV_PAGE;
    if (kv->pages > 0 || p != from->pool || kv->ctx != from->ctx || !sd_kv_sees(from, len))
        return kv->len;
    for (int g = 0; g < p->groups; g++) {
        kv->first[g] = first_needed(p, g, len);
        for (int i = kv->first[g]; i < pages; i++) {
            const int32_t page = table_of(from, g)[i];
            table_of(kv, g)[i] = page;
            p->group[g].readers[page]++;
        }
    }
    kv->pages = pages;
    kv->version++;
    return kv->len = len;
}

int sd_kv_truncate(sd_kv *kv, int len) {
    if (len < kv->len) kv->len = len;
    const int cut = kv->len % SD_KV_PAGE;
    if (cut && is_shared(kv, kv->len / SD_KV_PAGE)) kv->len -= cut;
    if (!sd_kv_sees(kv, kv->len)) kv->len = 0;
    const int keep = sd_kv_pages(kv->len);
    for (int g = 0; g < kv->pool->groups; g++) {
        const int from = kv->first[g] > keep ? kv->first[g] : keep;
        for (int i = from; i < kv->pages; i++) give_back(&kv->pool->group[g], table_of(kv, g) + i);
        if (kv->first[g] > keep) kv->first[g] = keep;
    }
    if (kv->pages != keep) kv->version++;
    kv->pages = keep;
    return kv->len;
}

bool sd_kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    const sd_kv_memory *m = a->pool->memory;
    return m->backend == b->pool->memory->backend && m->backend->kv_equal(a, b, positions);
}
