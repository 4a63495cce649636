// Plans a round: which tokens are drafted for which request.
//
// For each running request the drafters are asked position by position: first those whose proposals
// are free, then the others where a proposal is worth its time. At each position the proposal most
// likely to hold is taken, and every drafter's cursor moves over it. Then the controller decides
// how many of each request's candidates are verified.
//
// Every proposal is kept, also those that were not taken or not verified: where the emitted tokens
// reach its position it is scored, so that a drafter's acceptance is known before it is used.
#include "base/clock.h"
#include "decode/engine/private.h"

enum { PROBE_ROUNDS = 64, PROBE_MISSING = 128 };

static bool is_free(const sd_engine *e, int i) {
    return !e->drafter[i].kind->read_bytes;
}

// Seconds of a proposal. Until one was timed, it is priced by the share of weights it reads.
static double proposal_cost(const sd_engine *e, int i) {
    if (is_free(e, i)) return 0;
    if (e->control.proposal_s[i] > 0) return e->control.proposal_s[i];
    return sd_controller_cost(&e->control, 1) *
           (double)e->drafter[i].kind->read_bytes(e->drafter[i].shared) /
           ((double)sd_context_bytes(e->cx) + 1);
}

// Whether a proposal is worth its time when another drafter offers `other_prob`.
static bool pays(const sd_engine *e, const sd_slot *s, int i, int running, double prefix_prob,
                 double other_prob) {
    double lambda = sd_controller_lambda(&e->control, running);
    double row =
        sd_controller_cost(&e->control, running + 1) - sd_controller_cost(&e->control, running);
    double price = lambda * (proposal_cost(e, i) + (other_prob > 0 ? 0 : row));
    double mean = sd_controller_mean_accept_prob(&e->control, &s->own, i);
    return prefix_prob * (mean - other_prob) > price;
}

// Lets a drafter compute what it lacks when drafting may pay (or a probe is due).
static bool prepare(sd_engine *e, sd_slot *s, int i, int running) {
    const sd_drafter_kind *kind = e->drafter[i].kind;
    if (!s->active[i]) return false;
    if (!kind->prepare) return true;
    bool forced = e->o.spec_length > 0;
    if (!forced) {
        if (sd_controller_backing_off(&e->control)) return false;
        int missing = kind->missing(s->drafter[i]);
        bool probe = e->rounds % PROBE_ROUNDS == 0 &&
                     (missing <= PROBE_MISSING || s->stats.generated >= PROBE_ROUNDS);
        if (!probe && !pays(e, s, i, running, 1, 0)) return false;
    }
    double begin = sd_now_s();
    bool ready = kind->prepare(s->drafter[i], forced ? e->ctx : e->o.prefill_chunk);
    e->draft_seconds += sd_now_s() - begin;
    return ready;
}

// One drafter's turn at position j.
static bool ask(sd_engine *e, sd_slot *s, int j, int i, double *accept_prob) {
    const sd_drafter_kind *kind = e->drafter[i].kind;
    sd_proposal *p = &s->proposal[j][i];
    double begin = is_free(e, i) ? 0 : sd_now_s();
    // An index or a draft may know tokens that this model has not; one would fail the whole step.
    bool made = kind->peek(s->drafter[i], p) && p->token >= 0 && p->token < e->model->hp.V;
    s->made[j][i] = made;
    if (made)
        *accept_prob = (double)sd_controller_accept_prob(&e->control, &s->own, i, p->bucket,
                                                         kind->prior(p->bucket));
    if (is_free(e, i)) return made;
    double took = sd_now_s() - begin;
    e->draft_seconds += took;
    // The first proposal of a round also computes what the last round left; it would blur the
    // price.
    if (j > 0) sd_controller_drafted(&e->control, i, took);
    return made;
}

typedef struct {
    bool ready[SD_MAX_DRAFTERS]; // may be asked
    int limit;                   // positions at most
    double min_prob;             // prefixes less probable than this are not worth a row
    double prefix_prob;
} round_plan;

