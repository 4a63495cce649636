// The learning rate of a step.
//
//   lr(s) = peak * min(1, (s+1)/W) * (min + (1-min) * f(s/S)),   s = 0 ... S-1
//   f(x) = (1 + cos(pi x)) / 2   cosine
//          1 - x                 linear
//          1                     constant (min is not used)
//
// W steps of warm-up (0: none), S steps in all. The decay counts from step 0, not from the end of
// the warm-up: the two factors are independent.
#pragma once

#include "trainer/recipe.h"

typedef struct {
    sd_schedule_kind kind;
    double peak, min_ratio;
    int64_t warmup, steps;
} sd_schedule;

/// W is warmup_steps, or warmup_ratio * steps rounded up.
sd_schedule sd_schedule_of(const sd_recipe *r, int64_t steps);
double sd_schedule_lr(const sd_schedule *s, int64_t step);
