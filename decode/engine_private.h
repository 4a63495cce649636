// The engine's inside, shared by its aspects:
//   engine.c        opening, the queue, cancelling, waiting, statistics
//   engine_plan.c   what is drafted for each running request
//   engine_step.c   rows in, one forward pass, verification
//   engine_emit.c   tokens to text, stop strings, events, the end of a request
//
// Locking: `lock` guards the queue, the slots' id and cancel fields, and the published statistics.
// All else belongs to the thread that steps.
#pragma once

#include "decode/controller.h"
#include "decode/drafter.h"
#include "decode/engine.h"

#include <pthread.h>

enum {
    SD_MAX_STOP_BYTES = 4096,
    SD_DRAFT_ROWS = 64 // drafted rows of one step at most, unless drafts are forced
};

// A request as it was submitted, with copies of what it points to.
typedef struct {
    uint64_t id;
    sd_request r;
    int32_t *prompt, *stop_token;
    char *stop[SD_MAX_STOPS];
    size_t stop_len[SD_MAX_STOPS];
    double submitted;
    bool cancelled;
} sd_job;

typedef enum { SLOT_FREE, SLOT_PREFILL, SLOT_DECODE } slot_phase;

typedef struct {
    slot_phase phase;
    sd_job *job;
    sd_kv *kv;                            // len: committed positions
    int32_t *timeline;                    // [ctx] prompt and output
    int n;                                // tokens in it; while decoding kv->len == n - 1
    sd_drafter *drafter[SD_SOURCE_COUNT]; // NULL: not there
    bool active[SD_SOURCE_COUNT];
    sd_acceptance own;

    // One round.
    sd_guess guess[SD_MAX_DRAFT][SD_SOURCE_COUNT]; // what each source said where it was asked
    bool made[SD_MAX_DRAFT][SD_SOURCE_COUNT];
    int n_made;                  // positions at which sources were asked
    int32_t draft[SD_MAX_DRAFT]; // the guesses taken
    sd_source source[SD_MAX_DRAFT];
    float survival[SD_MAX_DRAFT];
    int n_draft;      // candidates
    int g;            // of these verified in this round
    int rows;         // rows in this step
    int first_logits; // index of its first row of logits; -1: none

    // Output.
    sd_token_info info[SD_MAX_DRAFT + 1]; // the round's tokens
    int n_info;
    sd_utf8_stream utf8;
    sd_buf text;   // text that was not delivered yet
    size_t usable; // of it certainly before any stop string
    sd_finish finish;
    sd_request_stats stats;
    const char *why; // it ended with an error; static
    double admitted, first_token, last_token;
} sd_slot;

struct sd_engine {
    sd_model *model;
    sd_pool *pool;
    sd_context *cx;
    sd_engine_options o;
    int ctx, max_rows, max_logits;
    sd_slot *slot; // [o.slots]
    sd_row *rows;  // [max_rows]
    float *logits; // [max_logits, V]
    sd_sampler *sampler;
    sd_candidates *candidates; // [o.slots]
    sd_controller control;
    sd_corpus *corpus; // of options.draft
    sd_draft_model *draft;
    double draft_seconds; // in this step
    int64_t rounds;

    pthread_mutex_t lock;
    pthread_cond_t wakeup;
    bool locks_made, woken;
    sd_job **queue; // ring [o.queue]
    int queue_head, queue_len;
    uint64_t next_id;
    sd_engine_stats published, stats;
};

// engine.c
void sd_job_free(sd_job *j);
// engine_plan.c
void sd_engine_plan(sd_engine *e);
void sd_engine_score(sd_engine *e, sd_slot *s, const int32_t *emitted, int n);
// engine_emit.c
void sd_slot_begin(sd_engine *e, sd_slot *s, sd_job *j);
/// One emitted token, or -1 where there is none; true when the request goes on.
bool sd_slot_token(sd_engine *e, sd_slot *s, int32_t token, const float *logits);
/// Delivers the round's tokens and text; ends the request when it has a finish.
void sd_slot_deliver(sd_engine *e, sd_slot *s, const char *error);
/// The only event of a request that never had a slot.
void sd_job_deliver_end(sd_job *j, sd_finish f, const char *error);
