// Rows of logits whole, by memcmp: computed one by one, and in every shape that verification, prompts in
// chunks and batches give a step.
#pragma once

#include "model/infer/forward.h"

enum { EXACT_BATCH = 8 };

typedef struct {
    const int32_t *prompt, *answer;
    int n_prompt, n_answer;
} exact_text;

/// The last rows of n <= EXACT_BATCH texts, the answers' with that of the prompts' last tokens: *equal <-
/// those of *all that have the bits of the row computed alone by one thread.
sd_status exact_compare_rows(int64_t *equal, int64_t *all, sd_model *m, sd_adapter *adapter,
                             const exact_text *text, int n, sd_error *err);
