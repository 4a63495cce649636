// All sequences are drafted together, position by position: first the drafters whose proposals are
// free are asked, then the others for those sequences where a proposal is worth its time. At each
// position the proposal most likely to hold is taken, and every drafter's cursor moves over it. Then
// the controller decides how many of each sequence's candidates are verified.
//
// A draft model reads its weights once for all sequences that ask it. So the sequences with most to
// gain are asked for together, as many as make the gain of all less the cost of one such step the
// largest.
//
// Every proposal is kept, also those that were not taken or not verified: where the emitted tokens
// reach its position it is scored, so that a drafter's acceptance is known before it is used.
#include "decode/draft/planner.h"

#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

enum { PROBE_ROUNDS = 64, HORIZON = 256, MANY_ROWS = 64 };
static const double PROBE_SHARE = 0.015; // of the time of steps
static const double MOST_ALLOWED = 200;  // steps' worth of probes that may be saved up
static const double ROUND_TOKENS = 2;    // of a round with a draft, in the long run

static double own_clock(void *ctx) {
    (void)ctx;
    return sd_now_s();
}

sd_status sd_planner_open(sd_planner **out, sd_controller *control, const sd_draft_source *source,
                          int n_sources, int most, const sd_planner_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_planner *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->o = *o;
    if (!p->o.now) p->o.now = own_clock;
    p->control = control;
    p->source = source;
    p->n_sources = n_sources;
    p->most = most;
    p->candidates = sd_alloc((size_t)most, sizeof *p->candidates);
    p->asked = sd_alloc((size_t)most, sizeof(sd_planned *));
    p->order = sd_alloc((size_t)most, sizeof(sd_planned *));
    p->drafter = sd_alloc((size_t)most, sizeof(sd_drafter *));
    p->proposal = sd_alloc((size_t)most, sizeof *p->proposal);
    p->gain = sd_alloc((size_t)most, sizeof *p->gain);
    p->made = sd_alloc((size_t)most, sizeof *p->made);
    SD_CHECK_ALLOC(p->candidates && p->asked && p->order && p->drafter && p->proposal && p->gain &&
                       p->made,
                   err);
    *out = p, p = NULL;
out:
    sd_planner_close(p);
    return st;
}

void sd_planner_close(sd_planner *p) {
    if (!p) return;
    free(p->candidates);
    free(p->asked);
    free(p->order);
    free(p->drafter);
    free(p->proposal);
    free(p->gain);
    free(p->made);
    free(p);
}

static bool is_free(const sd_planner *p, int i) {
    return !p->source[i].kind->read_bytes;
}

static bool is_batched(const sd_planner *p, int i) {
    return p->source[i].kind->peek_many != NULL;
}

// Seconds since `begin`, which count as drafting.
static double took(sd_planner *p, double begin) {
    double seconds = p->o.now(p->o.ctx) - begin;
    p->draft_seconds += seconds;
    if (p->o.timed) p->o.timed(p->o.ctx, seconds);
    return seconds;
}

// ---- what a proposal is worth

// Seconds of n proposals. Until one was timed, it is priced by the share of weights it reads.
static double proposal_cost(const sd_planner *p, int i, int n) {
    const sd_draft_source *d = &p->source[i];
    if (is_free(p, i)) return 0;
    double alone = sd_controller_cost(p->control, 1) * (double)d->kind->read_bytes(d->shared) /
                   ((double)p->o.target_bytes + 1);
    if (is_batched(p, i)) return sd_controller_draft_cost(p->control, i, n, alone);
    return n * sd_controller_draft_cost(p->control, i, 1, alone);
}

// Tokens that a proposal brings where the tokens before it hold with prefix_prob and another drafter
// offers other_prob, less what its row costs.
static double gain_of(const sd_planner *p, const sd_planned *s, int i, int running,
                      double prefix_prob, double other_prob) {
    const sd_controller *c = p->control;
    double lambda = sd_controller_lambda(c, running);
    double row = sd_controller_cost(c, running + 1) - sd_controller_cost(c, running);
    double mean = sd_controller_mean_accept_prob(c, s->own, i);
    return prefix_prob * (mean - other_prob) - (other_prob > 0 ? 0 : lambda * row);
}

