// The planner gets drafters that say what a trace says. Their kinds are made of the real ones: the
// same name, prior and parts (free or priced, with or without preparation, together or one by one).
#include "decode/draft/replay.h"

#include "base/list.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

// ---- what both replays share

typedef struct {
    const sd_trace_log *log;
    sd_drafter_kind kind[SD_MAX_DRAFTERS];
    sd_draft_source source[SD_MAX_DRAFTERS];
    size_t bytes[SD_MAX_DRAFTERS]; // source[i].shared
} players;

static const sd_drafter_kind *real_kind(const char *name) {
    for (int i = 0; sd_drafters[i]; i++)
        if (strcmp(sd_drafters[i]->name, name) == 0) return sd_drafters[i];
    return NULL;
}

static size_t read_bytes(const void *shared) {
    return *(const size_t *)shared;
}

// `like` has all functions; those that the real kind lacks are left out.
static sd_status make_players(players *p, const sd_trace_log *log, const sd_drafter_kind *like,
                              sd_error *err) {
    sd_status st = SD_OK;
    *p = (players){.log = log};
    for (int i = 0; i < log->n_drafters; i++) {
        const sd_drafter_kind *real = real_kind(log->name[i]);
        SD_CHECK(real && log->free[i] == !real->read_bytes, err, SD_EINVAL,
                 "the trace's drafter \"%s\" is none of this program's; record the trace again",
                 log->name[i]);
        sd_drafter_kind *k = &p->kind[i];
        *k = *like;
        k->name = real->name;
        k->prior = real->prior;
        k->read_bytes = real->read_bytes ? read_bytes : NULL;
        if (!real->prepare) k->prepare = NULL, k->missing = NULL;
        if (!real->prepare_many) k->prepare_many = NULL;
        if (!real->peek_many) k->peek_many = NULL;
        p->bytes[i] = log->bytes[i];
        p->source[i] = (sd_draft_source){k, &p->bytes[i]};
    }
out:
    return st;
}

// ---- the recorded rounds

typedef struct {
    sd_drafter base;
    const sd_traced_request *request;
    int place, at; // at: positions that the cursor has moved over
    bool prepared;
} recorded;

static recorded *recorded_of(sd_drafter *d) {
    return (recorded *)d;
}

static int recorded_missing(const sd_drafter *base) {
    const recorded *d = (const recorded *)base;
    return d->prepared ? d->request->lacking[d->place] : d->request->missing[d->place];
}
static bool recorded_prepare(sd_drafter *base, int rows) {
    (void)rows;
    recorded *d = recorded_of(base);
    d->prepared = true;
    return d->request->ready[d->place];
}
static void recorded_rewind(sd_drafter *base) {
    recorded_of(base)->at = 0;
}
static bool recorded_peek(sd_drafter *base, sd_proposal *out) {
    const recorded *d = recorded_of(base);
    for (int i = 0; i < d->request->n_proposed; i++) {
        const sd_traced_proposal *q = &d->request->proposed[i];
        if (q->at != d->at || q->source != d->place) continue;
        *out = (sd_proposal){q->token, q->bucket, 0};
        return true;
    }
    return false;
}
static void recorded_advance(sd_drafter *base, int32_t token) {
    (void)token;
    recorded_of(base)->at++;
}
static void recorded_prepare_many(sd_drafter *const *d, bool *ready, int n, int rows) {
    for (int k = 0; k < n; k++) ready[k] = recorded_prepare(d[k], rows);
}
static void recorded_peek_many(sd_drafter *const *d, sd_proposal *out, bool *made, int n) {
    for (int k = 0; k < n; k++) made[k] = recorded_peek(d[k], &out[k]);
}

static const sd_drafter_kind recorded_kind = {.missing = recorded_missing,
                                              .prepare = recorded_prepare,
                                              .rewind = recorded_rewind,
                                              .peek = recorded_peek,
                                              .advance = recorded_advance,
                                              .prepare_many = recorded_prepare_many,
                                              .peek_many = recorded_peek_many};

// A request's own acceptance lasts as long as the request.
typedef struct {
    uint64_t id;
    sd_acceptance acceptance;
} owner;

