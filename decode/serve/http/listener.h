// The listening socket, and what its connections share: limits, clients, keys, the memory for bodies
// and unread answers.
//
// This room knows no route and no model. What a request means is the owner's: sd_handlers has what
// the owner is asked and told, and http/connection.h what it answers with.
//
//     sd_listener l;
//     SD_TRY(sd_listener_open(&l, &options, err));
//     SD_TRY(sd_listener_listen(&l, base, err));       // requests come in with the loop's events
//     ...
//     sd_listener_stop(&l);                            // no socket is left; on_closed was called
//     sd_listener_close(&l);                           // after whatever held its memory or clients
#pragma once

#include "decode/serve/api/error.h"
#include "decode/serve/http/access_log.h"
#include "decode/serve/http/auth.h"
#include "decode/serve/http/client.h"
#include "decode/serve/http/tls.h"

#include <event2/event.h>
#include <event2/listener.h>

typedef struct sd_listener sd_listener;

enum {
    SD_SPARE_CONNECTIONS = 32, // for newcomers while all others are busy
    SD_MAX_EXTRA = 64,         // bytes of a header line with its 0
    SD_STATUSES = 600          // one more than the last
};

/// Priorities of the loop's events: libevent gives an event the middle one of three.
enum { SD_PRIORITIES = 3, SD_PRIORITY_LAST = 2 };

/// Answers a request that has come whole: now, or later with the same functions.
typedef void (*sd_handler)(sd_conn *c);

// All are called on the event loop's thread.
typedef struct {
    /// A request's head has come: returns the handler that answers it; NULL: it is refused with e before its body is
    /// read, and with the header line `extra` where that is not empty.
    sd_handler (*on_head)(sd_conn *c, char extra[SD_MAX_EXTRA], sd_api_error *e);
    /// The client has read of what was sent for `work` (sd_conn_set_work).
    void (*on_writable)(void *work);
    /// The connection that `work` answers is gone.
    void (*on_closed)(void *work);
    /// Seconds until a 429 or 503 that does not say so itself may be tried again; 0: at once.
    double (*retry_s)(const void *owner);
    /// An error as the body of an answer, in the form that this request's client reads; NULL when out of memory.
    json_t *(*error_body)(const sd_conn *c, const sd_api_error *e);
} sd_handlers;

typedef struct {
    const sd_handlers *on; // outlives the listener
    void *owner;
    const char *host;     // numeric or a name; NULL: 127.0.0.1
    int port;             // 0: any free one
    int socket;           // one that listens already, instead of both; 0: none
    const char *key_file; // NULL: none
    const sd_keys *keys;  // beside those of the file; NULL: none. Without any, no key is asked for
    const char *tls_cert, *tls_key;    // PEM files; NULL: without TLS
    bool insecure_no_key;              // allows a host that others can reach without a key
    const sd_strings *trusted_proxies; // addresses and networks; may be NULL
    const sd_strings *origins; // whose pages may read answers (CORS): "*" or origins; may be NULL
    const char *access_log;    // "-": standard output; NULL: none
    size_t memory;             // bytes of bodies and unread answers at once
    uint64_t id_key;           // random; of request ids and of the clients' table
} sd_listener_options;

// For metrics.
typedef struct {
    int64_t bytes_held;      // now: bodies, unread answers, and what sd_listener_hold was asked for
    int64_t sockets_refused; // no place was left
    int64_t bodies_refused;  // no memory was left
    int64_t displaced;       // idle sockets closed for newcomers
    int64_t answered[SD_STATUSES];
} sd_listener_counts;

struct sd_listener {
    sd_listener_options o;
    char address[96]; // "http://127.0.0.1:8080"
    bool draining;    // every answer is the last of its connection
    sd_tls *tls;      // NULL: none
    sd_keys keys;
    sd_access_log *access_log; // NULL: none
    sd_clients clients;
    sd_listener_counts counts;
    // The room's own.
    struct event_base *base;
    struct evconnlistener *socket;
    struct event *accept_event;
    sd_conn *conns;
    int n_conns, max_conns;
    int accepted;     // in this round of the loop
    uint64_t n_ids;   // requests that were given one
    sd_cidr *proxies; // [n_proxies], trusted to say whose a request is
    int n_proxies;
    bool is_reachable; // by others than this machine's
    int64_t warned_ns; // of accepting that failed
    struct {
        int64_t began_ns, now, last; // bytes of bodies and answers, in two periods
    } given_back;
    void (*give_up)(sd_conn *c), (*refuse_body)(sd_conn *c); // what gives way for others
};

/// Sockets that a listener of this process would have open at once, and the bytes that each may take beside
/// what is held (sd_listener_hold).
int sd_listener_most_sockets(void);
size_t sd_listener_socket_bytes(bool tls);

/// SD_EINVAL names what cannot be used: a proxy's address, the key file, the access log.
sd_status sd_listener_open(sd_listener *l, const sd_listener_options *o, sd_error *err);
/// SD_EINVAL: an address in use, or one that others can reach without a key. base: with
/// SD_PRIORITIES priorities, the caller's. A socket that was handed in waits for sd_listener_accept.
sd_status sd_listener_listen(sd_listener *l, struct event_base *base, sd_error *err);
/// Takes keys, origins, proxies and the certificate of `o`, whose texts must last, and opens the access log's file anew. Requests that are
/// under way go on. On failure all is as before.
sd_status sd_listener_reload(sd_listener *l, const sd_listener_options *o, sd_error *err);
void sd_listener_accept(sd_listener *l);
/// The socket goes, for whoever else has it; its connections stay.
void sd_listener_stop_accepting(sd_listener *l);
int sd_listener_socket(const sd_listener *l);    // its descriptor
void sd_listener_close_idle(sd_listener *l);     // connections without a request
bool sd_listener_flushing(const sd_listener *l); // is an answer still on its way out?
void sd_listener_stop(sd_listener *l);           // before the base is freed
void sd_listener_close(sd_listener *l);          // a zeroed one is fine

/// The memory of all request bodies and unread answers together is bounded: *held, the client's
/// part of it, becomes `bytes`. False, and nothing changes, when that would pass the bound and
/// nobody else has to give. Giving back always succeeds.
bool sd_listener_hold(sd_listener *l, sd_client *client, size_t *held, size_t bytes);
/// The most that one request can ever hold: a part is for clients that hold little.
size_t sd_listener_hold_most(const sd_listener *l);
/// Seconds until so many bytes of bodies and answers are given back at the speed of late; at most
/// as long as a body may take, when all that are on their way now have come or failed.
double sd_listener_bytes_wait_s(const sd_listener *l, int64_t bytes);
