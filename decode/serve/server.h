// What the files of the server share. Everything here belongs to the event loop's thread unless it
// says otherwise.
#pragma once

#include "datasets/corpus/corpus_index.h"
#include "decode/serve/api/openai_response.h"
#include "decode/serve/http/access_log.h"
#include "decode/serve/http/auth.h"
#include "decode/serve/http/client.h"
#include "decode/serve/http/http.h"
#include "decode/serve/metrics.h"
#include "decode/serve/serve.h"

#include <event2/event.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

typedef struct sd_server sd_server;
typedef struct sd_call sd_call;
typedef struct sd_message sd_message;
typedef struct sd_readers sd_readers;

enum {
    SD_MAX_STREAM_BUFFER = 256 * 1024, // unsent bytes of a stream, then it is dropped
    SD_MAX_OUTBOX = 1024,              // messages behind which the engine waits for the loop
    SD_MAX_UNREAD = 32 * 1024,         // unsent bytes behind which no further request is taken
    SD_MAX_CONNECTIONS = 16384,        // fewer where the system gives fewer descriptors
    SD_SPARE_CONNECTIONS = 32,         // for newcomers while all others are busy
    SD_OTHER_DESCRIPTORS = 64,         // files, events, and what libraries open
    SD_END_SIGNALS = 3,
    SD_MAX_PIPELINED = 64 * 1024 // unread bytes behind a request that is being answered
};

/// Of the loop's events: libevent gives them the middle one of three.
enum { SD_PRIORITIES = 3, SD_PRIORITY_LAST = 2 };

typedef enum { SD_PHASE_LOADING, SD_PHASE_READY, SD_PHASE_DRAINING } sd_phase;

// The base (row 0) or an adapter, under the name requests use. Immutable once the model is open.
typedef struct {
    char *name;
    sd_adapter *adapter; // NULL: the base
    sd_corpus *corpus;   // the adapter's own; NULL: none
    const char *draft;   // "index" or "none", for metrics
    int running;
    int64_t rounds, accepted; // of its finished requests
} sd_served;

struct sd_server {
    const sd_serve_options *o;
    sd_phase phase;
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *signal_event[SD_END_SIGNALS], *wake_event, *drain_event, *flush_event,
        *accept_event;
    bool cut;         // the time to drain is over
    char address[96]; // "http://127.0.0.1:8080"
    sd_keys keys;
    bool local_hosts_only;     // sd_route_host_is_local() is asked of every request
    sd_access_log *access_log; // NULL: none
    int64_t created;           // s since 1970
    uint64_t id_key;           // of request ids
    uint64_t n_ids;
    sd_metrics metrics;
    sd_conn *conns;
    int n_conns, max_conns;
    int accepted; // in this round of the loop
    sd_clients clients;
    sd_cidr *proxies; // [n_proxies], trusted to say whose a request is
    int n_proxies;
    int64_t warned_ns; // of accepting that failed
    struct {
        int64_t began_ns, now, last; // bytes of bodies and answers, in two periods
    } given_back;
    int64_t drain_ns; // when draining began
    sd_call *calls;
    int n_calls;
    sd_buf scratch; // the piece of an answer that is being written

    // Written by the engine's thread before `loaded` is set, only read afterwards.
    atomic_int loaded; // 0: not yet, 1: ready, -1: failed with load_error
    sd_error load_error;
    sd_model *model;
    sd_engine *engine;
    sd_served *served;
    int n_served;
    char *alias[4]; // further names of the base
    int n_alias;
    size_t longest_token; // bytes

    sd_readers *readers;

    // Between the threads.
    pthread_t engine_thread;
    atomic_bool stop;
    int wake_fd; // eventfd: the outbox or the readers have something, or loading ended
    pthread_mutex_t outbox_lock;
    sd_message *outbox_head, *outbox_tail;
    int outbox_n;               // messages in it
    pthread_cond_t outbox_room; // it has become shorter
    sd_message *spare;          // messages to be used again
    int n_spare;
};

// ---- engine_thread.c: opens the model, steps, and owns neither sockets nor calls.
void *sd_engine_thread(void *server);

// ---- models.c: the engine's thread, while it loads
/// The base in row 0, once the model is open.
sd_status sd_server_name_base(sd_server *s, sd_error *err);
/// NAME=PATH in the next row.
sd_status sd_server_open_adapter(sd_server *s, const char *spec, sd_error *err);
void sd_server_release_models(sd_server *s); // after the thread ended
/// The row that a request's model field means; NULL: unknown. NULL or "": the base.
sd_served *sd_server_find(sd_server *s, const char *name);