// Sorts order [n] by gain [n], the largest first; equals stay in their order.
static void sort_by_gain(sd_planned **order, double *gain, int n) {
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && gain[k] > gain[k - 1]; k--) {
            sd_planned *s = order[k];
            double g = gain[k];
            order[k] = order[k - 1], gain[k] = gain[k - 1];
            order[k - 1] = s, gain[k - 1] = g;
        }
}

// How many of p->order, asked together, are worth their step; they then come first.
static int worth_asking(sd_planner *p, int i, int n, int running) {
    double lambda = sd_controller_lambda(p->control, running), sum = 0, best = 0;
    int best_n = 0;
    sort_by_gain(p->order, p->gain, n);
    for (int k = 0; k < n; k++) {
        sum += p->gain[k];
        double worth = sum - lambda * proposal_cost(p, i, k + 1);
        if (worth > best) best = worth, best_n = k + 1;
    }
    return best_n;
}

// ---- catching up

// Seconds of computing so many positions, one among many.
static double catch_up_cost(const sd_planner *p, int i, int positions) {
    double row = (proposal_cost(p, i, MANY_ROWS + 1) - proposal_cost(p, i, 1)) / MANY_ROWS;
    return positions > 1 ? row * (positions - 1) : 0;
}

// Tokens that catching up brings, a round: drafting is worth so much in each round to come, and
// catching up costs once.
static double gain_of_start(const sd_planner *p, const sd_planned *s, int i, int running) {
    double rounds = (s->room < HORIZON ? s->room : HORIZON) / ROUND_TOKENS;
    double once = sd_controller_lambda(p->control, running) * catch_up_cost(p, i, s->missing[i]);
    return gain_of(p, s, i, running, 1, 0) - once / (rounds > 1 ? rounds : 1);
}

// A drafter that is off is asked one round in PROBE_ROUNDS, and less often where what it lacks would
// take more than its share of the time.
static bool probe_is_due(sd_planner *p, const sd_planned *s, int i) {
    if (p->rounds % PROBE_ROUNDS != 0) return false;
    double cost = catch_up_cost(p, i, s->missing[i]) + proposal_cost(p, i, 1);
    if (cost > p->allowance[i]) return false;
    p->allowance[i] -= cost;
    return true;
}

static void allow_probes(sd_planner *p, int running) {
    double step = sd_controller_cost(p->control, running), most = MOST_ALLOWED * step;
    for (int i = 0; i < p->n_sources; i++) {
        p->allowance[i] += PROBE_SHARE * step;
        if (p->allowance[i] > most) p->allowance[i] = most;
    }
}

// The sequences of p->asked [n] whose drafter i is ready when it has computed what it lacks.
static void make_ready(sd_planner *p, int i, int n) {
    const sd_drafter_kind *kind = p->source[i].kind;
    if (n == 0) return;
    for (int k = 0; k < n; k++) p->drafter[k] = p->asked[k]->drafter[i];
    double begin = p->o.now(p->o.ctx);
    if (kind->prepare_many) {
        kind->prepare_many(p->drafter, p->made, n, p->o.prepare_rows);
        for (int k = 0; k < n; k++) p->asked[k]->ready[i] = p->made[k];
    } else {
        for (int k = 0; k < n; k++)
            p->asked[k]->ready[i] = kind->prepare(p->drafter[k], p->o.prepare_rows);
    }
    for (int k = 0; k < n; k++) p->asked[k]->was_ready[i] = p->asked[k]->ready[i];
    took(p, begin);
}

