// The training pass: forward with kept activations, loss head without logits, backward to the
// adapter's gradients. Straight code, no autograd: the memory is known before step 1
// (sd_train_plan). W is frozen as stored and never has a gradient.
//
//     sd_lora_layout lay;                 // where each factor stands in one flat vector
//     SD_TRY(sd_lora_layout_init(&lay, model, rank, alpha, false, err));
//     SD_TRY(sd_train_open(&t, model, &lay, pool, &options, err));
//     memset(grad, 0, ...);
//     for each micro-batch of the step:
//         SD_TRY(sd_train_accumulate(t, theta, grad, &batch, &sum, err));
//     grad /= sum.supervised;             // the mean over the step's supervised tokens
//
// The bytes of the result do not depend on the number of threads.
#pragma once

#include "base/pool.h"
#include "kernels/train/real.h"
#include "trainer/pass/plan.h"

typedef struct {
    int rows, T;
    const int32_t *token;   // [rows, T]
    const int32_t *label;   // [rows, T] SD_NO_LABEL or the token; the loss at t predicts label[t+1]
                            // from the hidden state at t, inside one segment
    const int32_t *segment; // [rows, T] -1: padding
    // One value for each segment, in the order in which they stand (sd_train_segments says how
    // many). A loss other than the mean of -log p has its say here: weight is d(that loss)/d(-logp).
    const float *weight; // multiplies the segment's part of the gradient; NULL: 1
    double *logp;        // <- sum of log p over its supervised tokens; NULL: not wanted
} sd_train_batch;

/// Segments of the batch: runs of one number inside a row, padding left out.
int sd_train_segments(const sd_train_batch *b);

typedef struct {
    double loss;        // sum of -log p over supervised tokens
    int64_t supervised; // their number
    int64_t tokens;     // all tokens that were run (without padding)
} sd_train_sum;

#define sd_train SD_REAL(sd_train)
#define sd_train_open SD_REAL(sd_train_open)
#define sd_train_close SD_REAL(sd_train_close)
#define sd_train_accumulate SD_REAL(sd_train_accumulate)
#define sd_train_loss SD_REAL(sd_train_loss)
typedef struct sd_train sd_train;
/// Takes all its memory here: SD_ELIMIT when o->memory_limit is too small, SD_ENOMEM when it is not
/// there. Holds a reference to m and copies lay; pool (NULL: one thread) must outlive it.
sd_status sd_train_open(sd_train **out, sd_model *m, const sd_lora_layout *lay, sd_pool *pool,
                        const sd_train_options *o, sd_error *err);
void sd_train_close(sd_train *t); // NULL is fine
/// grad [n_params] += sum over segments of weight * d(sum of losses)/d theta, sum += this batch's.
/// grad is not normalised, and no weight is in sum.
sd_status sd_train_accumulate(sd_train *t, const real *theta, real *grad, const sd_train_batch *b,
                              sd_train_sum *sum, sd_error *err);
/// Loss and log-probabilities only (evaluation, a reference model). weight is not looked at.
sd_status sd_train_loss(sd_train *t, const real *theta, const sd_train_batch *b, sd_train_sum *sum,
                        sd_error *err);
