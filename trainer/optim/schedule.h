// The learning rate of a step, as transformers' get_cosine_schedule_with_warmup,
// get_linear_schedule_with_warmup and get_constant_schedule_with_warmup have it:
//
//   lr(s) = peak * s / W                                       s < W
//           peak * (min + (1-min) * f((s-W) / (S-W)))          else;   s = 0 ... S-1
//   f(x) = (1 + cos(pi x)) / 2   cosine
//          1 - x                 linear
//          1                     constant (min is not used)
//
// W steps of warm-up (0: none; with it the first step has the rate 0), S steps in all.
//
// Version 0.4 multiplied two factors that both counted from step 0; a run that it began goes on so:
//
//   lr(s) = peak * min(1, (s+1)/W) * (min + (1-min) * f(s/S))
#pragma once

#include "trainer/recipe/recipe.h"

#define SD_SCHEDULE_NAME "after-warmup" // of the first formula, in a checkpoint's state

typedef struct {
    sd_schedule_kind kind;
    double peak, min_ratio;
    int64_t warmup, steps;
    bool from_start; // version 0.4's
} sd_schedule;

/// W is warmup_steps, or warmup_ratio * steps rounded up.
sd_schedule sd_schedule_of(const sd_recipe *r, int64_t steps);
double sd_schedule_lr(const sd_schedule *s, int64_t step);
