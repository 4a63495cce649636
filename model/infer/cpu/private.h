// The CPU's backend (cpu.c): the state of a context, shared by its life (context.c) and its step:
// forward.c over block.c, which stands on region.c, lora.c, attention.c and kv_memory.c; pick.c takes
// tokens from its logits.
#pragma once

#include "base/files/map.h"
#include "model/infer/backend.h"
#include "model/infer/cpu/lora_weights.h"
#include "model/infer/key_scale.h"

#include <stdatomic.h>
#include <sys/mman.h>

// Rows [n0, n0 + n) of a step: one sequence, a few at a time.
typedef struct {
    int n0, n, first_task;
} sd_chunk;

// Rows [n0, n0 + n) of a step, all with one adapter.
typedef struct {
    int n0, n;
    const sd_lora_weights *weights;
} sd_lora_segment;

// The input of a region over columns, and the matrices that read it.
typedef struct {
    const float *x;    // [N, K]
    const float *norm; // [K] weight of the norm through which x is read; NULL: as it is
    int K, group;      // group: k that share a scale of the activations
    sd_proj from, to;
} sd_input;

// The same prepared for matmul: normed and quantised. Many rows are prepared once for all threads.
// A few rows each thread prepares for itself: fetching what another thread wrote takes longer.
typedef struct {
    _Alignas(64) int region; // number of the region it was made for
    float *xn;               // [N, C]
    sd_quant_rows act;
} sd_prepared_input;

/// Zeros that take no memory until they are written; NULL when there is no room.
static inline void *map_zero(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

struct sd_context {
    sd_context_base base;
    sd_model *model;
    sd_pool *pool;
    const sd_ops *ops;
    sd_compute compute;
    sd_kv_type kv;    // what its caches hold
    float *key_scale; // [L, G*D] powers of two that level the channels of keys before they become
                      // int8; NULL where nothing is known of them
    int max_rows;     // N below
    char *cache_dir;  // where packed weights are kept (weight_cache/cache.h); NULL: nowhere
    size_t cache_least;
    const atomic_bool *stop; // NULL: never

    // Picking: none where max_picked is 0.
    int max_picked;
    float *logits; // [max_picked, V] of steps with rows that want a token and no logits
    int *pick_row; // [max_picked] which of the wanted rows it is
    int samplers;
    sd_sampler **sampler; // [samplers] one a thread that may pick

    sd_packed_weight *packed; // [1 + L * SD_PROJ_COUNT]: the head [V, C], then
    sd_packed_weight *w;      // [L * SD_PROJ_COUNT] the matrices of the blocks
    int linears;              // of a layer
    int linear_of[SD_PROJ_COUNT], part_of[SD_PROJ_COUNT]; // which of them holds a matrix, and as
                                                          // its which one
    size_t packed_bytes;
    const sd_map *embedding; // the file from which its rows are read one by one; NULL: memory
    const uint64_t *
        row_sum; // [V] the checksum of each (model/infer/weight_cache/row_sums.h), where embedding is set
    atomic_bool lost; // a row of it could not be read, or is not what it was

    // Scratch, one mapping. Only as many rows are touched as steps have, so decoding does not pay for
    // a prefill.
    void *scratch;
    size_t scratch_bytes;
    float *x;             // [N, C]    the residual stream
    float *q, *att;       // [N, H*D]
    float *k, *v;         // [N, G*D]
    float *gate, *up;     // [N, F]
    float *y;             // [N, C]    what a block adds
    float *cos_n, *sin_n; // [ropes, N, rope_dim/2]
    sd_row *row;          // [N]       the step's rows
    // Frequencies for sequences within the original context, and beyond it (LongRoPE).
    double *inv;                                // [ropes, 2, rope_dim/2]
    double attn_scale[SD_MAX_ROPES][2];         // the factor on cos and sin
    sd_input in;                                // input of the parallel region now running
    int region;                                 // number of that region
    sd_prepared_input shared_input, *own_input; // own [threads]
    int own_input_rows;                         // rows that a thread prepares for itself, at most

    sd_lora_table *lora;      // the factors of adapters, as they are multiplied
    sd_lora_segment *segment; // [N] the step's rows with adapters
    int n_segments;
    float *u;  // [linear maps of a layer, N, cap_r]  their A x; grown when an adapter appears
    int cap_r; //
    atomic_int lora_a_left; // LoRA-A tasks of the region now running that are not done

    // Attention (attention.c)
    int *len;        // [N] positions that a row sees
    sd_chunk *chunk; // [N]
    int chunks, attention_tasks;
    int window;         // of the layer that the tasks were counted for
    bool by_span;       // a task is a span of a chunk, not a chunk
    float *att_scratch; // [threads, att_each]
    size_t att_each;
    float *parts; // [cap_parts, a head's part]; grown when the context does
    size_t cap_parts;

    int n, l; // rows and layer of the running step
};

// ---- context.c, memory.c, forward.c, step_cost.c: the entries of sd_backend_cpu

sd_status sd_cpu_open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                      sd_error *err);
void sd_cpu_close(sd_context *cx);
/// As the backend's plan and memory.
sd_status sd_cpu_plan(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                      int threads, int ctx, const int *const *rank, int n_adapters, sd_error *err);
void sd_cpu_memory(const sd_context *cx, sd_context_memory *out);
void sd_cpu_sleep(sd_context *cx);
sd_status sd_cpu_wake(sd_context *cx, sd_error *err);
sd_status sd_cpu_prepare_adapter(sd_context *cx, const sd_adapter *a, sd_error *err);
sd_status sd_cpu_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err);
sd_status sd_cpu_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                         sd_picked *picked, sd_error *err);
bool sd_cpu_step_costs(sd_step_costs *out, sd_context *cx);

