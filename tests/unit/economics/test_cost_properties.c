// What holds of any input: drawn at random by a counter generator, so that a failure names its draw.
#include "economics/burst.h"
#include "economics/sensitivity.h"
#include "economics/speculation.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DRAWS = 20000 };

// A number in [0, 1), the k-th of draw i.
static double unit(int i, int k) {
    uint64_t x = (uint64_t)i * 1000003u + (uint64_t)k;
    x += 0x9e3779b97f4a7c15u, x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27, x *= 0x94d049bb133111ebu, x ^= x >> 31;
    return (double)(x >> 11) * 0x1p-53;
}
static double between(double lo, double hi, double u) { // evenly in the logarithm
    return lo * pow(hi / lo, u);
}

static sd_cost_input draw(int i) {
    sd_cost_input in = sd_cost_defaults();
    int k = 0;
    in.requests_day = between(1, 1e7, unit(i, k++));
    in.tokens_in = between(1, 1e5, unit(i, k++)), in.tokens_out = between(1, 1e4, unit(i, k++));
    in.cached_share = unit(i, k++) < 0.5 ? 0 : 0.9 * unit(i, k);
    in.peak = 1 + 5 * unit(i, ++k);
    in.prefill_tok_s = between(100, 1e5, unit(i, ++k));
    in.decode_tok_s = between(50, 1e5, unit(i, ++k));
    in.gpus = ceil(8 * unit(i, ++k) + 1e-9);
    in.hours_on = unit(i, ++k) < 0.7 ? 730 : 100 + 600 * unit(i, ++k);
    if (unit(i, ++k) < 0.5) {
        in.gpu_hour.usd = between(0.1, 10, unit(i, ++k));
    } else {
        in.buy.usd = between(500, 5e4, unit(i, ++k)), in.years = 1 + 5 * unit(i, ++k);
        in.residual = 0.5 * unit(i, ++k);
        in.watts_idle = 100 * unit(i, ++k),
        in.watts_active = in.watts_idle + 600 * unit(i, ++k) + 1;
        in.kwh.usd = between(0.02, 0.5, unit(i, ++k));
    }
    in.min_replicas = 1 + floor(3 * unit(i, ++k));
    in.max_load = 0.3 + 0.7 * unit(i, ++k);
    in.hosting.usd = 200 * unit(i, ++k);
    in.engineer_hours = 100 * unit(i, ++k), in.engineer_rate.usd = 10 + 150 * unit(i, ++k);
    in.setup_hours = 200 * unit(i, ++k);
    in.other.usd = 500 * unit(i, ++k);
    sd_error err;
    cr_assert_eq(sd_cost_check(&in, &err), SD_OK, "draw %d: %s", i, err.message);
    return in;
}

static sd_usd_request draw_api(int i, const sd_cost_input *in) {
    sd_api_price p = sd_api_flat((sd_usd_million){between(0.05, 20, unit(i, 900))},
                                 (sd_usd_million){between(0.1, 60, unit(i, 901))});
    p.cached.usd = p.in.usd * unit(i, 902);
    return sd_api_request(&p, in, 1);
}

// False: more replicas than are counted.
static bool total(double *usd, const sd_cost_input *in) {
    int64_t n;
    if (sd_cost_replicas(&n, in, in->requests_day, NULL) != SD_OK) return false;
    *usd = sd_cost_of(in, n, in->requests_day).total.usd;
    return true;
}

Test(cost_properties, nothing_is_below_zero_or_not_finite) {
    for (int i = 0; i < DRAWS; i++) {
        sd_cost_input in = draw(i);
        int64_t n;
        if (sd_cost_replicas(&n, &in, in.requests_day, NULL) != SD_OK) continue;
        sd_cost_month c = sd_cost_of(&in, n, in.requests_day);
        sd_cost_million m = sd_cost_per_million(&in, n, in.requests_day);
        sd_break_even b = sd_cost_break_even(&in, draw_api(i, &in));
        sd_speculation s;
        cr_assert_eq(sd_cost_speculation(&s, &in, NULL), SD_OK);
        double all[] = {c.gpu.usd,      c.energy.usd,
                        c.people.usd,   c.other.usd,
                        c.total.usd,    m.gpu_only.usd,
                        m.all_in.usd,   m.gpu_only_at_full_use.usd,
                        m.input.usd,    m.output.usd,
                        b.requests_day, b.capacity_day,
                        b.utilisation,  b.replica.usd,
                        b.for_good_day, s.fewer_at,
                        s.seconds,      sd_cost_utilisation(&in, n, in.requests_day)};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            cr_assert(all[k] >= 0 && isfinite(all[k]), "draw %d: figure %zu is %g", i, k, all[k]);
        cr_assert_leq(sd_cost_utilisation(&in, n, in.requests_day) * in.peak,
                      in.max_load * (1 + 1e-9), "draw %d", i);
    }
}

