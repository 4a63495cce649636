// The micro-batches of a step out of a prepared dataset: the order of an epoch and its cut into
// steps.
//
//     sd_rows rows;
//     SD_TRY(sd_rows_open(&rows, dataset, err));
//     sd_order order = {.rows = &rows, .seed = 42, .shuffle = true, .batch_rows = 8};
//     int64_t n = sd_order_step(&order, epoch, index, NULL); // items index to index + n - 1
//     item[i] = sd_order_item(&order, epoch, index + i);
//     SD_TRY(sd_batch_fill(&batch, &rows, item, n, err));
//
// Nothing is drawn or remembered: (epoch, index) alone says what comes next.
#pragma once

#include "datasets/dataset.h"
#include "trainer/pass/pass.h"

typedef struct {
    const sd_dataset *data;
    int64_t n;        // rows
    int32_t *tokens;  // [n] used places
    int64_t total;    // their sum
    int64_t labelled; // labelled places
    int longest;      // largest of tokens
} sd_rows;

sd_status sd_rows_open(sd_rows *out, const sd_dataset *d, sd_error *err);
void sd_rows_close(sd_rows *r); // harmless on a zeroed one

/// The rows of a step: batch_rows rows, or rows up to batch_tokens tokens (at least one). A step
/// does not reach over the end of an epoch.
typedef struct {
    const sd_rows *rows;
    uint64_t seed;
    bool shuffle;
    int64_t batch_rows, batch_tokens; // one of them is 0
} sd_order;

int64_t sd_order_item(const sd_order *o, int64_t epoch, int64_t index);
/// Items of the step that begins at `index` of the epoch (0 when the epoch is done); *tokens (may
/// be NULL) gets their tokens.
int64_t sd_order_step(const sd_order *o, int64_t epoch, int64_t index, int64_t *tokens);
/// Steps of that many epochs, and the largest step's tokens (may be NULL).
int64_t sd_order_steps(const sd_order *o, int64_t epochs, int64_t *largest);

/// Buffers of one micro-batch.
typedef struct {
    int32_t *token, *label, *segment; // [cap]
    size_t cap;
    sd_train_batch batch;
} sd_batch;
void sd_batch_free(sd_batch *b);
/// Fills b->batch with copies of these rows [n]; T is the longest of them.
sd_status sd_batch_fill(sd_batch *b, const sd_rows *r, const int64_t *item, int n, sd_error *err);
