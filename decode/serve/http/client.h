// Clients: which one a socket or a request belongs to, and what each of them holds.
//
// A socket belongs to the address at its other end (IPv6: the /64 a host is given). A request
// belongs to its key where keys are used; else, where the other end is a trusted proxy, to the last
// hop in X-Forwarded-For that is not one itself; else to the address. Bounds bind by client, and
// only while others need what is left (decode/engine/fair.h).
//
// Everything here belongs to the event loop's thread.
#pragma once

#include "base/files/hash.h"
#include "base/option.h"
#include "base/status.h"
#include "decode/serve/http/auth.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct sd_client sd_client;
typedef struct sd_conn sd_conn;

// IPv6, or IPv4 as ::ffff:a.b.c.d.
typedef struct {
    uint8_t byte[16];
} sd_address;

sd_address sd_address_of(const struct sockaddr *a); // all zero: neither IPv4 nor IPv6
void sd_address_print(const struct sockaddr *a, char *out, size_t size); // "host:port", for logs
/// "192.0.2.1", "2001:db8::1", "[2001:db8::1]", each also with ":port" where that is not ambiguous.
bool sd_address_parse(sd_address *out, const char *text, size_t len);

typedef struct {
    sd_address base;
    int bits; // 0..128
} sd_cidr;
/// "10.0.0.0/8", "2001:db8::/32", or an address. SD_EINVAL names the text.
sd_status sd_cidr_parse(sd_cidr *out, const char *text, sd_error *err);
bool sd_cidr_has(const sd_cidr *list, int n, const sd_address *a);
/// X-Forwarded-For: the last hop that is not in the list. False when it names none.
bool sd_last_hop(sd_address *out, const char *field, const sd_cidr *list, int n);

// The name a client is known by.
typedef struct {
    bool is_key;
    uint8_t byte[16]; // the beginning of the key's SHA-256, or the address
} sd_client_name;
sd_client_name sd_client_of_address(const sd_address *a);
sd_client_name sd_client_of_key(const sd_sha256 *key);

struct sd_client {
    sd_client_name name;
    char key[SD_MAX_KEY_ID + 1]; // its ID; empty: it has none
    bool admin;                  // by its key
    uint64_t id;                 // for the engine; never used again
    int refs;
    bool trusted;                     // a proxy: its sockets are many clients'
    int sockets;                      // open
    size_t bytes;                     // of the server's memory for bodies and unread answers
    int n_reading;                    // requests that are read or wait for it
    sd_conn *idle_first, *idle_last;  // its sockets that may be given up, the oldest first
    sd_client *next;                  // of the same hash
    sd_client *rank_prev, *rank_next; // with as many sockets
};

typedef struct {
    sd_client **bucket; // [n_buckets], a power of two
    size_t n_buckets;
    uint64_t key; // of the hash
    uint64_t next_id;
    int holding, reading; // clients with bytes; with requests that are read
    sd_client **rank;     // [max_sockets + 1] lists of clients by their number of sockets
    int max_sockets, top; // top: no client has more
} sd_clients;

/// key: random, so that nobody can choose names that collide.
sd_status sd_clients_open(sd_clients *t, int max_sockets, uint64_t key, sd_error *err);
void sd_clients_close(sd_clients *t);

/// Known or new, with one more reference; NULL: out of memory.
sd_client *sd_client_acquire(sd_clients *t, const sd_client_name *name);
sd_client *sd_client_again(sd_client *c);            // one more reference
void sd_client_release(sd_clients *t, sd_client *c); // NULL is fine

void sd_client_add_socket(sd_clients *t, sd_client *c, int by); // 1 or -1
void sd_client_add_bytes(sd_clients *t, sd_client *c, int64_t by);
void sd_client_add_reading(sd_clients *t, sd_client *c, int by);
