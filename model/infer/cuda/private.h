// CUDA's backend: the state of a context, shared by its life (context.c, which has the backend's table, over memory.c) and its step: forward.c over step.c, graph.c, adapters.c, kv_memory.c and pick.c.
//
// Everything goes by the table of kernels/cuda/device.h. A context has one stream, on which a step's launches follow
// each other; whoever returns to the caller has waited for it, so memory of the host may be written again, and a
// sequence's pages be read by another context.
#pragma once

#include "model/cuda/weights.h"
#include "model/infer/backend.h"
#include "model/infer/key_scale.h"

// Memory that only ever grows, so that a steady state allocates nothing.
typedef struct {
    void *device, *host; // host: NULL where only the device has any
    size_t bytes;        // of each
} sd_cuda_room;

typedef struct sd_cuda_adapters sd_cuda_adapters;
typedef struct sd_cuda_adapter sd_cuda_adapter;
typedef struct sd_cuda_pages sd_cuda_pages;
typedef struct sd_cuda_graphs sd_cuda_graphs;

// Neighbouring rows [n0, n0 + n) of a step that share launches over pages: one memory, one set of frequencies, and no
// more of them than partial results of attention have room for.
typedef struct {
    int n0, n;
    int tile0, tiles; // rows that read keys together; counted from n0
    int longest;      // positions that one of them sees at most
    const sd_cuda_pages *pages;
    int beyond; // 1: LongRoPE's long factors
} sd_cuda_chunk;

// Rows as launches take them: a step's, or in its last layer those that want logits or a token. Arrays are on the
// device unless they say otherwise.
typedef struct {
    int n;
    float *x;              // [n, C]
    void *q;               // [n, H, D]
    const int32_t *token;  // [n]
    const int32_t *pos;    // [n]
    const int32_t *which;  // [n] an adapter's place; -1: the base. NULL: none has one
    const int32_t **table; // [windows] (host) [n, table_ld] pages of each row's sequence
    int table_ld;
    const sd_cuda_row_tile *tile;
    sd_cuda_chunk *chunk; // [chunks] (host)
    int chunks;
} sd_cuda_rows;

struct sd_context {
    sd_context_base base;
    sd_model *model;
    sd_pool *pool;
    const sd_cuda_device *dev;
    int device; // its number
    sd_cuda_stream *stream;
    sd_cuda_real real; // of what enters matrix products, and of keys and values
    bool codes;        // keys and values are int8, each head's of a position with a scale
    int max_rows, max_picked, logit_rows;
    const atomic_bool *stop; // NULL: never
    sd_cuda_owned owned;
    size_t step_bytes;

    sd_cuda_weights weights;
    int linears; // of a layer

    // Activations; N = max_rows
    float *x, *kept_x; // [N, C] the residual stream
    void *h;           // [N, the widest input of a matrix] what a matrix product reads
    float *wide;       // [N, the larger of (H + 2 G) D and 2 F] q, k, v; gate, up
    void *q, *kept_q;  // [N, H, D]
    float *d;          // [N, C] what a block adds, where that is normed first; NULL: never
    float *key_scale;  // [L, G, D] of codes; NULL: none
    float *logits;     // [logit_rows, V]
    int32_t *token;    // [logit_rows] picked
    int32_t *token_host;

    // What grows
    sd_cuda_room plan;     // a step's arrays
    sd_cuda_room partial;  // of attention
    sd_cuda_room turn;     // cos and sin
    sd_cuda_room products; // [N, rank] A x of adapters
    sd_cuda_room to_host;  // logits on their way: [logit_rows, V], host alone
    int turn_positions;    // of each table of `turn`
    int cap_r;             // of `products`

    // Windows of the model: layers with the same one share tables of pages
    int windows;
    int *window_of;   // [L]
    int *first_layer; // [windows]

    sd_cuda_adapters *adapters;

    // The step
    const sd_row **row;      // [N] of all; those that are kept
    const sd_row **kept_row; // [N]
    sd_cuda_chunk *chunk;    // [2 N]
    const int32_t **table;   // [2, windows]
    sd_cuda_adapter **used;  // [N] the step's adapters, each once
    int n_used;
    sd_cuda_rows all, kept;
    const sd_cuda_pick *pick; // [kept.n] on the device; NULL: none is picked there
    bool *host_pick;          // [N] of kept rows: the host picks
    bool steady;              // it may be recorded

    // Recorded steps
    sd_cuda_graphs *graphs;
    bool no_graphs;          // for tests: every step is queued anew
    uint64_t graph_launches; // for tests: steps that were started as one

    // Picking on the host
    int samplers;
    sd_sampler **sampler; // [samplers] one a thread; opened at the first such row
};

// ---- memory.c

/// In a function with `sd_status st`, `err`, `cx` and a label `out`.
#define CUDA_TRY(call, doing) SD_CUDA_TRY(cx->dev, (call), (doing))

/// At least so many bytes; what was there is lost where it grows. The stream is idle.
sd_status sd_cuda_grow(sd_context *cx, sd_cuda_room *r, size_t bytes, bool device, bool host,
                       const char *what, sd_error *err);
void sd_cuda_free_room(sd_context *cx, sd_cuda_room *r);

/// What cx is by its options, before a device is asked for anything.
sd_status sd_cuda_configure(sd_context *cx, const sd_model *m, const sd_context_options *o,
                            sd_error *err);
