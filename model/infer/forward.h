// The transformer forward of inference: rows of tokens in, logits out, keys and values into the
// rows' caches.
//
// A row's bits depend on its own token, position, cache and adapter alone (kernels/ops.h): decoding
// a token by itself, in a batch, as a verified draft or inside a prompt of any chunking gives the
// same logits, bit for bit.
//
//     sd_context *cx;  sd_kv *kv;
//     SD_TRY(sd_context_open(&cx, model, pool, &(sd_context_options){.max_rows = 64}, err));
//     SD_TRY(sd_kv_open(&kv, cx, 4096, err));
//     sd_row row = {.token = t, .pos = kv->len, .kv = kv, .want_logits = true};
//     SD_TRY(sd_forward(cx, &row, 1, logits, err));
//     kv->len++; // committed by the caller
#pragma once

#include "base/pool.h"
#include "kernels/sample/sampler.h"
#include "model/adapter/adapter.h"
#include "model/infer/device.h"
#include "model/infer/kv_cache.h"
#include "model/infer/weight_cache/place.h"
#include "model/model.h"

#include <stdatomic.h>

typedef struct {
    int max_rows; // rows of one step; 0: 512
    sd_compute compute;
    sd_kv_type kv;   // auto: two bytes a value, fp32 under SD_COMPUTE_FP32
    const char *isa; // NULL: the best
    // Where packed weights are kept, after sd_weight_cache_attach; dir is copied.
    sd_weight_cache cache;
    // Once set, packing, timing and steps end with SD_EINTERRUPTED; NULL: never.
    const atomic_bool *stop;
    const sd_backend *backend; // NULL: the CPU's
    int device;                // which of its devices
    // Rows of one step that want logits or a token, at most, where some want a token; 0: none does.
    int max_picked;
} sd_context_options;

/// Packs the weights: memory and time of their size, so open one context per model and process. One
/// thread at a time may use a context.
sd_status sd_context_open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                          sd_error *err);
void sd_context_close(sd_context *cx);
sd_model *sd_context_model(const sd_context *cx);
int sd_context_max_rows(const sd_context *cx);
size_t sd_context_bytes(const sd_context *cx); // packed weights and scratch

/// What a context takes, in bytes.
typedef struct {
    size_t weights; // packed, and the sums of rows that are read from their file
    size_t steps;   // activations, logits, samplers: taken when it is opened
    size_t
        adapters;  // their packed factors, and those times a step's rows: taken at their first row
    size_t splits; // parts of attention over long sequences, as far as they have come
} sd_context_memory;
void sd_context_get_memory(const sd_context *cx, sd_context_memory *out); // now

/// What a context will take: as above, with all that is taken later; and its pages.
typedef struct {
    sd_context_memory memory;
    sd_kv_type kv;   // of keys and values: never auto
    size_t kv_bytes; // of one position in one layer
} sd_context_plan;
/// From the model's sizes alone; no weight is read. threads: of its pool, as sd_pool_open takes them;
/// ctx: positions of a sequence at most; rank [n_adapters][m->n_linears] of the adapters whose rows may
/// come, 0 where one has no factors. SD_EINVAL and SD_ELIMIT as sd_context_open.
sd_status sd_context_plan_open(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                               int threads, int ctx, const int *const *rank, int n_adapters,
                               sd_error *err);

/// Gives the packed weights' memory back; no step is possible until it woke. Keys, values and adapters stay, and
/// results are those of a context that never slept. False: this backend cannot.
bool sd_context_sleep(sd_context *cx);
/// Packs the weights again, or reads them from the cache: SD_EIO where the model's files are not what was opened.
/// After an error it sleeps on. Nothing is done where it is awake.
sd_status sd_context_wake(sd_context *cx, sd_error *err);

/// How a row's next token is picked from its logits: by sd_sample, at position pos + 1.
typedef struct {
    const sd_sampling *sampling;
    const sd_shaping *shaping; // NULL: none
    bool logprob;              // the token's log probability is wanted
} sd_pick;

typedef struct {
    int32_t token; // -1: the logits are no law, or no token is allowed (sd_sample)
    float
        logprob; // where it was wanted and there is a token: sd_logprob, of the logits as they are
} sd_picked;

typedef struct {
    int32_t token;
    int pos; // 0 <= pos < kv->ctx, with a page; everything below pos is in the cache or earlier in this batch
    sd_kv *kv;
    const sd_adapter *adapter; // NULL: the base
    bool want_logits;
    const sd_pick *pick; // NULL: no token is wanted
    float *hidden;       // [C] <- the row behind the last norm; NULL: it is not wanted
} sd_row;

/// What takes long of sd_context_take_adapter, ahead of it: on any thread, while another one may step.
sd_status sd_context_prepare_adapter(sd_context *cx, const sd_adapter *a, sd_error *err);
/// Packs the adapter's factors and takes their scratch, as sd_forward would do at the adapter's first
/// row. Afterwards no step runs out of memory because of this adapter.
sd_status sd_context_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err);

/// logits [n_want, V] <- for the rows that want them, in their order; rows of one cache stand in
/// ascending order of pos. 1 <= n <= max_rows. logits may be NULL when no row wants any. Does not
/// change kv->len. Tokens out of range are SD_EINVAL. No row has a pick.
sd_status sd_forward(sd_context *cx, const sd_row *rows, int n, float *logits, sd_error *err);

/// The same where rows may also want tokens: picked [n_pick] <- for the rows with a pick, in their
/// order. They are those that sd_sample picks from the row's logits, which stay where they are
/// unless the row wants them too.
sd_status sd_forward_pick(sd_context *cx, const sd_row *rows, int n, float *logits,
                          sd_picked *picked, sd_error *err);
