// Decoding as CUDA graphs: the launches of a whole step, recorded once and started as one.
//
// A step is recorded where all that its launches are given is told by few numbers: every row picks its token on the device, all
// rows read one memory of pages, and lengths are rounded up to 512 positions times a power of two (step.c). What differs
// between two such steps of as many rows then lies in memory that is the same: tokens, positions, pages and laws stand in the plan,
// at the same places. So a recorded step is never changed, only found: by the rows, the length, the adapters' ranks, and
// every address that may be another one.
//
// A kind of step is queued as it is the first time, which also loads its kernels; the second time it is recorded. The kinds that
// were longest unused go first.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

#include <string.h>

enum { MOST_KINDS = 64, MOST_ADAPTERS = 8 };

// All that launches are given beside what a context never changes. Compared byte by byte: made of a zeroed one.
typedef struct {
    int rows, longest, beyond, turn_positions, adapters, cap_r;
    uint64_t adapter[MOST_ADAPTERS];
    const void *plan, *partial, *turn, *products; // where they lie
    const void *adapter_arrays[2];                // the first and the last map's
} kind_key;

typedef struct {
    kind_key key;
    void **layer;         // [L] of the pages
    sd_cuda_graph *graph; // NULL: it was seen once
    uint64_t used;
} kind;

struct sd_cuda_graphs {
    kind kind[MOST_KINDS];
    int n;
    uint64_t steps;
};

static void forget(const sd_cuda_device *dev, kind *k) {
    if (k->graph) dev->graph_close(k->graph);
    free(k->layer);
    *k = (kind){0};
}

void sd_cuda_graphs_close(sd_context *cx) {
    for (int i = 0; cx->graphs && i < cx->graphs->n; i++) forget(cx->dev, &cx->graphs->kind[i]);
    free(cx->graphs);
    cx->graphs = NULL;
}

static void read_key(kind_key *key, const sd_context *cx) {
    memset(key, 0, sizeof *key);
    key->rows = cx->all.n, key->longest = cx->all.chunk[0].longest;
    key->beyond = cx->all.chunk[0].beyond, key->turn_positions = cx->turn_positions;
    key->adapters = cx->n_used;
    for (int i = 0; i < cx->n_used; i++) key->adapter[i] = cx->used[i]->generation;
    key->plan = cx->plan.device, key->partial = cx->partial.device, key->turn = cx->turn.device;
    if (cx->n_used) {
        key->products = cx->products.device, key->cap_r = cx->cap_r;
        key->adapter_arrays[0] = sd_cuda_adapters_of(cx->adapters, 0);
        key->adapter_arrays[1] = sd_cuda_adapters_of(cx->adapters, cx->model->n_linears - 1);
    }
}

static kind *find(sd_cuda_graphs *g, const kind_key *key, void *const *layer, size_t layers) {
    for (int i = 0; i < g->n; i++)
        if (memcmp(&g->kind[i].key, key, sizeof *key) == 0 &&
            memcmp(g->kind[i].layer, layer, layers) == 0)
            return &g->kind[i];
    return NULL;
}

// A place for one more: a new one, or that of the longest unused.
static kind *place(sd_cuda_graphs *g, const sd_cuda_device *dev) {
    if (g->n < MOST_KINDS) return &g->kind[g->n++];
    kind *oldest = &g->kind[0];
    for (int i = 1; i < g->n; i++)
        if (g->kind[i].used < oldest->used) oldest = &g->kind[i];
    forget(dev, oldest);
    return oldest;
}

static sd_status add(sd_cuda_graphs *g, const kind_key *key, const sd_context *cx,
                     void *const *layer, sd_error *err) {
    sd_status st = SD_OK;
    const size_t L = (size_t)cx->model->hp.L;
    void **copy = sd_alloc(L, sizeof *copy);
    SD_CHECK_ALLOC(copy, err);
    memcpy(copy, layer, L * sizeof *copy);
    *place(g, cx->dev) = (kind){.key = *key, .layer = copy, .used = g->steps};
out:
    return st;
}

static sd_status record(kind *k, sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    CUDA_TRY(cx->dev->capture_begin(cx->stream), "recording a step");
    st = sd_cuda_queue_picked(cx, err);
    // What was recorded ends in any case: the stream queues nothing while it records.
    const int status = cx->dev->capture_end(&k->graph, cx->stream);
    if (st == SD_OK) CUDA_TRY(status, "recording a step");
out:
    if (st != SD_OK && k->graph) cx->dev->graph_close(k->graph), k->graph = NULL;
    return st;
}

sd_status sd_cuda_run_steady(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_pages *pages = cx->all.chunk[0].pages;
    kind_key key;
    kind *k = NULL;
    if (!cx->graphs) cx->graphs = sd_alloc(1, sizeof *cx->graphs);
    SD_CHECK_ALLOC(cx->graphs, err);
    CUDA_TRY(pages->failed, "copying a page");
    read_key(&key, cx);
    cx->graphs->steps++;
    k = find(cx->graphs, &key, pages->layer, (size_t)pages->L * sizeof *pages->layer);
    if (!k) {
        SD_TRY(add(cx->graphs, &key, cx, pages->layer, err));
        SD_TRY(sd_cuda_queue_picked(cx, err));
        goto out;
    }
    k->used = cx->graphs->steps;
    if (!k->graph) SD_TRY(record(k, cx, err));
    CUDA_TRY(cx->dev->graph_launch(k->graph, cx->stream), "a recorded step");
    cx->graph_launches++;
out:
    return st;
}

bool sd_cuda_steady_adapters(const sd_context *cx) {
    return cx->n_used <= MOST_ADAPTERS;
}
