// How tokens cross from the engine's thread to the event loop.
//
// The provider calls sd_generation_on_event on its own thread. The event is copied and appended to the server's outbox under a lock that is held for a few instructions; an eventfd
// wakes the event loop when the outbox was empty. The engine makes its next step only while the loop
// is not far behind, so the outbox has a bound. The message that ends a choice is part of the
// choice, so an end is delivered even when memory is short.
#include "base/clock.h"
#include "decode/serve/generation_private.h"

#include <string.h>
#include <time.h>

// ---- the engine's thread

enum {
    MAX_OUTBOX = 1024,           // messages behind which the engine waits for the loop
    MAX_SPARE = 256,             // messages that are kept for the next tokens
    MAX_SPARE_BYTES = 16 * 1024, // of one of them
    DRAIN_MS = 5                 // the event loop looks at its sockets at least so often
};

// Messages are used again, so that a step of the engine allocates nothing.
static sd_engine_event *take_spare(sd_server *s) {
    pthread_mutex_lock(&s->outbox_lock);
    sd_engine_event *m = s->spare;
    if (m) s->spare = m->next, s->n_spare--;
    pthread_mutex_unlock(&s->outbox_lock);
    if (!m) return calloc(1, sizeof *m);
    *m = (sd_engine_event){.event = m->event, .room = m->room};
    return m;
}

static void give_back(sd_server *s, sd_engine_event *m) {
    bool keep = m->room <= MAX_SPARE_BYTES;
    pthread_mutex_lock(&s->outbox_lock);
    keep = keep && s->n_spare < MAX_SPARE;
    if (keep) m->next = s->spare, s->spare = m, s->n_spare++;
    pthread_mutex_unlock(&s->outbox_lock);
    if (keep) return;
    free(m->event);
    free(m);
}

// Room for an event; where memory is short what there was is left.
static void make_room(sd_engine_event *m, size_t need, bool owned) {
    if (need <= m->room) return;
    size_t room = need < 512 ? 512 : need;
    void *more = malloc(room);
    if (!more) return;
    if (owned) free(m->event);
    m->event = more;
    m->room = room;
}

static void outbox_add(sd_server *s, sd_engine_event *m) {
    pthread_mutex_lock(&s->outbox_lock);
    bool was_empty = s->outbox_head == NULL;
    if (was_empty)
        s->outbox_head = m;
    else
        s->outbox_tail->next = m;
    s->outbox_tail = m;
    s->outbox_n++;
    pthread_mutex_unlock(&s->outbox_lock);
    if (was_empty) sd_wakeup_signal(&s->events_wakeup);
}

void sd_outbox_wait(sd_server *s) {
    pthread_mutex_lock(&s->outbox_lock);
    while (s->outbox_n > MAX_OUTBOX && !atomic_load(&s->stop)) {
        struct timespec until; // the end of the server is not signalled
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&s->outbox_room, &s->outbox_lock, &until);
    }
    pthread_mutex_unlock(&s->outbox_lock);
}

void sd_generation_on_event(void *ctx, const sd_provider_event *ev) {
    sd_choice *c = ctx;
    sd_server *s = c->generation->server;
    bool end = ev->finish != SD_FINISH_NONE;
    sd_engine_event *m = end ? &c->last : take_spare(s);
    if (m) make_room(m, ev->head.bytes, !end);
    if (!m || !m->event) {
        free(m);
        c->last_lost = true; // the end will say so
        return;
    }
    m->to = c;
    if (end || ev->head.bytes <= m->room) {
        sd_provider_event_copy(m->event, m->room, ev);
        outbox_add(s, m);
    } else {
        give_back(s, m);
        c->last_lost = true;
    }
}

// ---- messages on the event loop