typedef struct {
    players players;
    sd_controller control;
    sd_planner *planner;
    sd_planned *sequence;                   // [slots]
    sd_planned **pointer;                   // [slots]
    recorded (*drafter)[SD_MAX_DRAFTERS];   // [slots]
    sd_drafter *(*handle)[SD_MAX_DRAFTERS]; // [slots]
    owner **own;                            // [n_own]
    int n_own, cap_own;
    const sd_traced_step *step; // whose times the clock shows
    int next;                   // of them
    bool running;               // the clock was asked for a begin
} rounds;

// The recorded times, one after another: 0 at each begin.
static double recorded_now(void *ctx) {
    rounds *r = ctx;
    r->running = !r->running;
    if (r->running || r->next >= r->step->n_draft_s) return 0;
    return r->step->draft_s[r->next++];
}

static sd_acceptance *own_of(rounds *r, uint64_t id) {
    for (int i = r->n_own; i-- > 0;)
        if (r->own[i]->id == id) return &r->own[i]->acceptance;
    if (!SD_GROW(r->own, r->n_own + 1, r->cap_own)) return NULL;
    owner *o = sd_alloc(1, sizeof *o);
    if (!o) return NULL;
    o->id = id;
    r->own[r->n_own++] = o;
    return &o->acceptance;
}

static sd_status open_rounds(rounds *r, const sd_trace_log *log, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = (size_t)log->slots;
    *r = (rounds){0};
    SD_TRY(make_players(&r->players, log, &recorded_kind, err));
    sd_controller_init(&r->control);
    if (log->have_costs) sd_controller_load_costs(&r->control, &log->costs);
    const sd_planner_options o = {.length = log->length,
                                  .prepare_rows = 1,
                                  .V = log->V,
                                  .target_bytes = log->target_bytes,
                                  .now = recorded_now,
                                  .ctx = r};
    SD_TRY(sd_planner_open(&r->planner, &r->control, r->players.source, log->n_drafters, log->slots,
                           &o, err));
    r->sequence = sd_alloc(n, sizeof *r->sequence);
    r->pointer = sd_alloc(n, sizeof(sd_planned *));
    r->drafter = sd_alloc(n, sizeof *r->drafter);
    r->handle = sd_alloc(n, sizeof *r->handle);
    SD_CHECK_ALLOC(r->sequence && r->pointer && r->drafter && r->handle, err);
out:
    return st;
}

static void close_rounds(rounds *r) {
    sd_planner_close(r->planner);
    free(r->sequence);
    free(r->pointer);
    free(r->drafter);
    free(r->handle);
    for (int i = 0; i < r->n_own; i++) free(r->own[i]);
    free(r->own);
}

static sd_status replay_round(rounds *r, const sd_traced_step *s, sd_replay *out, sd_error *err) {
    sd_status st = SD_OK;
    int tokens = 0;
    for (int k = 0; k < s->n_requests; k++) {
        const sd_traced_request *q = &s->request[k];
        sd_planned *p = r->pointer[k] = &r->sequence[k];
        for (int i = 0; i < r->players.log->n_drafters; i++) {
            r->drafter[k][i] = (recorded){.base = {&r->players.kind[i]}, .request = q, .place = i};
            r->handle[k][i] = &r->drafter[k][i].base;
        }
        p->drafter = r->handle[k];
        p->active = q->active;
        p->own = own_of(r, q->id);
        SD_CHECK_ALLOC(p->own, err);
        p->last = q->last;
        p->room = q->room;
        p->generated = q->generated;
        tokens += q->n_emitted;
    }
    r->step = s, r->next = 0, r->running = false;
    r->planner->rounds = s->round - 1;
    if (s->planned == s->n_requests) sd_planner_round(r->planner, r->pointer, s->n_requests);
    for (int k = 0; k < s->n_requests && s->planned == s->n_requests; k++) {
        out->decisions++;
        out->same += r->sequence[k].g == s->request[k].taken;
        sd_planner_score(r->planner, &r->sequence[k], s->request[k].emitted,
                         s->request[k].n_emitted);
    }
    if (s->n_requests > out->at_once) out->at_once = s->n_requests;
    if (s->prompt_rows > 0) goto out; // a mixed step tells neither price
    sd_controller_timed(&r->control, s->n_requests, s->rows, s->verify_s);
    if (s->speculating) sd_controller_progress(&r->control, s->n_requests, tokens, s->seconds);
out:
    return st;
}

