// Plans a round: which tokens are drafted for which request.
//
// For each running request the sources are asked position by position; at each position the proposal
// most likely to hold is taken, and every source's cursor moves over it. Then the controller
// decides how many of each request's candidates are verified.
//
// Every proposal is kept, also those that were not taken or not verified: where the emitted tokens
// reach its position it is scored, so that a source's acceptance is known before it is used.
#include "base/clock.h"
#include "decode/engine/private.h"

enum { PROBE_ROUNDS = 64, PROBE_MISSING = 128 };

// How often the draft model was right of late for this request.
static double model_mean(const sd_engine *e, const sd_slot *s) {
    double hit = 0, seen = 0, all_hit = 0, all_seen = 0;
    for (int b = 0; b < SD_BUCKETS; b++) {
        hit += (double)s->own.of[SD_SOURCE_MODEL][b].hit;
        seen += (double)s->own.of[SD_SOURCE_MODEL][b].seen;
        all_hit += (double)e->control.all.of[SD_SOURCE_MODEL][b].hit;
        all_seen += (double)e->control.all.of[SD_SOURCE_MODEL][b].seen;
    }
    double all = (all_hit + 6 * .75) / (all_seen + 6);
    return (hit + 6 * all) / (seen + 6);
}

// Until it was measured, a drafted token is priced by the share of weights it reads.
static double model_cost(const sd_engine *e) {
    if (e->control.draft_token > 0) return e->control.draft_token;
    return sd_controller_cost(&e->control, 1) * (double)sd_draft_model_bytes(e->draft) /
           ((double)sd_context_bytes(e->cx) + 1);
}

// Whether a token of the draft model is worth its time when the free sources offer `free_chance`.
static bool model_pays(const sd_engine *e, const sd_slot *s, int running, double prefix_prob,
                       double free_prob) {
    double lambda = sd_controller_lambda(&e->control, running);
    double row =
        sd_controller_cost(&e->control, running + 1) - sd_controller_cost(&e->control, running);
    double price = lambda * (model_cost(e) + (free_prob > 0 ? 0 : row));
    return prefix_prob * (model_mean(e, s) - free_prob) > price;
}

static bool ask(sd_engine *e, sd_slot *s, int j, int source, double *accept_prob) {
    sd_drafter *d = s->drafter[source];
    // An index or a draft may know tokens that this model has not; one would fail the whole step.
    bool made = d->ops->peek(d, &s->proposal[j][source]) && s->proposal[j][source].token >= 0 &&
                s->proposal[j][source].token < e->model->hp.V;
    s->made[j][source] = made;
    if (!made) return false;
    *accept_prob =
        (double)sd_controller_accept_prob(&e->control, &s->own, d, s->proposal[j][source].bucket);
    return true;
}

// The draft model's turn at position j: its proposal, when it is worth its time.
static bool ask_model(sd_engine *e, sd_slot *s, int j, double *accept_prob) {
    double begin = sd_now_s();
    bool made = ask(e, s, j, SD_SOURCE_MODEL, accept_prob);
    double took = sd_now_s() - begin;
    e->draft_seconds += took;
    // The first proposal of a round also computes what the last round left; it would blur the price.
    if (j > 0) sd_controller_drafted(&e->control, 1, took);
    return made;
}

// Brings the draft's cache up to the timeline when drafting may pay (or a probe is due).
static bool ready_model(sd_engine *e, sd_slot *s, int running) {
    if (!s->active[SD_SOURCE_MODEL]) return false;
    bool forced = e->o.spec_length > 0;
    if (!forced) {
        if (sd_controller_backing_off(&e->control)) return false;
        int missing = sd_drafter_model_missing(s->drafter[SD_SOURCE_MODEL]);
        bool probe = e->rounds % PROBE_ROUNDS == 0 &&
                     (missing <= PROBE_MISSING || s->stats.generated >= PROBE_ROUNDS);
        if (!probe && !model_pays(e, s, running, 1, 0)) return false;
    }
    double begin = sd_now_s();
    int rows = forced ? e->ctx : e->o.prefill_chunk;
    bool ready = sd_drafter_model_prepare(s->drafter[SD_SOURCE_MODEL], rows);
    e->draft_seconds += sd_now_s() - begin;
    return ready;
}