/// Bytes of what is taken for steps when the context is opened.
size_t sd_cuda_step_sum(const sd_context *cx);
/// Takes the latter.
sd_status sd_cuda_take_steps(sd_context *cx, sd_error *err);
/// Tables of cos and sin that the model needs.
int sd_cuda_turn_tables(const sd_hparams *hp);
/// The table of layer l for a row's sequence.
int sd_cuda_turn_table(const sd_context *cx, int l, int beyond);

// ---- adapters.c

struct sd_cuda_adapter {
    uint64_t generation;
    int place; // in the arrays that kernels read
    int *r;    // [n_linears] 0: no factors
    int most_r;
    void *factors; // on the device
    size_t bytes;
    bool gone;
    sd_cuda_adapter *next;
};
sd_status sd_cuda_adapters_open(sd_cuda_adapters **out, sd_error *err);
/// Frees what it has on the device. NULL is fine. Adapters may go later.
void sd_cuda_adapters_close(sd_cuda_adapters *t, const sd_context *cx);
/// The adapter as it is on the device, put there at the first call. The stream is idle.
sd_status sd_cuda_adapters_get(sd_cuda_adapter **out, sd_context *cx, const sd_adapter *a,
                               sd_error *err);
/// Frees those that are gone. The stream is idle.
void sd_cuda_adapters_reap(const sd_context *cx);
/// Those of linear map i, by place.
const sd_cuda_lora *sd_cuda_adapters_of(const sd_cuda_adapters *t, int i);
size_t sd_cuda_adapters_bytes(sd_cuda_adapters *t);
/// Bytes of an adapter with these ranks [m->n_linears], and of the arrays that n of them stand in.
size_t sd_cuda_adapter_sum(const sd_model *m, const int *rank);
size_t sd_cuda_places_sum(const sd_model *m, int n);

// ---- step.c

/// cx->all, kept, pick <- the step's rows, queued on the stream.
sd_status sd_cuda_plan_step(sd_context *cx, const sd_row *rows, int n, sd_error *err);
/// Bytes of the plan's arrays at most, and of partial results, for steps over sequences of ctx positions.
size_t sd_cuda_plan_sum(const sd_context *cx, int ctx);
size_t sd_cuda_partial_sum(const sd_context *cx, const sd_cuda_device *dev, int ctx);
size_t sd_cuda_turn_sum(const sd_hparams *hp, int ctx);

// ---- graph.c

/// A steady step, queued on the stream: as a graph where it is one of a kind that has come before.
sd_status sd_cuda_run_steady(sd_context *cx, sd_error *err);
/// Whether steps of these adapters can be told from others.
bool sd_cuda_steady_adapters(const sd_context *cx);
void sd_cuda_graphs_close(sd_context *cx); // the stream is idle

// ---- pick.c

/// Whether the device's sampler does what the pick asks for.
bool sd_cuda_picks(const sd_pick *p);
sd_cuda_pick sd_cuda_pick_of(const sd_row *r); // without its sets
/// From the normed rows in cx->h: the head's logits, and what was wanted of them.
sd_status sd_cuda_finish(sd_context *cx, float *logits, sd_picked *picked, sd_error *err);
/// Queues the head and the device's picks of rows [k, k + n) of those that are kept.
sd_status sd_cuda_queue_head(sd_context *cx, int k, int n, sd_error *err);
void sd_cuda_pick_close(sd_context *cx);

// ---- kv_memory.c

struct sd_cuda_pages {
    sd_kv_memory base;
    const sd_cuda_device *dev;
    int device;
    sd_cuda_stream *stream; // of the context that opened it
    int L, G, D;
    sd_cuda_real real;
    bool codes;
    size_t value; // bytes of one
    size_t half;  // bytes of a page's keys, with their scales; as many of values behind them
    int *pages;   // [L]
    void **layer; // [L] on the device
    int failed;   // the error of a copy: the next step's
};
size_t sd_cuda_kv_bytes(const sd_context *cx);
sd_status sd_cuda_kv_open(sd_kv_memory **out, const sd_context *cx, const int *pages,
                          sd_error *err);
void sd_cuda_kv_close(sd_kv_memory *m);
/// Layer l as launches take it.
sd_cuda_kv sd_cuda_kv_of(const sd_cuda_pages *p, int l);
bool sd_cuda_kv_fits(const sd_context *cx, const sd_kv_memory *m);
void sd_cuda_kv_copy_page(sd_kv_memory *m, int l, int32_t to, int32_t from, int positions);
bool sd_cuda_kv_equal(const sd_kv *a, const sd_kv *b, int positions);

// ---- context.c, step_cost.c, forward.c: the other entries of sd_backend_cuda

sd_status sd_cuda_open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                       sd_error *err);
void sd_cuda_close(sd_context *cx);
void sd_cuda_memory(const sd_context *cx, sd_context_memory *out);
sd_status sd_cuda_plan(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                       int threads, int ctx, const int *const *rank, int n_adapters, sd_error *err);
bool sd_cuda_step_costs(sd_step_costs *out, sd_context *cx);
sd_status sd_cuda_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err);
/// Queues a steady step, from its tokens to those that are picked.
sd_status sd_cuda_queue_picked(sd_context *cx, sd_error *err);
sd_status sd_cuda_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                          sd_picked *picked, sd_error *err);
