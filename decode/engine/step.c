// One step: admit, plan, one forward pass over decode and prompt rows together, verify, deliver.
//
// A sequence brings rows for what it is missing, from its first token without keys and values on. One that
// misses its last token alone decodes, and brings g draft tokens along. From the last token's row on, row
// j's logits alone decide the token at position n + j (sd_picked); the draft token there is accepted
// iff it is that token. So the emitted tokens are those of plain decoding, whatever was drafted, and the
// cache is then committed up to the last accepted one. Those that read fill the rest of the step
// (prompt.c).
#include "base/clock.h"
#include "base/log.h"
#include "decode/engine/private.h"
#include "model/infer/prefix_cache.h"

#include <string.h>

static void end_cancelled(sd_engine *e) {
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!s->request) continue;
        pthread_mutex_lock(&e->lock);
        bool cancelled = s->request->cancelled;
        pthread_mutex_unlock(&e->lock);
        if (!cancelled) continue;
        s->finish = SD_FINISH_CANCELLED;
        sd_slot_deliver(e, s, NULL);
    }
}

// ---- pages for its rows
//
// Those that decode come first: an answer that has begun goes on. Where too few pages are left, even
// after the prefix cache has given all that nobody reads, drafts are left out, and then a request gives its
// slot back (queue.c). Prompts wait for pages while anything else gets on.

bool sd_pages_for_row(sd_slot *s) {
    s->starved = !sd_kv_reserve(s->kv, s->kv->len + s->rows + 1);
    return !s->starved;
}

// Drafts behind the last page that the slot has are left out.
static void leave_drafts_out(sd_slot *s) {
    int fit = s->kv->pages * SD_KV_PAGE - s->kv->len - 1;
    s->plan.g = fit < 0 ? 0 : fit < s->plan.g ? fit : s->plan.g;
}

static void find_pages(sd_engine *e) {
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        s->rows = 0, s->starved = false;
        if (!sd_slot_decodes(s) || sd_kv_reserve(s->kv, s->kv->len + 1 + s->plan.g)) continue;
        leave_drafts_out(s);
        // It may be s itself that gives way.
        while (s->request && !sd_pages_for_row(s) && sd_queue_make_room(e)) {
        }
    }
}

// ---- rows

static void add_decode_rows(sd_engine *e, sd_rows *b) {
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        s->read = 0, s->first_picked = -1, s->read_out = false;
        if (!sd_slot_decodes(s) || s->starved) continue;
        bool logits = s->request->r.logprobs >= 0;
        int rows = sd_slot_shape(s, 1 + s->plan.g);
        if (rows == 0) continue;
        s->plan.g = rows - 1;
        s->first_picked = b->picked;
        s->first_logits = b->logits;
        for (int j = 0; j <= s->plan.g; j++)
            e->rows[b->rows++] = (sd_row){.token = j ? s->plan.draft[j - 1] : s->timeline[s->n - 1],
                                          .pos = s->kv->len + j, // behind what is committed
                                          .kv = s->kv,
                                          .adapter = s->request->r.adapter,
                                          .want_logits = logits,
                                          .pick = sd_slot_pick(s, j)};
        s->rows = s->plan.g + 1;
        b->picked += s->rows;
        if (logits) b->logits += s->rows;
        e->planned[b->running++] = &s->plan; // without those that gave way to others' pages
        for (int j = 0; j < e->n_drafters; j++) b->speculating |= s->active[j];
    }
    b->decode_rows = b->rows;
}

static void count_round(sd_spec_stats *st, const sd_slot *s, int accepted) {
    st->rounds++;
    st->drafted += s->plan.g;
    st->accepted += accepted;
    for (int j = 0; j < s->plan.g; j++) {
        st->by[s->plan.source[j]].drafted++;
        if (j < accepted) st->by[s->plan.source[j]].accepted++, st->accepted_at[j]++;
    }
}

// Tokens first_picked.. of a slot that has caught up: emits, scores, commits. Returns how many it emitted.
static int verify(sd_engine *e, sd_slot *s, bool decoding) {
    int32_t emitted[SD_MAX_DRAFT + 1];
    int n = 0, from = s->n, accepted = 0, drafts = decoding ? s->plan.g : 0;
    bool on = true;
    for (int j = 0; j <= drafts && on; j++) {
        int32_t x = e->picked[s->first_picked + j].token;
        emitted[n++] = x;
        bool accept = j < drafts && s->plan.draft[j] == x;
        accepted += accept;
        on = sd_slot_token(e, s, x, sd_slot_logits(e, s, j)) && accept;
    }
    s->kv->len = from + accepted < s->n ? from + accepted : s->n;
    if (decoding) {
        count_round(&s->stats.spec, s, accepted);
        count_round(&e->stats.spec, s, accepted);
        sd_engine_score(e, s, emitted, n);
    }
    if (!s->finish) sd_slot_observe(e, s);
    return n;
}

// A prompt that is read again is no new one.
static void count_prompt(sd_engine *e, const sd_slot *s) {
    sd_engine_request *j = s->request;
    int read = s->kv->len < j->r.n_prompt ? s->kv->len : j->r.n_prompt;
    if (read > j->counted) e->stats.prompt_tokens += read - j->counted, j->counted = read;
}

