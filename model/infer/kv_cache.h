// The keys and values of sequences, as a context's steps write and read them (model/infer/forward.h).
//
// They lie in pages of SD_KV_PAGE positions that a pool lends out. A sequence's pages may lie
// anywhere: attention works by blocks of that size from position 0 on, so its bits are the same. A
// full page may be read by several sequences and is written by none of them; what sequences have
// computed is found again by its tokens (model/infer/prefix_cache.h).
//
// Layers with the same window have their pages for themselves, and a sequence of a pool keeps only
// those that rows from its committed length on see some position of. So it cannot go back: what is cut
// further than the pages reach begins anew.
//
//     SD_TRY(sd_kv_pool_open(&pool, cx, &(sd_kv_pool_size){sequences, ctx, step}, err));
//     SD_TRY(sd_kv_open_in(&kv, pool, ctx, err));
//     if (!sd_kv_reserve(kv, n)) ...          // no page is left: wait, or take some from another
//     ... sd_forward over rows below n, kv->len = n ...
//     sd_kv_truncate(kv, len);                // what lies behind is given back
//
// A pool and its sequences belong to one thread. Which sequence has which page is counted on the
// host; the pages lie where the context's backend has its memory.
#pragma once

#include "base/status.h"
#include "kernels/ops.h"

typedef struct sd_context sd_context;
struct sd_model;
typedef struct sd_kv_pool sd_kv_pool;

/// What a pool must suffice for. Layers that see all below a row have pages for all positions, those
/// with a window for the window and a step.
typedef struct {
    int sequences;
    int ctx;      // positions of a sequence at most
    int step;     // positions at most by which one grows between two calls of sd_kv_reserve
    size_t bytes; // 0: so much. Else a budget that all sequences share, more or less than that
} sd_kv_pool_size;

/// Pages for this context, in the memory of its backend. SD_EINVAL where the budget is too small for one
/// sequence's step, with what it must be.
sd_status sd_kv_pool_open(sd_kv_pool **out, const sd_context *cx, const sd_kv_pool_size *size,
                          sd_error *err);
void sd_kv_pool_close(sd_kv_pool *p); // after its sequences, before its context; NULL is fine
size_t sd_kv_pool_bytes(const sd_kv_pool *p);
int sd_kv_pool_left(const sd_kv_pool *p, int l); // pages of layer l that no sequence has
/// Positions that one sequence alone can have: its ctx, or fewer under a small budget.
int sd_kv_pool_longest(const sd_kv_pool *p);
/// Whether a sequence of so many positions would find its pages now.
bool sd_kv_pool_holds(const sd_kv_pool *p, int positions);
/// Whether n sequences of so many positions each would find their pages if no others were there.
bool sd_kv_pool_has_room(const sd_kv_pool *p, const int *positions, int n);
/// Positions that its pages have, in layers where they are most.
int64_t sd_kv_pool_positions(const sd_kv_pool *p);
/// The share of its pages that sequences have, 0 to 1. They count once however many read them.
double sd_kv_pool_usage(const sd_kv_pool *p);

/// What a pool takes in host memory beside its pages: of the pages' numbers and its sequences' tables,
/// and of the prefix cache's tree, if it has one.
typedef struct {
    size_t pages, tables, prefix; // bytes
} sd_kv_memory_sizes;
void sd_kv_pool_get_memory(const sd_kv_pool *p, sd_kv_memory_sizes *out); // now

enum { SD_KV_PLANNED_WINDOWS = 4 };
/// What a pool will be.
typedef struct {
    sd_kv_memory_sizes memory;
    int64_t positions; // as sd_kv_pool_positions
    int longest;       // as sd_kv_pool_longest
    int windows;       // of the model; of the first SD_KV_PLANNED_WINDOWS:
    struct {
        int window, layers; // positions that a row sees, 0: all; layers with this window
        int pages;          // of each
    } of[SD_KV_PLANNED_WINDOWS];
} sd_kv_plan;
/// From sizes alone: of a model, for a backend that keeps position_bytes of a position in a layer
/// (sd_context_plan.kv_bytes). sequences: how many will be opened, each of size->ctx positions.
/// SD_EINVAL as sd_kv_pool_open.
sd_status sd_kv_pool_plan(sd_kv_plan *out, const struct sd_model *m, size_t position_bytes,
                          const sd_kv_pool_size *size, int sequences, bool prefix_cache,
                          sd_error *err);

typedef struct {
    sd_kv_pool *pool;
    int ctx;       // positions at most
    int len;       // committed positions: the only truth. What lies beyond is overwritten.
    int pages;     // positions below pages * SD_KV_PAGE can be written
    int32_t *page; // [windows of the model][sd_kv_pages(ctx)] in order of position; -1: it has none
    int *first;    // [windows of the model] the first page it has; those before were given back
    bool owns_pool;   // then nothing is given back before its end
    bool counted;     // in the pool's bytes
    int32_t node;     // where it stands in the prefix cache; -1: outside
    int published;    // its pages up to there, which the prefix cache knows
    uint32_t id;      // among the sequences of its pool
    uint32_t version; // another one whenever `page`, `first` or `pages` has changed
} sd_kv;

static inline int sd_kv_pages(int positions) {
    return positions / SD_KV_PAGE + (positions % SD_KV_PAGE > 0);
}

/// A sequence without a page yet.
sd_status sd_kv_open_in(sd_kv **out, sd_kv_pool *pool, int ctx, sd_error *err);
/// A sequence with all pages that ctx positions need, out of a pool of its own: kv->len may go back.
sd_status sd_kv_open(sd_kv **out, const sd_context *cx, int ctx, sd_error *err);
void sd_kv_close(sd_kv *kv); // its pages are given back; NULL is fine

/// Pages for so many positions (at most ctx); what no row from kv->len on sees is given back. False
/// when too few are left; nothing is lent then.
bool sd_kv_reserve(sd_kv *kv, int positions);
/// At most len positions stay, and the pages behind are given back. Within a page that others read
/// too, or that the prefix cache keeps, it is cut back to the page's begin, since a page is written by one. Where pages that the next
/// row would see were given back, nothing stays. Returns kv->len.
int sd_kv_truncate(sd_kv *kv, int len);
/// Bytes of one position more for this context: what --ctx costs. Layers with a window keep no more.
size_t sd_kv_bytes_per_position(const sd_context *cx);

/// Do the first positions hold the same bytes, where both have them? For tests.
bool sd_kv_equal(const sd_kv *a, const sd_kv *b, int positions);
