// Kept apart from the loop so that a test can hold every step against the formula.
#include "trainer/optim/schedule.h"

#include <math.h>

int64_t sd_warmup(int64_t warmup_steps, double ratio, int64_t steps) {
    return warmup_steps ? warmup_steps : (int64_t)ceil(ratio * (double)steps);
}

/// f of the header: 1 at x = 0, 0 at x = 1.
static double decay(sd_schedule_kind kind, double x) {
    const double pi = 3.14159265358979323846;
    switch (kind) {
    case SD_SCHEDULE_COSINE:
        return 0.5 * (1 + cos(pi * x));
    case SD_SCHEDULE_LINEAR:
        return 1 - x;
    case SD_SCHEDULE_CONSTANT:
        break;
    }
    return 1;
}

static double floored(const sd_schedule *s, double f) {
    return s->kind == SD_SCHEDULE_CONSTANT ? 1 : s->min_ratio + (1 - s->min_ratio) * f;
}

double sd_schedule_lr(const sd_schedule *s, int64_t step) {
    int64_t at = step < s->steps ? step : s->steps;
    if (s->from_start) {
        double warm = s->warmup > 0 ? (double)(step + 1) / (double)s->warmup : 1;
        if (warm > 1) warm = 1;
        return s->peak * warm * floored(s, decay(s->kind, (double)at / (double)s->steps));
    }
    if (step < s->warmup) return s->peak * (double)step / (double)s->warmup;
    int64_t rest = s->steps - s->warmup;
    double x = rest > 0 ? (double)(at - s->warmup) / (double)rest : 0;
    return s->peak * floored(s, decay(s->kind, x > 0 ? x : 0));
}
