// A micro-batch without its padding: the tokens that are run, their positions inside their
// segments, and the rows that the loss looks at.
#pragma once

#include "trainer/pass/pass.h"

typedef struct {
    int start, len; // tokens
} sd_train_segment;

typedef struct {
    int N;                     // tokens to run
    int32_t *token, *pos;      // [max_tokens]
    sd_train_segment *segment; // [max_tokens]
    int n_segments, longest;
    int n_supervised;
    int32_t *row, *label; // [max_tokens] the hidden state's row and the token it predicts
} sd_train_rows;

/// Fills the arrays (the caller's) from b. Tokens or labels outside [0, V) and segments below -1
/// are SD_EINVAL, more than max_tokens is SD_ELIMIT; both name the place.
sd_status sd_train_compact(sd_train_rows *out, const sd_train_batch *b, int V, int max_tokens,
                           sd_error *err);

/// The segment that holds this token, 0 <= token < N.
int sd_train_segment_of(const sd_train_rows *rows, int token);
