// Traces: what speculation proposed, took and got in each round, so that changes of the controller
// can be judged on the same rounds (decode/draft/replay.h).
//
// A trace is JSON lines:
//
//     {"specdec_trace": 1, "drafters": [{"name", "bytes"}, ...], "target_bytes", "vocabulary",
//      "length", "slots", "costs_ms": [20] or null}                             the first line
//     {"prefill": rows, "seconds"}                                a step of prompt rows alone
//     {"round", "planned", "rows", "prompt_rows", "speculating", "draft_s": [...], "verify_s", "seconds",
//      "requests": [{"request", "position", "last", "room", "generated", "active": [...], "missing": [...],
//                    "ready": [...], "lacking": [...], "proposed": [[[drafter, token, bucket], ...],
//                    ...], "source": [...], "bucket": [...], "probability": [...], "taken",
//                    "accepted", "emitted": [...]}, ...]}         a step with requests that decode
//     {"answer": request, "tokens": [...], "shadow": [[[[token, bucket], ...], ...], ...]}
//
// Drafters are named by their place in the first line; "bytes" is null where proposals are free.
// `proposed` has a list for each position of the draft at which drafters were asked; `source`,
// `bucket` and `probability` (that all up to here hold) describe those that were taken as candidates,
// of which `taken` were verified. `missing` and `lacking` are the positions that a drafter had to
// compute before and after it was made `ready`; -1: it was not asked. `draft_s` are the times that
// were measured, in order.
//
// `planned` sequences were drafted for, of which `requests` lacks those that had to give way in the
// step; such a round is not decided again.
//
// `shadow` has for each drafter, and each token of the answer but the first, what that drafter alone
// would have drafted from there: a draft of up to SD_MAX_DRAFT tokens, which goes on a little behind
// its first wrong token; of a drafter that is not free its first token. `tokens` says what held.
#pragma once

#include "decode/draft/planner.h"

typedef struct sd_trace sd_trace;

enum { SD_TRACE_MOST = 256 << 20, SD_TRACE_LINE = 8 << 20 }; // bytes of a file, of a line

// ---- writing: one thread

/// The file appears at path when it is committed. Beyond `most` bytes (0: SD_TRACE_MOST) nothing
/// more is recorded, and no line beyond SD_TRACE_LINE; warnings say so.
sd_status sd_trace_create(sd_trace **out, const char *path, size_t most, sd_error *err);
sd_status sd_trace_commit(sd_trace *t, sd_error *err); // SD_EIO: something could not be written
void sd_trace_close(sd_trace *t);                      // NULL is fine; not committed: removed

/// costs: NULL, or what the controller began with.
void sd_trace_head(sd_trace *t, const sd_planner *p, const sd_step_costs *costs);
void sd_trace_prefill(sd_trace *t, int rows, double seconds);
void sd_trace_timed(void *trace, double seconds); // sd_planner_options.timed

/// A round that was planned, verified and scored.
typedef struct {
    int n;                       // sequences
    sd_planned *const *sequence; // [n]
    int planned;     // sequences of the plan: n, and those for which there was no memory
    int prompt_rows; // that shared the step
    bool speculating;
    double seconds, draft_seconds; // of the step, and of them drafting
} sd_trace_step;
void sd_trace_round(sd_trace *t, const sd_planner *p, const sd_trace_step *s);

// An answer: begin, then for each drafter shadow and for each token but the first a chain, end.
void sd_trace_answer(sd_trace *t, uint64_t request, const int32_t *tokens, int n);
void sd_trace_shadow(sd_trace *t);
void sd_trace_chain(sd_trace *t, const sd_proposal *p, int n);
void sd_trace_answer_end(sd_trace *t);

// ---- reading

typedef struct {
    int32_t token;
    int16_t bucket, source, at; // at: position in the draft
} sd_traced_proposal;

typedef struct {
    uint64_t id;
    int position, room, generated;
    int32_t last;
    bool active[SD_MAX_DRAFTERS], ready[SD_MAX_DRAFTERS];
    int missing[SD_MAX_DRAFTERS], lacking[SD_MAX_DRAFTERS];
    int n_made, n_proposed; // positions asked, proposals in ascending order of position
    sd_traced_proposal *proposed;
    int taken, accepted, n_emitted;
    int32_t *emitted;
} sd_traced_request;

typedef struct {
    int rows, prompt_rows; // rows 0: prompt rows alone
    int64_t round;
    int planned;
    bool speculating;
    double *draft_s;
    int n_draft_s;
    double verify_s, seconds;
    int n_requests;
    sd_traced_request *request;
} sd_traced_step;

typedef struct {
    uint64_t request;
    int n;
    int32_t *token; // [n]
    // [drafters][n] where a drafter's chain from token i on begins in `chain`, and its length.
    int32_t *first, *length;
    sd_traced_proposal *chain;
} sd_traced_answer;

typedef struct {
    char name[SD_MAX_DRAFTERS][SD_DRAFTER_NAME];
    bool free[SD_MAX_DRAFTERS];
    size_t bytes[SD_MAX_DRAFTERS];
    int n_drafters, V, length, slots;
    size_t target_bytes;
    bool have_costs;
    sd_step_costs costs;
    sd_traced_step *step;
    int n_steps, cap_steps;
    sd_traced_answer *answer;
    int n_answers, cap_answers;
    sd_arena memory;
} sd_trace_log;

/// SD_EFORMAT names the line that is not one of a trace, or contradicts itself.
sd_status sd_trace_read(sd_trace_log *out, const char *path, sd_error *err);
void sd_trace_log_free(sd_trace_log *l); // a zeroed one is fine
