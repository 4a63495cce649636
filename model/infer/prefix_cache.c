// A tree of pages. Every node has an owner's root above it; full pages are found by the hash of all their
// tokens, others among the children of the page before them.
//
// A sequence stands at the node of its last full page. It reads the pages of all nodes above, in layers
// without a window, so that a page that nobody reads has below it only such pages. Those are older in
// the ring of kv_pages.c, because a sequence lays down its last page first: what is forgotten is a leaf
// as a rule. Layers with a window forget their pages one by one.
#include "model/infer/prefix_cache.h"

#include "base/memory.h"
#include "base/rng.h"
#include "model/infer/kv_private.h"

#include <string.h>
#include <sys/random.h>

enum { LOOK = 256 }; // children of a page that are looked at, the youngest first

typedef struct {
    uint64_t hash;          // of all tokens down to here, and the owner
    sd_prefix_owner owner;  // of a root
    int ctx;                // likewise: LongRoPE turns keys by it
    int32_t parent;         // -1: a root
    int32_t child;          // the youngest; -1: none
    int32_t older, younger; // siblings; -1: none
    int32_t chain;          // the next of its bucket, or of those that are unused; -1: none
    int32_t sequences;      // that stand here
    int n;                  // tokens; 0: a root; fewer than SD_KV_PAGE: nothing follows
    int32_t ids[SD_KV_PAGE];
} node;

typedef struct sd_prefix_cache {
    uint64_t seed[2]; // of this process: nobody can make tokens whose hashes meet
    node *node;       // [nodes]
    int32_t *page;    // [nodes][groups] -1: not there
    int nodes, groups;
    int32_t unused;  // the first of the nodes that are not used any more; -1: none
    int32_t fresh;   // nodes from this one on were never used
    int32_t *bucket; // [mask + 1]
    uint64_t mask;
    int *whole; // [groups] of a search: all pages from this one on are there
    int64_t forgotten;
} cache;

static cache *cache_of(const sd_kv *kv) {
    return kv->pool->prefix;
}

static int32_t *pages_of(const cache *c, int32_t x) {
    return c->page + (size_t)x * (size_t)c->groups;
}

static bool has_all_pages(const cache *c, int32_t x) {
    for (int g = 0; g < c->groups; g++)
        if (pages_of(c, x)[g] < 0) return false;
    return true;
}

static bool has_no_page(const cache *c, int32_t x) {
    for (int g = 0; g < c->groups; g++)
        if (pages_of(c, x)[g] >= 0) return false;
    return true;
}

// ---- opening and closing

// A node has a page mostly. Above the pages of a window stand some without one, and roots above all.
// Where each layer has a window, a sequence's whole text stands above its pages.
static int64_t count_nodes(const sd_kv_pool *p) {
    int64_t nodes = 64;
    bool windows = true;
    for (int g = 0; g < p->groups; g++) {
        nodes += 2 * (int64_t)p->group[g].pages;
        windows &= p->group[g].window > 0;
    }
    return windows ? nodes + (int64_t)p->suffices_for * sd_kv_pages(p->ctx) : nodes;
}

static int64_t count_buckets(int64_t nodes) {
    int64_t buckets = 64;
    while (buckets < nodes) buckets *= 2;
    return buckets;
}

size_t sd_prefix_bytes(const sd_kv_pool *p) {
    const size_t nodes = (size_t)count_nodes(p), groups = (size_t)p->groups;
    return sizeof(cache) + nodes * (sizeof(node) + groups * sizeof(int32_t)) +
           (size_t)count_buckets((int64_t)nodes) * sizeof(int32_t) + groups * sizeof(int);
}

sd_status sd_prefix_check(const sd_kv_pool *p, sd_error *err) {
    const int64_t nodes = count_nodes(p);
    if (nodes <= INT32_MAX / 2) return SD_OK;
    return sd_fail(err, SD_ELIMIT, "%lld pages are too many for a prefix cache; give less memory",
                   (long long)nodes);
}

