#include "cli/cost/result.h"

#include <math.h>
#include <stdlib.h>

sd_status sd_cost_load(sd_load_row *out, const sd_cost_case *c, const sd_cost_result *r,
                       double requests_day, sd_error *err) {
    sd_load_row row = {.requests_day = requests_day};
    sd_status st = sd_cost_replicas(&row.replicas, &c->in, requests_day, err);
    if (st != SD_OK) return st;
    row.utilisation = sd_cost_utilisation(&c->in, row.replicas, requests_day);
    row.own = sd_cost_of(&c->in, row.replicas, requests_day).total;
    for (int i = 0; i < c->n_rivals; i++)
        row.rival[i] = sd_month_add(sd_month_of_requests(r->rival[i].request, requests_day),
                                    sd_api_migration(&c->in));
    *out = row;
    return SD_OK;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The load itself, a fourth and four times of it, what the replicas can carry, and each break-even.
static void fill_loads(sd_cost_result *r, const sd_cost_case *c) {
    double at[SD_COST_MAX_LOADS];
    int n = 0;
    at[n++] = c->in.requests_day / 4;
    at[n++] = c->in.requests_day;
    at[n++] = c->in.requests_day * 4;
    at[n++] = r->capacity_day;
    for (int i = 0; i < c->n_llm && n < SD_COST_MAX_LOADS; i++)
        if (!r->rival[i].even.never && r->rival[i].even.requests_day > 0)
            at[n++] = r->rival[i].even.requests_day;
    qsort(at, (size_t)n, sizeof *at, ascending);
    for (int i = 0; i < n; i++) {
        if (i > 0 && at[i] <= at[i - 1] * (1 + 1e-9)) continue;
        if (sd_cost_load(&r->load[r->n_loads], c, r, at[i], NULL) == SD_OK) r->n_loads++;
    }
}

static void compare(sd_cost_result *r, const sd_cost_case *c) {
    const sd_cost_input *in = &c->in;
    r->cheapest = -1;
    for (int i = 0; i < c->n_rivals; i++) {
        sd_rival_result *x = &r->rival[i];
        x->request = sd_api_request(&c->rival[i].price, in, c->rival[i].tokens);
        x->month =
            sd_month_add(sd_month_of_requests(x->request, in->requests_day), sd_api_migration(in));
        x->million.usd = x->request.usd / (in->tokens_in + in->tokens_out) * 1e6;
        x->even = sd_cost_break_even(in, x->request);
        bool cheaper = r->cheapest < 0 || x->month.usd < r->rival[r->cheapest].month.usd;
        if (i < c->n_llm && cheaper) r->cheapest = i;
    }
    r->even = r->cheapest;
    for (int i = 0; i < c->n_llm; i++) {
        const sd_rival_result *x = &r->rival[i], *found = &r->rival[r->even];
        if (x->even.never) continue;
        if (found->even.never || x->month.usd < found->month.usd) r->even = i;
    }
    r->own_wins = r->cheapest < 0 || !sd_month_cheaper(r->rival[r->cheapest].month, r->month.total);
}

static sd_status mix(sd_cost_result *r, const sd_cost_case *c, sd_error *err) {
    sd_status st = SD_OK;
    if (c->n_llm == 0) return SD_OK;
    sd_usd_request api = r->rival[0].request;
    if (c->local_share >= 0) {
        r->has_hybrid = true;
        SD_TRY(sd_cost_hybrid(&r->hybrid, &c->in, api, c->local_share, err));
    }
    if (c->escalated_share >= 0) {
        r->has_cascade = true;
        r->cascade_request = sd_cost_cascade(r->request, c->escalated_share, api);
        r->cascade = sd_month_of_requests(r->cascade_request, c->in.requests_day);
    }
    if (c->by_hour) {
        r->has_burst = true;
        SD_TRY(sd_cost_burst(&r->burst, &c->in, c->hour, c->hour_peak, api, err));
    }
out:
    return st;
}

// All here and all there are no mixtures.
static bool is_part(double share) {
    return share > 1e-9 && share < 1 - 1e-9;
}

static void find_mixture(sd_cost_result *r, const sd_cost_case *c) {
    sd_usd_month least = r->month.total;
    if (r->cheapest >= 0 && !r->own_wins) least = r->rival[r->cheapest].month;
    const struct {
        const char *name;
        bool mixed;
        sd_usd_month month;
    } all[] = {{"hybrid", r->has_hybrid && is_part(c->local_share), r->hybrid.total},
               {"cascade", r->has_cascade && c->escalated_share > 1e-9, r->cascade},
               {"by hour", r->has_burst && is_part(r->burst.local_share), r->burst.total}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].mixed && sd_month_cheaper(all[i].month, least))
            least = all[i].month, r->mixture = all[i].name;
}

sd_status sd_cost_compute(sd_cost_result *out, const sd_cost_case *c, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cost_input *in = &c->in;
    sd_cost_result r = {.seconds = sd_cost_seconds(in)};
    SD_TRY(sd_cost_replicas(&r.replicas, in, in->requests_day, err));
    r.utilisation = sd_cost_utilisation(in, r.replicas, in->requests_day);
    r.capacity_day = sd_cost_capacity(in, r.replicas);
    r.month = sd_cost_of(in, r.replicas, in->requests_day);
    r.million = sd_cost_per_million(in, r.replicas, in->requests_day);
    r.request.usd = r.month.total.usd / (in->requests_day * SD_DAYS_MONTH);
    compare(&r, c);
    SD_TRY(mix(&r, c, err));
    find_mixture(&r, c);
    SD_TRY(sd_cost_speculation(&r.speculation, in, err));
    sd_speculation_says(r.speculation_says, sizeof r.speculation_says, &r.speculation, in);
    bool rivals = r.cheapest >= 0;
    sd_cost_sensitivity(r.sensitivity, &r.n_sensitivity, in,
                        rivals ? &r.rival[r.cheapest].request : NULL,
                        rivals ? &r.rival[r.even].request : NULL);
    fill_loads(&r, c);
    *out = r;
out:
    return st;
}
