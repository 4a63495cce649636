// Do two ways to run a model agree? Used after every export: what was written is loaded again and
// held against what it was made from.
#pragma once

#include "base/pool.h"
#include "model/adapter.h"

typedef struct {
    int positions;
    double max_kl, mean_kl; // KL(a || b) in nats over the vocabulary, per position
    double top1;            // share of positions with the same most likely token
    double max_abs;         // largest difference of two logits
} sd_logit_difference;

/// Runs tokens [n] through (a, adapter_a) and (b, adapter_b) in fp32 and compares the logits of
/// every position. Adapters may be NULL; the vocabularies must be equal.
sd_status sd_compare_logits(sd_logit_difference *out, sd_model *a, const sd_adapter *adapter_a,
                            sd_model *b, const sd_adapter *adapter_b, const int32_t *tokens, int n,
                            sd_pool *pool, sd_error *err);
