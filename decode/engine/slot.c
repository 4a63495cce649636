// A slot takes up a request, and gives it back half done.
//
// A request whose slot is taken from it carries along all it has said so far; the slot that takes
// it up again reads its own timeline as a prompt, as far as the prefix cache has forgotten it.
#include "base/clock.h"
#include "decode/engine/private.h"
#include "model/infer/prefix_cache.h"

#include <string.h>

static void start(sd_slot *s, const sd_engine_request *j) {
    s->n = j->r.n_prompt;
    memcpy(s->timeline, j->prompt, (size_t)s->n * sizeof *s->timeline);
    s->own = (sd_acceptance){0};
    s->scored = 0;
    s->utf8 = (sd_utf8_stream){0};
    sd_buf_clear(&s->text);
    s->usable = 0;
    s->admitted = sd_now_s();
    s->first_token = s->last_token = 0;
    s->stats =
        (sd_request_stats){.prompt_tokens = s->n, .queue_ms = (s->admitted - j->submitted) * 1e3};
}

bool sd_slot_carry(sd_slot *s) {
    sd_carried *c = sd_alloc(1, sizeof *c);
    int32_t *timeline = sd_alloc((size_t)s->n, sizeof *timeline);
    if (!c || !timeline) {
        free(c), free(timeline);
        return false;
    }
    memcpy(timeline, s->timeline, (size_t)s->n * sizeof *timeline);
    *c = (sd_carried){.timeline = timeline,
                      .n = s->n,
                      .utf8 = s->utf8,
                      .text = s->text,
                      .usable = s->usable,
                      .own = s->own,
                      .stats = s->stats,
                      .scored = s->scored,
                      .admitted = s->admitted,
                      .first_token = s->first_token,
                      .last_token = s->last_token};
    s->text = sd_buf_make(s->text.max);
    s->request->carried = c;
    return true;
}

// The tokens said so far are now part of the prompt: the next is drawn as if it had gone on.
static void take_up(sd_slot *s, sd_engine_request *j) {
    sd_carried *c = j->carried;
    s->n = c->n;
    memcpy(s->timeline, c->timeline, (size_t)c->n * sizeof *s->timeline);
    s->own = c->own;
    s->utf8 = c->utf8;
    sd_buf_free(&s->text);
    s->text = c->text;
    s->usable = c->usable;
    s->admitted = c->admitted;
    s->first_token = c->first_token, s->last_token = c->last_token;
    s->stats = c->stats;
    s->scored = c->scored;
    free(c->timeline);
    free(c);
    j->carried = NULL;
}

void sd_slot_catch_up(sd_engine *e, sd_slot *s) {
    sd_engine_request *j = s->request;
    int known = s->kv->len > j->counted ? s->kv->len : j->counted;
    if (j->found > known) known = j->found;        // by this request before it gave its slot back
    if (j->r.reading.kind == SD_READ_MEAN) return; // all of its rows are wanted
    // The last token is computed: its logits are wanted. So is what scores the prompt.
    int upto = j->r.score && s->scored < j->r.n_prompt ? s->scored - 1 : s->n - 1;
    if (upto <= s->kv->len) return;
    int has = sd_prefix_take(s->kv, s->timeline, upto);
    if (has > j->r.n_prompt) has = j->r.n_prompt;
    if (has <= known) return;
    j->found = has;
    s->stats.cached_tokens += has - known;
    e->stats.prefix_hits += has - known;
}

static void find_prefix(sd_engine *e, sd_slot *s, bool again) {
    const sd_request *r = &s->request->r;
    sd_prefix_begin(s->kv, &(sd_prefix_owner){.tenant = r->tenant,
                                              .adapter = r->adapter ? r->adapter->generation : 0});
    if (!again && (!r->score || r->score_from > 1) && r->reading.kind != SD_READ_MEAN &&
        e->stats.prefix_cache)
        e->stats.prefix_queries += r->n_prompt;
    sd_slot_catch_up(e, s);
}

void sd_slot_begin(sd_engine *e, sd_slot *s, sd_engine_request *j) {
    bool again = j->carried != NULL;
    s->fresh = false;
    s->plan.n_made = s->plan.n_draft = s->plan.g = s->n_info = s->n_scored = 0;
    s->finish = SD_FINISH_NONE;
    s->why = NULL;
    if (again)
        take_up(s, j);
    else
        start(s, j);
    s->begun_at = s->n;
    sd_slot_begin_score(s);
    sd_slot_begin_reading(e, s);
    find_prefix(e, s, again);
    sd_slot_begin_shaping(s);
    sd_slot_begin_reasoning(s);
    bool ok = sd_slot_begin_constraint(e, s);
    sd_slot_begin_drafters(e, s);
    if (!ok) s->finish = SD_FINISH_ERROR;
    if (s->finish) sd_slot_deliver(e, s, NULL);
}
