// Do two ways to run a model agree? Used after every export: what was written is loaded again and
// held against what it was made from.
#pragma once

#include "base/pool.h"
#include "model/adapter/adapter.h"

/// log sum exp of x [n] in double, *top (NULL: not wanted) <- where the largest is, untouched when all
/// are NaN. The cross-entropy of a token is this less its logit. Decoding has a faster one in fp32
/// (sd_log_total), whose rounding every log probability that is shown has.
double sd_log_sum_exp(const float *x, int n, int *top);

typedef struct {
    int positions;
    double max_kl, mean_kl; // KL(a || b) in nats over the vocabulary, per position
    double top1;            // share of positions with the same most likely token
    double max_abs;         // largest difference of two logits
    double spread;          // largest standard deviation of a's logits at one position
} sd_logit_difference;

/// Runs tokens [n] through (a, adapter_a) and (b, adapter_b) in fp32 and compares the logits of
/// every position. Adapters may be NULL; the vocabularies must be equal.
sd_status sd_compare_logits(sd_logit_difference *out, sd_model *a, const sd_adapter *adapter_a,
                            sd_model *b, const sd_adapter *adapter_b, const int32_t *tokens, int n,
                            sd_pool *pool, sd_error *err);

/// What a merged file holds.
typedef struct {
    double survived; // <D', D> / <D, D> over the merged weights: D the delta asked for, D' the one
                     // that the file has; 1 when nothing was rounded
    double roundoff; // the largest relative error of a merged weight by its type: 2^-24 for F32,
                     // 2^-11 F16, 2^-8 BF16; infinite for quantised types, 0 when none was merged
    int tensors;     // merged
} sd_merge_report;

/// Half of the last place, relative to the value; infinite for quantised types.
double sd_dtype_roundoff(sd_dtype t);

/// Every weight of `written` against the base's with the adapter in it, as the type it stands in
/// rounds, and everything else against the base's bytes. SD_EMISMATCH names what does not hold.
sd_status sd_merge_check(sd_merge_report *out, const sd_model *written, const sd_adapter *a,
                         const sd_model *base, sd_error *err);

/// sd_merge_check, then the logits of `written` against base and adapter on tokens [n]; n 0: the
/// weights alone, d zeroed. SD_EMISMATCH when the largest KL is more than the type's rounding
/// explains; a quantised type has no such bound, there the weights decide.
sd_status sd_verify_merged(sd_merge_report *out, sd_logit_difference *d, sd_model *written,
                           const sd_adapter *a, sd_model *base, const int32_t *tokens, int n,
                           sd_pool *pool, sd_error *err);
