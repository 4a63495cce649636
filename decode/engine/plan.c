// The engine's requests as sequences of the planner (decode/draft/planner.h).
#include "base/memory.h"
#include "decode/engine/private.h"

#include <limits.h>

sd_status sd_engine_open_planner(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    bool forced = e->o.spec_length > 0;
    const int64_t all = (int64_t)e->n_slots * e->ctx;
    const sd_planner_options o = {.length = e->o.spec_length,
                                  // A forced draft waits for nobody.
                                  .prepare_rows = !forced         ? e->o.prefill_chunk
                                                  : all < INT_MAX ? (int)all
                                                                  : INT_MAX,
                                  .V = e->model->hp.V,
                                  .target_bytes = sd_context_bytes(e->cx),
                                  .timed = e->o.trace ? sd_trace_timed : NULL,
                                  .ctx = e->o.trace};
    e->planned = sd_alloc((size_t)e->n_slots, sizeof(sd_planned *));
    SD_CHECK_ALLOC(e->planned, err);
    SD_TRY(
        sd_planner_open(&e->planner, &e->control, e->drafter, e->n_drafters, e->n_slots, &o, err));
out:
    return st;
}

// Each round also emits a token of the target's own.
static int room_of(const sd_engine *e, const sd_slot *s) {
    int most = s->request->r.max_tokens, left = e->longest - s->n - 1,
        draft = s->request->r.max_draft;
    if (draft > 0 && draft < left) left = draft;
    return most > 0 && most - s->stats.generated - 1 < left ? most - s->stats.generated - 1 : left;
}

// Whether, in a slot (ctx), the token may stand behind the plan's draft[0..j).
static bool allows(void *ctx, int j, int32_t token) {
    sd_slot *s = ctx;
    return sd_slot_reasoning_allows(s, j, token) &&
           (!s->request->r.grammar || sd_slot_constraint_allows(s, j, token));
}

void sd_engine_plan(sd_engine *e) {
    int n = 0;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!sd_slot_decodes(s)) continue;
        s->plan.drafter = s->drafter;
        s->plan.active = s->active;
        s->plan.own = &s->own;
        s->plan.last = s->timeline[s->n - 1];
        s->plan.room = room_of(e, s);
        s->plan.generated = s->stats.generated;
        s->plan.request = s->request->id;
        s->plan.position = s->n;
        s->plan.allows = s->request->r.grammar || sd_slot_is_bounded(s) ? allows : NULL;
        s->plan.allows_ctx = s;
        sd_slot_plan_reasoning(s);
        sd_slot_plan_constraint(s);
        e->planned[n++] = &s->plan;
    }
    e->n_planned = n;
    if (n > 0) e->draft_seconds = sd_planner_round(e->planner, e->planned, n);
}

void sd_engine_score(sd_engine *e, sd_slot *s, const int32_t *emitted, int n) {
    sd_planner_score(e->planner, &s->plan, emitted, n);
}