// Which way the bill goes when an input grows.
static const struct {
    const char *name;
    int way;
} ways[] = {{"requests-day", 1},  {"in", 1},          {"out", 1},
            {"cached", -1},       {"peak", 1},        {"prefill-tok-s", -1},
            {"decode-tok-s", -1}, {"gpus", 1},        {"gpu-hour", 1},
            {"buy", 1},           {"years", -1},      {"residual", -1},
            {"pue", 1},           {"kwh", 1},         {"hosting", 1},
            {"min-replicas", 1},  {"max-load", -1},   {"engineer-hours", 1},
            {"engineer-rate", 1}, {"setup-hours", 1}, {"setup-months", -1},
            {"other", 1}};

Test(cost_properties, the_bill_is_monotone_in_each_field) {
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++)
        for (int i = 0; i < DRAWS / 10; i++) {
            sd_cost_input in = draw(i), more = in;
            const sd_cost_row *row = sd_cost_row_of(ways[k].name);
            double v = *sd_cost_at(&in, row), before, after;
            if (v == 0) continue;
            *sd_cost_at(&more, row) = fmin(
                row == sd_cost_row_of("min-replicas") ? v + 1 : v * (1 + unit(i, 950)), row->max);
            if (!total(&before, &in) || !total(&after, &more)) continue;
            cr_assert(ways[k].way * (after - before) >= -1e-9 * before,
                      "draw %d: --%s from %g to %g takes the bill from %g to %g", i, ways[k].name,
                      v, *sd_cost_at(&more, row), before, after);
        }
}

Test(cost_properties, every_field_is_checked_for_its_way_or_cannot_be) {
    // What is left: watts (checked together), hours-on (trades rent for capacity), plain-decode-tok-s and migration-hours (not in the bill).
    size_t rest = 0;
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++)
            found |= strcmp(ways[k].name, sd_cost_rows[i].name) == 0;
        rest += !found;
    }
    cr_assert_eq(rest, 5, "%zu", rest);
}

static void double_prices(sd_cost_input *in) {
    double *const money[] = {&in->gpu_hour.usd, &in->buy.usd,           &in->kwh.usd,
                             &in->hosting.usd,  &in->engineer_rate.usd, &in->other.usd};
    for (size_t k = 0; k < sizeof money / sizeof *money; k++) *money[k] *= 2;
}

Test(cost_properties, doubling_all_prices_leaves_break_even) {
    int found = 0;
    for (int i = 0; i < DRAWS; i++) {
        sd_cost_input in = draw(i), twice = in;
        sd_usd_request api = draw_api(i, &in);
        double_prices(&twice);
        sd_break_even a = sd_cost_break_even(&in, api);
        sd_break_even b = sd_cost_break_even(&twice, (sd_usd_request){2 * api.usd});
        cr_assert_eq(a.never, b.never, "draw %d", i);
        cr_assert_eq(a.replicas, b.replicas, "draw %d", i);
        cr_assert_eq(a.requests_day, b.requests_day, "draw %d", i); // doubling is exact
        found += !a.never;
    }
    cr_assert(found > DRAWS / 10 && found < DRAWS, "%d draws have a break-even", found);
}

Test(cost_properties, more_requests_on_the_same_replicas_make_tokens_cheaper) {
    for (int i = 0; i < DRAWS; i++) {
        sd_cost_input in = draw(i);
        int64_t n, more;
        double q = in.requests_day * (1 + 0.2 * unit(i, 960));
        if (sd_cost_replicas(&n, &in, in.requests_day, NULL) != SD_OK) continue;
        if (sd_cost_replicas(&more, &in, q, NULL) != SD_OK || more != n) continue;
        sd_cost_million a = sd_cost_per_million(&in, n, in.requests_day);
        sd_cost_million b = sd_cost_per_million(&in, n, q);
        cr_assert(b.all_in.usd <= a.all_in.usd * (1 + 1e-12), "draw %d", i);
        cr_assert(b.gpu_only.usd <= a.gpu_only.usd * (1 + 1e-12), "draw %d", i);
    }
}

