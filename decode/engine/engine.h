// The engine: owns the sessions, their caches, the drafters and the controller; batches all running
// requests into one forward pass per step.
//
// One thread (the one that calls sd_engine_step) does all tensor work. Submitting and cancelling
// are thread-safe; events are delivered on the engine's thread. The tokens of a request depend on
// its prompt, parameters and seed alone: never on the batch, on speculation, on threads, or on how
// the prompt was chunked.
//
//     sd_engine *e;
//     SD_TRY(sd_engine_open(&e, model, &(sd_engine_options){.ctx = 4096, .slots = 8}, err));
//     uint64_t id;
//     SD_TRY(sd_engine_submit(e, &request, &id, err));
//     while (sd_engine_step(e)) {}       // until nothing is left to do
#pragma once

#include "decode/draft/list.h"
#include "kernels/sample/sampler.h"
#include "model/grammar/schema/cache.h"
#include "model/infer/forward.h"

typedef struct sd_engine sd_engine;

// ---- options

// auto: whatever drafts best; a drafter's mode: that one alone.
#define SD_SPEC_ENUM(spec, kind, word) SD_SPEC_##spec,
typedef enum {
    SD_SPEC_AUTO,
    SD_SPEC_OFF,
    SD_DRAFTER_LIST(SD_SPEC_ENUM) SD_SPEC_COUNT
} sd_spec_mode;
#undef SD_SPEC_ENUM
#define SD_SPEC_BAR_WORD(spec, kind, word) "|" word
#define SD_SPEC_MODES "auto|off" SD_DRAFTER_LIST(SD_SPEC_BAR_WORD) // for options

typedef struct {
    int ctx;           // positions per slot; 0: the smaller of 4096 and the model's
    int slots;         // requests decoded at once; 0: 8
    int reserve;       // further slots, only for clients that hold none
    int queue;         // requests that may wait beyond the free slots; 0: 64
    int prefill_chunk; // prompt rows of one step at most; 0: 192
    double step_ms;    // > 0: with prompt rows no step takes longer than the larger of this and 1.5
                       // times its decoding rows, as far as that can be foreseen
    int threads;       // 0: one per processor
    sd_compute compute;
    sd_kv_type kv; // auto: two bytes a value, fp32 under SD_COMPUTE_FP32; a draft model's is auto
    size_t kv_memory;     // bytes of keys and values, of all requests and what is kept of earlier
                          // ones; 0: so many that all slots find theirs at their longest
    bool no_prefix_cache; // nothing is kept of earlier requests
    const char *isa;
    const sd_backend *backend; // where the model runs, a draft model too; NULL: the CPU
    int device;                // which of its devices
    double sleep_idle_s;       // > 0: after so long without a request it sleeps
    sd_spec_mode spec;         // the default of a request
    int spec_length;           // > 0: every draft is forced to this length (for tests)
    const char *draft; // NULL, a model, a corpus index file, or a run's folder or its draft/ folder
    const char *draft_adapter; // of the draft model; NULL: none
    int64_t
        draft_kv; // positions of the draft model's keys and values, of all slots; 0: ctx for each.
                  // A request for which none are left is drafted for by other drafters alone.
    struct sd_trace *trace; // of rounds (decode/draft/trace.h), for the engine's life; NULL: none
    // The kinds of drafters to register, NULL behind the last; NULL: all that there are (sd_drafters).
    const struct sd_drafter_kind *const *drafters;
    sd_weight_cache cache;   // of packed weights, the draft model's too (sd_context_options)
    const atomic_bool *stop; // ends the opening, and steps, with SD_EINTERRUPTED; NULL: never
} sd_engine_options;

// ---- what comes back

// clang-format off
#define SD_FINISH_LIST(X)                                                                          \
    X(NONE, "") X(STOP, "stop") X(LENGTH, "length") X(CANCELLED, "cancelled") X(ERROR, "error")
#define SD_FINISH_ENUM(name, word) SD_FINISH_##name,
typedef enum { SD_FINISH_LIST(SD_FINISH_ENUM) SD_FINISH_COUNT } sd_finish;
#undef SD_FINISH_ENUM
// clang-format on
const char *sd_finish_name(sd_finish f); // its word

typedef struct {
    int32_t token;
    float logprob; // under the untempered distribution; 0 unless logprobs were asked for
    int n_top;
    struct {
        int32_t token;
        float logprob;
    } top[20];
} sd_token_info;

