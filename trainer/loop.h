// The training loop: steps, accumulation, clipping, AdamW, evaluation, checkpoints, metrics. It
// knows the model only as two functions over a flat vector of parameters, so a test can put any
// differentiable thing behind it.
//
// A step's gradient is the sum over its micro-batches divided by the supervised tokens of the whole
// step. The state that a checkpoint holds is always that of a whole number of steps: an
// interruption inside a step gives that step up, and it is done again from the same bytes.
#pragma once

#include "trainer/batches.h"
#include "trainer/checkpoint.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/schedule.h"
#include "trainer/recipe/recipe.h"
#include "trainer/report/metrics.h"

typedef struct {
    void *ctx;
    /// grad [n] += d(sum of losses)/d theta; sum += this batch's.
    sd_status (*accumulate)(void *ctx, const float *theta, float *grad, const sd_train_batch *b,
                            sd_train_sum *sum, sd_error *err);
    sd_status (*loss)(void *ctx, const float *theta, const sd_train_batch *b, sd_train_sum *sum,
                      sd_error *err);
} sd_pass;

typedef struct {
    const sd_recipe *recipe; // resolved
    sd_pass pass;
    sd_order order;               // over the training rows
    const sd_rows *eval;          // n 0: no evaluation
    const sd_lora_layout *layout; // NULL: one learning rate for all
    sd_pool *pool;
    int64_t steps; // of the whole run
    int micro_batch_tokens;
    sd_checkpoint *c; // state, theta, m, v, best: the caller's; step 0 or resumed
    sd_checkpoints *checkpoints;
    const char *resume_hint;  // what to type after an interruption
    sd_metrics *metrics;      // may be NULL
    const volatile int *stop; // set from a signal handler; may be NULL
} sd_loop;

/// Runs to the last step (or until patience ends), saving as the recipe says and at the end.
/// SD_EINTERRUPTED: *stop was set and the state is saved. Afterwards c->theta holds the last
/// parameters, c->best the best ones when c->state.has_best.
sd_status sd_loop_run(sd_loop *l, sd_error *err);
