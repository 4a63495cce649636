// Sockets are accepted a few at a time, given their bounds, and handed to connections.
#include "decode/serve/http/listener.h"

#include "base/clock.h"
#include "base/log.h"
#include "decode/serve/http/connection_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>

enum { SOCKET_FLAGS = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE };
enum { BACKLOG = 1024, ACCEPTS = 32 }; // ACCEPTS: one after the other
enum {
    MAX_CONNECTIONS = 16384, // fewer where the system gives fewer descriptors
    OTHER_DESCRIPTORS = 64   // files, events, and what libraries open
};

// ---- addresses

static bool is_loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    if (a->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
    return false;
}

static void set_address(sd_listener *l) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    char host[64] = "?", port[8] = "0";
    if (getsockname(sd_listener_socket(l), (struct sockaddr *)&a, &n) == 0)
        getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(l->address, sizeof l->address, strchr(host, ':') ? "%s://[%s]:%s" : "%s://%s:%s",
             l->tls ? "https" : "http", host, port);
}

// A peer that is gone without a word is noticed within a minute, also where nothing is sent to it,
// and one that takes nothing within half a minute. What the kernel keeps for it has a bound too.
// Accepted sockets inherit all of it.
static void set_listener(int fd) {
    int on = 1, idle = 30, between = 10, probes = 3, send = 32 * 1024;
    unsigned unacknowledged_ms = 30000;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof between);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof unacknowledged_ms);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send, sizeof send);
}

// A crowd at the door does not keep those inside waiting: after some newcomers come the events of all
// others.
static void on_accept(struct evconnlistener *socket, evutil_socket_t fd, struct sockaddr *addr,
                      int len, void *ctx) {
    (void)len;
    sd_listener *l = ctx;
    sd_conn_accept(l, (int)fd, addr);
    if (++l->accepted < ACCEPTS) return;
    struct timeval at_once = {0, 0};
    evconnlistener_disable(socket);
    event_add(l->accept_event, &at_once);
}

static void on_accept_again(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_listener *l = ctx;
    l->accepted = 0;
    if (l->socket) evconnlistener_enable(l->socket);
}

// Descriptors that others have taken, as a rule: an idle socket's is used for the newcomer. A
// little is waited, so that nothing spins.
static void on_accept_error(struct evconnlistener *socket, void *ctx) {
    sd_listener *l = ctx;
    int why = errno;
    int64_t now = sd_now_ns();
    sd_client nobody = {0};
    if (now - l->warned_ns > INT64_C(10000000000) || !l->warned_ns) {
        sd_log(SD_LOG_WARN, "accepting a connection: %s; an idle one is closed for it",
               strerror(why));
        l->warned_ns = now;
    }
    bool made = sd_listener_make_place(l, &nobody);
    evconnlistener_disable(socket);
    struct timeval tv = {0, made ? 1000 : 50000};
    event_add(l->accept_event, &tv);
}

// As many sockets as the system lets this process have, up to MAX_CONNECTIONS.
static int max_connections(bool raise) {
    struct rlimit limit;
    int64_t n = 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        const rlim_t now = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (raise && setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = now;
        n = limit.rlim_cur > 1 << 20 ? 1 << 20 : (int64_t)limit.rlim_cur;
    }
    n -= OTHER_DESCRIPTORS + SD_SPARE_CONNECTIONS;
    return n > MAX_CONNECTIONS ? MAX_CONNECTIONS : n < 8 ? 8 : (int)n;
}

int sd_listener_most_sockets(void) {
    return max_connections(false) + SD_SPARE_CONNECTIONS;
}

// The head is read into memory of the connection's own; libevent has some for its buffers and events.
size_t sd_listener_socket_bytes(bool tls) {
    enum { LIBEVENT = 2048 };
    return sizeof(sd_conn) + SD_HTTP_MAX_HEAD + LIBEVENT + (tls ? SD_TLS_BYTES : 0);
}

static sd_status read_proxies(sd_cidr **out, const sd_strings *list, sd_error *err) {
    sd_status st = SD_OK;
    sd_cidr *proxies = NULL;
    if (!list || list->n == 0) return SD_OK;
    proxies = sd_alloc((size_t)list->n, sizeof *proxies);
    SD_CHECK_ALLOC(proxies, err);
    for (int i = 0; i < list->n; i++) SD_TRY(sd_cidr_parse(&proxies[i], list->item[i], err));
    *out = proxies, proxies = NULL;
out:
    free(proxies);
    return st;
}

// An origin is compared with what a browser sends: a scheme, a host, and a port that is not the scheme's.
static sd_status check_origins(const sd_strings *list, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; list && i < list->n; i++) {
        const char *s = list->item[i], *host = strstr(s, "://");
        bool good = host && host > s && host[3] && !strchr(host + 3, '/') && strlen(s) <= 256;
        for (const char *c = s; *c; c++) good = good && *c > ' ' && *c < 127;
        SD_CHECK(good || strcmp(s, "*") == 0, err, SD_EINVAL,
                 "--cors %.100s: is no origin; give *, or a scheme, a host and a port as in "
                 "https://example.com:8443",
                 s);
    }
out:
    return st;
}

static sd_status check_reach(const sd_listener *l, sd_error *err) {
    if (!l->is_reachable || l->keys.n > 0 || l->o.insecure_no_key) return SD_OK;
    return sd_fail(err, SD_EINVAL,
                   "--host %s: others can reach this address; give --api-key-file, or "
                   "--insecure-no-key to serve everyone",
                   l->o.socket ? "of the socket that was handed in" : l->o.host);
}