typedef struct {
    int64_t rounds, drafted, accepted;
    struct {
        char name[SD_DRAFTER_NAME]; // empty: no more
        int64_t drafted, accepted;
    } by[SD_MAX_DRAFTERS];             // in the order of the engine's list of drafters
    int64_t accepted_at[SD_MAX_DRAFT]; // accepted drafts by position in the draft
} sd_spec_stats;
/// sum += sign * a; both are of engines with the same drafters.
void sd_spec_stats_add(sd_spec_stats *sum, const sd_spec_stats *a, int sign);

typedef struct {
    double queue_ms, prefill_ms, decode_ms; // decode: first to last token
    int prompt_tokens;
    int cached_tokens; // of the prompt: found, not computed
    int generated;     // tokens, with the end token that is not delivered
    int reasoning;     // of them: of reasoning, without its marks
    int stop;          // the stop string that ended it: its number, from 1; 0: none did
    bool whole;        // it ended where its constraint lets it: to be checked (sd_grammar_check)
    sd_spec_stats spec;
} sd_request_stats;

/// Called on the engine's thread: n new tokens (0 with a finish), and the end. `text` is the new
/// text as complete UTF-8, stop strings already cut off; it stays valid during the call only. Must
/// not block. error: one sentence when finish is SD_FINISH_ERROR.
typedef struct {
    uint64_t id;
    const sd_token_info *tokens;
    int n;
    bool
        of_prompt; // the tokens are the prompt's, in their order: the request scores it. There is no text
    int cached_tokens; // of the prompt, as far as it is known now
    const char *text;
    size_t text_len;
    sd_finish finish;
    const char *error;
    const sd_request_stats *stats; // valid when finish is set
    const float *values; // [n_values] of a request that reads, with its end where all went well
    int n_values;
} sd_event;
typedef void (*sd_event_fn)(void *ctx, const sd_event *event);

// ---- requests

enum {
    SD_MAX_STOPS = 16,
    SD_MAX_REQUEST_ENDS = 2,
    SD_MAX_BIAS = 1024,
    SD_MAX_BAD_WORDS = 64,       // words; each has two sequences at most
    SD_MAX_BAD_WORD_TOKENS = 64, // of one sequence
    SD_MAX_MIN_TOKENS = 1 << 24,
    SD_MAX_REASONING_MARK = 64, // bytes
    SD_MAX_FORCED = 96,         // tokens
    SD_MAX_SHOWN_TOKENS = 16,
    SD_MAX_READ_TOKENS = 1024
};

/// What a request makes of its logits, in the order of kernels/sample/sampler.h. Zeroed does
/// nothing. Arrays are copied.
typedef struct {
    float presence, frequency; // -2..2, over the answer
    float repetition;          // .01..100, over prompt and answer; 0 and 1: off
    const sd_token_bias *bias; // [n_bias <= SD_MAX_BIAS] -100..100
    const int32_t *allowed;    // [n_allowed] the only tokens of the answer; none: all
    const int32_t *bad_words;  // [n_bad_words] sequences, each behind its length (bad_words.h)
    int n_bias, n_allowed, n_bad_words;
    // The answer's first so many tokens do not end it: end tokens, stop tokens and the request's
    // ends are not allowed for them, and a stop string within them ends nothing.
    int min_tokens;
} sd_request_shaping;

/// Where an answer's text reasons, and how much of it may. It begins with its opening mark, at the answer's
/// beginning behind white space at most, and ends with its closing mark; tokens between the ones that complete these
/// count. Behind the budget's last one the forced tokens are said, whatever else the request asks for: each of
/// them is the only one that its row allows, and none ends the answer.
typedef struct {
    const char *open,
        *close;  // copied; of 1 to SD_MAX_REASONING_MARK bytes. NULL: nothing is looked for
    bool inside; // the prompt ends within reasoning
    bool again;  // it may begin anywhere in the answer, more than once
    bool bounded;
    int budget;            // bounded: tokens in all
    const int32_t *forced; // [n_forced <= SD_MAX_FORCED] copied; they end the reasoning
    int n_forced;
} sd_request_reasoning;

// What a request reads of its prompt, in the place of an answer: it says nothing, and its end brings values.
typedef enum {
    SD_READ_NOTHING,
    SD_READ_TOKENS, // the log probabilities of some tokens behind the prompt, in their order
    SD_READ_LAST,   // [C] the row of the prompt's last token behind the last norm
    SD_READ_MEAN, // [C] the mean of all its rows, in double; nothing of it is found, all is computed
    SD_READ_KINDS
} sd_read_kind;

typedef struct {
    sd_read_kind kind;
    const int32_t *token; // [1 <= n_tokens <= SD_MAX_READ_TOKENS] of TOKENS; copied
    int n_tokens;
} sd_request_reading;

