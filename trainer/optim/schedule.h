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

#include <stdbool.h>
#include <stdint.h>

#define SD_SCHEDULE_NAME "after-warmup" // of the first formula, in a checkpoint's state

typedef enum { SD_SCHEDULE_COSINE, SD_SCHEDULE_LINEAR, SD_SCHEDULE_CONSTANT } sd_schedule_kind;
#define SD_SCHEDULES "cosine|linear|constant"

typedef struct {
    sd_schedule_kind kind;
    double peak, min_ratio;
    int64_t warmup, steps; // W; S, at least 1
    bool from_start;       // version 0.4's
} sd_schedule;

/// W: warmup_steps, or where that is 0 ratio * steps, rounded up.
int64_t sd_warmup(int64_t warmup_steps, double ratio, int64_t steps);
/// The learning rate of `step`, which counts from 0; from `steps` on that of the end.
double sd_schedule_lr(const sd_schedule *s, int64_t step);
