// The life of the server: listen, let the engine's thread load, serve, drain on SIGTERM, end.
#include "decode/serve/serve.h"

#include "base/clock.h"
#include "base/files/file.h"
#include "base/log.h"
#include "decode/serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 1024, ACCEPTS = 32, CUT_S = 1 }; // ACCEPTS: one after the other

// A terminal that is closed sends SIGHUP: an end like the others, unless nohup or the like has it
// ignored.
static const int end_signals[SD_END_SIGNALS] = {SIGTERM, SIGINT, SIGHUP};

// ---- addresses

static bool is_loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    if (a->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
    return false;
}

static void set_address(sd_server *s) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    char host[64] = "?", port[8] = "0";
    if (getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&a, &n) == 0)
        getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(s->address, sizeof s->address, strchr(host, ':') ? "http://[%s]:%s" : "http://%s:%s",
             host, port);
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
static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *addr, int len,
                      void *ctx) {
    (void)len;
    sd_server *s = ctx;
    sd_conn_accept(s, (int)fd, addr);
    if (++s->accepted < ACCEPTS) return;
    struct timeval at_once = {0, 0};
    evconnlistener_disable(l);
    event_add(s->accept_event, &at_once);
}

static void on_accept_again(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_server *s = ctx;
    s->accepted = 0;
    if (s->listener) evconnlistener_enable(s->listener);
}

// Descriptors that others have taken, as a rule: an idle socket's is used for the newcomer. A
// little is waited, so that nothing spins.
static void on_accept_error(struct evconnlistener *l, void *ctx) {
    sd_server *s = ctx;
    int why = errno;
    int64_t now = sd_now_ns();
    sd_client nobody = {0};
    if (now - s->warned_ns > INT64_C(10000000000) || !s->warned_ns) {
        sd_log(SD_LOG_WARN, "accepting a connection: %s; an idle one is closed for it",
               strerror(why));
        s->warned_ns = now;
    }
    bool made = sd_conn_make_place(s, &nobody);
    evconnlistener_disable(l);
    struct timeval tv = {0, made ? 1000 : 50000};
    event_add(s->accept_event, &tv);
}

// As many sockets as the system lets this process have, up to SD_MAX_CONNECTIONS.
static void set_max_connections(sd_server *s) {
    struct rlimit limit;
    int64_t n = 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
            n = limit.rlim_cur > 1 << 20 ? 1 << 20 : (int64_t)limit.rlim_cur;
    }
    n -= SD_OTHER_DESCRIPTORS + SD_SPARE_CONNECTIONS;
    s->max_conns = n > SD_MAX_CONNECTIONS ? SD_MAX_CONNECTIONS : n < 8 ? 8 : (int)n;
}

static sd_status read_proxies(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    const sd_strings *list = s->o->trusted_proxies;
    if (!list || list->n == 0) return SD_OK;
    s->proxies = sd_alloc((size_t)list->n, sizeof *s->proxies);
    SD_CHECK_ALLOC(s->proxies, err);
    for (; s->n_proxies < list->n; s->n_proxies++)
        SD_TRY(sd_cidr_parse(&s->proxies[s->n_proxies], list->item[s->n_proxies], err));
out:
    return st;
}

static sd_status listen_on(sd_server *s, sd_error *err) {
    const sd_serve_options *o = s->o;
    const char *host = o->host && *o->host ? o->host : "127.0.0.1";
    char port[8];
    sd_status st = SD_OK;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list = NULL;
    snprintf(port, sizeof port, "%d", o->port);
    int rc = getaddrinfo(host, port, &hints, &list);
    SD_CHECK(rc == 0, err, SD_EINVAL, "--host %s: %s; give an address of this machine", host,
             gai_strerror(rc));
    for (const struct addrinfo *a = list; a; a = a->ai_next)
        SD_CHECK(is_loopback(a->ai_addr) || s->keys.n > 0 || o->insecure_no_key, err, SD_EINVAL,
                 "--host %s: others can reach this address; give --api-key-file, or "
                 "--insecure-no-key to serve everyone",
                 host);
    for (const struct addrinfo *a = list; a && !s->listener; a = a->ai_next)
        s->listener = evconnlistener_new_bind(s->base, on_accept, s,
                                              LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
                                                  LEV_OPT_REUSEABLE,
                                              BACKLOG, a->ai_addr, (int)a->ai_addrlen);
    SD_CHECK(s->listener, err, SD_EINVAL, "--host %s --port %s: %s; give another port", host, port,
             strerror(errno));
    set_listener((int)evconnlistener_get_fd(s->listener));
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    set_address(s);
out:
    if (list) freeaddrinfo(list);
    return st;
}

double sd_server_wait_s(const sd_server *s) {
    if (s->phase == SD_PHASE_LOADING) return sd_now_s() - s->metrics.started_s;
    if (s->phase == SD_PHASE_DRAINING)
        return s->o->drain_s + CUT_S - (double)(sd_now_ns() - s->drain_ns) * 1e-9;
    return 0;
}

