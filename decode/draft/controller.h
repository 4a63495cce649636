// The controller: which proposals are worth verifying.
//
// It knows what a step of n rows costs (from a table where there is one, and from the steps
// themselves), how likely a proposal of each drafter and bucket is accepted (counted only where a
// proposal was reached), and how fast the engine is going. A further row is verified when the
// probability that all proposals up to it hold is worth more than its time:
//
//     maximise over n:  sum of the n largest prefix_prob - lambda * (t(rows + n) - t(rows))
//
// with lambda the tokens per second of late, never below plain decoding's. Verifying nothing is
// always a candidate. A guard watches: when the last GUARD_TOKENS tokens came slower than .98 of
// plain decoding would have made them, speculation backs off for as many.
//
// Drafters are known by their place in the engine's list. Decisions depend on time; outputs never
// do.
#pragma once

#include "decode/draft/drafter.h"
#include "model/infer/step_cost.h"

enum {
    SD_COST_ROWS = 128,  // costs are kept for 1..so many rows, beyond that extrapolated
    SD_BATCH_CLASSES = 8 // of proposals that are made at once, by their number
};

typedef struct {
    float hit, seen;
} sd_tally;

typedef struct {
    sd_tally of[SD_MAX_DRAFTERS][SD_BUCKETS];
} sd_acceptance;

typedef struct {
    // Cost: t(n) = unit * (1 + slope * (n - 1)) * ratio[n], seconds.
    double unit, slope, prefill_row;
    bool have_unit, have_slope; // have_unit: from a step of this run
    float ratio[SD_COST_ROWS + 1];
    int measured[SD_COST_ROWS + 1];     // steps behind ratio[n]; a table counts as a few
    double proposal_s[SD_MAX_DRAFTERS]; // seconds of one proposal; 0: it is free, or not known yet
    // Seconds of n proposals made at once, against what proposal_s and the shape of the steps' costs
    // foretell: n 1, 2, up to 4, up to 8, ...
    float batch_ratio[SD_MAX_DRAFTERS][SD_BATCH_CLASSES];
    int batches[SD_MAX_DRAFTERS][SD_BATCH_CLASSES]; // that were measured
    sd_acceptance all;
    double speed_up; // of late, against plain decoding
    int since_plain; // steps since plain decoding was last timed
    // The guard: speculation backs off while backoff_tokens > 0.
    double guard_time, guard_plain;
    int64_t guard_tokens, backoff_tokens;
    int64_t backoffs; // how often the guard stepped in
} sd_controller;

void sd_controller_init(sd_controller *c);
/// Right after init: what steps cost when they were timed, in place of the prior.
void sd_controller_load_costs(sd_controller *c, const sd_step_costs *t);

/// Seconds of a step that verifies n rows.
double sd_controller_cost(const sd_controller *c, int n);

/// A step of nothing but n prompt rows took so long.
void sd_controller_prefilled(sd_controller *c, int n, double seconds);
/// A step verified n rows for `running` requests; the time of drafting is not counted.
void sd_controller_timed(sd_controller *c, int running, int n, double seconds);
/// The whole round, drafting included, emitted so many tokens: for lambda and the guard. Only
/// rounds in which speculation was allowed count.
void sd_controller_progress(sd_controller *c, int running, int tokens, double seconds);
/// n proposals of a drafter, made at once, took so long.
void sd_controller_drafted(sd_controller *c, int drafter, int n, double seconds);
/// Seconds of n proposals made at once; alone_s: of one while none was timed.
double sd_controller_draft_cost(const sd_controller *c, int drafter, int n, double alone_s);

/// The probability that a proposal is accepted: the request's own count, shrunk towards all
/// requests' count, that towards the prior.
float sd_controller_accept_prob(const sd_controller *c, const sd_acceptance *own, int drafter,
                                int bucket, float prior);
/// How often a drafter's proposals of all buckets were accepted of late, for this request.
double sd_controller_mean_accept_prob(const sd_controller *c, const sd_acceptance *own,
                                      int drafter);
/// A proposal was reached and was right or wrong.
void sd_controller_score(sd_controller *c, sd_acceptance *own, int drafter, int bucket, bool hit);

/// Proposals whose prefix probability is below this are not worth making: it is the price of one
/// further row at least.
double sd_controller_min_prob(const sd_controller *c, int running);
/// The worth of time: tokens per second.
double sd_controller_lambda(const sd_controller *c, int running);

typedef struct {
    const float
        *prefix_prob; // [n] probability that this proposal and all before it hold; not increasing
    int n;
    int take; // out: how many to verify
} sd_candidates;
/// Chooses take for each of the `requests` running requests; at most `budget` rows more than one
/// each.
void sd_controller_choose(const sd_controller *c, sd_candidates *k, int requests, int budget);
/// True while the guard lets nothing be drafted.
bool sd_controller_backing_off(const sd_controller *c);
/// True where sd_controller_choose would take nothing, whatever it is offered: the guard's rest, a
/// step that is timed without drafts, or no price known yet.
bool sd_controller_rests(const sd_controller *c);
