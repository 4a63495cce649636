// What learns: parameters with their gradient and AdamW's state, wherever they lie. The loop knows a model as this alone.
//
//     SD_TRY(l.attach(l.ctx, &arrays, err));
//     for each micro-batch of a step: SD_TRY(l.accumulate(l.ctx, &batch, err));
//     SD_TRY(l.finish(l.ctx, &sum, err));
//     SD_TRY(l.norm(l.ctx, &norm, 1 / (double)sum.supervised, max_norm, err));
//     SD_TRY(l.update(l.ctx, &update, err));
//     SD_TRY(l.read(l.ctx, true, err)); // the arrays hold what they have become
//
// The CPU's works on the caller's arrays themselves. A device has its own, and the caller's are as old as the last read: nothing but losses and a
// norm comes back from a step.
#pragma once

#include "trainer/optim/adamw.h"
#include "trainer/pass/pass.h"

/// The caller's arrays [n]. m and v NULL: only losses will be asked for.
typedef struct {
    float *theta, *m, *v;
} sd_learner_arrays;

/// Parameters with one learning rate, which is `ratio` times the step's.
typedef struct {
    size_t at, n;
    double ratio;
} sd_learner_range;

typedef struct {
    sd_adamw_options adamw;
    double lr;
    int64_t step; // counts from 1
    const sd_learner_range *range;
    int ranges;
} sd_learner_update;

typedef struct {
    void *ctx; // NULL: none is open
    /// Begins from these arrays, which live as long as they are attached.
    sd_status (*attach)(void *ctx, const sd_learner_arrays *a, sd_error *err);
    /// Writes into them what the learner has: theta and, with `state`, m and v.
    sd_status (*read)(void *ctx, bool state, sd_error *err);
    /// gradient += the sum over segments of weight * d(sum of losses)/d theta. It begins at 0 behind attach and finish. b's arrays are read now; what
    /// it asks for in b->logp is there when this returns, its loss may not be.
    sd_status (*accumulate)(void *ctx, const sd_train_batch *b, sd_error *err);
    /// The losses alone.
    sd_status (*loss)(void *ctx, const sd_train_batch *b, sd_error *err);
    /// Waits; *sum <- of all micro-batches since attach or the last finish, added in their order.
    sd_status (*finish)(void *ctx, sd_train_sum *sum, sd_error *err);
    /// *norm <- the L2 norm of scale * gradient, behind finish. update will take scale * gradient, clipped to max_norm (0: as it is).
    sd_status (*norm)(void *ctx, double *norm, double scale, double max_norm, sd_error *err);
    /// AdamW's step, behind norm.
    sd_status (*update)(void *ctx, const sd_learner_update *u, sd_error *err);
    void (*close)(void *ctx); // NULL is fine
} sd_learner;

/// The CPU's, over trainer/pass/pass.h. Holds a reference to m and copies lay; pool (NULL: one thread) outlives it.
sd_status sd_learner_open_cpu(sd_learner *out, sd_model *m, const sd_lora_layout *lay,
                              sd_pool *pool, const sd_train_options *o, sd_error *err);
void sd_learner_close(sd_learner *l); // harmless on a zeroed one
