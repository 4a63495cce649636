// How tokens cross from the engine's thread to the event loop.
//
// The provider calls sd_generation_on_event on its own thread. The event is copied and appended to the server's outbox under a lock that is held for a few instructions; an eventfd
// wakes the event loop when the outbox was empty. The engine makes its next step only while the loop
// is not far behind, so the outbox has a bound. The message that ends a choice is part of the
// choice, so an end is delivered even when memory is short.
//
// An answer that ended where its constraint lets it is checked again, on a worker's thread; its end is taken
// when that is done.
#include "base/clock.h"
#include "base/log.h"
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

// Those behind the bound are of one step.
size_t sd_outbox_most_bytes(void) {
    return (size_t)(MAX_OUTBOX + MAX_SPARE) * MAX_SPARE_BYTES;
}

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
    sd_histogram *h = g->model->counts->histogram;
    int n = ev->n;
    if (n == 0 || ev->of_prompt) return;
    c->generated += n;
    c->cached = ev->cached;
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
    sd_finish finish = c->unfit ? SD_FINISH_ERROR : (sd_finish)ev->finish;
    const sd_request_stats *stats = sd_provider_event_stats(ev);
    c->ended = true;
    c->finish = finish;
    if (stats) c->stats = *stats;
    c->generated = c->stats.generated; // with the end token, which no event brings
    c->cached = c->stats.cached_tokens;
    g->open--;
    sd_metrics_finish(g->model->counts, g->key, finish, &c->stats,
                      (double)(ev->at_ns - g->arrival_ns) * 1e-9);
    if (g->failed) return;
    if (finish == SD_FINISH_ERROR || finish == SD_FINISH_CANCELLED || c->lost || c->last_lost) {
        g->failed = true;
        if (finish == SD_FINISH_CANCELLED)
            sd_api_fail(&g->error, 503, NULL, "the server ends; send the request again elsewhere");
        else if (c->unfit)
            sd_api_fail(&g->error, 500, NULL,
                        "the answer does not fit what it was held to, which is an error of this "
                        "server; report it");
        else if (ev->error.n)
            sd_api_fail(&g->error, 500, NULL, "%.*s", (int)ev->error.n,
                        sd_provider_event_error(ev));
        else
            sd_api_fail(&g->error, 500, NULL, "out of memory");
        sd_generation_cancel(g); // one choice's failure ends the request
    }
}

// Whatever it is, the choice has it, or its end.
static void settle(sd_engine_event *m) {
    sd_choice *c = m->to;
    sd_generation *g = c->generation;
    const sd_provider_event *ev = m->event;
    if (ev->finish != SD_FINISH_NONE) take_finish(g, c, ev);
    if (g->conn && !g->failed) sd_generation_deliver(g, m);
    if (g->dialect->readings && c->ended) sd_generation_go_on(g);
    if (m != &c->last)
        give_back(g->server, m);
    else if (m->event != (void *)c->last_event)
        free(m->event);
    if (g->open == 0) sd_generation_end(g);
}

// ---- the check of a whole answer

static void count_check(sd_server *s, const sd_error *result) {
    int64_t *checked = s->metrics.checked;
    if (result->status == SD_OK) {
        checked[SD_CHECK_VALID]++;
    } else if (result->status == SD_EMISMATCH) {
        checked[SD_CHECK_FAILED]++;
        sd_log(SD_LOG_ERROR, "an answer does not fit what it was held to: %s; report this",
               result->message);
    } else if (checked[SD_CHECK_UNCHECKED]++ == 0) {
        sd_log(SD_LOG_WARN,
               "an answer could not be checked against its constraint: %s; further ones are only "
               "counted",
               result->message);
    }
}

static bool check(sd_work *item) {
    sd_choice *c = item->ctx;
    sd_error *err = &c->check_result;
    err->status = sd_grammar_check(c->generation->grammar, c->said.data ? c->said.data : "",
                                   c->said.len, err);
    return false;
}

static void end_check(sd_choice *c) {
    c->checking = false;
    sd_buf_free(&c->said);
    c->unfit = c->check_result.status == SD_EMISMATCH;
    count_check(c->generation->server, &c->check_result);
    settle(&c->last);
}

static void on_checked(sd_work *item) {
    sd_memory_lost_clear();
    end_check(item->ctx);
}

// Whether the message waits until its choice is checked.
static bool begin_check(sd_choice *c, const sd_provider_event *ev) {
    sd_generation *g = c->generation;
    sd_server *s = g->server;
    const sd_request_stats *stats = sd_provider_event_stats(ev);
    if (ev->finish != SD_FINISH_STOP || !stats || !stats->whole || !g->grammar ||
        !sd_grammar_has_check(g->grammar) || c->lost || c->last_lost || g->failed)
        return false;
    c->check = (sd_work){.owner = g->client->id, .step = check, .done = on_checked, .ctx = c};
    if (!c->said_lost && s->workers && sd_workers_add(s->workers, &c->check))
        return c->checking = true;
    sd_fail(&c->check_result, s->workers ? SD_ENOMEM : SD_EINTERRUPTED, "%s",
            !s->workers    ? "the server ends"
            : c->said_lost ? "it is too long to be kept for its check, or memory ran out"
                           : "out of memory");
    count_check(s, &c->check_result);
    return false;
}

void sd_generations_end_checks(sd_server *s) {
    for (sd_generation *g = s->generations, *next; g; g = next) {
        next = g->next;
        // The last choice's end frees the generation.
        for (int i = 0, n = g->n_choices; i < n; i++) {
            sd_choice *c = &g->choices[i];
            bool last = g->open == 1;
            if (!c->checking) continue;
            sd_fail(&c->check_result, SD_EINTERRUPTED, "the server ends");
            end_check(c);
            if (last) break;
        }
    }
}

static void take_message(sd_engine_event *m) {
    sd_choice *c = m->to;
    sd_generation *g = c->generation;
    const sd_provider_event *ev = m->event;
    sd_memory_lost_clear();
    count_tokens(g, c, ev);
    if (ev->lost) c->lost = true; // the end will say so
    if (ev->text.n && g->grammar && sd_grammar_has_check(g->grammar) &&
        !sd_buf_add(&c->said, sd_provider_event_text(ev), ev->text.n))
        c->said_lost = true;
    if (ev->finish != SD_FINISH_NONE && begin_check(c, ev)) return;
    settle(m);
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