static sd_status replay_rounds(rounds *r, sd_replay *out, sd_error *err) {
    sd_status st = SD_OK;
    const sd_trace_log *log = r->players.log;
    for (int i = 0; i < log->n_steps; i++) {
        const sd_traced_step *s = &log->step[i];
        if (s->n_requests > 0)
            SD_TRY(replay_round(r, s, out, err));
        else
            sd_controller_prefilled(&r->control, s->prompt_rows, s->seconds);
    }
out:
    return st;
}

// ---- the answers again

enum { COSTS = 512 }; // rows whose cost was averaged

typedef struct {
    sd_drafter base;
    struct sequence *sequence;
    int place;
} shadow;

typedef struct sequence {
    const sd_traced_answer *answer;
    int n; // tokens of it that are there
    int32_t path[SD_MAX_DRAFT + 1];
    int n_path;
    int sure[SD_MAX_DRAFTERS]; // the bucket of each one's last proposal in this round; -1: none
    struct again *again;
    shadow drafter[SD_MAX_DRAFTERS];
    sd_drafter *handle[SD_MAX_DRAFTERS];
    bool active[SD_MAX_DRAFTERS];
    sd_acceptance own;
    sd_planned plan;
} sequence;

typedef struct again {
    players players;
    const sd_controller *costs; // as they were at the trace's end
    double step[COSTS + 1];     // seconds of a step of so many rows
    sd_controller control;
    sd_planner *planner;
    double now;
    sequence *sequence;   // [at_once]
    sd_planned **pointer; // [at_once]
    int at_once, next;    // next: answer
} again;

static double again_now(void *ctx) {
    return ((again *)ctx)->now;
}

// Seconds of n proposals made at once.
static double draft_cost(const again *a, int place, int n) {
    double alone =
        a->step[1] * (double)a->players.bytes[place] / ((double)a->players.log->target_bytes + 1);
    return sd_controller_draft_cost(a->costs, place, n, alone);
}

// Whether the first j drafted tokens of the round are those of the answer.
static bool on_truth(const sequence *s, int j) {
    return s->n + j <= s->answer->n &&
           memcmp(s->path, s->answer->token + s->n, (size_t)j * sizeof *s->path) == 0;
}

// What a drafter had to say behind `path`: its own draft from the round's begin as far as it is the
// path, else its first token from the place where the path stands in the answer.
static bool look_up(const shadow *d, sd_proposal *out) {
    sequence *s = d->sequence;
    const sd_traced_answer *a = s->answer;
    const size_t row = (size_t)d->place * (size_t)a->n;
    const sd_traced_proposal *chain = a->chain + a->first[row + (size_t)s->n], *found = NULL;
    int length = a->length[row + (size_t)s->n], j = 0;
    while (j < s->n_path && j < length && chain[j].token == s->path[j]) j++;
    bool truth = on_truth(s, s->n_path);
    if (j == s->n_path && j < length)
        found = &chain[j];
    else if (truth && s->n + s->n_path < a->n && a->length[row + (size_t)(s->n + s->n_path)] > 0)
        found = a->chain + a->first[row + (size_t)(s->n + s->n_path)];
    if (found) {
        *out = (sd_proposal){found->token, found->bucket, 0};
        s->sure[d->place] = found->bucket;
        return true;
    }
    // Behind a wrong token a model goes on, to no avail.
    if (truth || !d->base.kind->read_bytes || s->sure[d->place] < 0) return false;
    *out = (sd_proposal){0, s->sure[d->place], 0};
    return true;
}

static const shadow *shadow_of(const sd_drafter *d) {
    return (const shadow *)d;
}

