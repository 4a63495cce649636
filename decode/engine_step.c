// One step: admit, plan, one forward pass over decode and prompt rows together, verify, deliver.
//
// A decoding request brings 1 + g rows: its last token, which is not in the cache yet, and g
// guesses. Row j's logits decide the token at position n + j by sd_sample alone; the guess there
// was right iff it is that token. So the emitted tokens are those of plain decoding, whatever was
// guessed, and the cache is then committed up to the last right guess. Prompts fill the rest of the
// step's rows, first come first served; only a prompt's last row has logits.
#include "base/clock.h"
#include "decode/engine_private.h"

#include <string.h>

// Takes cancelled jobs out of the queue and fills free slots. Events wait until the lock is free.
static void admit(sd_engine *e) {
    for (;;) {
        sd_job *cancelled = NULL;
        pthread_mutex_lock(&e->lock);
        int keep = 0, n = e->queue_len;
        for (int i = 0; i < n; i++) {
            sd_job *j = e->queue[(e->queue_head + i) % e->o.queue];
            if (j->cancelled && !cancelled)
                cancelled = j;
            else
                e->queue[(e->queue_head + keep++) % e->o.queue] = j;
        }
        e->queue_len = keep;
        for (int i = 0; i < e->o.slots && !cancelled && e->queue_len > 0; i++) {
            sd_slot *s = &e->slot[i];
            if (s->job) continue;
            s->job = e->queue[e->queue_head];
            e->queue_head = (e->queue_head + 1) % e->o.queue;
            e->queue_len--;
            s->phase = SLOT_FREE; // begun below, without the lock
        }
        e->published.waiting = e->queue_len;
        pthread_mutex_unlock(&e->lock);
        if (!cancelled) break;
        sd_job_deliver_end(cancelled, SD_FINISH_CANCELLED, NULL);
        sd_job_free(cancelled);
    }
    for (int i = 0; i < e->o.slots; i++)
        if (e->slot[i].job && e->slot[i].phase == SLOT_FREE)
            sd_slot_begin(e, &e->slot[i], e->slot[i].job);
}

static void end_cancelled(sd_engine *e) {
    for (int i = 0; i < e->o.slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!s->job) continue;
        pthread_mutex_lock(&e->lock);
        bool cancelled = s->job->cancelled;
        pthread_mutex_unlock(&e->lock);
        if (!cancelled) continue;
        s->finish = SD_FINISH_CANCELLED;
        sd_slot_deliver(e, s, NULL);
    }
}

typedef struct {
    int rows, logits;         // in this step
    int running, decode_rows; // requests that decode, and their rows
    int prompt_rows;
    bool speculating; // a running request may be drafted for
} batch;

static void add_decode_rows(sd_engine *e, batch *b) {
    for (int i = 0; i < e->o.slots; i++) {
        sd_slot *s = &e->slot[i];
        s->rows = 0, s->first_logits = -1;
        if (s->phase != SLOT_DECODE) continue;
        s->first_logits = b->logits;
        for (int j = 0; j <= s->g; j++)
            e->rows[b->rows++] = (sd_row){.token = j ? s->draft[j - 1] : s->timeline[s->n - 1],
                                          .pos = s->n - 1 + j,
                                          .kv = s->kv,
                                          .adapter = s->job->r.adapter,
                                          .want_logits = true};
        s->rows = s->g + 1;
        b->logits += s->rows;
        b->running++;
        for (int j = 0; j < SD_SOURCE_COUNT; j++) b->speculating |= s->active[j];
    }
    b->decode_rows = b->rows;
}

static sd_slot *next_prompt(sd_engine *e, uint64_t after) {
    sd_slot *first = NULL;
    for (int i = 0; i < e->o.slots; i++) {
        sd_slot *s = &e->slot[i];
        if (s->phase == SLOT_PREFILL && s->job->id > after &&
            (!first || s->job->id < first->job->id))
            first = s;
    }
    return first;
}

static void add_prompt_rows(sd_engine *e, batch *b) {
    int room =
        e->o.prefill_chunk < e->max_rows - b->rows ? e->o.prefill_chunk : e->max_rows - b->rows;
    for (sd_slot *s = next_prompt(e, 0); s && room > 0; s = next_prompt(e, s->job->id)) {
        bool logits_left = b->logits < e->max_logits;
        for (; room > 0 && s->kv->len + s->rows < s->n; room--, s->rows++) {
            int pos = s->kv->len + s->rows;
            bool last = pos == s->n - 1;
            if (last && !logits_left) break;
            e->rows[b->rows++] = (sd_row){.token = s->timeline[pos],
                                          .pos = pos,
                                          .kv = s->kv,
                                          .adapter = s->job->r.adapter,
                                          .want_logits = last};
            if (last) s->first_logits = b->logits++;
        }
        b->prompt_rows += s->rows;
    }
}

