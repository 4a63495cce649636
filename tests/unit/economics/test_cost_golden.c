// The worked examples, to the digit that they are published with, and the mistakes of public calculators, which must not come back.
#include "economics/burst.h"
#include "economics/sensitivity.h"
#include "economics/speculation.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

// A published figure holds half a unit of its last digit.
#define SAYS(got, want, digits)                                                                    \
    cr_assert_float_eq(got, want, 0.5 * pow(10, -(digits)) * (1 + 1e-9), #got " is %.12g, not %s", \
                       (double)(got), #want)

// 1,500 tokens in and 500 out, a 7B on one A100 at $2.00 an hour, 20 engineer hours of $100.
static sd_cost_input base(double requests_day) {
    sd_cost_input in = sd_cost_defaults();
    in.requests_day = requests_day, in.tokens_in = 1500, in.tokens_out = 500;
    in.prefill_tok_s = 8000, in.decode_tok_s = 1500;
    in.gpu_hour.usd = 2;
    in.engineer_hours = 20, in.engineer_rate.usd = 100;
    cr_assert_eq(sd_cost_check(&in, NULL), SD_OK);
    return in;
}

// A 70B on four A100, 40 engineer hours.
static sd_cost_input large(double peak) {
    sd_cost_input in = base(500);
    in.prefill_tok_s = 9000, in.decode_tok_s = 740;
    in.gpus = 4, in.engineer_hours = 40, in.peak = peak;
    return in;
}

static sd_usd_request api(double in, double out) {
    sd_api_price p = sd_api_flat((sd_usd_million){in}, (sd_usd_million){out});
    sd_cost_input at = base(1);
    return sd_api_request(&p, &at, 1);
}
static sd_usd_request frontier(void) {
    return api(2.50, 10);
}
static sd_usd_request small(void) {
    return api(0.15, 0.60);
}

static int64_t replicas(const sd_cost_input *in) {
    int64_t n = 0;
    cr_assert_eq(sd_cost_replicas(&n, in, in->requests_day, NULL), SD_OK);
    return n;
}

Test(cost_golden, the_base_of_all_examples) {
    sd_cost_input in = base(500);
    SAYS(frontier().usd, 0.008750, 6);
    SAYS(small().usd, 0.000525, 6);
    SAYS(sd_cost_seconds(&in), 0.520833, 6);
    sd_cost_month c = sd_cost_of(&in, 1, 500);
    SAYS(c.gpu.usd, 1460, 2);
    SAYS(c.people.usd, 2000, 2);
    SAYS(c.total.usd, 3460, 2);
}

Test(cost_golden, e1_five_hundred_a_day_belong_to_the_api) {
    sd_cost_input in = base(500);
    cr_assert_eq(replicas(&in), 1);
    SAYS(500 * SD_DAYS_MONTH * 2000 / 1e6, 30.4167, 4);
    SAYS(sd_cost_utilisation(&in, 1, 500) * 100, 0.3014, 4);
    sd_cost_million m = sd_cost_per_million(&in, 1, 500);
    SAYS(m.gpu_only.usd, 48.00, 2);
    SAYS(m.all_in.usd, 113.753, 3); // 3460 / 30.41667
    SAYS(sd_month_of_requests(frontier(), 500).usd, 133.07, 2);
    SAYS(sd_month_of_requests(small(), 500).usd, 7.98, 2);
}

Test(cost_golden, e2_eighteen_percent_of_the_capacity) {
    sd_cost_input in = base(29859.84);
    SAYS(sd_cost_utilisation(&in, replicas(&in), in.requests_day), 0.18, 8);
    SAYS(in.requests_day * SD_DAYS_MONTH * 2000 / 1e6, 1816.47, 2);
    sd_cost_million m = sd_cost_per_million(&in, 1, in.requests_day);
    SAYS(m.gpu_only.usd, 0.8038, 4);
    SAYS(m.all_in.usd, 1.9048, 4);
    SAYS(m.gpu_only_at_full_use.usd, 0.1447, 4);
    SAYS(m.gpu_only_at_full_use.usd / 0.18, 0.8038, 4);
}

Test(cost_golden, e3_break_even_against_the_large_model) {
    sd_cost_input in = base(500);
    sd_break_even b = sd_cost_break_even(&in, frontier());
    cr_assert_eq(b.never, SD_NEVER_NOT);
    SAYS(b.requests_day, 13000.4, 1);
    SAYS(b.utilisation * 100, 7.84, 2);
    cr_assert_eq(b.replicas, 1);
    SAYS(b.capacity_day, 38707.2, 1);
    SAYS(b.for_good_day, 13000.4, 1);
}

Test(cost_golden, e4_never_against_the_small_model_and_why) {
    sd_cost_input in = base(500);
    sd_break_even b = sd_cost_break_even(&in, small());
    char why[160];
    cr_assert_eq(b.never, SD_NEVER_REPLICA);
    cr_assert_eq(b.replicas, 0);
    SAYS(b.replica.usd, 1460, 2);
    SAYS(b.carries.usd, 618.11, 2);
    sd_break_even_reason(why, sizeof why, &b);
    cr_assert(strstr(why, "$1,460.00 a month") && strstr(why, "$618.11"), "%s", why);
}

Test(cost_golden, e5_against_the_small_model_with_an_even_load) {
    sd_cost_input in = base(500);
    in.peak = 1;
    sd_break_even b = sd_cost_break_even(&in, small());
    SAYS(b.requests_day, 673816, 0);
    cr_assert_eq(b.replicas, 6);
    SAYS(b.capacity_day, 696730, 0);
    SAYS(sd_cost_of(&in, 6, b.requests_day).total.usd, 10760, 2);
}

Test(cost_golden, e6_the_peak_moves_break_even_five_fold) {
    sd_cost_input in = large(1.5);
    SAYS(sd_cost_seconds(&in), 0.842342, 6);
    sd_break_even b = sd_cost_break_even(&in, frontier());
    cr_assert_eq(b.replicas, 1);
    SAYS(b.requests_day, 36972.2, 1);
    SAYS(b.capacity_day, 47866.5, 1);
    // Behind the first replica's capacity the API is the cheaper once more, until two pay: 15,680 / (D * 0.00875).
    SAYS(b.for_good_day, 58915, 0);
    in = large(3);
    sd_break_even peaked = sd_cost_break_even(&in, frontier());
    cr_assert_eq(peaked.replicas, 8);
    SAYS(peaked.requests_day, 190572, 0);
    SAYS(peaked.capacity_day, 191466, 0);
    SAYS(sd_cost_of(&in, 8, peaked.requests_day).total.usd, 50720, 2);
    cr_assert_gt(peaked.requests_day, 5 * b.requests_day);
}

Test(cost_golden, e7_a_hybrid_of_both) {
    sd_cost_input in = base(30000);
    sd_hybrid h;
    cr_assert_eq(sd_cost_hybrid(&h, &in, frontier(), 0.8, NULL), SD_OK);
    SAYS(h.total.usd, 5056.88, 2);
    SAYS(h.all_api.usd, 7984.38, 2);
    SAYS(h.change * 100, -36.7, 1);
    SAYS(sd_cost_of(&in, replicas(&in), 30000).total.usd, 3460, 2);
}

static sd_cost_input owned(void) {
    sd_cost_input in = base(29859.84);
    in.gpu_hour.usd = 0;
    in.buy.usd = 15000, in.years = 3, in.residual = 0.2;
    in.watts_idle = 60, in.watts_active = 400, in.pue = 1.3, in.kwh.usd = 0.15;
    cr_assert_eq(sd_cost_check(&in, NULL), SD_OK);
    return in;
}

Test(cost_golden, e8_a_card_of_ones_own) {
    sd_cost_input in = owned();
    sd_cost_month c = sd_cost_of(&in, 1, in.requests_day);
    SAYS(c.gpu.usd, 333.33, 2);
    SAYS(c.energy.usd, 17.25, 2);
    SAYS(c.gpu.usd + c.energy.usd, 350.59, 2);
}

Test(cost_golden, e9_what_others_have_published) {
    // Manning, Rearchitecting LLMs 12.9: $2.50 an hour, 2,950 requests an hour, $0.004 at the API, 4.2 % escalated.
    sd_cost_input in = base(500);
    in.gpu_hour.usd = 2.50, in.engineer_hours = in.engineer_rate.usd = 0, in.peak = 1;
    sd_break_even b = sd_cost_break_even(&in, (sd_usd_request){0.004});
    SAYS(b.requests_day / 24, 625, 6);
    SAYS(sd_cost_cascade((sd_usd_request){2.50 / 2950}, 0.042, (sd_usd_request){0.004}).usd,
         0.00101546, 8);
    SAYS(sd_million_of_rent((sd_usd_hour){2.50}, 700, 1).usd, 0.992063, 6);
    SAYS(sd_million_of_rent((sd_usd_hour){2.00}, 2000, 1).usd, 0.277778, 6);
    SAYS(sd_million_of_rent((sd_usd_hour){2.00}, 2000, 0.2).usd, 1.388889, 6);
}

Test(cost_golden, e10_two_calculators_whose_figures_are_not_printed) {
    // 2.50 / (50 * 3600) * 10^6 is 13.89 and was published as 0.14.
    sd_cost_input in = base(500);
    in.tokens_in = 0, in.decode_tok_s = 50, in.gpu_hour.usd = 2.50;
    cr_assert_eq(sd_cost_check(&in, NULL), SD_OK);
    SAYS(sd_cost_per_million(&in, 1, 500).gpu_only_at_full_use.usd, 13.89, 2);
    // $4,608 a month against $10 for 10^6 tokens are 460.8 M tokens, published as 0.46 M.
    in = base(500);
    in.gpu_hour.usd = 4608.0 / 730, in.engineer_hours = in.engineer_rate.usd = 0, in.peak = 1;
    sd_break_even b = sd_cost_break_even(&in, api(10, 10));
    SAYS(b.requests_day * SD_DAYS_MONTH * 2000 / 1e6, 460.8, 6);
}

// ---- pitfalls of public tools

Test(cost_pitfalls, cached_prompts_are_charged_at_the_cached_price) {
    sd_cost_input in = base(500);
    sd_api_price p = sd_api_flat((sd_usd_million){2.50}, (sd_usd_million){10});
    p.cached.usd = 0.25;
    in.cached_share = 0.8;
    // [1500 * 0.2 * 2.50 + 1500 * 0.8 * 0.25 + 500 * 10] / 10^6
    SAYS(sd_api_request(&p, &in, 1).usd, 0.00605, 9);
    SAYS(sd_cost_seconds(&in), 300.0 / 8000 + 500.0 / 1500,
         12); // one's own gain: fewer tokens to read
}

Test(cost_pitfalls, what_is_written_to_a_cache_and_thought_has_its_own_price) {
    sd_cost_input in = base(500);
    sd_api_price p = sd_api_flat((sd_usd_million){2}, (sd_usd_million){10});
    p.write_5m.usd = 2.5, p.write_1h.usd = 4, p.reasoning.usd = 20, p.request.usd = 0.001;
    in.cached_share = 0.5, in.write_5m_share = 0.2, in.write_1h_share = 0.1;
    in.reasoning_share = 0.4;
    // cached tokens cost what prompts cost, since the vendor names no other price
    double prompt = 1500 * (0.2 * 2 + 0.5 * 2 + 0.2 * 2.5 + 0.1 * 4);
    SAYS(sd_api_request(&p, &in, 1).usd, (prompt + 500 * (0.6 * 10 + 0.4 * 20)) / 1e6 + 0.001, 12);
}

Test(cost_pitfalls, work_done_and_idle_time_are_two_prices) {
    sd_cost_input in = base(500);
    sd_cost_million m = sd_cost_per_million(&in, 1, 500);
    SAYS(m.gpu_only.usd / m.gpu_only_at_full_use.usd, 1 / sd_cost_utilisation(&in, 1, 500), 6);
}

Test(cost_pitfalls, prompts_and_answers_have_prices_of_their_own_that_add_up) {
    sd_cost_input in = base(500);
    sd_cost_million m = sd_cost_per_million(&in, 1, 500);
    SAYS(m.input.usd * 1500 + m.output.usd * 500, m.all_in.usd * 2000, 6);
    SAYS(m.output.usd / m.input.usd, 8000.0 / 1500, 9); // as the seconds of a token of each
}

Test(cost_pitfalls, electricity_alone_is_refused) {
    sd_cost_input in = owned();
    sd_error err;
    in.buy.usd = 0;
    cr_assert_eq(sd_cost_check(&in, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "--gpu-hour") && strstr(err.message, "electricity alone"), "%s",
              err.message);
}

Test(cost_pitfalls, an_api_that_counts_more_tokens_for_a_text_costs_more_for_a_request) {
    sd_cost_input in = base(500);
    sd_api_price p = sd_api_flat((sd_usd_million){2.50}, (sd_usd_million){10});
    SAYS(sd_api_request(&p, &in, 1.35).usd, 1.35 * 0.00875, 12);
}

Test(cost_pitfalls, a_decision_api_charges_the_prompt_alone) {
    SAYS(api(0.10, 0).usd, 0.00015, 9);
}

Test(cost_pitfalls, a_migration_is_the_apis_cost_and_lowers_break_even) {
    sd_cost_input in = base(500);
    in.migration_hours = 60;
    SAYS(sd_api_migration(&in).usd, 500, 9);
    sd_break_even b = sd_cost_break_even(&in, frontier());
    // There both bills are equal: C = q D c_api + 500.
    SAYS(sd_month_of_requests(frontier(), b.requests_day).usd + 500, 3460, 6);
    in.migration_hours = 600; // more than all of C: own replicas are cheaper at any load
    b = sd_cost_break_even(&in, frontier());
    cr_assert_eq(b.never, SD_NEVER_NOT);
    cr_assert_eq(b.requests_day, 0);
}

Test(cost_pitfalls, nothing_is_compared_with_an_api_that_takes_nothing_or_less_than_the_power) {
    sd_cost_input in = owned();
    cr_assert_eq(sd_cost_break_even(&in, (sd_usd_request){0}).never, SD_NEVER_FREE);
    cr_assert_eq(sd_cost_break_even(&in, (sd_usd_request){1e-9}).never, SD_NEVER_POWER);
    in.engineer_hours = 1e6,
    in.engineer_rate.usd = 1e5; // pays only with more replicas than are counted
    in.peak = 1;
    sd_break_even b = sd_cost_break_even(&in, (sd_usd_request){0.001});
    cr_assert_eq(b.never, SD_NEVER_REPLICAS);
}

// ---- hours, speculation, sensitivity

Test(cost_burst, the_number_of_replicas_is_the_one_of_least_total) {
    sd_cost_input in = base(1);
    double load[24], sum = 0;
    in.gpu_hour.usd = 4, in.decode_tok_s = 300;
    for (int h = 0; h < 24; h++) sum += load[h] = h >= 8 && h < 18 ? 6000 : h == 12 ? 0 : 200;
    sd_burst b;
    cr_assert_eq(sd_cost_burst(&b, &in, load, 1, frontier(), NULL), SD_OK);
    // The same by hand: one replica carries max_load * 3600 / w requests in an hour.
    double w = 1500.0 / 8000 + 500.0 / 300, room = 0.7 * 3600 / w, best = INFINITY;
    int best_n = -1;
    for (int n = 0; n < 40; n++) {
        double local = 0;
        for (int h = 0; h < 24; h++) local += fmin(load[h], n * room);
        double total = (n ? n * 4 * 730.0 + 2000 : 0) + (sum - local) * SD_DAYS_MONTH * 0.00875;
        if (total < best) best = total, best_n = n;
    }
    cr_assert_eq(b.replicas, best_n, "%lld, not %d", (long long)b.replicas, best_n);
    cr_assert(best_n > 0 && best_n < 5, "%d: neither end", best_n);
    SAYS(b.total.usd, best, 6);
    SAYS(b.all_api.usd, sum * SD_DAYS_MONTH * 0.00875, 6);
    double local = 0;
    for (int h = 0; h < 24; h++) {
        SAYS(b.local[h], fmin(load[h], best_n * room), 9);
        local += b.local[h];
    }
    SAYS(b.local_share, local / sum, 9);
}

Test(cost_burst, a_cheap_api_serves_every_hour) {
    sd_cost_input in = base(1);
    double load[24] = {1, 2, 3};
    sd_burst b;
    cr_assert_eq(sd_cost_burst(&b, &in, load, 1, small(), NULL), SD_OK);
    cr_assert_eq(b.replicas, 0);
    cr_assert_eq(b.total.usd, b.all_api.usd);
    cr_assert_eq(b.local_share, 0);
}

Test(cost_speculation, at_a_low_load_it_buys_latency_and_says_so) {
    sd_cost_input in = base(10000); // 6 %
    sd_speculation s;
    char says[512];
    in.plain_decode_tok_s = 900;
    cr_assert_eq(sd_cost_speculation(&s, &in, NULL), SD_OK);
    cr_assert(s.measured && s.replicas == 1 && s.plain_replicas == 1);
    cr_assert_eq(s.saves.usd, 0);
    cr_assert_eq(s.fewer_at, 0);
    sd_speculation_says(says, sizeof says, &s, &in);
    cr_assert(strstr(says, "latency, not dollars"), "%s", says);
}

Test(cost_speculation, it_is_worth_the_replicas_that_it_saves) {
    sd_cost_input in = base(100000);
    sd_speculation s;
    char says[512];
    in.plain_decode_tok_s = 900;
    // 3 * 100000 / 86400 * w / 0.7: w of 0.5208 takes 2.58 replicas, w of 0.7431 takes 3.69.
    cr_assert_eq(sd_cost_speculation(&s, &in, NULL), SD_OK);
    cr_assert(s.replicas == 3 && s.plain_replicas == 4);
    SAYS(s.saves.usd, 1460, 6);
    sd_speculation_says(says, sizeof says, &s, &in);
    cr_assert(strstr(says, "saves $1,460.00 a month"), "%s", says);
    // At fewer_at times the speed two replicas carry it, just so.
    cr_assert_gt(s.fewer_at, 1);
    in.decode_tok_s *= s.fewer_at;
    cr_assert_eq(replicas(&in), 2);
    in.decode_tok_s *= 1 - 1e-6;
    cr_assert_eq(replicas(&in), 3);
}

Test(cost_sensitivity, without_an_api_there_is_no_verdict_to_turn) {
    sd_cost_input in = base(12000);
    sd_sensitivity rows[SD_SENSITIVITY_MAX];
    int n;
    sd_cost_sensitivity(rows, &n, &in, NULL, NULL);
    cr_assert_eq(n, 6);
    for (int i = 0; i < n; i++) cr_assert(!rows[i].flips && rows[i].break_even_low == 0);
}

Test(cost_sensitivity, the_largest_swing_comes_first_and_what_turns_the_verdict_is_marked) {
    sd_cost_input in = base(12000); // just below break-even
    sd_sensitivity rows[SD_SENSITIVITY_MAX];
    sd_usd_request api = frontier();
    int n;
    sd_cost_sensitivity(rows, &n, &in, &api, &api);
    cr_assert_eq(n, 6); // nothing is bought
    for (int i = 1; i < n; i++)
        cr_assert_geq(fabs(rows[i - 1].high.usd - rows[i - 1].low.usd),
                      fabs(rows[i].high.usd - rows[i].low.usd));
    cr_assert_str_eq(rows[0].row->name, "requests-day");
    SAYS(rows[0].low.usd, 3460 / (9000 * SD_DAYS_MONTH * 2000) * 1e6, 9);
    SAYS(rows[0].high.usd, 3460 / (15000 * SD_DAYS_MONTH * 2000) * 1e6, 9);
    cr_assert(rows[0].flips);
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].row->name, "decode-tok-s") == 0)
            cr_assert(!rows[i].flips && rows[i].low.usd == rows[i].high.usd); // n stays 1
    for (int i = 0; i < n; i++)
        if (strcmp(rows[i].row->name, "engineer-hours") == 0) {
            SAYS(rows[i].break_even_low, 2960 / (SD_DAYS_MONTH * 0.00875), 6);
            SAYS(rows[i].break_even_high, 3960 / (SD_DAYS_MONTH * 0.00875), 6);
        }
}
