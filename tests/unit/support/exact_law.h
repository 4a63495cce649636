// The law of a token, in double and straight from the definition (kernels/sample/sampler.h): sort, cut,
// renormalise. The oracle of the sampler and of what stands on it.
#pragma once

#include "kernels/sample/sampler.h"

/// p [n] <- the probabilities under o of logits x [n], whose temperature is not 0.
void test_exact_law(double *p, const float *x, int n, const sd_sampling *o);