static int shadow_missing(const sd_drafter *base) {
    (void)base;
    return 1;
}
static bool shadow_prepare(sd_drafter *base, int rows) {
    (void)base, (void)rows;
    return true;
}
static void shadow_rewind(sd_drafter *base) {
    shadow_of(base)->sequence->n_path = 0;
}
static bool shadow_peek(sd_drafter *base, sd_proposal *out) {
    const shadow *d = shadow_of(base);
    again *a = d->sequence->again;
    if (base->kind->read_bytes) a->now += draft_cost(a, d->place, 1);
    return look_up(d, out);
}
// All cursors of a sequence move over the same token, at the same time: the first that moves does it
// for all.
static void shadow_advance(sd_drafter *base, int32_t token) {
    sequence *s = shadow_of(base)->sequence;
    int at = s->plan.n_draft; // of the token
    if (at > 0 && at <= SD_MAX_DRAFT) s->path[at - 1] = token, s->n_path = at;
}
static void shadow_prepare_many(sd_drafter *const *d, bool *ready, int n, int rows) {
    (void)d, (void)rows;
    for (int k = 0; k < n; k++) ready[k] = true;
}
static void shadow_peek_many(sd_drafter *const *d, sd_proposal *out, bool *made, int n) {
    again *a = shadow_of(d[0])->sequence->again;
    a->now += draft_cost(a, shadow_of(d[0])->place, n);
    for (int k = 0; k < n; k++) made[k] = look_up(shadow_of(d[k]), &out[k]);
}

static const sd_drafter_kind shadow_kind = {.missing = shadow_missing,
                                            .prepare = shadow_prepare,
                                            .rewind = shadow_rewind,
                                            .peek = shadow_peek,
                                            .advance = shadow_advance,
                                            .prepare_many = shadow_prepare_many,
                                            .peek_many = shadow_peek_many};

// What a step of n rows took on average; what was seldom seen is what the controller learnt. More rows
// never cost less.
static void average_costs(again *a, const sd_trace_log *log) {
    enum { ENOUGH = 4 };
    double sum[COSTS + 1] = {0};
    int seen[COSTS + 1] = {0};
    for (int i = 0; i < log->n_steps; i++) {
        const sd_traced_step *s = &log->step[i];
        if (s->n_requests == 0 || s->prompt_rows > 0 || s->rows > COSTS) continue;
        sum[s->rows] += s->verify_s;
        seen[s->rows]++;
    }
    for (int n = 1; n <= COSTS; n++) {
        a->step[n] = seen[n] >= ENOUGH ? sum[n] / seen[n] : sd_controller_cost(a->costs, n);
        if (a->step[n] < a->step[n - 1]) a->step[n] = a->step[n - 1];
    }
}

static double step_cost(const again *a, int rows) {
    return rows <= COSTS ? a->step[rows] : a->step[COSTS] * rows / COSTS;
}

static sd_status open_again(again *a, const sd_trace_log *log, const sd_controller *costs,
                            int at_once, sd_error *err) {
    sd_status st = SD_OK;
    *a = (again){.costs = costs, .at_once = at_once};
    SD_TRY(make_players(&a->players, log, &shadow_kind, err));
    average_costs(a, log);
    a->sequence = sd_alloc((size_t)at_once, sizeof *a->sequence);
    a->pointer = sd_alloc((size_t)at_once, sizeof(sd_planned *));
    SD_CHECK_ALLOC(a->sequence && a->pointer, err);
out:
    return st;
}

static void close_again(again *a) {
    sd_planner_close(a->planner);
    free(a->sequence);
    free(a->pointer);
}

// The next answer with a token to decode, for s; false: there is none left.
static bool take_answer(again *a, sequence *s) {
    const sd_trace_log *log = a->players.log;
    while (a->next < log->n_answers && log->answer[a->next].n < 2) a->next++;
    if (a->next >= log->n_answers) return false;
    *s = (sequence){.answer = &log->answer[a->next++], .n = 1, .again = a};
    for (int i = 0; i < log->n_drafters; i++) {
        s->drafter[i] = (shadow){{&a->players.kind[i]}, s, i};
        s->handle[i] = &s->drafter[i].base;
        s->active[i] = true;
    }
    s->plan = (sd_planned){.drafter = s->handle, .active = s->active, .own = &s->own};
    return true;
}

