// TLS 1.2 and 1.3 for connections: OpenSSL behind libevent's buffers, so that a connection reads and writes as without.
//
//     SD_TRY(sd_tls_open(&ctx, "cert.pem", "key.pem", err));
//     bev = sd_tls_accept(ctx, base, fd);                  // BEV_EVENT_CONNECTED when the client's handshake is done
//     ...
//     sd_tls_say_goodbye(bev);                             // before the socket's sending side is shut
//     sd_tls_free(bev);                                    // the socket stays open
#pragma once

#include "base/status.h"

#include <event2/bufferevent.h>

typedef struct ssl_ctx_st sd_tls;

enum {
    SD_TLS_BYTES = 64 << 10
}; // that a connection takes at most beside its own: OpenSSL's two records and state

/// cert: PEM, the server's own certificate and then those between it and a root. key: PEM without a passphrase, in a
/// file that others cannot read. SD_EINVAL and SD_ENOTFOUND name the file and what is wrong with it.
sd_status sd_tls_open(sd_tls **out, const char *cert, const char *key, sd_error *err);
void sd_tls_close(sd_tls *t); // connections that use it go on; NULL is fine

/// NULL: out of memory. The descriptor stays the caller's.
struct bufferevent *sd_tls_accept(sd_tls *t, struct event_base *base, int fd);
void sd_tls_free(struct bufferevent *bev);
/// The record that says that no more comes; what is sent without it may be the beginning of something.
void sd_tls_say_goodbye(struct bufferevent *bev);
/// Has the handshake failed because the client speaks HTTP without TLS?
bool sd_tls_is_plain_http(struct bufferevent *bev);
