// Which sequence has which page: counted on the host, whatever memory the pages lie in.
//
// A row of a layer with a window sees the last positions alone, so a sequence needs there the pages of
// its window and of what a step writes. It gives the others back before it asks for more, which is
// after every commit. Layers are grouped by their windows, each group with page numbers of its own; a
// model without windows has one group.
//
// A page that no sequence has any more may still be kept by the prefix cache. It is lent when no other
// is left, the one that was unread for longest first.
#include "model/infer/kv_private.h"

#include "base/memory.h"

#include <math.h>

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

// ---- rings of pages that nobody reads

enum { EMPTY, KEPT }; // behind the numbers of pages

static int32_t ring(const sd_kv_group *g, int which) {
    return g->pages + which;
}

static void insert(sd_kv_group *g, int32_t page, int32_t before) {
    g->prev[page] = g->prev[before];
    g->next[page] = before;
    g->next[g->prev[before]] = page;
    g->prev[before] = page;
}

static void take_out(sd_kv_group *g, int32_t page) {
    g->next[g->prev[page]] = g->next[page];
    g->prev[g->next[page]] = g->prev[page];
}

// A page that is kept goes behind what was unread for longer; one that holds nothing is lent next.
static void put_down(sd_kv_group *g, int32_t page) {
    insert(g, page, g->node[page] >= 0 ? ring(g, KEPT) : g->next[ring(g, EMPTY)]);
}

void sd_kv_page_read(sd_kv_group *g, int32_t page) {
    if (g->readers[page]++ > 0) return;
    take_out(g, page);
    g->left--;
}

void sd_kv_page_release(sd_kv_group *g, int32_t page) {
    if (--g->readers[page] > 0) return;
    put_down(g, page);
    g->left++;
}

void sd_kv_page_keep(sd_kv_group *g, int32_t page, int32_t node) {
    if (g->readers[page] == 0) take_out(g, page);
    g->node[page] = node;
    if (g->readers[page] == 0) put_down(g, page);
}

int32_t sd_kv_page_oldest(const sd_kv_group *g) {
    int32_t page = g->next[ring(g, KEPT)];
    return page < g->pages ? page : -1;
}

// ---- opening and closing

static sd_status fill_group(sd_kv_group *g, int pages, sd_error *err) {
    sd_status st = SD_OK;
    g->pages = g->left = pages;
    g->readers = sd_alloc((size_t)pages, sizeof *g->readers);
    g->node = sd_alloc((size_t)pages, sizeof *g->node);
    g->next = sd_alloc((size_t)pages + 2, sizeof *g->next);
    g->prev = sd_alloc((size_t)pages + 2, sizeof *g->prev);
    SD_CHECK_ALLOC(g->readers && g->node && g->next && g->prev, err);
    for (int i = EMPTY; i <= KEPT; i++) g->next[ring(g, i)] = g->prev[ring(g, i)] = ring(g, i);
    for (int i = 0; i < pages; i++) {
        g->node[i] = -1;
        insert(g, i, ring(g, EMPTY)); // the first is lent first
    }
out:
    return st;
}

// The pages of each layer, and of all groups' pages together the bytes.
static double count_bytes(const sd_kv_pool *p, size_t position_bytes, const int64_t *pages) {
    double each = SD_KV_PAGE * (double)position_bytes, sum = 0;
    for (int l = 0; l < p->L; l++) sum += each * (double)pages[p->group_of[l]];
    return sum;
}

