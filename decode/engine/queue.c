// The queue: which requests wait, which get a slot, and which give one back.
//
// Each client's requests wait in a line of their own. A free slot goes to the waiting client that
// holds the fewest slots, among equals to the one whose turn was longest ago. So a lone client has
// them all, and a newcomer is next however long the other's line is.
//
// That alone would let a newcomer wait until one of a hundred long answers ends. Two things bound
// the wait. `reserve` slots beyond the ordinary ones are only for clients that hold none. And where
// another client holds at least two slots more than the one that waits, the request that is
// cheapest to do again gives its slot back: it goes to the head of its line with all it has said so
// far, and later reads its own timeline as a prompt. Its tokens are those it would have had,
// because a token depends on the prompt, the seed and the position alone. The same rule says who gives
// way when pages run out; it then waits until there are pages for all it has.
//
// One that waits for pages does not hold up all others. For a while they go before it; then one begins only
// where it leaves it pages: what all that began since it waits may come to have, the new one's too, leaves as
// many as it wants. So it waits for those alone that ran before it began to wait, or began in that while.
//
// A line is in the order of priorities, the lowest number first. An administrator's request also stands
// before or behind those of other clients.
#include "base/clock.h"
#include "base/list.h"
#include "decode/engine/private.h"
#include "model/infer/prefix_cache.h"

#include <math.h>
#include <string.h>

static const double PATIENCE_S = 1;     // before a client's second slot is taken from another
static const int TURN_TOKENS = 256;     // a stay of at least so many tokens pays for its return
static const double LEARN_SHARE = 0.05; // of the answers' lengths

// ---- clients

static sd_tenant *find_tenant(const sd_engine *e, uint64_t client) {
    for (int i = 0; i < e->n_tenants; i++)
        if (e->tenant[i]->client == client) return e->tenant[i];
    return NULL;
}

// One that is there, or a new one; NULL: out of memory.
static sd_tenant *take_tenant(sd_engine *e, uint64_t client) {
    sd_tenant *t = find_tenant(e, client);
    if (t) return t;
    if (!SD_GROW(e->tenant, e->n_tenants + 1, e->max_tenants)) return NULL;
    t = sd_alloc(1, sizeof *t);
    if (!t) return NULL;
    t->client = client;
    t->turn = ++e->turns;
    e->tenant[e->n_tenants++] = t;
    return t;
}

static void drop_idle_tenants(sd_engine *e) {
    for (int i = 0; i < e->n_tenants; i++) {
        sd_tenant *t = e->tenant[i];
        if (t->waiting || t->slots) continue;
        e->tenant[i--] = e->tenant[--e->n_tenants];
        free(t);
    }
}

// ---- the lines

// Tokens that a request is likely to make yet.
static double expected_tokens(const sd_engine *e, const sd_engine_request *j, int generated) {
    double left = j->limit * e->answer_share - generated;
    return left > 1 ? left : 1;
}

static int prompt_length(const sd_engine_request *j) {
    return j->carried ? j->carried->n : j->r.n_prompt;
}

static void count_waiting(sd_engine *e, const sd_engine_request *j, int sign) {
    j->tenant->waiting += sign;
    e->waiting += sign;
    e->waiting_prompt += (int64_t)sign * prompt_length(j);
    e->waiting_limit += (int64_t)sign * j->limit;
}

// Before or behind those of the same priority.
static void line_up(sd_engine *e, sd_engine_request *j, bool in_front) {
    sd_tenant *t = j->tenant;
    sd_engine_request *before = NULL, *next = t->first;
    j->queued = sd_now_s();
    if (!in_front && t->last && t->last->r.priority <= j->r.priority) before = t->last, next = NULL;
    while (next &&
           (in_front ? next->r.priority < j->r.priority : next->r.priority <= j->r.priority))
        before = next, next = next->next;
    j->next = next;
    if (before)
        before->next = j;
    else
        t->first = j;
    if (!next) t->last = j;
    count_waiting(e, j, 1);
}

// j follows `before`; NULL: it is the first.
static void leave_line(sd_engine *e, sd_engine_request *j, sd_engine_request *before) {
    sd_tenant *t = j->tenant;
    if (before)
        before->next = j->next;
    else
        t->first = j->next;
    if (t->last == j) t->last = before;
    j->next = NULL;
    count_waiting(e, j, -1);
}

// ---- submitting

static int occupied(const sd_engine *e) {
    int n = 0;
    for (int i = 0; i < e->n_slots; i++) n += e->slot[i].request != NULL;
    return n;
}

