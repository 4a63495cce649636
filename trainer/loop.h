// The training loop: steps, accumulation, clipping, AdamW, evaluation, checkpoints, metrics. It
// knows the model only as a learner (trainer/pass/learner.h): parameters, their gradient and their
// state, wherever these lie.
//
// A step's gradient is the sum over its micro-batches divided by the supervised tokens of the whole
// step. The state that a checkpoint holds is always that of a whole number of steps: an
// interruption inside a step gives that step up, and it is done again from the same bytes.
#pragma once

#include "trainer/batches.h"
#include "trainer/checkpoint.h"
#include "trainer/optim/schedule.h"
#include "trainer/pass/learner.h"
#include "trainer/recipe/recipe.h"
#include "trainer/report/metrics.h"

typedef struct {
    const sd_recipe *recipe; // resolved
    const sd_learner *learner;
    sd_order order;               // over the training rows
    const sd_rows *eval;          // n 0: no evaluation
    const sd_lora_layout *layout; // NULL: one learning rate for all
    int64_t steps;                // of the whole run
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
