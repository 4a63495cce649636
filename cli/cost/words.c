// Sentences and lists that the text, the JSON and the page share.
#include "cli/cost/show.h"

#include <stdio.h>
#include <string.h>

static const char *plural(int64_t n) {
    return n == 1 ? "" : "s";
}

void sd_cost_verdict(char *out, size_t size, const sd_cost_case *c, const sd_cost_result *r) {
    double own = r->month.total.usd;
    if (r->cheapest < 0) {
        snprintf(out, size, "no API is given to compare with: self-hosting costs %s a month.",
                 sd_figure_money(own).text);
        return;
    }
    const char *name = c->rival[r->cheapest].name;
    double api = r->rival[r->cheapest].month.usd;
    int n;
    if (r->own_wins)
        n = snprintf(out, size, "self-host: %s a month; %s, the cheapest API given, takes %s.",
                     sd_figure_money(own).text, name, sd_figure_money(api).text);
    else
        n = snprintf(out, size, "the API: %s takes %s a month; self-hosting costs %s.", name,
                     sd_figure_money(api).text, sd_figure_money(own).text);
    if (r->mixture)
        snprintf(out + n, size - (size_t)n, " Cheaper than either is the mixture below: %s.",
                 r->mixture);
}

void sd_cost_turns(char *out, size_t size, const sd_cost_result *r) {
    size_t n = 0;
    int found = 0;
    if (r->cheapest < 0) {
        out[0] = '\0';
        return;
    }
    n += (size_t)snprintf(out, size, "A quarter more or less of ");
    for (int i = 0; i < r->n_sensitivity && n + 40 < size; i++)
        if (r->sensitivity[i].flips)
            n += (size_t)snprintf(out + n, size - n, "%s%s", found++ ? ", " : "",
                                  r->sensitivity[i].row->name);
    if (found)
        snprintf(out + n, size - n, " would turn it.");
    else
        snprintf(out, size, "No input turns it by being a quarter more or less.");
}

void sd_cost_even_says(char *out, size_t size, const sd_break_even *b) {
    if (b->never) {
        char why[160];
        sd_break_even_reason(why, sizeof why, b);
        snprintf(out, size, "never: %s", why);
        return;
    }
    int n = snprintf(out, size, "from %s requests/day on (%lld replica%s, capacity used %s)",
                     sd_figure_count(b->requests_day).text, (long long)b->replicas,
                     plural(b->replicas), sd_figure_percent(b->utilisation).text);
    if (b->for_good_day > b->requests_day * (1 + 1e-9))
        snprintf(out + n, size - (size_t)n,
                 "; beyond %s a further replica makes the API cheaper again, until %s",
                 sd_figure_count(b->capacity_day).text, sd_figure_count(b->for_good_day).text);
    else if (b->for_good_day == 0)
        snprintf(out + n, size - (size_t)n, "; up to %s only",
                 sd_figure_count(b->capacity_day).text);
}

// ---- assumptions

// Rows that nothing rests on: of a machine that is not bought, of speeds that are not known, of hours that nobody works.
static bool counts(const sd_cost_case *c, int i) {
    const sd_cost_input *in = &c->in;
    const char *name = sd_cost_rows[i].name;
    static const char *const of_bought[] = {"buy", "years", "residual", "watts", "pue", "kwh"};
    for (size_t k = 0; k < sizeof of_bought / sizeof *of_bought; k++)
        if (strcmp(name, of_bought[k]) == 0 && in->buy.usd == 0) return false;
    if (strcmp(name, "gpu-hour") == 0) return in->gpu_hour.usd > 0;
    if (strcmp(name, "plain-decode-tok-s") == 0) return in->plain_decode_tok_s > 0;
    if (strcmp(name, "prefill-tok-s") == 0) return in->tokens_in > 0;
    if (strcmp(name, "decode-tok-s") == 0) return in->tokens_out > 0;
    if (strcmp(name, "setup-months") == 0) return in->setup_hours > 0;
    return true;
}

// What only a usage log says.
static void log_assumptions(const sd_cost_case *c, sd_assumption_take take, void *ctx) {
    const struct {
        const char *name;
        double share;
    } all[] = {{"prompt written to a cache for 5 min", c->in.write_5m_share},
               {"prompt written to a cache for 1 h", c->in.write_1h_share},
               {"answer that is reasoning", c->in.reasoning_share}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].share > 0) take(ctx, all[i].name, all[i].share, NULL, SD_SOURCE_MEASURED, NULL);
}

static void rival_assumptions(const sd_cost_case *c, const sd_cost_rival *r,
                              sd_assumption_take take, void *ctx) {
    const struct {
        const char *what;
        double usd;
        bool shown;
    } rates[] = {
        {"in", r->price.in.usd, true},
        {"out", r->price.out.usd, true},
        {"cached", r->price.cached.usd, c->in.cached_share > 0},
        {"written for 5 min", r->price.write_5m.usd, c->in.write_5m_share > 0},
        {"written for 1 h", r->price.write_1h.usd, c->in.write_1h_share > 0},
        {"reasoning", r->price.reasoning.usd, c->in.reasoning_share > 0},
    };
    char name[160];
    const char *from = r->from_file ? c->prices_path : NULL;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        if (!rates[i].shown) continue;
        snprintf(name, sizeof name, "%s %s", r->name, rates[i].what);
        take(ctx, name, rates[i].usd, "USD per 10^6 tokens", SD_SOURCE_GIVEN, from);
    }
    if (r->price.request.usd > 0) {
        snprintf(name, sizeof name, "%s request", r->name);
        take(ctx, name, r->price.request.usd, "USD", SD_SOURCE_GIVEN, from);
    }
    snprintf(name, sizeof name, "%s token-ratio", r->name);
    take(ctx, name, r->tokens, NULL, r->tokens_given ? SD_SOURCE_GIVEN : SD_SOURCE_DEFAULT, NULL);
}

void sd_cost_assumptions(const sd_cost_case *c, sd_assumption_take take, void *ctx) {
    sd_cost_input in = c->in;
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++) {
        const sd_cost_row *row = &sd_cost_rows[i];
        char name[64];
        bool idle = row->offset == offsetof(sd_cost_input, watts_idle);
        if (!counts(c, i)) continue;
        snprintf(name, sizeof name, "%s%s", row->name,
                 !row->half ? ""
                 : idle     ? " idle"
                            : " active");
        take(ctx, name, *sd_cost_at(&in, row), row->unit, c->source[i], c->from[i]);
    }
    log_assumptions(c, take, ctx);
    take(ctx, "month", SD_HOURS_MONTH, "hours", SD_SOURCE_DEFAULT, NULL);
    if (c->busy >= 0) take(ctx, "busy", c->busy, NULL, c->busy_source, NULL);
    for (int i = 0; i < c->n_rivals; i++) rival_assumptions(c, &c->rival[i], take, ctx);
}