// ---- serve.c
/// Seconds until a server that loads or drains may answer again, as far as that is known: loading
/// is taken to last as long again as it has, and a drain to its limit.
double sd_server_wait_s(const sd_server *s);

// ---- connection.c: sockets.
void sd_conn_accept(sd_server *s, int fd, const struct sockaddr *addr);
void sd_conn_close_idle(sd_server *s); // those without a request, when draining
void sd_conn_close_all(sd_server *s);
bool sd_conn_flushing(const sd_server *s); // is an answer still on its way out?

typedef struct {
    int status;
    const char *type;  // content type
    const char *extra; // further header lines with CRLF, or NULL
    const char *body;
    size_t len;
    bool close; // close the connection afterwards
} sd_reply;
/// Answers the request that is being served. c may be gone afterwards.
void sd_conn_reply(sd_conn *c, const sd_reply *r);
void sd_conn_error(sd_conn *c,
                   const sd_api_error *e);            // with Retry-After when e->status asks for it
void sd_conn_json(sd_conn *c, int status, json_t *v); // takes v; NULL is a 500

/// A stream: begin, any number of data, end. Both begin and data are false when the connection is
/// gone, and with it the stream: the client is too slow, or memory ran out. drop breaks it off.
void sd_conn_drop(sd_conn *c);
bool sd_conn_stream_begin(sd_conn *c, const char *type);
bool sd_conn_stream_data(sd_conn *c, const char *data, size_t len);
void sd_conn_stream_end(sd_conn *c); // c may be gone afterwards

/// Gives the place of an idle socket to a newcomer; false when all are busy.
bool sd_conn_make_place(sd_server *s, sd_client *newcomer);

/// The memory of all request bodies and unread answers together is bounded: *held, the client's
/// part of it, becomes `bytes`. False, and nothing changes, when that would pass the bound and
/// nobody else has to give. Giving back always succeeds.
bool sd_server_hold(sd_server *s, sd_client *client, size_t *held, size_t bytes);
sd_client *sd_conn_client(sd_conn *c); // whose the request is
/// The served request's body, and its part of the bound, become the caller's.
sd_buf sd_conn_take_body(sd_conn *c, size_t *held);

sd_server *sd_conn_server(sd_conn *c);
sd_http *sd_conn_http(sd_conn *c);
int64_t sd_conn_arrival_ns(const sd_conn *c);
void sd_conn_set_job(sd_conn *c, sd_call *call);

// What the access log says about a request beyond its connection's own facts.
typedef struct {
    const char *model, *finish;
    int prompt_tokens, completion_tokens;
    double ttft_ms; // < 0: no token came
} sd_log_facts;
void sd_conn_set_log(sd_conn *c,
                     const sd_log_facts *facts); // strings must be static or the server's

// ---- routes.c
typedef void (*sd_handler)(sd_conn *c);
typedef struct {
    const char *method, *path;
    bool prefix; // path is the beginning
    sd_auth auth;
    bool json; // the body must be application/json
    sd_handler run;
} sd_route;
const sd_route *sd_routes(int *n);
/// Finds the route and checks what the head alone decides: 401, 404, 405, 415. NULL with e filled;
/// *allow (a header line) for a 405.
const sd_route *sd_route_check(const sd_keys *keys, const sd_http_head *head, char allow[64],
                               sd_api_error *e);

/// Is this Host field (NULL: none) localhost or a numeric address? A server that asks for no key
/// answers no other name: a web page may point a name of its own at 127.0.0.1 (DNS rebinding), and
/// the browser then sends that name.
bool sd_route_host_is_local(const char *host);

// ---- workers.c: threads that read bodies; the calls are theirs meanwhile.
sd_status sd_readers_open(sd_server *s, sd_error *err);
void sd_readers_add(sd_server *s, sd_call *j);
sd_call *sd_readers_take(sd_server *s); // one that was read; NULL: no more now
/// Waits for what is being read, then frees all calls that are still here; nobody may wait for
/// them.
void sd_readers_close(sd_server *s);

// ---- generation.c: one API request from its body to its answer.
void sd_call_chat(sd_conn *c);
void sd_call_completion(sd_conn *c);
void sd_call_abandon(sd_call *j); // its client is gone; the engine is told
void sd_call_more(sd_call *j);    // its client has read what was sent: the next slice, if any
void sd_calls_cancel(sd_server *s);
void sd_calls_submit(sd_server *s); // those that were read
/// Delivers what the engine's thread left, for some milliseconds; true when there is more, and the
/// event loop will be woken for it.
bool sd_outbox_drain(sd_server *s);
void sd_outbox_free(sd_server *s);
/// The engine's thread, between steps: waits while the loop is behind by SD_MAX_OUTBOX messages.
void sd_outbox_wait(sd_server *s);
