// The server's state, as its own files see it. Everything here belongs to the event loop's thread
// unless it says otherwise.
#pragma once

#include "decode/serve/generation.h"
#include "decode/serve/http/listener.h"
#include "decode/serve/metrics.h"
#include "decode/serve/models.h"
#include "decode/serve/serve.h"
#include "decode/serve/wakeup.h"
#include "decode/serve/workers.h"

#include <pthread.h>

enum { SD_END_SIGNALS = 3 };

typedef enum { SD_PHASE_LOADING, SD_PHASE_READY, SD_PHASE_DRAINING } sd_phase;

struct sd_server {
    const sd_serve_options *o;
    sd_phase phase;
    struct event_base *base;
    struct event *signal_event[SD_END_SIGNALS], *drain_event, *flush_event;
    sd_wakeup loaded_wakeup, read_wakeup, events_wakeup;
    bool deadline_passed; // the time to drain is over
    sd_listener listener;
    bool local_hosts_only; // sd_route_host_is_local() is asked of every request
    int64_t created;       // s since 1970
    uint64_t id_key;       // of the answers' ids
    uint64_t n_ids;
    sd_metrics metrics;
    int64_t drain_ns; // when draining began
    sd_call *calls;
    int n_calls;
    sd_buf scratch; // the piece of an answer that is being written
    sd_workers *workers;

    // Written by the engine's thread before `loaded` is set, only read afterwards.
    atomic_int loaded; // 0: not yet, 1: ready, -1: failed with load_error
    sd_error load_error;
    sd_models models;
    sd_engine *engine;

    // Between the threads.
    pthread_t engine_thread;
    atomic_bool stop;
    pthread_mutex_t outbox_lock;
    sd_message *outbox_head, *outbox_tail;
    int outbox_n;               // messages in it
    pthread_cond_t outbox_room; // it has become shorter
    sd_message *spare;          // messages to be used again
    int n_spare;
};

// ---- engine_thread.c: opens the models, steps, and owns neither sockets nor calls.
void *sd_engine_thread(void *server);