// The address of a socket that others have opened is theirs to say.
static sd_status take_socket(sd_listener *l, sd_error *err) {
    sd_status st = SD_OK;
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    SD_CHECK(getsockname(l->o.socket, (struct sockaddr *)&a, &n) == 0, err, SD_EIO,
             "the socket that was handed in: %s", strerror(errno));
    l->is_reachable = !is_loopback((struct sockaddr *)&a);
    l->socket =
        evconnlistener_new(l->base, on_accept, l, SOCKET_FLAGS | LEV_OPT_DISABLED, 0, l->o.socket);
    SD_CHECK_ALLOC(l->socket, err);
out:
    return st;
}

static sd_status bind_socket(sd_listener *l, sd_error *err) {
    const char *host = l->o.host && *l->o.host ? l->o.host : "127.0.0.1";
    char port[8];
    sd_status st = SD_OK;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list = NULL;
    snprintf(port, sizeof port, "%d", l->o.port);
    int rc = getaddrinfo(host, port, &hints, &list);
    SD_CHECK(rc == 0, err, SD_EINVAL, "--host %s: %s; give an address of this machine", host,
             gai_strerror(rc));
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        l->is_reachable |= !is_loopback(a->ai_addr);
    SD_TRY(check_reach(l, err));
    for (const struct addrinfo *a = list; a && !l->socket; a = a->ai_next)
        l->socket = evconnlistener_new_bind(l->base, on_accept, l, SOCKET_FLAGS, BACKLOG,
                                            a->ai_addr, (int)a->ai_addrlen);
    SD_CHECK(l->socket, err, SD_EINVAL, "--host %s --port %s: %s; give another port", host, port,
             strerror(errno));
out:
    if (list) freeaddrinfo(list);
    return st;
}

sd_status sd_listener_listen(sd_listener *l, struct event_base *base, sd_error *err) {
    sd_status st = SD_OK;
    l->base = base;
    l->accept_event = evtimer_new(base, on_accept_again, l);
    SD_CHECK_ALLOC(l->accept_event, err);
    SD_TRY(l->o.socket ? take_socket(l, err) : bind_socket(l, err));
    SD_TRY(check_reach(l, err));
    set_listener(sd_listener_socket(l));
    evconnlistener_set_error_cb(l->socket, on_accept_error);
    set_address(l);
out:
    return st;
}

void sd_listener_accept(sd_listener *l) {
    if (l->socket) evconnlistener_enable(l->socket);
}

void sd_listener_stop_accepting(sd_listener *l) {
    if (l->socket) evconnlistener_free(l->socket);
    l->socket = NULL;
}

int sd_listener_socket(const sd_listener *l) {
    return (int)evconnlistener_get_fd(l->socket);
}

// What a reload changes too: all of it, or nothing.
static sd_status take_options(sd_listener *l, const sd_listener_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_keys keys = {0};
    sd_cidr *proxies = NULL;
    sd_tls *tls = NULL;
    SD_CHECK(!l->base || !l->tls == !o->tls_cert, err, SD_EINVAL,
             "TLS is switched on and off by a new start alone; start the server again");
    if (o->tls_cert) SD_TRY(sd_tls_open(&tls, o->tls_cert, o->tls_key, err));
    SD_TRY(check_origins(o->origins, err));
    SD_TRY(read_proxies(&proxies, o->trusted_proxies, err));
    SD_TRY(sd_keys_load(&keys, o->keys, o->key_file, err));
    // A line that is lost from a file opens no server.
    SD_CHECK(
        keys.n > 0 || l->keys.n == 0, err, SD_EINVAL,
        "no API key is left, and a server that asks for one goes on so; give a key, or restart "
        "it to serve without");
    SD_CHECK(keys.n > 0 || o->insecure_no_key || !l->is_reachable, err, SD_EINVAL,
             "--insecure-no-key is gone and others can reach this address; give a key");
    sd_keys_free(&l->keys);
    free(l->proxies);
    sd_tls_close(l->tls);
    l->keys = keys;
    l->tls = tls;
    l->proxies = proxies;
    l->n_proxies = proxies ? o->trusted_proxies->n : 0;
    l->o.keys = o->keys, l->o.key_file = o->key_file, l->o.insecure_no_key = o->insecure_no_key;
    l->o.trusted_proxies = o->trusted_proxies, l->o.origins = o->origins;
    keys = (sd_keys){0}, proxies = NULL, tls = NULL;
out:
    sd_keys_free(&keys);
    free(proxies);
    sd_tls_close(tls);
    return st;
}

sd_status sd_listener_open(sd_listener *l, const sd_listener_options *o, sd_error *err) {
    sd_status st = SD_OK;
    *l = (sd_listener){.o = *o, .give_up = sd_conn_abort, .refuse_body = sd_conn_refuse_body};
    l->max_conns = max_connections(true);
    SD_TRY(sd_clients_open(&l->clients, l->max_conns + SD_SPARE_CONNECTIONS, sd_mix64(l->o.id_key),
                           err));
    SD_TRY(take_options(l, o, err));
    if (o->access_log) SD_TRY(sd_access_log_open(&l->access_log, o->access_log, err));
out:
    return st;
}

sd_status sd_listener_reload(sd_listener *l, const sd_listener_options *o, sd_error *err) {
    sd_status st = take_options(l, o, err);
    if (st == SD_OK && l->access_log) sd_access_log_reopen(l->access_log);
    return st;
}

void sd_listener_stop(sd_listener *l) {
    sd_listener_stop_accepting(l);
    sd_conn_close_all(l);
    if (l->accept_event) event_free(l->accept_event);
    l->accept_event = NULL;
}

void sd_listener_close(sd_listener *l) {
    sd_access_log_close(l->access_log);
    sd_clients_close(&l->clients);
    free(l->proxies);
    sd_keys_free(&l->keys);
    sd_tls_close(l->tls);
    *l = (sd_listener){0};
}