// pages [groups] <- of all sequences at their longest, or the same shares of the budget.
static sd_status count_pages(sd_kv_pool *p, int64_t *pages, size_t position_bytes,
                             const sd_kv_pool_size *size, sd_error *err) {
    sd_status st = SD_OK;
    double share = 1, least = 0;
    SD_CHECK(size->sequences > 0 && size->ctx > 0 && size->step > 0, err, SD_EINVAL,
             "%d sequences of %d positions, %d a step, are not possible; give 1 or more of each",
             size->sequences, size->ctx, size->step);
    for (int g = 0; g < p->groups; g++) {
        p->group[g].most = pages_in_window(p->group[g].window, size->ctx, size->step);
        pages[g] = (int64_t)p->group[g].most * size->sequences;
    }
    if (size->bytes > 0) share = (double)size->bytes / count_bytes(p, position_bytes, pages);
    for (int g = 0; g < p->groups; g++) {
        // Layers without a window suffice for a text of a page and a token; the others for any.
        int want = p->group[g].window > 0 ? p->group[g].most : 2;
        if (want > p->group[g].most) want = p->group[g].most;
        double need = want / (double)pages[g];
        if (need > least) least = need;
    }
    SD_CHECK(share >= least, err, SD_EINVAL,
             "%zu MiB are too few for the keys and values of one request; give %.0f or more",
             size->bytes >> 20, ceil(count_bytes(p, position_bytes, pages) * least / 1048576));
    for (int g = 0; g < p->groups; g++) {
        double n = floor((double)pages[g] * share + 1e-9);
        SD_CHECK(n <= INT32_MAX - 2, err, SD_EINVAL,
                 "%d sequences of %d positions are not possible; give fewer", size->sequences,
                 size->ctx);
        pages[g] = (int64_t)n;
    }
out:
    return st;
}

sd_status sd_kv_pool_open(sd_kv_pool **out, const sd_context *cx, const sd_kv_pool_size *size,
                          sd_error *err) {
    sd_status st = SD_OK;
    int *of_layer = NULL;
    int64_t *pages = NULL; // [groups]
    *out = NULL;
    sd_kv_pool *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->ctx = size->ctx, p->suffices_for = size->sequences;
    SD_TRY(make_groups(p, sd_context_model(cx), err));
    pages = sd_alloc((size_t)p->groups, sizeof *pages);
    of_layer = sd_alloc((size_t)p->L, sizeof *of_layer);
    SD_CHECK_ALLOC(pages && of_layer, err);
    SD_TRY(count_pages(p, pages, sd_context_backend(cx)->kv_bytes(cx), size, err));
    for (int g = 0; g < p->groups; g++) SD_TRY(fill_group(&p->group[g], (int)pages[g], err));
    for (int l = 0; l < p->L; l++) of_layer[l] = p->group[p->group_of[l]].pages;
    SD_TRY(sd_context_backend(cx)->kv_open(&p->memory, cx, of_layer, err));
    *out = p;
    p = NULL;
out:
    free(of_layer);
    free(pages);
    sd_kv_pool_close(p);
    return st;
}

// The numbers of a group's pages (fill_group).
static size_t group_bytes(int64_t pages) {
    return (size_t)pages * 2 * sizeof(int32_t) + ((size_t)pages + 2) * 2 * sizeof(int32_t);
}

static size_t sequence_bytes(const sd_kv_pool *p, int ctx) {
    return sizeof(sd_kv) + (size_t)p->groups * ((size_t)sd_kv_pages(ctx) + 1) * sizeof(int32_t);
}

static size_t count_tables(const sd_kv_pool *p) {
    size_t sum = sizeof *p + (size_t)p->L * (sizeof *p->group + sizeof *p->group_of);
    for (int g = 0; g < p->groups; g++) sum += group_bytes(p->group[g].pages);
    return sum;
}

void sd_kv_pool_get_memory(const sd_kv_pool *p, sd_kv_memory_sizes *out) {
    *out = (sd_kv_memory_sizes){.pages = p->memory->bytes,
                                .tables = count_tables(p) + p->table_bytes,
                                .prefix = p->prefix ? sd_prefix_bytes(p) : 0};
}

