// The planner: which tokens are drafted in a round, and how many of them are verified, for all
// sequences that decode.
//
// It knows drafters and the controller, and no engine: an engine gives it its sequences, a replay of
// a trace (decode/draft/replay.h) gives it what was recorded of them, and both get the same
// decisions from the same proposals, costs and times. Its clock is the caller's.
//
//     SD_TRY(sd_planner_open(&p, &control, list, n_kinds, slots, err));
//     double seconds = sd_planner_round(p, sequences, n);   // fills draft, g, ... of each
//     ... verify sequence[i]->draft [g] ...
//     sd_planner_score(p, sequence[i], emitted, n_emitted);
//
// Belongs to the engine's thread. No call but open allocates.
#pragma once

#include "decode/draft/controller.h"

enum { SD_DRAFT_ROWS = 64 }; // drafted rows of one step at most, unless drafts are forced

/// A kind of drafter that is registered, and what its drafters share.
typedef struct {
    const sd_drafter_kind *kind;
    void *shared;
} sd_draft_source;

/// A sequence that decodes.
typedef struct {
    // The caller's, before each round; arrays by the drafters' places in the planner's list.
    sd_drafter *const *drafter;
    const bool *active; // drafts for this sequence
    sd_acceptance *own;
    int32_t last; // its last token
    int room;     // tokens that may be drafted at most
    // Whether a token may stand behind draft[0..j): others are not drafted. NULL: each may.
    bool (*allows)(void *ctx, int j, int32_t token);
    void *allows_ctx;
    int generated;    // tokens of its answer so far
    uint64_t request; // for traces: whose it is, and the tokens of its timeline
    int position;

    // The round.
    sd_proposal proposal[SD_MAX_DRAFT][SD_MAX_DRAFTERS]; // what each said where it was asked
    bool made[SD_MAX_DRAFT][SD_MAX_DRAFTERS];
    int n_made;                  // positions at which drafters were asked
    int32_t draft[SD_MAX_DRAFT]; // the proposals taken
    int source[SD_MAX_DRAFT];    // the drafters that made them
    float prefix_prob[SD_MAX_DRAFT];
    int n_draft; // candidates
    int g;       // of these verified in this round
    // For traces. By drafter: positions that it had to compute, before and after it was made ready;
    // -1: it was not asked.
    int missing[SD_MAX_DRAFTERS], lacking[SD_MAX_DRAFTERS];
    bool was_ready[SD_MAX_DRAFTERS];
    int32_t emitted[SD_MAX_DRAFT + 1];
    int n_emitted;

    // While it is planned.
    bool ready[SD_MAX_DRAFTERS]; // may be asked
    bool on;                     // still grows
    int limit;                   // positions at most
    double prob;                 // of all that was taken
    int best;                    // the drafter with the best proposal at this position; -1: none
    double best_prob;
} sd_planned;

typedef struct {
    int length;          // > 0: every draft is forced to this length; 0: as long as it pays
    bool unpadded;       // a forced draft ends where nobody has a proposal
    int prepare_rows;    // positions that drafters compute in one round to catch up, all together
    int V;               // of the target
    size_t target_bytes; // of weights that a step of the target reads
    double (*now)(void *ctx);                 // seconds; NULL: the monotonic clock
    void (*timed)(void *ctx, double seconds); // what was just measured, in order; NULL: nobody asks
    void *ctx;                                // of both
} sd_planner_options;

typedef struct {
    sd_planner_options o;
    sd_controller *control;
    const sd_draft_source *source; // [n_sources]
    int n_sources;
    int64_t rounds;
    double draft_seconds;              // of this round, of drafters that are not free
    double allowance[SD_MAX_DRAFTERS]; // seconds that probes of a drafter may take now
    int most;                          // sequences
    sd_candidates *candidates;         // [most]
    sd_planned **asked, **order;       // [most]
    sd_drafter **drafter;              // [most]
    sd_proposal *proposal;             // [most]
    double *gain;                      // [most]
    bool *made;                        // [most]
} sd_planner;

/// For rounds of at most `most` sequences. control and source are the caller's and stay its.
sd_status sd_planner_open(sd_planner **out, sd_controller *control, const sd_draft_source *source,
                          int n_sources, int most, const sd_planner_options *o, sd_error *err);
void sd_planner_close(sd_planner *p); // NULL is fine

/// Plans one round of n > 0 sequences. Returns the seconds that drafting took.
double sd_planner_round(sd_planner *p, sd_planned *const *sequence, int n);
/// The tokens that were emitted after the round; its proposals are scored as far as these reach.
void sd_planner_score(sd_planner *p, sd_planned *s, const int32_t *emitted, int n);