typedef struct {
    const int32_t *prompt; // copied
    int n_prompt;          // 1 <= n_prompt < ctx and what kv_memory holds, else SD_EINVAL with both
    int max_tokens;        // <= 0: until the context is full
    sd_sampling sampling;
    sd_request_shaping shaping;
    sd_request_reasoning reasoning;
    const char *stop[SD_MAX_STOPS]; // strings, copied
    int n_stop;
    const int32_t *stop_token; // copied; beside the model's end tokens
    int n_stop_token;
    int32_t end_token[SD_MAX_REQUEST_ENDS]; // of this request's conversation, beside the model's
    int n_end_tokens;
    // Special tokens whose text is part of the answer's text; that of others never is.
    int32_t shown_token[SD_MAX_SHOWN_TOKENS];
    int n_shown_tokens;
    bool ignore_end; // do not stop at these and the model's end tokens
    int logprobs;    // -1: none; 0..20: so many alternatives; of the logits before shaping
    bool score; // with logprobs: the prompt's tokens come first, the first with a logprob of NaN.
                // What the prefix cache has of what is scored is computed again
    int score_from; // with score: the prompt's tokens before this one have NaN too, and may be found
    bool no_answer;             // it ends behind its prompt, with SD_FINISH_LENGTH
    sd_request_reading reading; // it ends behind its prompt, with SD_FINISH_STOP
    sd_adapter *adapter;        // acquired; NULL: the base
    sd_adapter *draft_adapter;  // of the draft model, acquired; NULL: the engine's, if it has one
    sd_grammar *grammar;        // acquired; NULL: none. What the answer is held to
    sd_grammar_spec constraint; // what `grammar` is compiled from, for whoever sends a request on
    struct sd_corpus *corpus;   // the adapter's own index, acquired; NULL: none
    sd_spec_mode spec;
    int max_draft;       // tokens of one draft at most; 0: as many as pay
    uint64_t client;     // whose it is: slots, prompt rows and the queue are shared out by client
    uint64_t tenant;     // what is kept of its tokens is found by requests of this tenant alone
    int priority;        // lower is first, among those of its client
    bool admin_priority; // ... and before or behind all clients' requests, which have 0
    sd_event_fn on_event;
    void *ctx;
} sd_request;

// ---- the engine

sd_status sd_engine_open(sd_engine **out, sd_model *m, const sd_engine_options *o, sd_error *err);
void sd_engine_close(sd_engine *e); // requests still there are cancelled, their events delivered

/// Thread-safe. Would n requests of the client be taken now? Others that submit may be quicker.
bool sd_engine_has_room(sd_engine *e, uint64_t client, int n);
/// Thread-safe. Seconds until there is room for n, from the tokens that run and wait and the speeds
/// measured of late; 0: there is room, or nothing was measured yet.
double sd_engine_wait_s(sd_engine *e, uint64_t client, int n);
/// Thread-safe. SD_ELIMIT when the queue is full (for this client: others may have a share of it
/// left); SD_EINVAL names what is wrong.
sd_status sd_engine_submit(sd_engine *e, const sd_request *r, uint64_t *id, sd_error *err);
/// Thread-safe. The request ends with SD_FINISH_CANCELLED at the next step; an id that is gone is
/// ignored.
void sd_engine_cancel(sd_engine *e, uint64_t id);

/// The model that drafts; NULL: none does. For adapters of it.
sd_model *sd_engine_draft_model(const sd_engine *e);
/// Makes ready what requests with these adapters need (of_draft: the draft model's, or NULL), so that no step
/// waits for it or runs out of memory because of it. Blocks: what takes long is done on the caller's thread,
/// the rest between two steps, and *stopped_s is how long the next step had to wait. Any thread but the
/// engine's. SD_EINTERRUPTED once sd_engine_stop_errands was called.
sd_status sd_engine_take_adapters(sd_engine *e, const sd_adapter *a, const sd_adapter *of_draft,
                                  double *stopped_s, sd_error *err);
/// Sleeping, an engine has given the memory of its weights back; the next request wakes it, or sd_engine_wake_up.
/// What others do between steps is awaited as above. SD_ELIMIT where requests run or wait, SD_EINVAL where the
/// device's weights cannot go.
sd_status sd_engine_sleep(sd_engine *e, sd_error *err);
/// *seconds: how long it took; 0: it was awake. SD_EIO: as sd_context_wake.
sd_status sd_engine_wake_up(sd_engine *e, double *seconds, sd_error *err);
/// Nobody steps any more: those that wait between steps wait no longer. Thread-safe.
void sd_engine_stop_errands(sd_engine *e);