// ---- draining
//
// Nothing that a client does, or leaves undone, keeps the server beyond --drain and CUT_S: at the
// limit what runs is cancelled and said so, and CUT_S later the sockets are closed, read or unread.

// The last answer may still be on its way when the last call is gone.
static void end_when_drained(sd_server *s) {
    if (s->phase != SD_PHASE_DRAINING || s->n_calls > 0) return;
    if (!sd_conn_flushing(s)) {
        event_base_loopbreak(s->base);
        return;
    }
    struct timeval tv = {0, 10000};
    if (!evtimer_pending(s->flush_event, NULL)) event_add(s->flush_event, &tv);
}

static void on_flush_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    end_when_drained(ctx);
}

static void on_drain_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_server *s = ctx;
    if (s->cut) {
        event_base_loopbreak(s->base);
        return;
    }
    s->cut = true;
    sd_log(SD_LOG_WARN, "the time to drain is over: %d requests are cut off", s->n_calls);
    sd_calls_cancel(s);
    struct timeval tv = {CUT_S, 0};
    event_add(s->drain_event, &tv);
    end_when_drained(s);
}

static void on_signal(evutil_socket_t sig, short what, void *ctx) {
    (void)sig, (void)what;
    sd_server *s = ctx;
    if (s->phase == SD_PHASE_DRAINING) {
        sd_log(SD_LOG_WARN, "a second signal: what runs is cut off");
        sd_calls_cancel(s);
        event_base_loopbreak(s->base);
        return;
    }
    sd_log(SD_LOG_INFO, "draining: %d requests run, at most %g s more", s->n_calls, s->o->drain_s);
    s->phase = SD_PHASE_DRAINING;
    s->drain_ns = sd_now_ns();
    sd_conn_close_idle(s);
    struct timeval tv = {(time_t)s->o->drain_s,
                         (suseconds_t)((s->o->drain_s - (double)(time_t)s->o->drain_s) * 1e6)};
    event_add(s->drain_event, &tv);
    end_when_drained(s);
}

// ---- loading and the outbox

static void say_ready(const sd_server *s) {
    sd_engine_stats e;
    sd_engine_get_stats(s->engine, &e);
    sd_buf adapters = sd_buf_make(1500);
    for (int i = 1; i < s->n_served; i++)
        sd_buf_printf(&adapters, "%s%s%s", i > 1 ? ", " : "", s->served[i].name,
                      s->served[i].corpus ? " (with its index)" : "");
    sd_log(SD_LOG_INFO,
           "serving %s at %s: context %d tokens, %d slots, KV memory %.1f MiB, adapters: %s%s",
           s->served[0].name, s->address, e.ctx, e.slots, (double)e.kv_bytes / 1048576,
           s->n_served > 1 ? adapters.data : "none", s->keys.n ? ", with API keys" : "");
    sd_buf_free(&adapters);
}

static void on_wake(evutil_socket_t fd, short what, void *ctx) {
    (void)what;
    sd_server *s = ctx;
    uint64_t count;
    sd_memory_lost_clear();
    if (read((int)fd, &count, sizeof count) < 0 && errno != EAGAIN) return;
    int loaded = atomic_load(&s->loaded);
    if (loaded < 0) {
        event_base_loopbreak(s->base);
        return;
    }
    if (loaded > 0 && s->phase == SD_PHASE_LOADING) {
        sd_engine_stats e;
        sd_engine_get_stats(s->engine, &e);
        sd_metrics early = s->metrics;
        sd_metrics_init(&s->metrics, e.ctx, sd_now_s());
        memcpy(s->metrics.rejected, early.rejected, sizeof early.rejected);
        s->metrics.body_bytes = early.body_bytes;
        s->phase = SD_PHASE_READY;
        say_ready(s);
        if (s->o->on_ready) s->o->on_ready(s->o->ctx, s->address);
    }
    sd_calls_submit(s);
    sd_outbox_drain(s);
    end_when_drained(s);
}

// ---- opening and closing

static sd_status check_options(const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(o->port >= 0 && o->port <= 65535, err, SD_EINVAL, "--port %d: give 0 to 65535",
             o->port);
    SD_CHECK(o->drain_s >= 0 && o->drain_s <= 86400, err, SD_EINVAL,
             "--drain %g: give 0 to 86400 seconds", o->drain_s);
out:
    return st;
}

// After each event of the last priority the loop looks for others.
static struct event_base *new_base(void) {
    struct event_config *config = event_config_new();
    if (!config) return NULL;
    event_config_set_max_dispatch_interval(config, NULL, 1, SD_PRIORITY_LAST);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    if (base && event_base_priority_init(base, SD_PRIORITIES) != 0) {
        event_base_free(base);
        return NULL;
    }
    return base;
}