// Rows first_logits.. of a decoding request: emits, scores, commits. Returns the tokens emitted.
static int verify(sd_engine *e, sd_slot *s) {
    int32_t emitted[SD_MAX_DRAFT + 1];
    int n = 0, from = s->n, accepted = 0;
    bool on = true;
    for (int j = 0; j <= s->g && on; j++) {
        const float *logits = e->logits + (size_t)(s->first_logits + j) * (size_t)e->model->hp.V;
        int32_t x = sd_sample(e->sampler, logits, &s->job->r.sampling, from + j);
        emitted[n++] = x;
        bool right = j < s->g && s->draft[j] == x;
        accepted += right;
        on = sd_slot_token(e, s, x, logits) && right;
    }
    s->kv->len = from + accepted < s->n ? from + accepted : s->n - 1;
    sd_spec_stats *st = &s->stats.spec;
    st->rounds++;
    st->drafted += s->g;
    st->accepted += accepted;
    for (int j = 0; j < s->g; j++) {
        st->drafted_by[s->source[j]]++;
        if (j < accepted) st->accepted_by[s->source[j]]++, st->accepted_at[j]++;
    }
    sd_engine_score(e, s, emitted, n);
    if (!s->finish)
        for (int i = 0; i < SD_SOURCE_COUNT; i++)
            if (s->active[i]) s->drafter[i]->ops->observe(s->drafter[i], s->n);
    return n;
}

static void finish_prompt(sd_engine *e, sd_slot *s) {
    const float *logits = e->logits + (size_t)s->first_logits * (size_t)e->model->hp.V;
    int32_t x = sd_sample(e->sampler, logits, &s->job->r.sampling, s->n);
    s->phase = SLOT_DECODE;
    if (!sd_slot_token(e, s, x, logits)) return;
    for (int i = 0; i < SD_SOURCE_COUNT; i++)
        if (s->active[i]) s->drafter[i]->ops->observe(s->drafter[i], s->n);
}

static void add_spec(sd_spec_stats *sum, const sd_spec_stats *a, int sign) {
    sum->rounds += sign * a->rounds;
    sum->drafted += sign * a->drafted;
    sum->accepted += sign * a->accepted;
    for (int i = 0; i < SD_SOURCE_COUNT; i++) {
        sum->drafted_by[i] += sign * a->drafted_by[i];
        sum->accepted_by[i] += sign * a->accepted_by[i];
    }
    for (int i = 0; i < SD_MAX_DRAFT; i++) sum->accepted_at[i] += sign * a->accepted_at[i];
}

static void publish(sd_engine *e, double seconds) {
    e->stats.steps++;
    e->stats.busy_s += seconds;
    e->stats.running = 0;
    e->stats.kv_used = 0;
    for (int i = 0; i < e->o.slots; i++)
        if (e->slot[i].job) e->stats.running++, e->stats.kv_used += e->slot[i].kv->len;
    pthread_mutex_lock(&e->lock);
    e->stats.waiting = e->queue_len;
    e->published = e->stats;
    pthread_mutex_unlock(&e->lock);
}

// After a forward pass: what each request of the batch got.
static int commit(sd_engine *e) {
    int tokens = 0;
    for (int i = 0; i < e->o.slots; i++) {
        sd_slot *s = &e->slot[i];
        if (s->rows == 0) continue;
        int made = s->stats.generated;
        if (s->phase == SLOT_DECODE) {
            sd_spec_stats before = s->stats.spec;
            tokens += verify(e, s);
            add_spec(&e->stats.spec, &s->stats.spec, 1);
            add_spec(&e->stats.spec, &before, -1);
        } else {
            s->kv->len += s->rows;
            e->stats.prompt_tokens += s->rows;
            if (s->first_logits >= 0) finish_prompt(e, s);
        }
        e->stats.generated_tokens += s->stats.generated - made;
    }
    return tokens;
}

static void learn(sd_engine *e, const batch *b, int tokens, double seconds) {
    if (b->running == 0 && b->prompt_rows > 0)
        sd_controller_prefilled(&e->control, b->prompt_rows, seconds);
    if (b->prompt_rows > 0 || b->running == 0) return; // a mixed step tells neither price
    sd_controller_timed(&e->control, b->running, b->decode_rows, seconds - e->draft_seconds);
    if (b->speculating) sd_controller_progress(&e->control, b->running, tokens, seconds);
}

bool sd_engine_step(sd_engine *e) {
    double begin = sd_now_s();
    sd_error err = {0};
    batch b = {0};
    end_cancelled(e);
    admit(e);
    e->draft_seconds = 0;
    sd_engine_plan(e);
    add_decode_rows(e, &b);
    add_prompt_rows(e, &b);
    if (b.rows > 0) {
        bool ok = sd_forward(e->cx, e->rows, b.rows, b.logits ? e->logits : NULL, &err) == SD_OK;
        int tokens = ok ? commit(e) : 0;
        double seconds = sd_now_s() - begin;
        if (ok) learn(e, &b, tokens, seconds);
        for (int i = 0; i < e->o.slots; i++) {
            sd_slot *s = &e->slot[i];
            if (s->rows == 0) continue;
            if (!ok) s->finish = SD_FINISH_ERROR, s->n_info = 0;
            sd_slot_deliver(e, s, ok ? NULL : err.message);
        }
    }
    publish(e, b.rows > 0 ? sd_now_s() - begin : 0);
    pthread_mutex_lock(&e->lock);
    bool more = e->queue_len > 0;
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < e->o.slots; i++) more |= e->slot[i].job != NULL;
    return more;
}
