// A connection's inside, shared by
//
//     connection.c          bytes through the parser, requests to their handlers, answers out
//     connection_request.c  whose a request is, its id, its line in the log
//     connection_room.c     how many sockets and bytes there may be, and which are given up for others
#pragma once

#include "decode/serve/http/connection.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>

enum { IDLE_S = 60, HANDSHAKE_S = 10, HEAD_S = 10, BODY_S = 30, WRITE_S = 30, LINGER_S = 2 };
enum { DRAIN_S = 30, DRAIN_BYTES = 32 * 1024 };    // unread answers are read at least that fast
enum { PROBE_MS = 20, PROBES_BETWEEN_SENDS = 25 }; // of a client whose stream has ended
enum {
    MAX_STREAM_BUFFER = 256 * 1024, // unsent bytes of a stream, then it is dropped
    MAX_UNREAD = 32 * 1024,         // unsent bytes behind which no further request is taken
    MAX_PIPELINED = 64 * 1024       // unread bytes behind a request that is being answered
};
enum { MAX_ID = 128, MAX_WAIT_S = 3600 }; // of Retry-After

typedef enum { CONN_READ, CONN_BUSY, CONN_FLUSH, CONN_LINGER } conn_state;
typedef enum {
    WAIT_NONE,
    WAIT_IDLE,
    WAIT_HANDSHAKE,
    WAIT_HEAD,
    WAIT_BODY,
    WAIT_LINGER,
    WAIT_DRAIN,
    WAIT_PROBE
} conn_wait;

struct sd_conn {
    sd_listener *listener;
    sd_conn *prev, *next;
    sd_client *peer;                // by address
    sd_client *client;              // whose the request is; NULL before its head was read
    sd_conn *idle_prev, *idle_next; // among the peer's sockets that may be given up
    bool is_idle;
    int fd;
    struct bufferevent *bev;
    bool secure, shaking; // by TLS; its handshake is not done yet
    struct event *timer;
    struct event *turn; // active while a pipelined request waits for it
    conn_state state;
    conn_wait wait;
    sd_http http;
    sd_address address;
    size_t body_bytes_held; // of the listener's memory, for the body: the client's
    size_t unread; // likewise, for answers that wait to be sent and what was pipelined: the peer's
    size_t drain_from; // bytes of unread answers when their time began
    char remote[64];
    // of the request that is being served
    sd_handler handler;
    void *work; // the owner's, while it is answered
    char id[MAX_ID + 1];
    char key_id[SD_MAX_KEY_ID + 1]; // "": no key, or none that is known
    int64_t arrival_ns, bytes_out;
    int status;
    bool keep, streaming, chunked, pumping;
    bool is_paused; // what comes is not read
    bool ended;     // the client's stream: it sends no more
    int probes;     // looks at it since then
    sd_log_facts facts;
};

// ---- connection.c
void sd_conn_accept(sd_listener *l, int fd, const struct sockaddr *addr);
void sd_conn_abort(sd_conn *c); // whatever runs for it is cancelled; c is gone
void sd_conn_refuse_body(sd_conn *c);
void sd_conn_close_all(sd_listener *l);

// ---- connection_request.c: below connection.c
void sd_conn_take_id(
    sd_conn *c); // the client's x-request-id when it is harmless, else one of our own
void sd_conn_take_client(sd_conn *c); // by the request's head
void sd_conn_log(sd_conn *c);         // one line for a request that ended, however it ended

// ---- connection_room.c: below connection.c; what gives way there is a function of the listener
/// Every change of state goes through here: what is not busy may be given up for others.
void sd_conn_set_state(sd_conn *c, conn_state state);
/// Counts what waits to be read by the client. False: there is no memory for it; c is to be
/// dropped.
bool sd_conn_count_unread(sd_conn *c);
/// A newcomer's socket: counted, or false when there is no place for it.
bool sd_conn_enter(sd_conn *c);
void sd_conn_leave(sd_conn *c); // what it holds is free
/// Gives the place of an idle socket to a newcomer; false when all are busy.
bool sd_listener_make_place(sd_listener *l, sd_client *newcomer);
