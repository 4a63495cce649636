// Drafters: proposals of the tokens that follow a timeline.
//
// One interface for all sources. A drafter follows one request's timeline (prompt and emitted
// tokens) and has a cursor that walks ahead of it over drafted tokens, so that sources can compete
// position by position: each is asked for its proposal, one is taken, and all cursors advance over
// it.
//
//     ops->begin(d, &start);                 // a new request
//     while (decoding) {
//         ops->rewind(d);                    // the cursor stands at the timeline's end
//         while (want more && ops->peek(d, &proposal)) ops->advance(d, proposal.token);
//         ... verify, append what was emitted to the timeline ...
//         ops->observe(d, n);
//     }
//
// Proposals never change what is emitted (decode/sample/sampler.h), only how fast. No call allocates.
// Drafters belong to the engine's thread.
#pragma once

#include "datasets/corpus/corpus_index.h"
#include "decode/draft/source.h"
#include "decode/sample/sampler.h"
#include "model/infer/forward.h"

enum { SD_BUCKETS = 40 }; // classes of proposals whose acceptance is counted apart

typedef struct {
    int32_t token;
    int bucket;       // 0 <= bucket < SD_BUCKETS
    float confidence; // 0..1, before any calibration
} sd_proposal;

typedef struct {
    const int32_t *timeline; // the caller's; grows in place, outlives the request
    int n;                   // tokens there now
    const sd_sampling *sampling;
} sd_draft_start;

typedef struct sd_drafter sd_drafter;
typedef struct {
    sd_source source;
    void (*begin)(sd_drafter *d, const sd_draft_start *start);
    /// The timeline has n tokens now (more than before).
    void (*observe)(sd_drafter *d, int n);
    /// The timeline was cut to its first n tokens.
    void (*rollback)(sd_drafter *d, int n);
    /// The cursor back to the timeline's end.
    void (*rewind)(sd_drafter *d);
    /// The proposal at the cursor; false when there is none. May be called again: the same answer.
    bool (*peek)(sd_drafter *d, sd_proposal *out);
    /// The cursor moves over `token`, which need not be this drafter's proposal.
    void (*advance)(sd_drafter *d, int32_t token);
    /// How likely proposals of this bucket are accepted before anything was measured.
    float (*prior)(int bucket);
    void (*close)(sd_drafter *d);
} sd_drafter_ops;

struct sd_drafter {
    const sd_drafter_ops *ops;
};

/// Up to g proposals in a row from one drafter: tokens [g], confidence [g] (may be NULL). Returns how
/// many.
int sd_drafter_propose(sd_drafter *d, int g, int32_t *tokens, float *confidence);
void sd_drafter_close(sd_drafter *d); // NULL is fine

/// Suffix automaton over prompt and output: what followed the longest earlier occurrence of the
/// last tokens, the most recent one. Memory for a timeline of `ctx` tokens (about 120 bytes each)
/// is taken here.
sd_status sd_drafter_suffix_open(sd_drafter **out, int ctx, sd_error *err);

/// Corpus index: what followed most often in the adapter's training completions. set_corpus (NULL:
/// no proposals) chooses the index of the next request; it must outlive that request.
sd_status sd_drafter_corpus_open(sd_drafter **out, sd_error *err);
void sd_drafter_corpus_set(sd_drafter *d, const sd_corpus *c);

/// What the model drafters of an engine share: the draft's weights, context, logits and sampler.
typedef struct sd_draft_model sd_draft_model;
/// The draft must have the target's tokenizer: SD_EINVAL names both fingerprints otherwise. `pool`
/// is the engine's; o: for the draft's context, whose rows are chosen here.
sd_status sd_draft_model_open(sd_draft_model **out, sd_model *draft, const sd_model *target,
                              sd_pool *pool, const sd_context_options *o, sd_error *err);
void sd_draft_model_close(sd_draft_model *m); // after its drafters; NULL is fine
size_t sd_draft_model_bytes(const sd_draft_model *m);

/// A second, smaller model with keys and values of its own for `ctx` positions. It draws with the
/// same noise as the target will (the request's sampling), from its own logits.
sd_status sd_drafter_model_open(sd_drafter **out, sd_draft_model *m, int ctx, sd_error *err);
/// Computes at most `rows` of the positions that the draft's cache lacks; true when it is ready to
/// propose.
bool sd_drafter_model_prepare(sd_drafter *d, int rows);
/// Positions the cache lacks before it can propose.
int sd_drafter_model_missing(const sd_drafter *d);
/// The cache and how many of its positions are committed: for tests.
const sd_kv *sd_drafter_model_kv(const sd_drafter *d);
