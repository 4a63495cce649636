// What a backend brings: a model ready to run, its steps, and the memory of keys and values.
//
// Callers use forward.h, kv_cache.h and step_cost.h, whose functions ask the table of the context's
// or the pool's backend; nothing else of a backend is seen from outside. So weights, activations and
// pages may lie in any memory. The CPU's (cpu/) is the first one, and what is true of its numbers
// must be true of each: a row's bits depend on its own token, position, cache and adapter alone.
// Across backends logits differ by rounding.
//
// The common parts stand above the table, once: rows are checked before a step (backend.c), and
// which sequence has which page is counted on the host (kv_pages.c). A backend whose block tables lie in
// its own memory sees in sd_kv.id and sd_kv.version whether the one it has is still true. Picking a
// token is the backend's too (sd_picked), so that logits need not leave its memory; it must be the
// token that sd_sample (kernels/sample/sampler.h) picks from the same logits.
//
// Contexts are independent: a process may have several, of several models and backends.
#pragma once

#include "model/infer/device.h"
#include "model/infer/forward.h"
#include "model/infer/step_cost.h"

/// What a context begins with.
typedef struct {
    const sd_backend *backend;
} sd_context_base;

/// What the memory of a pool's pages begins with.
typedef struct {
    const sd_backend *backend;
    size_t bytes;
} sd_kv_memory;

/// Layers with the same window. A page number is the same place in each of them: their pages come and
/// go together, since what one of them needs no more none of them needs.
typedef struct {
    int window;       // positions that a row attends to; 0: all below it
    int most;         // pages that a sequence has at most
    int pages, left;  // left: those that no sequence has
    int32_t *readers; // [pages] sequences that have it
    int32_t *node;    // [pages] the prefix cache's node that keeps it; -1: none
    // Pages without a reader stand in one of two rings: behind number `pages` those that hold nothing,
    // behind `pages + 1` those that the prefix cache keeps, the longest unread first.
    int32_t *next, *prev; // [pages + 2]
} sd_kv_group;

/// Pages, and who has them (kv_pages.c).
struct sd_kv_pool {
    sd_kv_memory *memory;
    int L, groups;
    sd_kv_group *group;             // [groups] in the order of their first layers
    int *group_of;                  // [L]
    uint32_t sequences;             // opened so far
    size_t table_bytes;             // of those that are open
    int ctx;                        // positions of a sequence at most
    int suffices_for;               // sequences at their longest, without a budget
    struct sd_prefix_cache *prefix; // NULL: what no sequence has is forgotten
};

/// A sequence's pages of layer l, in order of position.
static inline const int32_t *sd_kv_table(const sd_kv *kv, int l) {
    return kv->page + (size_t)kv->pool->group_of[l] * (size_t)sd_kv_pages(kv->ctx);
}
/// The first of them that it has.
static inline int sd_kv_first_page(const sd_kv *kv, int l) {
    return kv->first[kv->pool->group_of[l]];
}
/// Whether the pool was opened for layers with these windows.
bool sd_kv_pool_fits(const sd_kv_pool *p, const sd_model *m);
/// Whether a sequence still has the pages of all that a row at pos sees.
bool sd_kv_sees(const sd_kv *kv, int pos);

struct sd_backend {
    const char *word; // in SD_DEVICES
    bool own_memory;  // contexts and pages lie in the device's memory, not in the host's
    /// Whether its device of this number can be used; else what is missing, in one sentence.
    sd_status (*look)(int device, sd_error *err);

    // ---- a model, ready to run

    /// As sd_context_open, whose options are not NULL here.
    sd_status (*open)(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                      sd_error *err);
    void (*close)(sd_context *cx); // not NULL
    sd_model *(*model)(const sd_context *cx);
    int (*max_rows)(const sd_context *cx);
    size_t (*bytes)(const sd_context *cx);
    void (*memory)(const sd_context *cx, sd_context_memory *out);
    /// As sd_context_plan_open, whose options are not NULL here.
    sd_status (*plan)(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                      int threads, int ctx, const int *const *rank, int n_adapters, sd_error *err);
    bool (*step_costs)(sd_step_costs *out, sd_context *cx);
    /// The part of take_adapter that any thread may do while another one steps: all that takes long. NULL:
    /// there is none.
    sd_status (*prepare_adapter)(sd_context *cx, const sd_adapter *a, sd_error *err);
    /// What it made of an adapter goes by sd_adapter_on_release.
    sd_status (*take_adapter)(sd_context *cx, const sd_adapter *a, sd_error *err);
    /// As sd_forward_pick, for rows that were checked.
    sd_status (*forward)(sd_context *cx, const sd_row *rows, int n, float *logits,
                         sd_picked *picked, sd_error *err);

    /// As sd_context_sleep and sd_context_wake; NULL, as wake: weights stay where they are.
    void (*sleep)(sd_context *cx);
    sd_status (*wake)(sd_context *cx, sd_error *err);

    // ---- keys and values

    size_t (*kv_bytes)(const sd_context *cx); // of one position in one layer
    /// Memory of pages [L] pages of each layer, at least one; SD_EINVAL where their size cannot be
    /// counted.
    sd_status (*kv_open)(sd_kv_memory **out, const sd_context *cx, const int *pages, sd_error *err);
    void (*kv_close)(sd_kv_memory *m); // NULL is fine
    /// Whether a context's steps can read and write it: true of memory of a context of the same
    /// model, backend and type of keys and values.
    bool (*kv_fits)(const sd_context *cx, const sd_kv_memory *m);
    /// The first positions of a page of layer l: `to` <- `from`, keys and values of all heads, with
    /// their scales.
    void (*kv_copy_page)(sd_kv_memory *m, int l, int32_t to, int32_t from, int positions);
    /// Do the first positions of two sequences hold the same bytes in the layers where both have
    /// them? Both memories are this backend's.
    bool (*kv_equal)(const sd_kv *a, const sd_kv *b, int positions);
};

/// The list of device.h, NULL behind the last.
extern const sd_backend *const sd_backends[];
#define SD_BACKEND_DECLARE(backend, word) extern const sd_backend sd_backend_##backend;
SD_DEVICE_LIST(SD_BACKEND_DECLARE)
#undef SD_BACKEND_DECLARE

static inline const sd_backend *sd_context_backend(const sd_context *cx) {
    return ((const sd_context_base *)(const void *)cx)->backend;
}
