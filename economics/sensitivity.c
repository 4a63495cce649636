#include "economics/sensitivity.h"

#include <math.h>

static const char *const asked[] = {"requests-day", "peak", "prefill-tok-s", "decode-tok-s",
                                    "gpu-hour",     "buy",  "engineer-hours"};
_Static_assert(sizeof asked / sizeof *asked <= SD_SENSITIVITY_MAX, "room for every input");

typedef struct {
    sd_usd_million all_in;
    double break_even;
    bool own; // own replicas are the cheaper
} outcome;

static bool compute(outcome *o, const sd_cost_input *in, const sd_usd_request *rival,
                    const sd_usd_request *even) {
    int64_t n;
    *o = (outcome){0};
    if (sd_cost_replicas(&n, in, in->requests_day, NULL) != SD_OK) return false;
    o->all_in = sd_cost_per_million(in, n, in->requests_day).all_in;
    if (!rival) return true;
    sd_break_even b = sd_cost_break_even(in, *even);
    o->break_even = b.never ? 0 : b.requests_day;
    sd_usd_month theirs =
        sd_month_add(sd_month_of_requests(*rival, in->requests_day), sd_api_migration(in));
    o->own = !sd_month_cheaper(theirs, sd_cost_of(in, n, in->requests_day).total);
    return true;
}

// The peak is never below the mean.
static double scaled(const sd_cost_row *row, double v, double factor) {
    return row->def_text && v >= row->min ? fmax(v * factor, row->min) : v * factor;
}

static double swing(const sd_sensitivity *s) {
    return fabs(s->high.usd - s->low.usd);
}

void sd_cost_sensitivity(sd_sensitivity rows[SD_SENSITIVITY_MAX], int *n, const sd_cost_input *in,
                         const sd_usd_request *rival, const sd_usd_request *even) {
    outcome now, low, high;
    *n = 0;
    if (!compute(&now, in, rival, even)) return;
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        const sd_cost_row *row = sd_cost_row_of(asked[i]);
        sd_cost_input less = *in, more = *in;
        double v = *sd_cost_at(&less, row);
        if (v == 0) continue;
        *sd_cost_at(&less, row) = scaled(row, v, 0.75);
        *sd_cost_at(&more, row) = scaled(row, v, 1.25);
        if (!compute(&low, &less, rival, even) || !compute(&high, &more, rival, even)) continue;
        rows[(*n)++] = (sd_sensitivity){.row = row,
                                        .low = low.all_in,
                                        .high = high.all_in,
                                        .break_even_low = low.break_even,
                                        .break_even_high = high.break_even,
                                        .flips = low.own != now.own || high.own != now.own};
    }
    // By insertion, which leaves equal swings in their order.
    for (int i = 1; i < *n; i++)
        for (int j = i; j > 0 && swing(&rows[j - 1]) < swing(&rows[j]); j--) {
            sd_sensitivity t = rows[j];
            rows[j] = rows[j - 1], rows[j - 1] = t;
        }
}