// Lets drafter i compute what it lacks where drafting may pay, or a probe is due.
static void prepare(sd_planner *p, sd_planned *const *all, int n, int i, int running) {
    const sd_drafter_kind *kind = p->source[i].kind;
    bool forced = p->o.length > 0, rests = !forced && sd_controller_rests(p->control);
    int asked = 0, paid = 0;
    for (int k = 0; k < n; k++) {
        sd_planned *s = all[k];
        s->ready[i] = s->on && s->active[i] && !kind->prepare;
        if (!s->on || !s->active[i] || !kind->prepare || rests) continue;
        if (!forced) s->missing[i] = kind->missing(s->drafter[i]);
        if (forced || probe_is_due(p, s, i))
            p->asked[asked++] = s;
        else
            p->order[paid] = s, p->gain[paid++] = gain_of_start(p, s, i, running);
    }
    paid = worth_asking(p, i, paid, running);
    for (int k = 0; k < paid; k++) p->asked[asked++] = p->order[k];
    make_ready(p, i, asked);
}

// ---- asking

// One proposal at position j, if it is one that the target can check.
static bool take_note(sd_planner *p, sd_planned *s, int j, int i, bool made, const sd_proposal *q) {
    // An index or a draft may know tokens that this model has not; one would fail the whole step.
    made = made && q->token >= 0 && q->token < p->o.V;
    // A token that the target's constraint lets nobody say would never hold.
    made = made && (!s->allows || s->allows(s->allows_ctx, j, q->token));
    s->made[j][i] = made;
    if (!made) return false;
    s->proposal[j][i] = *q;
    double prob = (double)sd_controller_accept_prob(p->control, s->own, i, q->bucket,
                                                    p->source[i].kind->prior(q->bucket));
    if (s->best < 0 || prob > s->best_prob) s->best = i, s->best_prob = prob;
    return true;
}

static void ask_free(sd_planner *p, sd_planned *s, int j) {
    s->best = -1;
    s->best_prob = 0;
    for (int i = 0; i < p->n_sources; i++) {
        sd_proposal q = {0};
        s->made[j][i] = false;
        if (is_free(p, i) && s->ready[i])
            (void)take_note(p, s, j, i, p->source[i].kind->peek(s->drafter[i], &q), &q);
    }
}

// The proposals of drafter i for p->order [n] at position j, which are timed.
static void ask_priced(sd_planner *p, int i, int j, int n) {
    const sd_drafter_kind *kind = p->source[i].kind;
    // The first proposal of a round may also compute what the last round left; it would blur the
    // price.
    bool pure = true;
    for (int k = 0; k < n; k++) {
        p->drafter[k] = p->order[k]->drafter[i];
        if (j == 0 && kind->missing) p->order[k]->lacking[i] = kind->missing(p->drafter[k]);
        pure &= j > 0 || (kind->missing && p->order[k]->lacking[i] <= 1);
    }
    if (kind->peek_many) {
        double begin = p->o.now(p->o.ctx);
        kind->peek_many(p->drafter, p->proposal, p->made, n);
        double seconds = took(p, begin);
        if (pure) sd_controller_drafted(p->control, i, n, seconds);
    } else {
        for (int k = 0; k < n; k++) {
            double begin = p->o.now(p->o.ctx);
            p->made[k] = kind->peek(p->drafter[k], &p->proposal[k]);
            double seconds = took(p, begin);
            if (j > 0) sd_controller_drafted(p->control, i, 1, seconds);
        }
    }
    for (int k = 0; k < n; k++)
        if (!take_note(p, p->order[k], j, i, p->made[k], &p->proposal[k]))
            p->order[k]->ready[i] = false;
}

// Drafter i at position j, for those sequences where it is worth its time.
static void ask_where_it_pays(sd_planner *p, sd_planned *const *all, int n, int i, int j,
                              int running) {
    int asked = 0;
    for (int k = 0; k < n; k++) {
        sd_planned *s = all[k];
        if (!s->on || !s->ready[i]) continue;
        p->order[asked] = s;
        p->gain[asked++] = gain_of(p, s, i, running, s->prob, s->best_prob);
    }
    // A drafter that was made ready is asked at least once: that scores it.
    if (p->o.length == 0 && j > 0) asked = worth_asking(p, i, asked, running);
    if (asked > 0) ask_priced(p, i, j, asked);
}