Test(cost_properties, twice_the_utilisation_halves_the_price_of_rented_gpus) {
    for (int i = 0; i < DRAWS; i++) {
        sd_cost_input in = draw(i);
        int64_t n, more;
        if (in.gpu_hour.usd == 0) continue;
        if (sd_cost_replicas(&more, &in, 2 * in.requests_day, NULL) != SD_OK) continue;
        cr_assert_eq(sd_cost_replicas(&n, &in, in.requests_day, NULL), SD_OK);
        if (n != more) continue;
        double a = sd_cost_per_million(&in, n, in.requests_day).gpu_only.usd;
        double b = sd_cost_per_million(&in, n, 2 * in.requests_day).gpu_only.usd;
        cr_assert_float_eq(a / b, 2, 1e-9, "draw %d: %g", i, a / b);
        cr_assert_float_eq(sd_cost_utilisation(&in, n, 2 * in.requests_day),
                           2 * sd_cost_utilisation(&in, n, in.requests_day), 1e-12, "draw %d", i);
    }
}

Test(cost_properties, an_apis_price_is_monotone_in_each_rate_and_count) {
    for (int i = 0; i < DRAWS / 10; i++) {
        sd_cost_input in = draw(i);
        double rate[7];
        for (int k = 0; k < 7; k++) rate[k] = unit(i, 800 + k) < 0.2 ? 0 : 20 * unit(i, 810 + k);
        in.cached_share = 0.4 * unit(i, 820), in.write_5m_share = 0.3 * unit(i, 821);
        in.write_1h_share = 0.3 * unit(i, 822), in.reasoning_share = unit(i, 823);
        double tokens = 0.5 + unit(i, 824), before = -1;
        for (int k = -1; k < 10; k++) { // one more of one thing at a time
            if (k >= 0 && k < 7) rate[k] += unit(i, 830 + k);
            if (k == 7) in.tokens_in *= 1 + unit(i, 840);
            if (k == 8) in.tokens_out *= 1 + unit(i, 841);
            if (k == 9) tokens *= 1 + unit(i, 842);
            sd_api_price p = {{rate[0]}, {rate[1]}, {rate[2]}, {rate[3]},
                              {rate[4]}, {rate[5]}, {rate[6]}};
            double usd = sd_api_request(&p, &in, tokens).usd;
            cr_assert(isfinite(usd) && usd >= 0 && usd >= before * (1 - 1e-12),
                      "draw %d, step %d: %g after %g", i, k, usd, before);
            before = usd;
        }
    }
}

// Own bill less the API's at a load; false: too many replicas.
static bool difference(double *usd, const sd_cost_input *in, sd_usd_request api, double q) {
    sd_cost_input at = *in;
    at.requests_day = q;
    if (!total(usd, &at)) return false;
    *usd -= sd_month_of_requests(api, q).usd;
    return true;
}

Test(cost_properties, the_api_is_cheaper_below_break_even_and_own_replicas_from_for_good_on) {
    int below = 0, above = 0;
    for (int i = 0; i < DRAWS; i++) {
        sd_cost_input in = draw(i);
        sd_usd_request api = draw_api(i, &in);
        sd_break_even b = sd_cost_break_even(&in, api);
        double most = b.never ? 1e7 : b.requests_day, d;
        for (int k = 0; k < 8; k++) {
            double q = most * (0.999 - 0.12 * k);
            if (!difference(&d, &in, api, q)) continue;
            cr_assert_gt(d, 0, "draw %d at %g: %g", i, q, d);
            below++;
        }
        if (b.never) continue;
        cr_assert(difference(&d, &in, api, b.requests_day), "draw %d", i);
        // At break-even both bills are equal, unless fewer replicas than n carry the load there, which is then cheaper still.
        cr_assert(d <= 1e-6 * sd_month_of_requests(api, b.requests_day).usd, "draw %d: %g", i, d);
        for (int k = 0; k < 8 && b.for_good_day > 0; k++) {
            double q = b.for_good_day * (1.001 + 0.37 * k);
            if (!difference(&d, &in, api, q)) continue;
            cr_assert_leq(d, 1e-6 * sd_month_of_requests(api, q).usd, "draw %d at %g: %g", i, q, d);
            above++;
        }
    }
    cr_assert(below > DRAWS && above > DRAWS / 2, "%d below, %d above", below, above);
}