/// One round for every running request: prefill chunk, or draft + verify. True while there is work
/// left.
bool sd_engine_step(sd_engine *e);
/// Blocks until there is work, sd_engine_wake is called, or timeout_ms has passed. For a serving
/// loop.
void sd_engine_wait(sd_engine *e, int timeout_ms);
void sd_engine_wake(sd_engine *e); // thread-safe

/// Into the trace: what each drafter would have proposed at each token of this answer, of a request
/// that is over. answer [n]: the tokens that were delivered. SD_EINVAL while a request runs.
sd_status sd_engine_trace_answer(sd_engine *e, const sd_request *r, uint64_t id,
                                 const int32_t *answer, int n, sd_error *err);

// ---- memory

// X(member, taken as requests need it, words): the parts, and what each may become at most. The others
// are taken when the engine opens.
// clang-format off
#define SD_ENGINE_MEMORY_LIST(X)                                                                   \
    X(weights, false, "packed weights")                                                            \
    X(steps, false, "activations and logits of a step")                                            \
    X(splits, true, "attention over long contexts")                                                \
    X(adapters, true, "adapters, packed, and their products")                                      \
    X(kv_pages, false, "keys and values")                                                          \
    X(kv_tables, false, "tables of their pages")                                                   \
    X(prefix_tree, false, "prefix cache's tree")                                                   \
    X(slots, false, "slots: timelines, suffix drafters")                                           \
    X(masks, true, "masks of constrained answers")                                                 \
    X(draft_index, false, "draft's corpus index")                                                   \
    X(draft_weights, false, "draft model's packed weights")                                        \
    X(draft_steps, false, "draft model's activations, adapter")                                    \
    X(draft_kv, false, "draft model's keys and values")
// clang-format on
typedef struct {
#define SD_ENGINE_MEMORY_MEMBER(member, grows, words) size_t member;
    SD_ENGINE_MEMORY_LIST(SD_ENGINE_MEMORY_MEMBER)
#undef SD_ENGINE_MEMORY_MEMBER
} sd_engine_memory; // bytes

/// What an engine will be asked to run beside its model.
typedef struct {
    const int *const *rank; // [n_adapters][m->n_linears] of adapters of requests; 0: no factors
    int n_adapters;
    const sd_model *draft; // what options.draft names, where it is a model; NULL: none
    const int *draft_rank; // [draft->n_linears] of its adapter; NULL: none
    size_t draft_index;    // bytes of what options.draft names, where it is a corpus index
} sd_engine_load;

typedef struct {
    sd_engine_memory memory; // of parts that grow the most that they may become
    sd_kv_type kv_type;
    sd_kv_plan kv, draft_kv;
    int ctx, slots, reserve, queue, threads; // slots: without the reserve
} sd_engine_memory_plan;
/// From sizes alone: no weight is read, and nothing that o names is opened. Errors as
/// sd_engine_open's.
sd_status sd_engine_plan_memory(sd_engine_memory_plan *out, sd_model *m, const sd_engine_options *o,
                                const sd_engine_load *load, sd_error *err);

/// Bytes that an engine of such a model has of a request at most, its slot's apart: with all lists as long as
/// they may be; n_forced: tokens that end its reasoning. Of one that gave its slot back, the answer comes beside it.
size_t sd_engine_request_bytes(const sd_model *m, int n_prompt, int n_stop_token, int n_forced);

// ---- statistics

typedef struct {
    const char *device; // its word: "cpu", "cuda"
    int running, waiting;
    int slots, queue; // as opened, without the reserve
    int ctx;
    size_t kv_bytes;           // the pool
    size_t draft_kv_bytes;     // of a draft model
    int64_t kv_used, kv_total; // positions; used: by running requests, once however many read them
    bool prefix_cache;
    int64_t prefix_queries, prefix_hits; // tokens of prompts that were looked for, and found
    int64_t prompt_tokens, generated_tokens, steps, preemptions;
    int64_t nonfinite; // requests that ended because their logits were not finite
    bool asleep;
    int64_t sleeps, wake_ups;   // so far
    double wake_s, last_wake_s; // of all wake-ups, and of the last
    bool model_lost;  // a step failed because the model's file is not what was loaded any more
    bool wake_failed; // the last waking did, for that reason or another; one that succeeds ends it
    double busy_s;
    double slot_s;       // each step's time, once for each request in it
    double constraint_s; // of that, making and finding the masks of rows
    sd_spec_stats spec;
    sd_engine_memory memory; // now
} sd_engine_stats;
/// Thread-safe.
void sd_engine_get_stats(sd_engine *e, sd_engine_stats *out);
