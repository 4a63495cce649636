// Drafters: proposals of the tokens that follow a timeline.
//
// One interface for all sources. A kind of drafter (sd_drafter_kind) says what an engine must know
// of it; a drafter of that kind follows one request's timeline (prompt and emitted tokens) and has
// a cursor that walks ahead of it over drafted tokens. Drafters compete position by position: each
// is asked for its proposal, one is taken, and all cursors advance over it. A kind whose proposals
// cost less together may also answer for the drafters of several requests at once (peek_many).
//
//     kind->begin(d, &start);                  // a new request
//     while (decoding) {
//         if (kind->prepare && !kind->prepare(d, rows)) continue; // not ready in this round
//         kind->rewind(d);                     // the cursor stands at the timeline's end
//         while (want more && kind->peek(d, &proposal)) kind->advance(d, proposal.token);
//         ... verify, append what was emitted to the timeline ...
//         kind->observe(d, n);
//     }
//     if (kind->end) kind->end(d);
//
// Proposals never change what is emitted (kernels/sample/sampler.h), only how fast. No call
// allocates but share and open. Drafters belong to the engine's thread.
#pragma once

#include "datasets/corpus/corpus_index.h"
#include "decode/draft/list.h"
#include "decode/draft/open.h"
#include "kernels/sample/sampler.h"
#include "model/grammar/grammar.h"
#include "model/infer/forward.h"

enum { SD_BUCKETS = 40 }; // classes of proposals whose acceptance is counted apart

typedef struct {
    int32_t token;
    int bucket;       // 0 <= bucket < SD_BUCKETS
    float confidence; // 0..1, before any calibration
} sd_proposal;

/// How the target shapes the logits of the token behind the timeline and ahead [n <= SD_MAX_DRAFT],
/// for drafters that draw as it does. Returns out, filled, or NULL: not at all. recent
/// [SD_MAX_DRAFT] is the caller's memory, and what out points to stays until the next call.
typedef const sd_shaping *(*sd_draft_shaping_fn)(void *ctx, sd_shaping *out, sd_token_seen *recent,
                                                 const int32_t *ahead, int n);

/// The only token that may stand behind the timeline and ahead [n <= SD_MAX_DRAFT], whatever the logits and the
/// grammar say; -1: there are others.
typedef int32_t (*sd_draft_forced_fn)(void *ctx, const int32_t *ahead, int n);

/// What a drafter is told of a request.
typedef struct {
    const int32_t *timeline; // the caller's; grows in place, outlives the request
    int n;                   // tokens there now
    const sd_sampling *sampling;
    const sd_corpus *corpus;   // the request's own index, which outlives it; NULL: none
    const sd_adapter *adapter; // of the target, for this request; NULL: the base
    const sd_adapter
        *draft_adapter; // of the draft model, which outlives the request; NULL: the shared one
    const sd_grammar_state *grammar; // behind the timeline, kept there by the caller; NULL: none
    sd_draft_shaping_fn shaping;     // NULL: nothing shapes its logits
    void *shaping_ctx;
    sd_draft_forced_fn forced; // NULL: no such token comes
    void *forced_ctx;
} sd_draft_start;

/// What the kinds of drafters are told of an engine that opens.
typedef struct {
    const sd_model *target;
    const sd_draft *draft; // what was given to draft from, opened; outlives the engine's drafters
    const char *path;      // its path, for errors; NULL: none was given
    sd_pool *pool;         // the engine's
    const sd_context_options *context; // for a context of a drafter's own, whose rows it chooses
    bool asked;                        // the engine's requests draft with this kind alone
    int drafters, ctx; // how many of a kind are open at once, and the positions of their timelines
    // Positions of keys and values that all drafters of a kind have together, where it keeps some; 0:
    // ctx for each.
    int64_t kv_positions;
} sd_draft_setup;

/// What the drafters of an engine have in common takes: of a draft model, as of a context.
typedef struct {
    sd_context_memory context;
    sd_kv_memory_sizes kv;
} sd_draft_memory;
/// The same before anything is opened, for a draft model; rank [draft->n_linears] of its adapter, or NULL.
/// *kv <- its pool.
sd_status sd_draft_model_plan(sd_draft_memory *out, sd_kv_plan *kv, const sd_model *draft,
                              const sd_draft_setup *setup, int threads, const int *rank,
                              sd_error *err);