static int free_slots(const sd_engine *e) {
    int n = e->o.slots - occupied(e);
    return n > 0 ? n : 0;
}

// The queue is what waits beyond the free slots: a burst into an idle engine fills both.
static sd_share share_of(const sd_engine *e, const sd_tenant *t) {
    int clients = t && t->waiting ? 0 : 1;
    for (int i = 0; i < e->n_tenants; i++) clients += e->tenant[i]->waiting > 0;
    return (sd_share){e->o.queue + free_slots(e), e->waiting, t ? t->waiting : 0, clients};
}

bool sd_engine_has_room(sd_engine *e, uint64_t client, int n) {
    pthread_mutex_lock(&e->lock);
    sd_share s = share_of(e, find_tenant(e, client));
    bool room = sd_fair_room(&s, n);
    pthread_mutex_unlock(&e->lock);
    return room;
}

sd_status sd_queue_add(sd_engine *e, sd_engine_request *j, uint64_t *id, sd_error *err) {
    sd_status st = SD_OK;
    int room = e->longest - j->r.n_prompt;
    j->limit = j->r.max_tokens > 0 && j->r.max_tokens < room ? j->r.max_tokens : room;
    if (j->r.no_answer || sd_request_reads(&j->r)) j->limit = 1;
    pthread_mutex_lock(&e->lock);
    sd_share s = share_of(e, find_tenant(e, j->r.client));
    if (!sd_fair_room(&s, 1)) {
        st = sd_fail(err, SD_ELIMIT, "the queue is full: %d requests wait; try again later",
                     e->waiting);
    } else if (!(j->tenant = take_tenant(e, j->r.client))) {
        st = sd_fail(err, SD_ENOMEM, "out of memory");
    } else {
        j->id = e->next_id++;
        if (id) *id = j->id;
        line_up(e, j, false);
        e->published.waiting = e->waiting;
        pthread_cond_broadcast(&e->wakeup);
    }
    pthread_mutex_unlock(&e->lock);
    return st;
}

void sd_engine_cancel(sd_engine *e, uint64_t id) {
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < e->n_tenants; i++)
        for (sd_engine_request *j = e->tenant[i]->first; j; j = j->next)
            if (j->id == id) j->cancelled = e->cancelled_waiting = true;
    for (int i = 0; i < e->n_slots; i++)
        if (e->slot[i].request && e->slot[i].request->id == id)
            e->slot[i].request->cancelled = true;
    e->woken = true;
    pthread_cond_broadcast(&e->wakeup);
    pthread_mutex_unlock(&e->lock);
}

// ---- slots

// A request's place among all clients'.
static int rank(const sd_engine_request *j) {
    return j->r.admin_priority ? j->r.priority : 0;
}

// Whether a's first request comes before b's.
static bool goes_before(const sd_tenant *a, const sd_tenant *b) {
    if (rank(a->first) != rank(b->first)) return rank(a->first) < rank(b->first);
    return a->slots != b->slots ? a->slots < b->slots : a->turn < b->turn;
}

// Whether t's first request waits for pages; not while nothing runs that could leave some.
static bool lacks_pages(const sd_engine *e, const sd_tenant *t) {
    const sd_engine_request *j = t->first;
    return j->wants_pages && occupied(e) > 0 && !sd_kv_pool_holds(e->kv, prompt_length(j) + 1);
}

// Positions that a request may come to have.
static int most_positions(const sd_engine *e, const sd_engine_request *j) {
    const int left = e->longest - j->r.n_prompt;
    return j->r.n_prompt + (j->limit < left ? j->limit : left);
}

// Whether t's first request may begin before j, which waits for pages.
static bool may_overtake(const sd_engine *e, const sd_engine_request *j, const sd_tenant *t) {
    int n = 0;
    if (!sd_kv_pool_holds(e->kv, prompt_length(t->first) + 1)) return false;
    e->positions[n++] = prompt_length(j) + 1;
    e->positions[n++] = most_positions(e, t->first);
    for (int i = 0; i < e->n_slots; i++) {
        const sd_engine_request *r = e->slot[i].request;
        if (r && r->begun > j->wants_since) e->positions[n++] = most_positions(e, r);
    }
    return sd_kv_pool_has_room(e->kv, e->positions, n);
}