static sd_status open_events(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    event_set_mem_functions(sd_malloc_marked, sd_realloc_marked, free);
    s->base = new_base();
    SD_CHECK_ALLOC(s->base, err);
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    SD_CHECK(s->wake_fd >= 0, err, SD_EIO, "eventfd: %s", strerror(errno));
    s->wake_event = event_new(s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
    for (int i = 0; i < SD_END_SIGNALS; i++) {
        struct sigaction now;
        if (end_signals[i] == SIGHUP && sigaction(SIGHUP, NULL, &now) == 0 &&
            now.sa_handler == SIG_IGN)
            continue;
        s->signal_event[i] = evsignal_new(s->base, end_signals[i], on_signal, s);
        SD_CHECK(s->signal_event[i] && event_add(s->signal_event[i], NULL) == 0, err, SD_ENOMEM,
                 "out of memory");
    }
    s->flush_event = evtimer_new(s->base, on_flush_timer, s);
    s->drain_event = evtimer_new(s->base, on_drain_timer, s);
    s->accept_event = evtimer_new(s->base, on_accept_again, s);
    SD_CHECK(s->wake_event && s->drain_event && s->flush_event && s->accept_event, err, SD_ENOMEM,
             "out of memory");
    event_add(s->wake_event, NULL);
out:
    return st;
}

static void close_server(sd_server *s) {
    if (s->listener) evconnlistener_free(s->listener);
    s->listener = NULL;
    sd_conn_close_all(s);
    if (s->base) event_base_loop(s->base, EVLOOP_NONBLOCK); // libevent closes sockets in its loop
    sd_readers_close(s);
    if (s->engine) sd_engine_close(s->engine); // ends what is left of the calls
    while (sd_outbox_drain(s)) {
    }
    sd_outbox_free(s);
    struct event *events[] = {s->wake_event,     s->drain_event,     s->flush_event,
                              s->accept_event,   s->signal_event[0], s->signal_event[1],
                              s->signal_event[2]};
    _Static_assert(SD_END_SIGNALS == 3, "all are freed");
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i]) event_free(events[i]);
    if (s->base) event_base_free(s->base);
    if (s->wake_fd >= 0) close(s->wake_fd);
    sd_access_log_close(s->access_log);
    sd_buf_free(&s->scratch);
    sd_server_release_models(s);
    sd_clients_close(&s->clients);
    free(s->proxies);
    sd_keys_free(&s->keys);
    pthread_cond_destroy(&s->outbox_room);
    pthread_mutex_destroy(&s->outbox_lock);
    free(s);
}

sd_status sd_serve(const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_server *s = sd_alloc(1, sizeof *s);
    if (!s) return sd_fail(err, SD_ENOMEM, "out of memory");
    s->o = o;
    s->wake_fd = -1;
    s->created = (int64_t)time(NULL);
    pthread_mutex_init(&s->outbox_lock, NULL);
    pthread_cond_init(&s->outbox_room, NULL);
    sd_metrics_init(&s->metrics, 1, sd_now_s());
    json_object_seed(0);
    signal(SIGPIPE, SIG_IGN); // a client that left is an error of a write
    SD_TRY(check_options(o, err));
    SD_CHECK(getrandom(&s->id_key, sizeof s->id_key, 0) == sizeof s->id_key, err, SD_EIO,
             "no random numbers: %s", strerror(errno));
    set_max_connections(s);
    SD_TRY(sd_clients_open(&s->clients, s->max_conns + SD_SPARE_CONNECTIONS, sd_mix64(s->id_key),
                           err));
    SD_TRY(read_proxies(s, err));
    if (o->key_file) SD_TRY(sd_keys_load(&s->keys, o->key_file, err));
    s->local_hosts_only = s->keys.n == 0 && !o->insecure_no_key;
    if (o->access_log) SD_TRY(sd_access_log_open(&s->access_log, o->access_log, err));
    SD_TRY(open_events(s, err));
    SD_TRY(sd_readers_open(s, err));
    SD_TRY(listen_on(s, err));
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, o->model, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such model; check the path",
             o->model);
    sd_log(SD_LOG_INFO, "loading %s; listening at %s", o->model, s->address);
    int rc = pthread_create(&s->engine_thread, NULL, sd_engine_thread, s);
    SD_CHECK(rc == 0, err, SD_EIO, "the engine's thread: %s", strerror(rc));
    event_base_dispatch(s->base);
    atomic_store(&s->stop, true);
    if (atomic_load(&s->loaded) > 0) sd_engine_wake(s->engine);
    pthread_join(s->engine_thread, NULL);
    if (atomic_load(&s->loaded) < 0 && s->load_error.status != SD_EINTERRUPTED) {
        if (err) *err = s->load_error;
        st = s->load_error.status;
    } else {
        sd_log(SD_LOG_INFO, "drained, bye");
    }
out:
    close_server(s);
    sd_memory_lost_clear(); // what was lost is answered for, request by request
    return st;
}