sd_status sd_prefix_open(sd_kv_pool *p, sd_error *err) {
    sd_status st = SD_OK;
    const int64_t nodes = count_nodes(p), buckets = count_buckets(nodes);
    cache *c = sd_alloc(1, sizeof *c);
    SD_CHECK_ALLOC(c, err);
    SD_TRY(sd_prefix_check(p, err));
    c->nodes = (int)nodes, c->groups = p->groups, c->mask = (uint64_t)buckets - 1;
    c->node = sd_alloc((size_t)nodes, sizeof *c->node);
    c->page = sd_alloc((size_t)nodes * (size_t)p->groups, sizeof *c->page);
    c->bucket = sd_alloc((size_t)buckets, sizeof *c->bucket);
    c->whole = sd_alloc((size_t)p->groups, sizeof *c->whole);
    SD_CHECK_ALLOC(c->node && c->page && c->bucket && c->whole, err);
    SD_CHECK(getrandom(c->seed, sizeof c->seed, 0) == sizeof c->seed, err, SD_EIO,
             "no random numbers for the prefix cache; switch it off");
    for (int64_t i = 0; i < buckets; i++) c->bucket[i] = -1;
    c->unused = -1;
    p->prefix = c, c = NULL;
out:
    sd_prefix_close(c);
    return st;
}

void sd_prefix_close(cache *c) {
    if (!c) return;
    free(c->node);
    free(c->page);
    free(c->bucket);
    free(c->whole);
    free(c);
}

// ---- finding

static uint64_t stir(const cache *c, uint64_t h, uint64_t x) {
    uint32_t r[4];
    sd_philox(r, c->seed[0], h, x ^ c->seed[1]);
    return (uint64_t)r[1] << 32 | r[0];
}

static uint64_t hash_owner(const cache *c, const sd_prefix_owner *o, int ctx) {
    return stir(c, stir(c, stir(c, 0, o->tenant), o->adapter), (uint64_t)ctx);
}

static uint64_t hash_page(const cache *c, uint64_t h, const int32_t *ids) {
    for (int i = 0; i < SD_KV_PAGE; i += 2)
        h = stir(c, h, (uint64_t)(uint32_t)ids[i] << 32 | (uint32_t)ids[i + 1]);
    return h;
}

static int32_t find_root(const cache *c, uint64_t hash, const sd_prefix_owner *o, int ctx) {
    int32_t x = c->bucket[hash & c->mask];
    for (; x >= 0; x = c->node[x].chain) {
        const node *n = &c->node[x];
        if (n->n == 0 && n->owner.tenant == o->tenant && n->owner.adapter == o->adapter &&
            n->ctx == ctx)
            break;
    }
    return x;
}

// The full page that follows `parent` with these tokens; -1: not known.
static int32_t find_page(const cache *c, int32_t parent, const int32_t *ids) {
    uint64_t hash = hash_page(c, c->node[parent].hash, ids);
    int32_t x = c->bucket[hash & c->mask];
    for (; x >= 0; x = c->node[x].chain) {
        const node *n = &c->node[x];
        if (n->hash == hash && n->parent == parent && n->n == SD_KV_PAGE &&
            memcmp(n->ids, ids, sizeof n->ids) == 0)
            break;
    }
    return x;
}

