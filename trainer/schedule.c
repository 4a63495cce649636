// Kept apart from the loop so that a test can hold every step against the formula.
#include "trainer/schedule.h"

#include <math.h>

sd_schedule sd_schedule_of(const sd_recipe *r, int64_t steps) {
    int64_t by_ratio = (int64_t)ceil(r->train.warmup_ratio * (double)steps);
    return (sd_schedule){.kind = (sd_schedule_kind)r->train.lr_scheduler,
                         .peak = r->train.learning_rate,
                         .min_ratio = r->train.min_lr_ratio,
                         .warmup = r->train.warmup_steps ? r->train.warmup_steps : by_ratio,
                         .steps = steps > 0 ? steps : 1};
}

double sd_schedule_lr(const sd_schedule *s, int64_t step) {
    const double pi = 3.14159265358979323846;
    double x = (double)(step < s->steps ? step : s->steps) / (double)s->steps;
    double warm = s->warmup > 0 ? (double)(step + 1) / (double)s->warmup : 1;
    if (warm > 1) warm = 1;
    double f = 1;
    switch (s->kind) {
    case SD_SCHEDULE_COSINE:
        f = 0.5 * (1 + cos(pi * x));
        break;
    case SD_SCHEDULE_LINEAR:
        f = 1 - x;
        break;
    case SD_SCHEDULE_CONSTANT:
        return s->peak * warm;
    }
    return s->peak * warm * (s->min_ratio + (1 - s->min_ratio) * f);
}