// The waiting client whose turn it is. Others go before one that lacks pages for a while; then only those
// that leave it enough.
static sd_tenant *neediest(const sd_engine *e) {
    sd_tenant *best = NULL, *over = NULL;
    double now = sd_now_s();
    for (int i = 0; i < e->n_tenants; i++) {
        sd_tenant *t = e->tenant[i];
        if (!t->waiting || (lacks_pages(e, t) && now - t->first->queued < PATIENCE_S)) continue;
        if (!best || goes_before(t, best)) best = t;
    }
    if (!best || !lacks_pages(e, best)) return best;
    for (int i = 0; i < e->n_tenants; i++) {
        sd_tenant *t = e->tenant[i];
        if (!t->waiting || lacks_pages(e, t) || (over && !goes_before(t, over))) continue;
        if (may_overtake(e, best->first, t)) over = t;
    }
    return over;
}

static bool may_start(const sd_engine *e, const sd_tenant *t, int running) {
    return running < e->o.slots || (running < e->n_slots && t->slots == 0);
}

// Whether t, which waits, may have the slot of s; both hold theirs for another client. What is more urgent
// among all clients gives way to nobody.
static bool may_take(const sd_tenant *t, const sd_slot *s, double waited) {
    int more = s->request->tenant->slots - t->slots;
    if (s->request->tenant == t || s->fresh || s->request->cancelled) return false;
    if (rank(s->request) < rank(t->first)) return false;
    if (more >= 2) return t->slots == 0 || waited >= PATIENCE_S;
    int paid = s->begun_at > TURN_TOKENS ? s->begun_at : TURN_TOKENS;
    return more == 1 && t->slots == 0 && waited >= PATIENCE_S && s->n - s->begun_at >= paid;
}

// Whether a gives its slot back rather than b: of the client with the most slots, what is least urgent
// there, then what is cheapest to do again.
static bool gives_before(const sd_slot *a, const sd_slot *b) {
    const sd_engine_request *x = a->request, *y = b->request;
    int more = x->tenant->slots - y->tenant->slots;
    if (rank(x) != rank(y)) return rank(x) > rank(y);
    if (more != 0) return more > 0;
    if (x->tenant == y->tenant && x->r.priority != y->r.priority)
        return x->r.priority > y->r.priority;
    return a->kv->len < b->kv->len;
}

// NULL: nobody has to give.
static sd_slot *find_victim(sd_engine *e, const sd_tenant *t) {
    double waited = sd_now_s() - t->first->queued;
    sd_slot *best = NULL;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (s->request && may_take(t, s, waited) && (!best || gives_before(s, best))) best = s;
    }
    return best;
}

// Its pages are for others now. What it computed can be found, unless its step failed.
static void leave_slot(const sd_engine *e, sd_slot *s) {
    if (!s->fresh) {
        sd_slot_end_drafters(e, s);
        sd_slot_end_constraint(s);
    }
    s->fresh = false;
    if (s->finish == SD_FINISH_ERROR)
        sd_kv_truncate(s->kv, 0);
    else
        sd_prefix_end(s->kv, s->timeline);
}

// Back to the head of its line. False when there is no memory to carry what it has said; it then
// stays where it is.
static bool preempt(sd_engine *e, sd_slot *s) {
    sd_engine_request *j = s->request;
    if (!sd_slot_carry(s)) return false;
    j->tenant->slots--;
    s->request = NULL;
    s->rows = 0;
    leave_slot(e, s);
    line_up(e, j, true);
    e->stats.preemptions++;
    return true;
}

bool sd_queue_make_room(sd_engine *e) {
    sd_slot *best = NULL;
    int holders = 0;
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        if (!s->request || s->kv->pages == 0) continue;
        holders++;
        if (!best || gives_before(s, best)) best = s;
        s->starved = false;
    }
    if (holders < 2) return false;
    pthread_mutex_lock(&e->lock);
    best->request->wants_pages = true;
    best->request->wants_since = e->turns;
    e->cancelled_waiting |= best->request->cancelled;
    bool gave = preempt(e, best);
    pthread_mutex_unlock(&e->lock);
    return gave;
}

static void fill_slots(sd_engine *e) {
    for (sd_tenant *t; (t = neediest(e));) {
        if (!may_start(e, t, occupied(e))) {
            sd_slot *victim = find_victim(e, t);
            if (!victim || !preempt(e, victim)) return;
        }
        sd_slot *s = e->slot;
        while (s->request) s++;
        s->request = t->first;
        leave_line(e, s->request, NULL);
        t->slots++;
        t->turn = ++e->turns;
        s->request->begun = e->turns;
        s->request->wants_pages = false;
        s->fresh = true;
    }
}

