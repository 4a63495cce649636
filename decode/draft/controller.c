// Costs are never profiled at a start. Where a table was kept with the packed weights, drafts pay
// from the first step on; without one the first prompt chunk gives the price of a row among many,
// the first decoded token the price of a step, and the straight line between them is the prior.
// Each step then corrects the price of its own number of rows (slowly) and the unit (quickly: the
// depth of the context and other load move all prices together).
#include "decode/draft/controller.h"

#include <math.h>
#include <string.h>

enum { GUARD_TOKENS = 256, PLAIN_EVERY = 200 };
static const double GUARD_SPEED = 0.98;
static const double DEFAULT_SLOPE = 0.2; // cost of a further row before anything was measured
static const double HEAD_SHARE = 1.15;   // a prompt row has no logits; a verified row has
enum { TABLE_STEPS = 4 };                // so many steps a price of the table weighs
static const double MOST_OFF = 0.7;      // a step that was interrupted says little
static const double MEAN_PRIOR = 0.75;   // of a drafter's proposals before anything was measured
static const float DECAY_ALL = 0.999f, DECAY_OWN = 0.985f, PRIOR_WEIGHT = 6;

void sd_controller_init(sd_controller *c) {
    memset(c, 0, sizeof *c);
    c->slope = DEFAULT_SLOPE;
    c->speed_up = 1;
    for (int n = 0; n <= SD_COST_ROWS; n++) c->ratio[n] = 1;
    for (int i = 0; i < SD_MAX_DRAFTERS; i++)
        for (int b = 0; b < SD_BATCH_CLASSES; b++) c->batch_ratio[i][b] = 1;
}

// The nearest measured numbers of rows on both sides, weighed by distance.
static double ratio_at(const sd_controller *c, int n) {
    if (n > SD_COST_ROWS) n = SD_COST_ROWS;
    if (n <= 1) return 1;
    int a = n, b = n;
    while (a > 1 && !c->measured[a]) a--;
    while (b < SD_COST_ROWS && !c->measured[b]) b++;
    double ra = a > 1 ? (double)c->ratio[a] : 1;
    double rb = c->measured[b] ? (double)c->ratio[b] : ra;
    return b == a ? ra : ra + (rb - ra) * (n - a) / (b - a);
}

// The cost of n rows over that of one.
static double shape(const sd_controller *c, int n) {
    return (1 + c->slope * (n - 1)) * ratio_at(c, n);
}

double sd_controller_cost(const sd_controller *c, int n) {
    return n <= 0 ? 0 : c->unit * shape(c, n);
}

static void set_slope(sd_controller *c, double s) {
    c->slope = s < .02 ? .02 : s > 1 ? 1 : s;
    c->have_slope = true;
}

static void estimate_slope(sd_controller *c) {
    if (!c->have_unit || c->prefill_row <= 0 || c->have_slope) return;
    set_slope(c, c->prefill_row * HEAD_SHARE / c->unit);
}

void sd_controller_load_costs(sd_controller *c, const sd_step_costs *t) {
    const int *rows = sd_step_cost_rows;
    c->unit = t->ms[0] * 1e-3;
    set_slope(c, (t->ms[SD_STEP_COSTS - 1] / t->ms[0] - 1) / (SD_STEP_COST_MOST - 1));
    for (int i = 1, n = 2; n <= SD_STEP_COST_MOST; n++) {
        while (rows[i] < n) i++;
        double between = (double)(n - rows[i - 1]) / (rows[i] - rows[i - 1]);
        double cost = (t->ms[i - 1] + between * (t->ms[i] - t->ms[i - 1])) / t->ms[0];
        // A step is never cheaper than a smaller one, nor dearer than its rows one by one.
        cost = cost < 1 ? 1 : cost > n ? n : cost;
        c->ratio[n] = (float)(cost / (1 + c->slope * (n - 1)));
        c->measured[n] = TABLE_STEPS;
    }
}

void sd_controller_prefilled(sd_controller *c, int n, double seconds) {
    if (n < 16) return; // too few rows to tell the price of one among many
    double row = seconds / n;
    c->prefill_row = c->prefill_row <= 0 ? row : c->prefill_row + .3 * (row - c->prefill_row);
    estimate_slope(c);
}

static void learn_cost(sd_controller *c, int n, double seconds) {
    if (n < 1 || !(seconds > 0)) return;
    if (!c->have_unit) {
        c->unit = seconds / shape(c, n);
        c->have_unit = true;
        estimate_slope(c);
        return;
    }
    double off = log(seconds / sd_controller_cost(c, n));
    off = off > MOST_OFF ? MOST_OFF : off < -MOST_OFF ? -MOST_OFF : off;
    if (n == 1 || n > SD_COST_ROWS) {
        c->unit *= exp(.25 * off);
        return;
    }
    int seen = c->measured[n]++;
    double own = seen == 0 ? .7 : seen < 8 ? .3 : .08;
    if (seen == 0) c->ratio[n] = (float)ratio_at(c, n);
    c->ratio[n] *= (float)exp(own * off);
    c->unit *= exp(.02 * off);
}

void sd_controller_timed(sd_controller *c, int running, int n, double seconds) {
    learn_cost(c, n, seconds);
    c->since_plain = n == running ? 0 : c->since_plain + 1;
}