// Takes the best proposal at position j and moves all cursors over it. False when the draft ends.
static bool extend(sd_planner *p, sd_planned *s, int j, double min_prob) {
    bool forced = p->o.length > 0;
    int best = s->best;
    s->n_made = j + 1;
    int32_t token;
    if (best >= 0) {
        token = s->proposal[j][best].token;
    } else {
        if (!forced || p->o.unpadded) return false;
        // A forced draft has its full length also where no drafter has a proposal.
        token = s->last;
        for (best = 0; !s->active[best];) best++;
    }
    s->prob *= s->best_prob;
    if (!forced && s->prob < min_prob) return false;
    s->draft[j] = token;
    s->source[j] = best;
    s->prefix_prob[j] = (float)s->prob;
    s->n_draft = j + 1;
    for (int i = 0; i < p->n_sources; i++)
        if (s->ready[i]) p->source[i].kind->advance(s->drafter[i], token);
    return true;
}

// ---- a round

static void begin(const sd_planner *p, sd_planned *s) {
    bool any = false;
    s->n_made = s->n_draft = s->g = 0;
    s->prob = 1;
    for (int i = 0; i < p->n_sources; i++) any |= s->active[i];
    s->limit = s->room < SD_MAX_DRAFT ? s->room : SD_MAX_DRAFT;
    if (p->o.length > 0 && p->o.length < s->limit) s->limit = p->o.length;
    s->on = any && s->limit > 0;
    for (int i = 0; i < p->n_sources; i++) {
        s->ready[i] = s->was_ready[i] = false;
        s->missing[i] = s->lacking[i] = -1;
    }
    s->n_emitted = 0;
}

static void draft(sd_planner *p, sd_planned *const *all, int n, int running) {
    double min_prob = sd_controller_min_prob(p->control, running);
    for (int i = 0; i < p->n_sources; i++) {
        prepare(p, all, n, i, running);
        for (int k = 0; k < n; k++)
            if (all[k]->ready[i]) p->source[i].kind->rewind(all[k]->drafter[i]);
    }
    for (int j = 0, left = n; left > 0; j++) {
        for (int k = 0; k < n; k++)
            if (all[k]->on) ask_free(p, all[k], j);
        for (int i = 0; i < p->n_sources; i++)
            if (!is_free(p, i)) ask_where_it_pays(p, all, n, i, j, running);
        left = 0;
        for (int k = 0; k < n; k++) {
            sd_planned *s = all[k];
            s->on = s->on && extend(p, s, j, min_prob) && j + 1 < s->limit;
            left += s->on;
        }
    }
}

double sd_planner_round(sd_planner *p, sd_planned *const *all, int n) {
    int on = 0;
    p->rounds++;
    p->draft_seconds = 0;
    for (int k = 0; k < n; k++) {
        begin(p, all[k]);
        on += all[k]->on;
    }
    allow_probes(p, n);
    if (on > 0) draft(p, all, n, n);
    for (int k = 0; k < n; k++)
        p->candidates[k] = (sd_candidates){all[k]->prefix_prob, all[k]->n_draft, all[k]->n_draft};
    if (p->o.length == 0) sd_controller_choose(p->control, p->candidates, n, SD_DRAFT_ROWS);
    for (int k = 0; k < n; k++) all[k]->g = p->candidates[k].take;
    return p->draft_seconds;
}

void sd_planner_score(sd_planner *p, sd_planned *s, const int32_t *emitted, int n) {
    s->n_emitted = n < SD_MAX_DRAFT + 1 ? n : SD_MAX_DRAFT + 1;
    memcpy(s->emitted, emitted, (size_t)s->n_emitted * sizeof *emitted);
    // A proposal at position j was made for the draft's first j tokens; it counts when those were
    // emitted.
    for (int j = 0; j < n && j < s->n_made; j++) {
        for (int i = 0; i < p->n_sources; i++)
            if (s->made[j][i])
                sd_controller_score(p->control, s->own, i, s->proposal[j][i].bucket,
                                    s->proposal[j][i].token == emitted[j]);
        if (j >= s->n_draft || s->draft[j] != emitted[j]) break;
    }
}
