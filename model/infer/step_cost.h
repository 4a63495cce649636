// What a step of n rows costs on this machine: on the CPU timed once and kept beside the packed form, so that
// whoever plans steps knows it from the first one on and no start has to find it out. On a device it is timed
// when it is asked for, in tens of milliseconds: a step there takes few.
//
//     <dir>/<16 hex digits>.costs = 64 hex digits of the rest's SHA-256, a newline, and the JSON
//                                   {"pack": the SHA-256 in the head of the packed form,
//                                    "tables": [{"by", "compute", "kv", "threads", "ms"}, ...]}
//
// The file belongs to one packed form (model/infer/weight_cache/cache.h) and has a table for each version of this
// program with its instruction set and processor, kind of compute and of caches, and number of
// threads that it was asked for. One that is damaged, of another user or of an earlier packed form
// is made anew; values are finite, positive and bounded, or the table does not count. Results never
// depend on it, only the choice of how many rows a step gets.
#pragma once

#include "model/infer/forward.h"

enum { SD_STEP_COSTS = 20, SD_STEP_COST_MOST = 64 };
extern const int sd_step_cost_rows[SD_STEP_COSTS]; // 1..16, 24, 32, 48, SD_STEP_COST_MOST

typedef struct {
    double ms[SD_STEP_COSTS]; // of a step of sd_step_cost_rows rows that all want logits, at a
                              // modest depth without adapters
} sd_step_costs;

/// ms <- how long a step of n rows took.
typedef sd_status sd_step_timer(double *ms, void *ctx, int n, sd_error *err);
/// The least time of each number of rows over a few rounds. The first failure of `step` ends it.
sd_status sd_step_costs_measure(sd_step_costs *out, sd_step_timer *step, void *ctx, sd_error *err);

/// The "by" of a table: all that its times depend on besides compute, caches and threads.
void sd_step_costs_by(char *out, size_t size, const sd_ops *ops);

/// The table kept for the context's model, instruction set, compute and threads. Where there is
/// none, but the packed form is kept, it is timed now (the first round is 304 rows, seconds for
/// a model of gigabytes) and kept.
/// False when neither is possible: no cache, one that cannot be written, or a context of fewer than
/// SD_STEP_COST_MOST rows; on a device, also where it fails or is interrupted.
bool sd_step_costs_get(sd_step_costs *out, sd_context *cx);