sd_status sd_kv_pool_plan(sd_kv_plan *out, const sd_model *m, size_t position_bytes,
                          const sd_kv_pool_size *size, int sequences, bool prefix_cache,
                          sd_error *err) {
    sd_status st = SD_OK;
    int64_t *pages = NULL; // [groups]
    *out = (sd_kv_plan){0};
    sd_kv_pool *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->ctx = size->ctx, p->suffices_for = size->sequences;
    SD_TRY(make_groups(p, m, err));
    pages = sd_alloc((size_t)p->groups, sizeof *pages);
    SD_CHECK_ALLOC(pages, err);
    SD_TRY(count_pages(p, pages, position_bytes, size, err));
    for (int g = 0; g < p->groups; g++) p->group[g].pages = (int)pages[g];
    for (int l = 0; l < p->L; l++)
        SD_CHECK(sd_mul_size(&out->memory.prefix, (size_t)pages[p->group_of[l]] * SD_KV_PAGE,
                             position_bytes) &&
                     sd_add_size(&out->memory.pages, out->memory.pages, out->memory.prefix),
                 err, SD_EINVAL, "%d sequences of %d positions are not possible; give fewer",
                 size->sequences, size->ctx);
    out->memory.tables = count_tables(p) + (size_t)sequences * sequence_bytes(p, size->ctx);
    if (prefix_cache) SD_TRY(sd_prefix_check(p, err));
    out->memory.prefix = prefix_cache ? sd_prefix_bytes(p) : 0;
    out->positions = sd_kv_pool_positions(p);
    out->longest = sd_kv_pool_longest(p);
    out->windows = p->groups;
    for (int g = 0; g < p->groups && g < SD_KV_PLANNED_WINDOWS; g++) {
        out->of[g].window = p->group[g].window;
        out->of[g].pages = p->group[g].pages;
        for (int l = 0; l < p->L; l++) out->of[g].layers += p->group_of[l] == g;
    }
out:
    free(pages);
    sd_kv_pool_close(p);
    return st;
}