// Those that were cancelled while they waited, as a list.
static sd_engine_request *take_cancelled(sd_engine *e) {
    sd_engine_request *list = NULL;
    if (!e->cancelled_waiting) return NULL;
    e->cancelled_waiting = false;
    for (int i = 0; i < e->n_tenants; i++)
        for (sd_engine_request *before = NULL, *j = e->tenant[i]->first, *next; j; j = next) {
            next = j->next;
            if (!j->cancelled) {
                before = j;
                continue;
            }
            leave_line(e, j, before);
            j->next = list;
            list = j;
        }
    return list;
}

void sd_queue_admit(sd_engine *e) {
    pthread_mutex_lock(&e->lock);
    sd_engine_request *cancelled = take_cancelled(e);
    fill_slots(e);
    drop_idle_tenants(e);
    e->published.waiting = e->waiting;
    e->published.preemptions = e->stats.preemptions;
    pthread_mutex_unlock(&e->lock);
    for (sd_engine_request *next; cancelled; cancelled = next) {
        next = cancelled->next;
        sd_engine_request_end(cancelled, SD_FINISH_CANCELLED, NULL);
        sd_engine_request_free(cancelled);
    }
    for (int i = 0; i < e->n_slots; i++)
        if (e->slot[i].fresh) sd_slot_begin(e, &e->slot[i], e->slot[i].request);
}

void sd_queue_leave_slot(sd_engine *e, sd_slot *s) {
    sd_engine_request *j = s->request;
    pthread_mutex_lock(&e->lock);
    if ((s->finish == SD_FINISH_STOP || s->finish == SD_FINISH_LENGTH) && !j->r.no_answer &&
        !sd_request_reads(&j->r))
        e->answer_share += LEARN_SHARE * ((double)s->stats.generated / j->limit - e->answer_share);
    j->tenant->slots--;
    s->request = NULL;
    drop_idle_tenants(e);
    pthread_mutex_unlock(&e->lock);
    leave_slot(e, s);
}

void sd_queue_close(sd_engine *e) {
    for (int i = 0; i < e->n_tenants; i++) {
        for (sd_engine_request *j = e->tenant[i]->first, *next; j; j = next) {
            next = j->next;
            sd_engine_request_end(j, SD_FINISH_CANCELLED, NULL);
            sd_engine_request_free(j);
        }
        free(e->tenant[i]);
    }
    free(e->tenant);
}

// ---- how long until there is room

// Seconds that a slot still works at a request.
static double seconds_for(const sd_engine *e, double prompt, double tokens) {
    double s = 0;
    if (e->rate.prompt > 0) s += prompt / e->rate.prompt;
    if (e->rate.decode > 0) s += tokens / e->rate.decode;
    return s;
}

// Places in the queue that must become free before the client has `n` of them.
static int missing_places(const sd_engine *e, const sd_tenant *t, int n) {
    sd_share s = share_of(e, t);
    int64_t by_total = s.total + n - s.limit, by_share = s.own + n - sd_fair_share(&s);
    if (s.total + n > 2 * s.limit) by_share = by_total;
    int64_t missing = by_total < by_share ? by_total : by_share;
    return missing > 0 ? (int)missing : 0;
}

double sd_engine_wait_s(sd_engine *e, uint64_t client, int n) {
    double end = 0;
    pthread_mutex_lock(&e->lock);
    int missing = missing_places(e, find_tenant(e, client), n);
    double each = e->waiting == 0
                      ? 0
                      : seconds_for(e, (double)e->waiting_prompt / e->waiting,
                                    (double)e->waiting_limit * e->answer_share / e->waiting);
    for (int i = 0; i < e->n_slots; i++) {
        sd_slot *s = &e->slot[i];
        s->ends = !s->request
                      ? HUGE_VAL
                      : seconds_for(e, s->left_prompt, expected_tokens(e, s->request, s->said));
    }
    // Each slot that ends takes the next that waits, whose place is then free.
    for (int k = 0; k < missing; k++) {
        sd_slot *first = e->slot;
        for (int i = 1; i < e->n_slots; i++)
            if (e->slot[i].ends < first->ends) first = &e->slot[i];
        if (first->ends == HUGE_VAL) break;
        end = first->ends;
        first->ends += each;
    }
    pthread_mutex_unlock(&e->lock);
    return end;
}