Test(cost_properties, hours_served_by_both_cost_no_more_than_all_at_the_api) {
    for (int i = 0; i < DRAWS / 20; i++) {
        sd_cost_input in = draw(i);
        double load[24], sum = 0;
        for (int h = 0; h < 24; h++) sum += load[h] = between(1, 1e4, unit(i, 700 + h));
        sd_burst b;
        sd_usd_request api = draw_api(i, &in);
        if (sd_cost_burst(&b, &in, load, 1, api, NULL) != SD_OK) continue;
        cr_assert_leq(b.total.usd, b.all_api.usd, "draw %d", i);
        cr_assert(b.local_share >= 0 && b.local_share <= 1 + 1e-12, "draw %d", i);
    }
}

// ---- inputs that must be refused

static void refused(sd_cost_input in, const char *names) {
    sd_error err = {0};
    sd_status st = sd_cost_check(&in, &err);
    cr_assert(st != SD_OK && sd_status_exit_code(st) == 2, "%s: was taken", names);
    cr_assert(strstr(err.message, names), "'%s' does not name %s", err.message, names);
}

Test(cost_check, zeros_infinities_and_what_is_no_number_are_refused_by_name) {
    static const double odd[] = {NAN, INFINITY, -INFINITY, -1, 1e300, 1e19};
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++)
        for (size_t k = 0; k < sizeof odd / sizeof *odd; k++) {
            sd_cost_input in = draw(0);
            *sd_cost_at(&in, &sd_cost_rows[i]) = odd[k];
            char name[64];
            snprintf(name, sizeof name, "--%s", sd_cost_rows[i].name);
            refused(in, name);
        }
    static const char *const never_zero[] = {
        "requests-day", "prefill-tok-s", "decode-tok-s", "peak", "gpus",         "hours-on",
        "max-load",     "min-replicas",  "setup-months", "pue",  "engineer-rate"};
    for (size_t k = 0; k < sizeof never_zero / sizeof *never_zero; k++) {
        sd_cost_input in = draw(0);
        *sd_cost_at(&in, sd_cost_row_of(never_zero[k])) = 0;
        refused(in, never_zero[k]);
    }
}

static int bought(void) { // a draw
    for (int i = 0;; i++)
        if (draw(i).buy.usd > 0) return i;
}

Test(cost_check, contradictions_are_refused_by_name) {
    sd_cost_input in = draw(bought());
    in.years = 0;
    refused(in, "--years");
    in = draw(bought()), in.gpu_hour.usd = 1;
    refused(in, "--gpu-hour and --buy");
    in = draw(bought()), in.watts_active = in.watts_idle / 2;
    refused(in, "--watts");
    in = draw(bought()), in.kwh.usd = 0;
    refused(in, "--kwh");
    in = draw(bought()), in.watts_active = in.watts_idle = 0;
    refused(in, "--watts");
    in = draw(0), in.min_replicas = 1.5;
    refused(in, "--min-replicas");
    in = draw(0), in.tokens_in = in.tokens_out = 0;
    refused(in, "--in and --out");
    in = draw(0), in.cached_share = 1, in.tokens_out = 0;
    refused(in, "--cached");
    in = draw(0), in.cached_share = 0.8, in.write_5m_share = 0.3;
    refused(in, "--cached");
    in = draw(0), in.engineer_hours = in.setup_hours = 0;
    refused(in, "--engineer-rate");
}

Test(cost_check, more_replicas_than_are_counted_are_refused_with_the_load) {
    sd_cost_input in = draw(0);
    sd_error err;
    int64_t n;
    in.requests_day = 1e12;
    cr_assert_eq(sd_cost_check(&in, NULL), SD_OK);
    sd_status st = sd_cost_replicas(&n, &in, in.requests_day, &err);
    cr_assert_eq(sd_status_exit_code(st), 2);
    cr_assert(strstr(err.message, "--requests-day"), "%s", err.message);
}
