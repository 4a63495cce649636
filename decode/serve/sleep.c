// The engine is asked between two steps, on a worker's thread: it may be packing its weights meanwhile.
#include "decode/serve/sleep.h"

#include "decode/serve/server.h"

struct sd_sleep_call {
    sd_pending pending;
    sd_server *server;
    sd_conn *conn; // NULL: nobody waits any more
    bool wakes;
    double seconds;
    sd_work work;
    sd_error result;
    sd_sleep_call *next;
};

static void take_out(sd_server *s, const sd_sleep_call *k) {
    sd_sleep_call **at = &s->sleep_calls;
    while (*at != k) at = &(*at)->next;
    *at = k->next;
}

void sd_sleep_free_calls(sd_server *s) {
    for (sd_sleep_call *k; (k = s->sleep_calls);) {
        s->sleep_calls = k->next;
        free(k);
    }
}

static bool run(sd_work *item) {
    sd_sleep_call *k = item->ctx;
    sd_provider *p = k->server->provider;
    sd_memory_lost_clear();
    k->result.status =
        k->wakes ? p->ops->wake(p, &k->seconds, &k->result) : p->ops->sleep(p, &k->result);
    return false;
}

static void on_run(sd_work *item) {
    sd_sleep_call *k = item->ctx;
    sd_conn *c = k->conn;
    const sd_error r = k->result;
    json_t *v = k->wakes ? json_pack("{s:b, s:f}", "is_sleeping", 0, "wake_ms", k->seconds * 1e3)
                         : json_pack("{s:b}", "is_sleeping", 1);
    sd_api_error e = {0};
    take_out(k->server, k);
    free(k);
    if (!c) {
        json_decref(v);
        return;
    }
    sd_conn_set_work(c, NULL);
    if (r.status == SD_OK) {
        sd_conn_json(c, 200, v);
        return;
    }
    json_decref(v);
    sd_api_fail(&e,
                r.status == SD_ELIMIT         ? 409
                : r.status == SD_EINVAL       ? 400
                : r.status == SD_EINTERRUPTED ? 503
                                              : 500,
                NULL, "%s", r.message);
    sd_conn_error(c, &e);
}

static void abandon(void *call) {
    ((sd_sleep_call *)call)->conn = NULL;
}

static void begin(sd_conn *c, bool wakes) {
    sd_server *s = sd_conn_owner(c);
    sd_api_error e = {0};
    sd_sleep_call *k = NULL;
    if (s->phase != SD_PHASE_READY) {
        sd_api_fail(&e, 503, NULL, "the server %s",
                    s->phase == SD_PHASE_LOADING ? "loads its model" : "is draining and will end");
    } else if (!(k = sd_alloc(1, sizeof *k))) {
        sd_api_fail(&e, 500, NULL, "out of memory");
    } else {
        *k = (sd_sleep_call){
            .pending = {.abandon = abandon}, .server = s, .conn = c, .wakes = wakes};
        k->work = (sd_work){.step = run, .done = on_run, .ctx = k};
        if (!sd_workers_add(s->workers, &k->work)) sd_api_fail(&e, 500, NULL, "out of memory");
    }
    if (e.status) {
        free(k);
        sd_conn_error(c, &e);
        return;
    }
    k->next = s->sleep_calls;
    s->sleep_calls = k;
    sd_conn_set_work(c, k);
}

void sd_sleep(sd_conn *c) {
    begin(c, false);
}

void sd_sleep_wake(sd_conn *c) {
    begin(c, true);
}

void sd_sleep_state(sd_conn *c) {
    const sd_server *s = sd_conn_owner(c);
    sd_conn_json(c, 200, json_pack("{s:b}", "is_sleeping", sd_server_stats(s).asleep));
}