void sd_kv_pool_close(sd_kv_pool *p) {
    if (!p) return;
    sd_prefix_close(p->prefix);
    if (p->memory) p->memory->backend->kv_close(p->memory);
    for (int g = 0; g < p->groups; g++) {
        free(p->group[g].readers);
        free(p->group[g].node);
        free(p->group[g].next);
        free(p->group[g].prev);
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

int sd_kv_pool_longest(const sd_kv_pool *p) {
    int longest = p->ctx;
    for (int g = 0; g < p->groups; g++)
        if (p->group[g].pages < p->group[g].most && p->group[g].pages * SD_KV_PAGE < longest)
            longest = p->group[g].pages * SD_KV_PAGE;
    return longest;
}

static int pages_of(const sd_kv_group *g, int positions) {
    const int pages = sd_kv_pages(positions);
    return pages < g->most ? pages : g->most;
}

bool sd_kv_pool_holds(const sd_kv_pool *p, int positions) {
    for (int g = 0; g < p->groups; g++)
        if (pages_of(&p->group[g], positions) > p->group[g].left) return false;
    return true;
}

bool sd_kv_pool_has_room(const sd_kv_pool *p, const int *positions, int n) {
    for (int g = 0; g < p->groups; g++) {
        int64_t sum = 0;
        for (int i = 0; i < n; i++) sum += pages_of(&p->group[g], positions[i]);
        if (sum > p->group[g].pages) return false;
    }
    return true;
}

int64_t sd_kv_pool_positions(const sd_kv_pool *p) {
    int most = 0;
    for (int g = 0; g < p->groups; g++)
        if (p->group[g].pages > most) most = p->group[g].pages;
    return (int64_t)most * SD_KV_PAGE;
}

double sd_kv_pool_usage(const sd_kv_pool *p) {
    double used = 0, all = 0;
    for (int l = 0; l < p->L; l++) {
        const sd_kv_group *g = &p->group[p->group_of[l]];
        used += g->pages - g->left;
        all += g->pages;
    }
    return used / all;
}

bool sd_kv_pool_fits(const sd_kv_pool *p, const sd_model *m) {
    if (p->L != m->hp.L) return false;
    for (int l = 0; l < p->L; l++)
        if (p->group[p->group_of[l]].window != m->layer[l].window) return false;
    return true;
}

// ---- a sequence's pages

// A page for the one sequence that asks. The one behind `before`, where it holds nothing: attention
// reads successive pages faster.
static int32_t lend(sd_kv_pool *p, int i, int32_t before) {
    sd_kv_group *g = &p->group[i];
    int32_t page = before + 1;
    if (g->next[ring(g, EMPTY)] == ring(g, EMPTY)) sd_prefix_forget(p, i, sd_kv_page_oldest(g));
    if (before < 0 || page >= g->pages || g->readers[page] > 0 || g->node[page] >= 0)
        page = g->next[ring(g, EMPTY)];
    sd_kv_page_read(g, page);
    return page;
}

static void give_back(sd_kv_group *g, int32_t *page) {
    sd_kv_page_release(g, *page);
    *page = -1;
}

// What no row from kv->len on sees.
static void give_back_unseen(sd_kv *kv) {
    for (int g = 0; g < kv->pool->groups; g++)
        for (int end = sd_kv_first_needed(kv->pool, g, kv->len); kv->first[g] < end;
             kv->first[g]++) {
            give_back(&kv->pool->group[g], sd_kv_table_of(kv, g) + kv->first[g]);
            kv->version++;
        }
}

bool sd_kv_sees(const sd_kv *kv, int pos) {
    for (int g = 0; g < kv->pool->groups; g++)
        if (kv->first[g] > sd_kv_first_needed(kv->pool, g, pos)) return false;
    return true;
}

// Whether page i is not this sequence's alone, in some layer.
static bool is_shared(const sd_kv *kv, int i) {
    for (int g = 0; g < kv->pool->groups; g++) {
        const sd_kv_group *group = &kv->pool->group[g];
        const int32_t page = i >= kv->first[g] ? sd_kv_table_of(kv, g)[i] : -1;
        if (page >= 0 && (group->readers[page] > 1 || group->node[page] >= 0)) return true;
    }
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
    kv->node = -1;
    const size_t pages = (size_t)pool->groups * (size_t)sd_kv_pages(ctx);
    kv->page = sd_alloc(pages, sizeof *kv->page);
    kv->first = sd_alloc((size_t)pool->groups, sizeof *kv->first);
    SD_CHECK_ALLOC(kv->page && kv->first, err);
    for (size_t i = 0; i < pages; i++) kv->page[i] = -1;
    pool->table_bytes += sequence_bytes(pool, ctx);
    kv->counted = true;
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
    SD_TRY(sd_kv_pool_open(&pool, cx, &(sd_kv_pool_size){.sequences = 1, .ctx = ctx, .step = ctx},
                           err));
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
    if (kv->counted) kv->pool->table_bytes -= sequence_bytes(kv->pool, kv->ctx);
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
        for (int g = 0; g < p->groups; g++) {
            int32_t *page = sd_kv_table_of(kv, g) + kv->pages;
            *page = lend(p, g, kv->pages > kv->first[g] ? page[-1] : -1);
        }
    return true;
}

int sd_kv_truncate(sd_kv *kv, int len) {
    if (len < kv->len) kv->len = len;
    const int cut = kv->len % SD_KV_PAGE;
    if (cut && is_shared(kv, kv->len / SD_KV_PAGE)) kv->len -= cut;
    if (!sd_kv_sees(kv, kv->len)) kv->len = 0;
    const int keep = sd_kv_pages(kv->len);
    sd_prefix_cut(kv, kv->len / SD_KV_PAGE);
    for (int g = 0; g < kv->pool->groups; g++) {
        const int from = kv->first[g] > keep ? kv->first[g] : keep;
        // What stands further in front is wanted longer.
        for (int i = kv->pages - 1; i >= from; i--)
            give_back(&kv->pool->group[g], sd_kv_table_of(kv, g) + i);
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