typedef struct {
    bool model;      // the draft model may be asked
    int limit;       // positions at most
    double min_prob; // prefixes less probable than this are not worth a row
    double prefix_prob;
} round_plan;

// One position: asks, takes the best proposal, moves all cursors. False when the draft ends here.
static bool extend(sd_engine *e, sd_slot *s, int running, int j, round_plan *r) {
    bool forced = e->o.spec_length > 0;
    int best = -1;
    double best_prob = 0, accept_prob = 0;
    for (int i = 0; i < SD_SOURCE_COUNT; i++) s->made[j][i] = false;
    for (int i = 0; i < SD_SOURCE_MODEL; i++)
        if (s->active[i] && ask(e, s, j, i, &accept_prob) && (best < 0 || accept_prob > best_prob))
            best = i, best_prob = accept_prob;
    if (r->model && (forced || j == 0 || model_pays(e, s, running, r->prefix_prob, best_prob))) {
        if (!ask_model(e, s, j, &accept_prob))
            r->model = false;
        else if (best < 0 || accept_prob > best_prob)
            best = SD_SOURCE_MODEL, best_prob = accept_prob;
    }
    s->n_made = j + 1;
    int32_t token;
    if (best >= 0) {
        token = s->proposal[j][best].token;
    } else {
        if (!forced) return false;
        // A forced draft has its full length also where no source has a proposal.
        token = s->timeline[s->n - 1];
        for (best = 0; !s->active[best];) best++;
    }
    r->prefix_prob *= best_prob;
    if (!forced && r->prefix_prob < r->min_prob) return false;
    s->draft[j] = token;
    s->source[j] = (sd_source)best;
    s->prefix_prob[j] = (float)r->prefix_prob;
    s->n_draft = j + 1;
    for (int i = 0; i < SD_SOURCE_COUNT; i++)
        if (s->active[i] && (i != SD_SOURCE_MODEL || r->model))
            s->drafter[i]->ops->advance(s->drafter[i], token);
    return true;
}

static void plan_slot(sd_engine *e, sd_slot *s, int running) {
    const sd_request *r = &s->request->r;
    bool any = false;
    s->n_made = s->n_draft = s->g = 0;
    for (int i = 0; i < SD_SOURCE_COUNT; i++) any |= s->active[i];
    if (!any) return;
    int left = e->ctx - s->n - 1; // each round also emits a token of the target's own
    if (r->max_tokens > 0 && r->max_tokens - s->stats.generated - 1 < left)
        left = r->max_tokens - s->stats.generated - 1;
    round_plan p = {.limit = left < SD_MAX_DRAFT ? left : SD_MAX_DRAFT, .prefix_prob = 1};
    if (e->o.spec_length > 0 && e->o.spec_length < p.limit) p.limit = e->o.spec_length;
    p.min_prob = sd_controller_min_prob(&e->control, running);
    p.model = p.limit > 0 && ready_model(e, s, running);
    for (int i = 0; i < SD_SOURCE_COUNT; i++)
        if (s->active[i] && (i != SD_SOURCE_MODEL || p.model))
            s->drafter[i]->ops->rewind(s->drafter[i]);
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
        for (int i = 0; i < SD_SOURCE_COUNT; i++)
            if (s->made[j][i])
                sd_controller_score(&e->control, &s->own, (sd_source)i, s->proposal[j][i].bucket,
                                    s->proposal[j][i].token == emitted[j]);
        if (j >= s->n_draft || s->draft[j] != emitted[j]) break;
    }
}