static void count_tokens(sd_generation *g, sd_choice *c, const sd_provider_event *ev) {
    sd_histogram *h = g->server->metrics.histogram;
    int n = ev->n;
    if (n == 0) return;
    c->generated += n;
    if (!g->first_ns) {
        g->first_ns = ev->at_ns;
        sd_histogram_observe(&h[SD_H_time_to_first_token_seconds],
                             (double)(ev->at_ns - g->arrival_ns) * 1e-9, 1);
    }
    // Tokens that came together share the time since the ones before them.
    if (c->last_ns)
        sd_histogram_observe(&h[SD_H_inter_token_latency_seconds],
                             (double)(ev->at_ns - c->last_ns) * 1e-9 / n, n);
    c->last_ns = ev->at_ns;
}

static void take_finish(sd_generation *g, sd_choice *c, const sd_provider_event *ev) {
    sd_finish finish = (sd_finish)ev->finish;
    const sd_request_stats *stats = sd_provider_event_stats(ev);
    c->ended = true;
    c->finish = finish;
    if (stats) c->stats = *stats;
    c->generated = c->stats.generated; // with the end token, which no event brings
    c->cached = c->stats.cached_tokens;
    g->open--;
    g->model->rounds += c->stats.spec.rounds;
    g->model->accepted += c->stats.spec.accepted;
    sd_metrics_finish(&g->server->metrics, finish, &c->stats,
                      (double)(ev->at_ns - g->arrival_ns) * 1e-9);
    if (g->failed) return;
    if (finish == SD_FINISH_ERROR || finish == SD_FINISH_CANCELLED || c->lost || c->last_lost) {
        g->failed = true;
        if (finish == SD_FINISH_CANCELLED)
            sd_api_fail(&g->error, 503, NULL, "the server ends; send the request again elsewhere");
        else if (ev->error.n)
            sd_api_fail(&g->error, 500, NULL, "%.*s", (int)ev->error.n,
                        sd_provider_event_error(ev));
        else
            sd_api_fail(&g->error, 500, NULL, "out of memory");
        sd_generation_cancel(g); // one choice's failure ends the request
    }
}

static void take_message(sd_engine_event *m) {
    sd_choice *c = m->to;
    sd_generation *g = c->generation;
    const sd_provider_event *ev = m->event;
    sd_memory_lost_clear();
    count_tokens(g, c, ev);
    if (ev->lost) c->lost = true; // the end will say so
    if (ev->finish != SD_FINISH_NONE) take_finish(g, c, ev);
    if (g->conn && !g->failed) sd_generation_deliver(g, m);
    if (m != &c->last)
        give_back(g->server, m);
    else if (m->event != (void *)c->last_event)
        free(m->event);
    if (g->open == 0) sd_generation_end(g);
}

bool sd_outbox_drain(sd_server *s) {
    pthread_mutex_lock(&s->outbox_lock);
    sd_engine_event *m = s->outbox_head, *last = s->outbox_tail;
    s->outbox_head = s->outbox_tail = NULL;
    pthread_mutex_unlock(&s->outbox_lock);
    int taken = 0;
    int64_t end = sd_now_ns() + DRAIN_MS * 1000000;
    for (sd_engine_event *next; m && sd_now_ns() < end; m = next) {
        next = m->next;
        take_message(m);
        taken++;
    }
    pthread_mutex_lock(&s->outbox_lock);
    s->outbox_n -= taken;
    pthread_cond_signal(&s->outbox_room);
    if (!m) {
        pthread_mutex_unlock(&s->outbox_lock);
        return false;
    }
    // The rest goes in front of what came meanwhile.
    last->next = s->outbox_head;
    if (!s->outbox_tail) s->outbox_tail = last;
    s->outbox_head = m;
    pthread_mutex_unlock(&s->outbox_lock);
    sd_wakeup_signal(&s->events_wakeup);
    return true;
}

void sd_outbox_free(sd_server *s) {
    for (sd_engine_event *next; s->spare; s->spare = next) {
        next = s->spare->next;
        free(s->spare->event);
        free(s->spare);
    }
}