static int common(const int32_t *a, const int32_t *b, int n) {
    int i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

// ---- adding and removing nodes

static bool is_hashed(const node *n) {
    return n->n == 0 || n->n == SD_KV_PAGE;
}

// x has no children, and no sequence stands there.
static void remove_node(sd_kv_pool *p, int32_t x) {
    cache *c = p->prefix;
    node *n = &c->node[x];
    for (int g = 0; g < c->groups; g++)
        if (pages_of(c, x)[g] >= 0) sd_kv_page_keep(&p->group[g], pages_of(c, x)[g], -1);
    if (n->younger >= 0)
        c->node[n->younger].older = n->older;
    else if (n->parent >= 0)
        c->node[n->parent].child = n->older;
    if (n->older >= 0) c->node[n->older].younger = n->younger;
    if (is_hashed(n)) {
        int32_t *at = &c->bucket[n->hash & c->mask];
        while (*at != x) at = &c->node[*at].chain;
        *at = n->chain;
    }
    n->chain = c->unused;
    c->unused = x;
}

// Removes x and what is above it as far as that serves nothing any more.
static void prune(sd_kv_pool *p, int32_t x) {
    cache *c = p->prefix;
    while (x >= 0 && c->node[x].child < 0 && c->node[x].sequences == 0 && has_no_page(c, x)) {
        int32_t parent = c->node[x].parent;
        remove_node(p, x);
        x = parent;
    }
}

// Removes x with all below it, where no sequence stands.
static void drop(sd_kv_pool *p, int32_t x) {
    cache *c = p->prefix;
    int32_t above = c->node[x].parent;
    for (int32_t y = x, parent; y != above; y = parent) {
        while (c->node[y].child >= 0) y = c->node[y].child;
        parent = c->node[y].parent;
        remove_node(p, y);
    }
    prune(p, above);
}

void sd_prefix_forget(sd_kv_pool *p, int g, int32_t page) {
    cache *c = p->prefix;
    int32_t x = p->group[g].node[page];
    c->forgotten++;
    if (p->group[g].window == 0 || c->node[x].n < SD_KV_PAGE) {
        drop(p, x);
        return;
    }
    pages_of(c, x)[g] = -1;
    sd_kv_page_keep(&p->group[g], page, -1);
    prune(p, x);
}

int64_t sd_prefix_forgotten(const sd_kv_pool *p) {
    return p->prefix ? p->prefix->forgotten : 0;
}

// A node that is unused, if need be that of pages that nobody reads; -1: all are in use.
static int32_t take_node(sd_kv_pool *p) {
    cache *c = p->prefix;
    if (c->unused < 0 && c->fresh < c->nodes) return c->fresh++;
    for (int g = 0; g < p->groups && c->unused < 0; g++)
        for (int32_t page; c->unused < 0 && (page = sd_kv_page_oldest(&p->group[g])) >= 0;)
            sd_prefix_forget(p, g, page);
    int32_t x = c->unused;
    if (x >= 0) c->unused = c->node[x].chain;
    return x;
}

// Under parent (-1: none), without pages; -1: there is no room for it.
static int32_t add_node(sd_kv_pool *p, int32_t parent, uint64_t hash, const int32_t *ids, int n) {
    cache *c = p->prefix;
    int32_t x = take_node(p);
    if (x < 0) return -1;
    node *new = &c->node[x];
    *new = (node){.hash = hash, .parent = parent, .child = -1, .older = -1, .younger = -1, .n = n};
    for (int i = 0; i < n; i++) new->ids[i] = ids[i];
    for (int g = 0; g < c->groups; g++) pages_of(c, x)[g] = -1;
    if (is_hashed(new)) {
        new->chain = c->bucket[hash & c->mask];
        c->bucket[hash & c->mask] = x;
    }
    if (parent < 0) return x;
    new->older = c->node[parent].child;
    if (new->older >= 0) c->node[new->older].younger = x;
    c->node[parent].child = x;
    return x;
}

static void keep(sd_kv_pool *p, int32_t x, int g, int32_t page) {
    pages_of(p->prefix, x)[g] = page;
    sd_kv_page_keep(&p->group[g], page, x);
}

// Siblings that say no more than x.
static void drop_covered(sd_kv_pool *p, int32_t x) {
    cache *c = p->prefix;
    int32_t y = c->node[x].older;
    for (int seen = 0; y >= 0 && seen < LOOK; seen++) {
        const node *n = &c->node[y];
        int32_t older = n->older;
        if (n->n < SD_KV_PAGE && n->n <= c->node[x].n &&
            common(n->ids, c->node[x].ids, n->n) == n->n)
            remove_node(p, y);
        y = older;
    }
}

// ---- a sequence's place

static void stand_at(sd_kv *kv, int32_t x) {
    cache *c = cache_of(kv);
    int32_t before = kv->node;
    if (x >= 0) c->node[x].sequences++;
    kv->node = x;
    if (before < 0) return;
    c->node[before].sequences--;
    prune(kv->pool, before);
}

void sd_prefix_begin(sd_kv *kv, const sd_prefix_owner *owner) {
    cache *c = cache_of(kv);
    if (!c) return;
    uint64_t hash = hash_owner(c, owner, kv->ctx);
    int32_t x = find_root(c, hash, owner, kv->ctx);
    if (x < 0) x = add_node(kv->pool, -1, hash, NULL, 0);
    if (x >= 0) c->node[x].owner = *owner, c->node[x].ctx = kv->ctx;
    kv->published = 0;
    stand_at(kv, x);
}

void sd_prefix_cut(sd_kv *kv, int pages) {
    if (kv->node < 0) return;
    int32_t x = kv->node;
    for (; kv->published > pages; kv->published--) x = cache_of(kv)->node[x].parent;
    if (pages == 0) x = -1;
    if (x != kv->node) stand_at(kv, x);
}

// ---- publishing

// Page i of kv in group g, and that of the node it is equal to.
static void share(sd_kv *kv, int g, int i, int32_t x) {
    sd_kv_group *group = &kv->pool->group[g];
    int32_t *own = sd_kv_table_of(kv, g) + i, known = pages_of(cache_of(kv), x)[g];
    if (i < kv->first[g]) return;
    if (known < 0) {
        keep(kv->pool, x, g, *own);
    } else if (known != *own) {
        sd_kv_page_read(group, known);
        sd_kv_page_release(group, *own);
        *own = known;
        kv->version++;
    }
}

void sd_prefix_publish(sd_kv *kv, const int32_t *ids) {
    cache *c = cache_of(kv);
    while (kv->node >= 0 && (kv->published + 1) * SD_KV_PAGE <= kv->len) {
        const int i = kv->published;
        const int32_t *of_page = ids + (size_t)i * SD_KV_PAGE;
        int32_t x = find_page(c, kv->node, of_page);
        bool known = x >= 0;
        if (!known)
            x = add_node(kv->pool, kv->node, hash_page(c, c->node[kv->node].hash, of_page), of_page,
                         SD_KV_PAGE);
        if (x < 0) return;
        for (int g = 0; g < c->groups; g++) share(kv, g, i, x);
        if (!known) drop_covered(kv->pool, x);
        kv->published++;
        stand_at(kv, x);
    }
}

// The last page, where it is not full.
static void publish_part(sd_kv *kv, const int32_t *ids) {
    cache *c = cache_of(kv);
    const int at = kv->published, n = kv->len - at * SD_KV_PAGE;
    if (kv->node < 0 || n <= 0 || n >= SD_KV_PAGE) return;
    ids += (size_t)at * SD_KV_PAGE;
    int32_t y = c->node[kv->node].child;
    for (int seen = 0; y >= 0 && seen < LOOK; seen++, y = c->node[y].older)
        if (c->node[y].n >= n && has_all_pages(c, y) && common(c->node[y].ids, ids, n) == n) return;
    int32_t x = add_node(kv->pool, kv->node, 0, ids, n);
    if (x < 0) return;
    for (int g = 0; g < c->groups; g++) keep(kv->pool, x, g, sd_kv_table_of(kv, g)[at]);
    drop_covered(kv->pool, x);
}

void sd_prefix_end(sd_kv *kv, const int32_t *ids) {
    sd_prefix_publish(kv, ids);
    publish_part(kv, ids);
    sd_kv_truncate(kv, 0);
}

// ---- taking

// kv gets the pages up to x, which is the m-th.
static void adopt(sd_kv *kv, int32_t x, int m) {
    const cache *c = cache_of(kv);
    const int had = kv->published;
    for (int g = 0; g < c->groups; g++) {
        sd_kv_group *group = &kv->pool->group[g];
        int32_t *table = sd_kv_table_of(kv, g), y = x;
        const int first = sd_kv_first_needed(kv->pool, g, m * SD_KV_PAGE);
        const int from = first > had ? first : had;
        for (int i = m; i-- > from; y = c->node[y].parent)
            sd_kv_page_read(group, pages_of(c, y)[g]);
        // Its own behind what is published, and those that no row sees any more.
        for (int i = kv->pages; i-- > kv->first[g];)
            if (i >= had || i < first) sd_kv_page_release(group, table[i]), table[i] = -1;
        y = x;
        for (int i = m; i-- > from; y = c->node[y].parent) table[i] = pages_of(c, y)[g];
        if (kv->first[g] < first) kv->first[g] = first;
    }
    kv->pages = kv->published = m;
    kv->len = m * SD_KV_PAGE;
    kv->version++;
    stand_at(kv, x);
}

// Whether a sequence of m full pages would have all that its next row sees.
static bool is_seen(const cache *c, const sd_kv_pool *p, int m) {
    for (int g = 0; g < c->groups; g++)
        if (c->whole[g] > sd_kv_first_needed(p, g, m * SD_KV_PAGE)) return false;
    return true;
}

// The page behind kv's last one that begins with most of ids [n]; *same <- how many.
static int32_t find_part(const cache *c, const sd_kv *kv, const int32_t *ids, int n, int *same) {
    int32_t best = -1, y = c->node[kv->node].child;
    *same = 0;
    for (int seen = 0; y >= 0 && seen < LOOK; seen++, y = c->node[y].older) {
        int k = common(c->node[y].ids, ids, c->node[y].n < n ? c->node[y].n : n);
        if (k > *same && has_all_pages(c, y)) *same = k, best = y;
    }
    return best;
}

// The first positions of the page that follows, into a page of its own.
static void copy_part(sd_kv *kv, const int32_t *ids, int positions) {
    const cache *c = cache_of(kv);
    sd_kv_pool *p = kv->pool;
    const int at = kv->published, left = positions - kv->len;
    int same;
    if (kv->len != at * SD_KV_PAGE || left <= 0) return;
    int32_t x = find_part(c, kv, ids + kv->len, left < SD_KV_PAGE ? left : SD_KV_PAGE, &same);
    if (x < 0) return;
    for (int g = 0; g < c->groups; g++) sd_kv_page_read(&p->group[g], pages_of(c, x)[g]);
    if (sd_kv_reserve(kv, kv->len + same)) {
        for (int l = 0; l < p->L; l++)
            p->memory->backend->kv_copy_page(p->memory, l, sd_kv_table(kv, l)[at],
                                             pages_of(c, x)[p->group_of[l]], same);
        kv->len += same;
    }
    for (int g = 0; g < c->groups; g++) sd_kv_page_release(&p->group[g], pages_of(c, x)[g]);
}

int sd_prefix_take(sd_kv *kv, const int32_t *ids, int positions) {
    cache *c = cache_of(kv);
    if (!c || kv->node < 0) return kv->len;
    int m = kv->published, most = m;
    int32_t x = kv->node, best = x;
    for (int g = 0; g < c->groups; g++) c->whole[g] = 0; // what kv has, it has as far as it sees
    while ((m + 1) * SD_KV_PAGE <= positions &&
           (x = find_page(c, x, ids + (size_t)m * SD_KV_PAGE)) >= 0) {
        for (int g = 0; g < c->groups; g++)
            if (pages_of(c, x)[g] < 0) c->whole[g] = m + 1;
        m++;
        if (is_seen(c, kv->pool, m)) most = m, best = x;
    }
    if (most * SD_KV_PAGE > kv->len) adopt(kv, best, most);
    copy_part(kv, ids, positions);
    return kv->len;
}

// ---- for tests

static bool is_sound_group(const sd_kv_pool *p, int g, sd_kv *const *kv, int n) {
    const sd_kv_group *group = &p->group[g];
    int left = 0, kept = 0, empty = 0, ring_kept = 0;
    int32_t *readers = sd_alloc((size_t)group->pages, sizeof *readers);
    bool ok = readers != NULL;
    for (int k = 0; ok && k < n; k++)
        for (int i = 0; i < sd_kv_pages(kv[k]->ctx); i++) {
            int32_t page = sd_kv_table_of(kv[k], g)[i];
            ok = ok && (page >= 0) == (i >= kv[k]->first[g] && i < kv[k]->pages);
            if (ok && page >= 0) readers[page]++;
        }
    for (int i = 0; ok && i < group->pages; i++) {
        int32_t x = group->node[i];
        ok = readers[i] == group->readers[i] && (x < 0 || pages_of(p->prefix, x)[g] == i);
        left += readers[i] == 0;
        kept += readers[i] == 0 && x >= 0;
    }
    for (int32_t i = group->next[group->pages]; ok && i < group->pages; i = group->next[i]) empty++;
    for (int32_t i = group->next[group->pages + 1]; ok && i < group->pages; i = group->next[i])
        ring_kept++;
    free(readers);
    return ok && kept == ring_kept && left == group->left && left == kept + empty;
}

// Whether x hangs together with what is below and beside it.
static bool is_sound_node(const sd_kv_pool *p, int32_t x, const int *sequences) {
    const cache *c = p->prefix;
    const node *n = &c->node[x];
    int32_t y = n->child;
    bool ok = n->sequences == sequences[x] && n->n >= 0 && n->n <= SD_KV_PAGE;
    ok = ok && (n->n == SD_KV_PAGE || n->n == 0 || n->child < 0);
    ok = ok && (n->child >= 0 || n->sequences > 0 || !has_no_page(c, x));
    for (; ok && y >= 0; y = c->node[y].older)
        ok = c->node[y].parent == x && c->node[y].n > 0 &&
             (c->node[y].older < 0 || c->node[c->node[y].older].younger == y);
    for (int g = 0; ok && g < c->groups; g++) {
        int32_t page = pages_of(c, x)[g];
        ok = page < 0 || p->group[g].node[page] == x;
        // What nobody reads has nothing below it that somebody does.
        if (ok && page >= 0 && p->group[g].window == 0 && p->group[g].readers[page] == 0)
            for (y = n->child; y >= 0; y = c->node[y].older)
                ok = ok && c->node[y].sequences == 0 &&
                     (pages_of(c, y)[g] < 0 || p->group[g].readers[pages_of(c, y)[g]] == 0);
    }
    return ok;
}

bool sd_prefix_sound(const sd_kv_pool *p, sd_kv *const *kv, int n) {
    const cache *c = p->prefix;
    bool ok = true;
    for (int g = 0; g < p->groups; g++) ok = ok && is_sound_group(p, g, kv, n);
    if (!c || !ok) return ok;
    int *sequences = sd_alloc((size_t)c->nodes, sizeof *sequences), used = 0;
    bool *unused = sd_alloc((size_t)c->nodes, sizeof *unused);
    ok = sequences && unused;
    for (int k = 0; ok && k < n; k++)
        if (kv[k]->node >= 0) sequences[kv[k]->node]++;
    for (int32_t x = c->unused; ok && x >= 0; x = c->node[x].chain) unused[x] = true;
    for (int32_t x = 0; ok && x < c->fresh; x++)
        if (!unused[x]) ok = is_sound_node(p, x, sequences), used += is_hashed(&c->node[x]);
    for (uint64_t b = 0; ok && b <= c->mask; b++)
        for (int32_t x = c->bucket[b]; x >= 0; x = c->node[x].chain) used--;
    free(sequences);
    free(unused);
    return ok && used == 0;
}
