// Only the costs' ratios decide, so the danger is a moment in which something else ran. Every
// number of rows is timed in each of a few rounds, up and down in turn, and its least time counts:
// a burst of other work spoils one round's neighbours, not the same sizes in all.
#include "model/infer/step_cost.h"

const int sd_step_cost_rows[SD_STEP_COSTS] = {
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 32, 48, SD_STEP_COST_MOST};

enum { ROUNDS = 3, LAST_ROUND_ROWS = 8 };
static const double ENOUGH_MS = 3000; // after the first round nothing more is timed from here on

sd_status sd_step_costs_measure(sd_step_costs *out, sd_step_timer *step, void *ctx, sd_error *err) {
    sd_status st = SD_OK;
    double all = 0;
    *out = (sd_step_costs){0};
    for (int r = 0; r < ROUNDS; r++)
        for (int k = 0; k < SD_STEP_COSTS; k++) {
            // Down first: the longest step touches all memory that the others then find. The second
            // time up: the short ones are those that most depend on a quiet moment.
            const int i = r == 1 ? k : SD_STEP_COSTS - 1 - k, n = sd_step_cost_rows[i];
            double ms = 0;
            if (r == ROUNDS - 1 && n > LAST_ROUND_ROWS) continue;
            if (r > 0 && all > ENOUGH_MS) goto out;
            SD_TRY(step(&ms, ctx, n, err));
            if (out->ms[i] <= 0 || ms < out->ms[i]) out->ms[i] = ms;
            all += ms;
        }
out:
    return st;
}