// ---- memory.c: the sizes of what context.c takes

/// What cx is by its options, before anything is taken for it.
sd_status sd_cpu_configure(sd_context *cx, const sd_model *m, const sd_context_options *o,
                           sd_error *err);
/// Weight i of cx->packed [1 + L * SD_PROJ_COUNT], as the model has it.
const sd_weight *sd_cpu_weight_at(const sd_model *m, int i);
/// Bytes of the mapping for steps; where base is not NULL, the pointers into it are set.
size_t sd_cpu_lay_out(sd_context *cx, char *base);
/// The widest input of a matrix.
int sd_cpu_widest(const sd_hparams *hp);
/// Rows that a thread prepares for itself, at most.
int sd_cpu_own_rows(int threads);

// ---- pick.c

sd_status sd_pick_open(sd_context *cx, int max_picked, sd_error *err);
void sd_pick_close(sd_context *cx);
size_t sd_pick_bytes(int max_picked, int V, int threads); // what opening takes
/// SD_EINVAL where rows want tokens and the context was not opened for so many.
sd_status sd_pick_check(const sd_context *cx, const sd_row *rows, int n, sd_error *err);
/// Where the step's head writes the logits of the cx->n wanted rows: `logits` when all of them want
/// theirs.
float *sd_pick_logits(sd_context *cx, float *logits);
/// From there: logits <- of the rows that want them, picked <- the tokens of those with a pick.
void sd_pick_tokens(sd_context *cx, const float *from, float *logits, sd_picked *picked);

// ---- lora.c

/// cx->run <- the step's rows with adapters: neighbouring rows of one adapter go together.
sd_status sd_lora_segments(sd_context *cx, sd_error *err);
/// u of linear map i of the layer, for the rows [n0, n1).
void sd_lora_a(sd_context *cx, const sd_prepared_input *in, int i, int n0, int n1);
/// y [N, M] of matrix p, columns [m0, m1) += B u, once all u of the running region are there.
void sd_lora_b(sd_context *cx, sd_proj p, float *y, int M, int m0, int m1);

// ---- region.c

enum { SD_TASKS_PER_THREAD = 2 };
typedef void (*sd_row_part)(sd_context *cx, int n0, int n1);
typedef void (*sd_col_part)(sd_context *cx, const sd_quant_rows *x, int which, int m0, int m1);

/// part over all rows; values: what one row costs.
void sd_by_rows(sd_context *cx, sd_row_part part, int values);
/// part over the columns of one to three matrices that read `in`: a, b and c columns, 0 for fewer.
/// The LoRA-A products of what they read run as the first tasks.
void sd_by_columns(sd_context *cx, sd_col_part part, sd_input in, int a, int b, int c);
/// The regions that follow read `in`.
void sd_read_from(sd_context *cx, sd_input in);
/// The input of the running region, prepared, as one thread uses it.
const sd_prepared_input *sd_prepared_input_of(sd_context *cx, int worker);

// ---- block.c

/// Layer cx->l of the step.
void sd_run_layer(sd_context *cx);

// ---- kv_memory.c

size_t sd_cpu_kv_bytes(const sd_context *cx);
sd_status sd_cpu_kv_open(sd_kv_memory **out, const sd_context *cx, const int *pages, sd_error *err);
void sd_cpu_kv_close(sd_kv_memory *m);
bool sd_cpu_kv_fits(const sd_context *cx, const sd_kv_memory *m);
void sd_cpu_kv_copy_page(sd_kv_memory *m, int l, int32_t to, int32_t from, int positions);
bool sd_cpu_kv_equal(const sd_kv *a, const sd_kv *b, int positions);
/// Zeros in all pages, which then are memory of their own.
void sd_cpu_kv_clear(sd_kv_memory *m);
/// r's layer, pages, kv head and offsets, in the running layer.
void sd_kv_locate(sd_attention_rows *r, const sd_context *cx, const sd_kv *kv, int g);
/// k [G, D] and v [G, D] into row r's place in the running layer.
void sd_kv_store(const sd_context *cx, const sd_row *r, const float *k, const float *v);
/// q [H, D] times and k [G, D] divided by the scales of the keys' channels, for one row.
void sd_kv_scale_keys(const sd_context *cx, float *q, float *k);

// ---- attention.c

/// Scratch of all threads, for the context's life.
sd_status sd_attention_open(sd_context *cx, sd_error *err);
size_t sd_attention_bytes(const sd_context *cx, int threads); // of it
/// Parts that steps may need at most, in bytes; and those that there is memory for now.
size_t sd_attention_most_parts(const sd_context *cx, int threads, int ctx);
size_t sd_attention_parts(const sd_context *cx);
/// How the step's rows are cut. The tasks are those of the layer that has most.
void sd_attention_plan(sd_context *cx);
/// The same for those that are left in the running layer, in the memory that there is.
void sd_attention_replan(sd_context *cx);
/// Memory for the plan: only ever grows, so a steady state allocates nothing.
sd_status sd_attention_reserve(sd_context *cx, sd_error *err);
/// att [N, H*D] <- the step's rows over their caches, in the running layer.
void sd_attention_run(sd_context *cx);
