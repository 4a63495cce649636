// One slow forward in double, written from a table of what the architectures compute; it shares no
// code and no weights in memory with the model that it is held against.
#pragma once

#include "tests/unit/support/tiny/model.h"

/// out [n, V] <- logits of the tokens at positions 0 to n - 1, of a sequence with room for
/// `capacity`. Weights are the F32 values of t, whatever its dtype.
void reference_logits(double *out, const sd_tiny_model *t, const int32_t *token, int n,
                      int capacity);

/// The same where everything that enters a product of matrices (keys, values and weights of positions too, but not the
/// model's weights) is rounded first: a naive forward of that precision.
void reference_rounded_logits(double *out, const sd_tiny_model *t, const int32_t *token, int n,
                              int capacity, double (*round)(double));

/// What two fp32 forwards of t may differ by when the largest logit is `largest`.
double reference_tolerance(const sd_tiny_model *t, double largest);