typedef struct sd_drafter_kind sd_drafter_kind;
typedef struct {
    const sd_drafter_kind *kind;
} sd_drafter;

struct sd_drafter_kind {
    const char *name; // in options, statistics and reports; below SD_DRAFTER_NAME bytes
    /// The error where this kind was asked for and has nothing to draft from: a sentence with its
    /// remedy. NULL: there is always something.
    const char *absent;

    // ---- of an engine

    /// *shared <- what this kind's drafters of one engine have in common. *present false: the
    /// engine has nothing that such drafters could ever draft from, and goes without the kind.
    /// NULL: present, and nothing is shared.
    sd_status (*share)(void **shared, bool *present, const sd_draft_setup *setup, sd_error *err);
    void (*unshare)(void *shared); // after the kind's drafters
    /// Whether a request with this index of its own (or NULL) can be drafted for; NULL: each can.
    bool (*serves)(const void *shared, const sd_corpus *own);
    /// Bytes of weights that a proposal reads: what it costs until its time was measured. NULL:
    /// proposals are free, are asked for first and never timed.
    size_t (*read_bytes)(const void *shared);
    /// Bytes of keys and values of all drafters of one engine. NULL: they keep none.
    size_t (*kv_bytes)(const void *shared);
    /// What runs their own model; NULL: they have none.
    sd_context *(*context)(void *shared);
    /// *out <- the bytes of what drafters share; NULL: nothing that counts.
    void (*memory)(const void *shared, sd_draft_memory *out);
    /// Bytes of a drafter for timelines of ctx tokens, without keys and values. NULL: too few to count.
    size_t (*bytes)(int ctx);
    /// A drafter of this kind for timelines of ctx tokens; all its memory is taken here.
    sd_status (*open)(sd_drafter **out, void *shared, int ctx, sd_error *err);

    // ---- of a drafter

    void (*close)(sd_drafter *d);
    void (*begin)(sd_drafter *d, const sd_draft_start *start);
    /// The request is over, or has lost its slot: what was lent to it is given back. NULL: nothing.
    void (*end)(sd_drafter *d);
    /// The timeline has n tokens now (more than before).
    void (*observe)(sd_drafter *d, int n);
    /// Positions to compute before it can propose. NULL, as prepare: it is always ready.
    int (*missing)(const sd_drafter *d);
    /// Computes at most `rows` of them; true when it is ready.
    bool (*prepare)(sd_drafter *d, int rows);
    /// The cursor back to the timeline's end.
    void (*rewind)(sd_drafter *d);
    /// The proposal at the cursor; false when there is none. May be called again: the same answer.
    bool (*peek)(sd_drafter *d, sd_proposal *out);
    /// The cursor moves over `token`, which need not be this drafter's proposal.
    void (*advance)(sd_drafter *d, int32_t token);
    /// The probability that proposals of this bucket are accepted, before anything was measured.
    float (*prior)(int bucket);

    // ---- of several drafters of one engine at once, none of them twice

    /// As prepare for each, ready [n] <- its answer, with at most `rows` positions for all together;
    /// those that lack the fewest come first. NULL, as peek_many: they are asked one by one.
    void (*prepare_many)(sd_drafter *const *d, bool *ready, int n, int rows);
    /// As peek for each: out [n] and made [n] <- its proposal and its answer, the same that each
    /// would give alone.
    void (*peek_many)(sd_drafter *const *d, sd_proposal *out, bool *made, int n);
};

/// The list of list.h, NULL behind the last.
extern const sd_drafter_kind *const sd_drafters[];
#define SD_DRAFTER_DECLARE(spec, kind, word) extern const sd_drafter_kind sd_drafter_##kind;
SD_DRAFTER_LIST(SD_DRAFTER_DECLARE)
#undef SD_DRAFTER_DECLARE

void sd_drafter_close(sd_drafter *d); // NULL is fine
