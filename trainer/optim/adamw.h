// AdamW (arXiv:1711.05101) with the semantics of torch.optim.AdamW: decoupled decay, bias
// correction, the state in fp32, epsilon outside the root. And clipping by the global norm as
// torch.nn.utils.clip_grad_norm_ does it.
//
//     float norm = sd_grad_norm(grad, n, 1.0 / supervised, pool);
//     sd_adamw_step(theta, m, v, grad, n, sd_clip_factor(norm, 1.0), lr, step, &o, pool);
//
// Elements are independent and the norm's sum has one fixed shape: the same bytes for any number of
// threads.
#pragma once

#include "base/pool.h"

#include <stdint.h>

typedef struct {
    double beta1, beta2, epsilon, weight_decay; // torch: 0.9, 0.999, 1e-8
} sd_adamw_options;

/// Global L2 norm of scale * grad [n], summed in double; not finite when an element is not.
double sd_grad_norm(const float *grad, size_t n, double scale, sd_pool *pool);

/// min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0.
double sd_clip_factor(double norm, double max_norm);

/// One step, in place, with g = scale * grad:
///   theta *= 1 - lr wd;  m += (1-b1)(g - m);  v = b2 v + (1-b2) g^2;
///   theta -= lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps)
/// theta, m, v, grad [n]; t = step counts from 1; lr of this step.
void sd_adamw_step(float *theta, float *m, float *v, const float *grad, size_t n, double scale,
                   double lr, int64_t step, const sd_adamw_options *o, sd_pool *pool);