// A round of all that run.
static void play_round(again *a, int n, bool off, sd_replay_policy *p) {
    int rows = n, tokens = 0;
    double begin = a->now, drafting = 0;
    for (int k = 0; k < n; k++) {
        sequence *s = &a->sequence[k];
        s->n_path = 0;
        for (int i = 0; i < SD_MAX_DRAFTERS; i++) s->sure[i] = -1;
        s->plan.g = 0;
        s->plan.room = SD_MAX_DRAFT;
        s->plan.generated = s->n;
        s->plan.last = s->answer->token[s->n - 1];
        a->pointer[k] = &s->plan;
    }
    if (!off) drafting = sd_planner_round(a->planner, a->pointer, n);
    for (int k = 0; k < n; k++) rows += a->sequence[k].plan.g;
    double verify = step_cost(a, rows);
    a->now += verify;
    for (int k = 0; k < n; k++) {
        sequence *s = &a->sequence[k];
        const int32_t *truth = s->answer->token + s->n;
        int left = s->answer->n - s->n, accepted = 0;
        while (accepted < s->plan.g && accepted < left &&
               s->plan.draft[accepted] == truth[accepted])
            accepted++;
        int emitted = accepted + 1 < left ? accepted + 1 : left;
        if (!off) sd_planner_score(a->planner, &s->plan, truth, emitted);
        s->n += emitted;
        tokens += emitted;
        p->accepted += accepted;
        p->drafted += s->plan.g;
    }
    if (!off) {
        sd_controller_timed(&a->control, n, rows, verify);
        sd_controller_progress(&a->control, n, tokens, a->now - begin);
    }
    p->rounds += n;
    p->rows += rows;
    p->tokens += tokens;
    p->draft_seconds += drafting;
}

// length < 0: off; 0: automatic.
static sd_status play(again *a, int length, sd_replay_policy *p, sd_error *err) {
    sd_status st = SD_OK;
    const sd_trace_log *log = a->players.log;
    int n = 0;
    const sd_planner_options o = {.length = length > 0 ? length : 0,
                                  .unpadded = true,
                                  .prepare_rows = 1,
                                  .V = log->V,
                                  .target_bytes = log->target_bytes,
                                  .now = again_now,
                                  .ctx = a};
    sd_controller_init(&a->control);
    if (log->have_costs) sd_controller_load_costs(&a->control, &log->costs);
    sd_planner_close(a->planner), a->planner = NULL;
    SD_TRY(sd_planner_open(&a->planner, &a->control, a->players.source, log->n_drafters, a->at_once,
                           &o, err));
    a->now = 0, a->next = 0;
    while (n < a->at_once && take_answer(a, &a->sequence[n])) n++;
    while (n > 0) {
        play_round(a, n, length < 0, p);
        for (int k = 0; k < n; k++) {
            if (a->sequence[k].n < a->sequence[k].answer->n) continue;
            if (take_answer(a, &a->sequence[k])) continue;
            n--;
            if (k < n) {
                sequence *s = &a->sequence[k];
                *s = a->sequence[n];
                for (int i = 0; i < log->n_drafters; i++) {
                    s->drafter[i].sequence = s;
                    s->handle[i] = &s->drafter[i].base;
                }
                s->plan.drafter = s->handle, s->plan.active = s->active, s->plan.own = &s->own;
            }
            k--;
        }
    }
    p->seconds = a->now;
out:
    return st;
}

sd_status sd_replay_run(sd_replay *out, const sd_trace_log *log, sd_error *err) {
    static const int lengths[SD_REPLAY_POLICIES] = {-1, 0, 2, 4, 8};
    sd_status st = SD_OK;
    rounds *r = sd_alloc(1, sizeof *r);
    again *a = sd_alloc(1, sizeof *a);
    *out = (sd_replay){0};
    SD_CHECK_ALLOC(r && a, err);
    SD_TRY(open_rounds(r, log, err));
    SD_TRY(replay_rounds(r, out, err));
    if (out->at_once == 0) out->at_once = 1;
    for (int i = 0; i < log->n_answers; i++) out->answers += log->answer[i].n > 1;
    SD_TRY(open_again(a, log, &r->control, out->at_once, err));
    for (int i = 0; i < SD_REPLAY_POLICIES; i++) {
        sd_replay_policy *p = &out->policy[i];
        SD_TRY(play(a, lengths[i], p, err));
        if (lengths[i] > 0)
            snprintf(p->name, sizeof p->name, "%d", lengths[i]);
        else
            snprintf(p->name, sizeof p->name, "%s", lengths[i] < 0 ? "off" : "auto");
        p->speed_up = p->seconds > 0 ? out->policy[0].seconds / p->seconds : 0;
    }
out:
    if (r) close_rounds(r);
    if (a) close_again(a);
    free(r);
    free(a);
    return st;
}
