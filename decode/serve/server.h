// The server's state, as its own files see it. Everything here belongs to the event loop's thread
// unless it says otherwise.
#pragma once

#include "decode/serve/adapters.h"
#include "decode/serve/generation.h"
#include "decode/serve/http/listener.h"
#include "decode/serve/life/handover.h"
#include "decode/serve/metrics/metrics.h"
#include "decode/serve/provider/local.h"
#include "decode/serve/serve.h"
#include "decode/serve/served.h"
#include "decode/serve/sleep.h"
#include "decode/serve/threads/wakeup.h"
#include "decode/serve/threads/workers.h"

#include <pthread.h>

enum { SD_SIGNALS = 4 }; // that mean something

// LEAVING: another program has the socket. What comes over open connections is served, each one's last.
typedef enum { SD_PHASE_LOADING, SD_PHASE_READY, SD_PHASE_LEAVING, SD_PHASE_DRAINING } sd_phase;

// What works on a connection's request (sd_conn_set_work) begins with this.
typedef struct {
    void (*more)(void *work);    // the client has read what was sent
    void (*abandon)(void *work); // it is gone
} sd_pending;

struct sd_server {
    const sd_serve_options *o;
    sd_phase phase;
    struct event_base *base;
    struct event *signal_event[SD_SIGNALS], *drain_event, *flush_event, *idle_event;
    sd_wakeup loaded_wakeup, read_wakeup, events_wakeup;
    double drain_s;
    bool deadline_passed; // the time to drain is over
    sd_handover handover;
    char *program; // that runs; NULL: not known
    sd_listener listener;
    bool local_hosts_only;  // sd_route_host_is_local() is asked of every request
    int64_t created;        // s since 1970
    uint64_t id_key;        // of the answers' ids
    uint8_t tenant_key[32]; // random: nobody can make names of tenants that meet
    uint64_t n_ids;
    sd_metrics metrics;
    int64_t drain_ns; // when draining began
    sd_generation *generations;
    int n_generations;
    sd_buf scratch; // the piece of an answer that is being written
    sd_workers *workers;

    sd_provider *provider;
    sd_error failure;       // what ended the server before it was ready; SD_OK: nothing
    sd_served served;       // the models
    sd_models *local;       // what turns texts into tokens
    sd_root adapter_root;   // below it adapters may be loaded; path NULL: nowhere
    sd_adapter_call *calls; // loads that wait, the first of them at work
    sd_sleep_call *sleep_calls;

    // Between the threads.
    atomic_bool stop;
    pthread_mutex_t outbox_lock;
    sd_engine_event *outbox_head, *outbox_tail;
    int outbox_n;               // messages in it
    pthread_cond_t outbox_room; // it has become shorter
    sd_engine_event *spare;     // messages to be used again
    int n_spare;
};

/// The row of a model that the caller holds, or that is listed.
static inline const sd_models_row *sd_server_row(const sd_server *s, const sd_served_model *m) {
    return s->local->row[m->row];
}

static inline sd_engine_stats sd_server_stats(const sd_server *s) {
    sd_engine_stats stats;
    s->provider->ops->stats(s->provider, &stats);
    return stats;
}