// The most probable proposal at position j: its drafter, -1 when there is none.
static int best_proposal(sd_engine *e, sd_slot *s, int running, int j, round_plan *r,
                         double *best_prob) {
    int best = -1;
    double accept_prob = 0;
    *best_prob = 0;
    for (int i = 0; i < e->n_drafters; i++) s->made[j][i] = false;
    for (int i = 0; i < e->n_drafters; i++)
        if (is_free(e, i) && r->ready[i] && ask(e, s, j, i, &accept_prob) &&
            (best < 0 || accept_prob > *best_prob))
            best = i, *best_prob = accept_prob;
    for (int i = 0; i < e->n_drafters; i++) {
        if (is_free(e, i) || !r->ready[i]) continue;
        bool wanted =
            e->o.spec_length > 0 || j == 0 || pays(e, s, i, running, r->prefix_prob, *best_prob);
        if (!wanted) continue;
        if (!ask(e, s, j, i, &accept_prob))
            r->ready[i] = false;
        else if (best < 0 || accept_prob > *best_prob)
            best = i, *best_prob = accept_prob;
    }
    return best;
}

// One position: asks, takes the best proposal, moves all cursors. False when the draft ends here.
static bool extend(sd_engine *e, sd_slot *s, int running, int j, round_plan *r) {
    bool forced = e->o.spec_length > 0;
    double best_prob;
    int best = best_proposal(e, s, running, j, r, &best_prob);
    s->n_made = j + 1;
    int32_t token;
    if (best >= 0) {
        token = s->proposal[j][best].token;
    } else {
        if (!forced) return false;
        // A forced draft has its full length also where no drafter has a proposal.
        token = s->timeline[s->n - 1];
        for (best = 0; !s->active[best];) best++;
    }
    r->prefix_prob *= best_prob;
    if (!forced && r->prefix_prob < r->min_prob) return false;
    s->draft[j] = token;
    s->source[j] = best;
    s->prefix_prob[j] = (float)r->prefix_prob;
    s->n_draft = j + 1;
    for (int i = 0; i < e->n_drafters; i++)
        if (r->ready[i]) e->drafter[i].kind->advance(s->drafter[i], token);
    return true;
}

static void plan_slot(sd_engine *e, sd_slot *s, int running) {
    const sd_request *r = &s->request->r;
    bool any = false;
    s->n_made = s->n_draft = s->g = 0;
    for (int i = 0; i < e->n_drafters; i++) any |= s->active[i];
    if (!any) return;
    int left = e->ctx - s->n - 1; // each round also emits a token of the target's own
    if (r->max_tokens > 0 && r->max_tokens - s->stats.generated - 1 < left)
        left = r->max_tokens - s->stats.generated - 1;
    round_plan p = {.limit = left < SD_MAX_DRAFT ? left : SD_MAX_DRAFT, .prefix_prob = 1};
    if (e->o.spec_length > 0 && e->o.spec_length < p.limit) p.limit = e->o.spec_length;
    if (p.limit <= 0) return;
    p.min_prob = sd_controller_min_prob(&e->control, running);
    for (int i = 0; i < e->n_drafters; i++) {
        p.ready[i] = prepare(e, s, i, running);
        if (p.ready[i]) e->drafter[i].kind->rewind(s->drafter[i]);
    }
    for (int j = 0; j < p.limit && extend(e, s, running, j, &p);) j++;
}

void sd_engine_plan(sd_engine *e) {
    int running = 0, n = 0;
    for (int i = 0; i < e->n_slots; i++) running += e->slot[i].phase == SLOT_DECODE;
    if (running == 0) return;
    e->rounds++;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (s->phase != SLOT_DECODE) continue;
        plan_slot(e, s, running);
        e->candidates[n++] = (sd_candidates){s->prefix_prob, s->n_draft, 0};
    }
    if (e->o.spec_length > 0)
        for (int i = 0; i < n; i++) e->candidates[i].take = e->candidates[i].n;
    else
        sd_controller_choose(&e->control, e->candidates, n, SD_DRAFT_ROWS);
    for (int i = n = 0; i < e->n_slots; i++)
        if (e->slot[i].phase == SLOT_DECODE) e->slot[i].g = e->candidates[n++].take;
}

void sd_engine_score(sd_engine *e, sd_slot *s, const int32_t *emitted, int n) {
    // A proposal at position j was made for the draft's first j tokens; it counts when those were
    // emitted.
    for (int j = 0; j < n && j < s->n_made; j++) {
        for (int i = 0; i < e->n_drafters; i++)
            if (s->made[j][i])
                sd_controller_score(&e->control, &s->own, i, s->proposal[j][i].bucket,
                                    s->proposal[j][i].token == emitted[j]);
        if (j >= s->n_draft || s->draft[j] != emitted[j]) break;
    }
}