static void publish(sd_engine *e, const sd_rows *b, double seconds) {
    e->stats.steps++;
    e->stats.busy_s += seconds;
    e->stats.slot_s += seconds * (b->running + b->reading);
    e->stats.running = 0;
    for (int i = 0; i < e->n_slots; i++) e->stats.running += e->slot[i].request != NULL;
    e->stats.kv_used = (int64_t)(sd_kv_pool_usage(e->kv) * (double)e->stats.kv_total);
    sd_engine_get_memory(e, &e->stats.memory);
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        s->left_prompt = sd_slot_missing(s);
        s->said = s->stats.generated;
    }
    if (e->prompt_speed.seconds > 0)
        e->rate.prompt = e->prompt_speed.amount / e->prompt_speed.seconds;
    if (e->decode_speed.seconds > 0)
        e->rate.decode = e->decode_speed.amount / e->decode_speed.seconds;
    e->stats.waiting = e->waiting;
    e->published = e->stats;
    pthread_mutex_unlock(&e->lock);
}

// After a forward pass: what each request of the batch got.
static int commit(sd_engine *e) {
    int tokens = 0;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (s->rows == 0) continue;
        int made = s->stats.generated;
        bool decoding = sd_slot_decodes(s);
        int said = 0;
        sd_slot_score(e, s);
        if (s->first_picked >= 0)
            said = verify(e, s, decoding);
        else
            s->kv->len += s->rows;
        sd_slot_read(e, s);
        if (decoding) tokens += said;
        count_prompt(e, s);
        sd_prefix_publish(s->kv, s->timeline);
        e->stats.generated_tokens += s->stats.generated - made;
    }
    return tokens;
}

static void fade(sd_speed *s, double amount, double seconds) {
    s->amount = .98 * s->amount + amount;
    s->seconds = .98 * s->seconds + seconds;
}

static void learn(sd_engine *e, const sd_rows *b, int tokens, double seconds) {
    if (b->running > 0) fade(&e->decode_speed, (double)tokens / b->running, seconds);
    if (b->reading > 0) fade(&e->prompt_speed, (double)b->prompt_rows / b->reading, seconds);
    if (b->prompt_rows > 0) sd_prompt_learn(e, b->decode_rows, seconds);
    if (b->running == 0 && b->prompt_rows > 0)
        sd_controller_prefilled(&e->control, b->prompt_rows, seconds);
    if (b->prompt_rows > 0 || b->running == 0) return; // a mixed step tells neither price
    sd_controller_timed(&e->control, b->running, b->decode_rows, seconds - e->draft_seconds);
    if (b->speculating) sd_controller_progress(&e->control, b->running, tokens, seconds);
}

static bool any_starved(const sd_engine *e) {
    for (int i = 0; i < e->n_slots; i++)
        if (e->slot[i].request && e->slot[i].starved) return true;
    return false;
}

// The rows of the step, with pages for all of them.
static sd_rows gather(sd_engine *e) {
    sd_rows b = {0};
    for (int i = 0; i < e->n_slots; i++)
        if (sd_slot_reads_prompt(&e->slot[i])) sd_slot_catch_up(e, &e->slot[i]);
    sd_engine_begin_masks(e);
    sd_engine_plan(e);
    find_pages(e);
    add_decode_rows(e, &b);
    sd_prompt_rows(e, &b);
    // All of them wait for pages: one gives way.
    while (b.rows == 0 && any_starved(e) && sd_queue_make_room(e)) sd_prompt_rows(e, &b);
    return b;
}

bool sd_engine_has_work(sd_engine *e) {
    pthread_mutex_lock(&e->lock);
    bool has = e->waiting > 0;
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < e->n_slots; i++) has |= e->slot[i].request != NULL;
    return has;
}

static void fail_all(sd_engine *e, const char *why) {
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!s->request) continue;
        s->finish = SD_FINISH_ERROR, s->n_info = 0;
        sd_slot_deliver(e, s, why);
    }
}

bool sd_engine_step(sd_engine *e) {
    double begin = sd_now_s();
    sd_error err = {0};
    sd_engine_run_errands(e);
    end_cancelled(e);
    sd_queue_admit(e);
    e->draft_seconds = 0;
    if (e->stats.asleep && sd_engine_has_work(e) && !sd_engine_be_awake(e, &err))
        fail_all(e, err.message);
    sd_rows b = gather(e);
    if (b.rows > 0) {
        bool ok = sd_forward_pick(e->cx, e->rows, b.rows, e->logits, e->picked, &err) == SD_OK;
        int tokens = ok ? commit(e) : 0;
        double seconds = sd_now_s() - begin;
        if (ok) learn(e, &b, tokens, seconds);
        if (ok && e->o.trace) sd_engine_trace_step(e, &b, seconds);
        if (!ok && err.status == SD_EIO && !e->stats.model_lost) {
            sd_log(SD_LOG_ERROR, "%s; requests fail until then", err.message);
            e->stats.model_lost = true;
        }
        for (int i = 0; i < e->n_slots; i++) {
            sd_slot *s = &e->slot[i];
            if (s->rows == 0) continue;
            if (!ok) s->finish = SD_FINISH_ERROR, s->n_info = 0;
            sd_slot_deliver(e, s, ok ? NULL : err.message);
        }
    }
    const bool more = sd_engine_has_work(e);
    sd_engine_rest(e, more);
    publish(e, &b, b.rows > 0 ? sd_now_s() - begin : 0);
    return more;
}