void sd_controller_progress(sd_controller *c, int running, int tokens, double seconds) {
    double plain = sd_controller_cost(c, running) / running; // seconds a token
    if (!(seconds > 0) || !(plain > 0)) return;
    double s = tokens * plain / seconds;
    c->speed_up += .06 * (s - c->speed_up);
    if (c->backoff_tokens > 0) {
        c->backoff_tokens -= tokens;
        if (c->backoff_tokens <= 0) c->guard_time = c->guard_plain = 0, c->guard_tokens = 0;
        return;
    }
    c->guard_time += seconds;
    c->guard_plain += tokens * plain;
    c->guard_tokens += tokens;
    if (c->guard_tokens < GUARD_TOKENS) return;
    if (c->guard_plain < GUARD_SPEED * c->guard_time)
        c->backoff_tokens = GUARD_TOKENS, c->backoffs++;
    c->guard_time = c->guard_plain = 0, c->guard_tokens = 0;
}

// ---- what drafting costs
//
// A draft model's step reads its weights once for all of its rows, as the target's does: until steps
// of so many proposals were timed, their cost has the shape of the target's.

static int batch_class(int n) {
    int b = 0;
    for (n--; n > 0 && b < SD_BATCH_CLASSES - 1; n >>= 1) b++;
    return b;
}

double sd_controller_draft_cost(const sd_controller *c, int drafter, int n, double alone_s) {
    if (n <= 0) return 0;
    double alone = c->proposal_s[drafter] > 0 ? c->proposal_s[drafter] : alone_s;
    return alone * shape(c, n) * (double)c->batch_ratio[drafter][batch_class(n)];
}

void sd_controller_drafted(sd_controller *c, int drafter, int n, double seconds) {
    double *t = &c->proposal_s[drafter];
    if (n < 1 || !(seconds > 0)) return;
    if (n == 1 || *t <= 0) {
        double alone = seconds / (n == 1 ? 1 : shape(c, n));
        *t = *t <= 0 ? alone : *t + .1 * (alone - *t);
        return;
    }
    int b = batch_class(n), seen = c->batches[drafter][b]++;
    double off = log(seconds / sd_controller_draft_cost(c, drafter, n, 0));
    off = off > MOST_OFF ? MOST_OFF : off < -MOST_OFF ? -MOST_OFF : off;
    c->batch_ratio[drafter][b] *= (float)exp((seen == 0 ? .7 : seen < 8 ? .3 : .1) * off);
}

// ---- when nothing is verified

bool sd_controller_backing_off(const sd_controller *c) {
    return c->backoff_tokens > 0;
}

bool sd_controller_rests(const sd_controller *c) {
    return c->unit <= 0 || sd_controller_backing_off(c) || c->since_plain >= PLAIN_EVERY;
}

static float shrunk(const sd_tally *t, float towards) {
    return (t->hit + PRIOR_WEIGHT * towards) / (t->seen + PRIOR_WEIGHT);
}

float sd_controller_accept_prob(const sd_controller *c, const sd_acceptance *own, int drafter,
                                int bucket, float prior) {
    return shrunk(&own->of[drafter][bucket], shrunk(&c->all.of[drafter][bucket], prior));
}

double sd_controller_mean_accept_prob(const sd_controller *c, const sd_acceptance *own,
                                      int drafter) {
    double hit = 0, seen = 0, all_hit = 0, all_seen = 0;
    for (int b = 0; b < SD_BUCKETS; b++) {
        hit += (double)own->of[drafter][b].hit;
        seen += (double)own->of[drafter][b].seen;
        all_hit += (double)c->all.of[drafter][b].hit;
        all_seen += (double)c->all.of[drafter][b].seen;
    }
    double weight = (double)PRIOR_WEIGHT;
    double all = (all_hit + weight * MEAN_PRIOR) / (all_seen + weight);
    return (hit + weight * all) / (seen + weight);
}

static void tally(sd_tally *t, bool hit, float decay) {
    t->hit = t->hit * decay + (hit ? 1 : 0);
    t->seen = t->seen * decay + 1;
}

void sd_controller_score(sd_controller *c, sd_acceptance *own, int drafter, int bucket, bool hit) {
    tally(&c->all.of[drafter][bucket], hit, DECAY_ALL);
    tally(&own->of[drafter][bucket], hit, DECAY_OWN);
}

double sd_controller_lambda(const sd_controller *c, int running) {
    double t = sd_controller_cost(c, running);
    return t > 0 ? running / t * (c->speed_up > 1 ? c->speed_up : 1) : 0;
}

double sd_controller_min_prob(const sd_controller *c, int running) {
    // The cheapest a further row ever is: its share of a long verification.
    double far = sd_controller_cost(c, running + SD_MAX_DRAFT) - sd_controller_cost(c, running);
    double row = far / SD_MAX_DRAFT * .5;
    double min_prob = sd_controller_lambda(c, running) * row;
    return min_prob < .01 ? .01 : min_prob;
}

void sd_controller_choose(const sd_controller *c, sd_candidates *k, int requests, int budget) {
    double lambda = sd_controller_lambda(c, requests), base = sd_controller_cost(c, requests);
    double gain = 0, best = 0;
    int best_n = 0, n = 0;
    for (int r = 0; r < requests; r++) k[r].take = 0;
    if (sd_controller_rests(c)) return;
    // Prefix probabilities do not increase along a request, so the n best overall are prefixes: merge
    // them.
    for (int pass = 0; pass < 2; pass++) {
        int limit = pass == 0 ? budget : best_n;
        for (int r = 0; r < requests; r++) k[r].take = 0;
        for (n = 0; n < limit; n++) {
            int top = -1;
            for (int r = 0; r < requests; r++)
                if (k[r].take < k[r].n &&
                    (top < 0 || k[r].prefix_prob[k[r].take] > k[top].prefix_prob[k[top].take]))
                    top = r;
            if (top < 0) break;
            gain += (double)k[top].prefix_prob[k[top].take++];
            double worth = gain - lambda * (sd_controller_cost(c, requests + n + 1) - base);
            if (pass == 0 && worth > best) best = worth, best_n = n + 1;
        }
    }
}
