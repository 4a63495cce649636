// A trace replayed without a model: do the decisions come out as they were recorded, and what would
// other decisions have cost?
//
// First the recorded rounds go through the planner and the controller of this program, with the
// recorded proposals, outcomes and times: an unchanged controller takes the same number of tokens in
// each round. Then the answers are made again under several policies, from what each drafter would
// have proposed at each token and from what steps cost in the trace. So a change of the controller is
// judged on the same traces.
//
//     SD_TRY(sd_trace_read(&log, path, err));
//     SD_TRY(sd_replay_run(&r, &log, err));
//
// What a replay cannot know: the proposals behind a wrong token that was not recorded there (the
// draft then ends; a draft model is taken to go on as sure as it was), and the time of prompts, which
// is left out.
#pragma once

#include "decode/draft/trace.h"

enum { SD_REPLAY_POLICIES = 5 }; // off, automatic, drafts of 2, 4 and 8

typedef struct {
    char name[16];
    int64_t rounds, tokens, rows, drafted, accepted; // rounds: of each request
    double seconds, draft_seconds;                   // of all steps; drafting
    double speed_up;                                 // against off, on the same costs
} sd_replay_policy;

typedef struct {
    int64_t decisions, same; // of requests in recorded rounds; that took as many tokens as recorded
    int at_once;             // requests at once, as recorded at most
    int answers;             // that were made again
    sd_replay_policy policy[SD_REPLAY_POLICIES];
} sd_replay;

/// SD_EINVAL where a drafter of the trace is none of this program.
sd_status sd_replay_run(sd_replay *out, const sd_trace_log *log, sd_error *err);
