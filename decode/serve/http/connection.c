// One connection: bytes through the parser, one request at a time to its handler, the answer out.
//
//     READ -> (head: refuse early, or 100 Continue) -> BUSY (it is answered) -> READ ...
//                                                                        \-> FLUSH -> LINGER ->
//                                                                        gone
//
// While a request is BUSY the socket is still read, because that is how a closed client is noticed.
// The end of its stream alone does not say that it is gone: it may have shut its sending side only
// and wait for the answer. The two are told apart by sending something, which a closed client's
// system answers with a reset: the answer itself where it has begun, else "100 Continue", which may
// come any number of times before an answer and means nothing to a client that did not ask for it.
// Input that a client pipelines meanwhile stays in the buffer, up to a limit. A request that waited
// behind another one is taken in a turn of its own, after all that came from others: hundreds of
// them on one socket delay nobody by more than one. While answers are unread or turns are due,
// what comes stays in the system's buffer, which tells the client to wait.
//
// With TLS a client that has ended its stream is gone: none shuts one side alone.
//
// An answer that ends a connection is followed by LINGER: our side is shut, the rest of the input
// is read and dropped for two seconds, so that the kernel does not reset the connection under the
// answer.
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "decode/serve/http/connection_private.h"
#include "decode/serve/http/tls.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

void *sd_conn_owner(const sd_conn *c) {
    return c->listener->o.owner;
}
const sd_http_head *sd_conn_head(const sd_conn *c) {
    return &c->http.head;
}
sd_client *sd_conn_client(const sd_conn *c) {
    return c->client;
}
int64_t sd_conn_arrival_ns(const sd_conn *c) {
    return c->arrival_ns;
}
void sd_conn_set_work(sd_conn *c, void *work) {
    c->work = work;
}
void sd_conn_set_log(sd_conn *c, const sd_log_facts *facts) {
    c->facts = *facts;
}

sd_buf sd_conn_take_body(sd_conn *c, size_t *held) {
    sd_buf body = c->http.body;
    c->http.body = sd_buf_make(body.max);
    *held = c->body_bytes_held;
    c->body_bytes_held = 0;
    return body;
}

// ---- life and death

// The buffers, and TLS with them; the descriptor stays.
static void free_buffers(sd_conn *c) {
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    if (c->secure)
        sd_tls_free(c->bev);
    else
        bufferevent_free(c->bev);
}

static void conn_free(sd_conn *c) {
    if (c->prev)
        c->prev->next = c->next;
    else
        c->listener->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    if (c->timer) event_free(c->timer);
    if (c->turn) event_free(c->turn);
    // Closed here: libevent would do it in a later round of its loop, and a descriptor may be
    // needed in this one.
    free_buffers(c);
    evutil_closesocket(c->fd);
    sd_conn_leave(c);
    sd_http_free(&c->http);
    free(c);
}

// The client is gone, or is given up: whatever runs for it is cancelled.
void sd_conn_abort(sd_conn *c) {
    if (c->state == CONN_BUSY) {
        void *work = c->work;
        c->work = NULL;
        c->status = 499;
        if (work) c->listener->o.on->on_closed(work);
        sd_conn_log(c);
    }
    conn_free(c);
}

static void set_wait(sd_conn *c, conn_wait wait) {
    static const int seconds[] = {0, IDLE_S, HANDSHAKE_S, HEAD_S, BODY_S, LINGER_S, DRAIN_S, 0};
    if (c->wait == wait) return;
    if (wait == WAIT_DRAIN) c->drain_from = evbuffer_get_length(bufferevent_get_output(c->bev));
    c->wait = wait;
    event_del(c->timer);
    struct timeval tv = {seconds[wait], wait == WAIT_PROBE ? PROBE_MS * 1000 : 0};
    // Without its clock a connection could stay for ever: it ends now instead.
    if (wait != WAIT_NONE && event_add(c->timer, &tv) != 0)
        shutdown(bufferevent_getfd(c->bev), SHUT_RDWR);
}

static void linger(sd_conn *c) {
    sd_conn_set_state(c, CONN_LINGER);
    if (c->secure) sd_tls_say_goodbye(c->bev);
    shutdown(c->fd, SHUT_WR);
    evbuffer_drain(bufferevent_get_input(c->bev),
                   evbuffer_get_length(bufferevent_get_input(c->bev)));
    set_wait(c, WAIT_LINGER);
}

// ---- answers

static void send_head(sd_conn *c, int status, const char *type, int64_t length, const char *extra) {
    struct evbuffer *out = bufferevent_get_output(c->bev);
    if (c->ended && evbuffer_get_length(bufferevent_get_input(c->bev)) == 0) c->keep = false;
    char date[64];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    c->status = status;
    if (status < SD_STATUSES) c->listener->counts.answered[status]++;
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n", status,
                        sd_http_reason(status), date, type);
    if (length >= 0) evbuffer_add_printf(out, "Content-Length: %lld\r\n", (long long)length);
    if (c->chunked) evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
    if (c->id[0]) evbuffer_add_printf(out, "x-request-id: %s\r\n", c->id);
    if (!c->keep)
        evbuffer_add_printf(out, "Connection: close\r\n");
    else if (c->http.head.minor == 0)
        evbuffer_add_printf(out, "Connection: keep-alive\r\n");
    const char *origin = sd_conn_allowed_origin(c);
    if (origin)
        evbuffer_add_printf(out,
                            "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n"
                            "Access-Control-Expose-Headers: *\r\n",
                            origin);
    evbuffer_add_printf(out, "X-Content-Type-Options: nosniff\r\n%s\r\n", extra ? extra : "");
}

static void pump(sd_conn *c);

// The answer stands in the output buffer: on to the next request or to the end. Where libevent had
// no memory for a part of it, nothing of it is sent and the connection ends.
static void end_request(sd_conn *c) {
    bool lost = sd_memory_lost();
    if (lost) {
        sd_log(SD_LOG_WARN, "%s: out of memory for the answer: the connection is closed", c->id);
        shutdown(c->fd, SHUT_RDWR);
        c->keep = false;
        sd_memory_lost_clear();
    }
    if (!lost && !sd_conn_count_unread(c)) {
        sd_log(SD_LOG_WARN,
               "%s: unread answers and bodies fill --body-memory: the connection is closed", c->id);
        shutdown(c->fd, SHUT_RDWR);
        c->keep = false;
        lost = true;
    }
    sd_conn_log(c);
    c->work = NULL;
    c->handler = NULL;
    c->arrival_ns = c->bytes_out = 0;
    c->status = 0;
    c->streaming = c->chunked = false;
    c->facts = (sd_log_facts){0};
    c->key_id[0] = '\0';
    if (!c->keep) {
        sd_conn_set_state(c, CONN_FLUSH);
        set_wait(c, WAIT_DRAIN);
        if (lost || evbuffer_get_length(bufferevent_get_output(c->bev)) == 0) linger(c);
        return;
    }
    c->id[0] = '\0';
    sd_conn_set_state(c, CONN_READ);
    sd_http_reset(&c->http);
    sd_listener_hold(c->listener, c->client, &c->body_bytes_held, 0);
    if (!c->pumping) pump(c);
}

void sd_conn_reply(sd_conn *c, const sd_reply *r) {
    const char *method = c->http.head.method;
    bool head_only = method && strcmp(method, "HEAD") == 0;
    if (r->close || c->listener->draining) c->keep = false;
    send_head(c, r->status, r->type, (int64_t)r->len, r->extra);
    if (!head_only) {
        bufferevent_write(c->bev, r->body, r->len);
        c->bytes_out += (int64_t)r->len;
    }
    end_request(c);
}

static void reply_json(sd_conn *c, int status, json_t *v, const char *extra, bool close) {
    static const char fallback[] = "{\"error\":{\"message\":\"out of memory\",\"type\":"
                                   "\"server_error\",\"param\":null,\"code\":null}}";
    char *text = NULL;
    sd_json_dump(&text, v, JSON_COMPACT | JSON_REAL_PRECISION(9), NULL);
    json_decref(v);
    sd_memory_lost_clear(); // the document's loss is answered for
    sd_conn_reply(c, &(sd_reply){.status = text ? status : 500,
                                 .type = "application/json",
                                 .extra = extra,
                                 .body = text ? text : fallback,
                                 .len = text ? strlen(text) : sizeof fallback - 1,
                                 .close = close});
    free(text);
}

void sd_conn_json(sd_conn *c, int status, json_t *v) {
    reply_json(c, status, v, NULL, false);
}

static void reply_error(sd_conn *c, const sd_api_error *e, const char *extra, bool close) {
    char more[128];
    if (e->status == 429 || e->status == 503) {
        // Whole seconds, at least one (RFC 9110 10.2.3).
        sd_listener *l = c->listener;
        double wait = ceil(e->retry_s > 0 ? e->retry_s : l->o.on->retry_s(l->o.owner));
        wait = wait < 1 ? 1 : wait > MAX_WAIT_S ? MAX_WAIT_S : wait;
        snprintf(more, sizeof more, "Retry-After: %.0f\r\n", wait);
        extra = more;
    } else if (e->status == 401) {
        extra = "WWW-Authenticate: Bearer\r\n";
    }
    reply_json(c, e->status, c->listener->o.on->error_body(c, e), extra, close);
}

void sd_conn_error(sd_conn *c, const sd_api_error *e) {
    reply_error(c, e, NULL, false);
}

// False when a part of a stream found no memory: its connection is gone.
static bool is_whole(sd_conn *c) {
    if (!sd_memory_lost()) return true;
    sd_memory_lost_clear();
    sd_log(SD_LOG_WARN, "%s: out of memory for a stream: its connection is closed", c->id);
    sd_conn_abort(c);
    return false;
}

bool sd_conn_stream_begin(sd_conn *c, const char *type, const char *extra) {
    char more[1024];
    c->streaming = true;
    if (c->listener->draining) c->keep = false;
    c->chunked = c->http.head.minor >= 1;
    if (!c->chunked) c->keep = false; // HTTP/1.0: the end of the connection is the end of the body
    int n = snprintf(more, sizeof more, "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n%s",
                     extra ? extra : "");
    SD_ASSERT(n > 0 && (size_t)n < sizeof more); // lines of the owner's own
    send_head(c, 200, type, -1, more);
    return is_whole(c);
}

bool sd_conn_stream_data(sd_conn *c, const char *data, size_t len) {
    struct evbuffer *out = bufferevent_get_output(c->bev);
    if (len == 0) return true;
    if (evbuffer_get_length(out) > MAX_STREAM_BUFFER) {
        sd_log(SD_LOG_WARN, "%s: a stream is dropped: its client reads too slowly", c->id);
        sd_conn_abort(c);
        return false;
    }
    if (c->chunked) evbuffer_add_printf(out, "%zx\r\n", len);
    evbuffer_add(out, data, len);
    if (c->chunked) evbuffer_add(out, "\r\n", 2);
    c->bytes_out += (int64_t)len;
    if (!sd_conn_count_unread(c)) {
        sd_log(SD_LOG_WARN, "%s: a stream is dropped: unread answers and bodies fill --body-memory",
               c->id);
        sd_conn_abort(c);
        return false;
    }
    return is_whole(c);
}

void sd_conn_drop(sd_conn *c) {
    sd_conn_abort(c);
}

void sd_conn_stream_end(sd_conn *c) {
    if (c->chunked) evbuffer_add(bufferevent_get_output(c->bev), "0\r\n\r\n", 5);
    end_request(c);
}

// ---- requests

static void refuse(sd_conn *c, const sd_api_error *e, const char *extra) {
    sd_buf_free(&c->http.body);
    sd_listener_hold(c->listener, c->client, &c->body_bytes_held, 0);
    sd_conn_set_state(c, CONN_BUSY);
    c->keep = false;
    reply_error(c, e, extra, true);
}

void sd_conn_refuse_body(sd_conn *c) {
    sd_api_error e;
    sd_api_fail(&e, 429, NULL,
                "the bodies of other requests hold the memory that --body-memory gives them; try "
                "again later");
    e.retry_s = sd_listener_bytes_wait_s(c->listener, c->http.head.length);
    c->listener->counts.bodies_refused++;
    refuse(c, &e, NULL);
}

// The head is there. False when the request was refused for it, before its body is read.
static bool take_head(sd_conn *c) {
    sd_api_error e = {0};
    char extra[SD_MAX_EXTRA] = "";
    c->arrival_ns = sd_now_ns();
    c->keep = c->http.head.keep_alive;
    sd_conn_take_id(c);
    sd_conn_take_client(c);
    c->handler = c->listener->o.on->on_head(c, extra, &e);
    if (!c->handler) {
        refuse(c, &e, extra[0] ? extra : NULL);
        return false;
    }
    // A body that cannot fit now is refused before it is sent; one that fits is counted as it comes, so that a
    // length that is only announced takes nothing from others.
    size_t none = 0;
    if (c->http.head.length > 0) {
        if (!sd_listener_hold(c->listener, c->client, &none, (size_t)c->http.head.length)) {
            sd_conn_refuse_body(c);
            return false;
        }
        sd_listener_hold(c->listener, c->client, &none, 0);
    }
    if (c->http.head.expect && evbuffer_get_length(bufferevent_get_input(c->bev)) == 0)
        bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return true;
}

static void take_bad(sd_conn *c) {
    sd_api_error e;
    sd_api_fail(&e, c->http.status, NULL, "malformed HTTP: %s", c->http.reason);
    if (!c->arrival_ns) c->arrival_ns = sd_now_ns();
    if (!c->http.head.method) c->id[0] = '\0';
    refuse(c, &e, NULL);
}

// A client that asks and asks and does not read would fill memory with answers: its next request is
// taken when it has read what it got.
static bool has_backlog(const sd_conn *c) {
    return evbuffer_get_length(bufferevent_get_output(c->bev)) > MAX_UNREAD;
}

// Reads on while BUSY, and when what has been read is used up.
static void set_reading(sd_conn *c) {
    bool waits =
        c->state == CONN_READ && (has_backlog(c) || event_pending(c->turn, EV_TIMEOUT, NULL));
    if (c->ended || waits == c->is_paused) return;
    c->is_paused = waits;
    if (waits)
        bufferevent_disable(c->bev, EV_READ);
    else if (bufferevent_enable(c->bev, EV_READ) != 0)
        shutdown(c->fd, SHUT_RDWR);
}

// Parses what has come until more is needed or a request has been taken; the next one has its turn.
static void pump(sd_conn *c) {
    struct evbuffer *in = bufferevent_get_input(c->bev);
    if (event_pending(c->turn, EV_TIMEOUT, NULL)) return;
    c->pumping = true;
    while (c->state == CONN_READ && !has_backlog(c)) {
        sd_memory_lost_clear();
        size_t n = evbuffer_get_contiguous_space(in), used = 0;
        const char *data = n ? (const char *)evbuffer_pullup(in, (ev_ssize_t)n) : "";
        sd_http_result r = sd_http_feed(&c->http, data, n, &used);
        evbuffer_drain(in, used);
        if (r == SD_HTTP_BAD) {
            take_bad(c);
        } else if (!sd_listener_hold(c->listener, c->client, &c->body_bytes_held,
                                     c->http.body.len)) {
            sd_conn_refuse_body(c);
        } else if (r == SD_HTTP_HEAD) {
            take_head(c);
        } else if (r == SD_HTTP_DONE) {
            sd_conn_set_state(c, CONN_BUSY);
            set_wait(c, WAIT_NONE);
            c->handler(c);
            if (c->state == CONN_READ && evbuffer_get_length(in) > 0) {
                event_active(c->turn, EV_TIMEOUT, 0);
                break;
            }
        } else if (evbuffer_get_length(in) == 0) {
            break;
        }
    }
    c->pumping = false;
    set_reading(c);
    if (c->state == CONN_READ && c->ended && !has_backlog(c) &&
        !event_pending(c->turn, EV_TIMEOUT, NULL)) { // no whole request will come any more
        sd_conn_set_state(c, CONN_FLUSH);
        set_wait(c, WAIT_DRAIN);
        if (evbuffer_get_length(bufferevent_get_output(c->bev)) == 0) linger(c);
        return;
    }
    if (c->state == CONN_READ)
        set_wait(c, has_backlog(c)                ? WAIT_DRAIN
                    : sd_http_is_idle(&c->http)   ? WAIT_IDLE
                    : c->http.head.method == NULL ? WAIT_HEAD
                                                  : WAIT_BODY);
}

// ---- libevent's callbacks

static void on_read(struct bufferevent *bev, void *ctx) {
    sd_conn *c = ctx;
    struct evbuffer *in = bufferevent_get_input(bev);
    if (c->state == CONN_READ) pump(c);
    if (c->state == CONN_BUSY || c->state == CONN_READ) { // what is left waits for its turn
        if (evbuffer_get_length(in) > MAX_PIPELINED || !sd_conn_count_unread(c)) sd_conn_abort(c);
    } else {
        evbuffer_drain(in, evbuffer_get_length(in));
    }
}

static void on_turn(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_conn *c = ctx;
    if (c->state == CONN_READ) pump(c);
}

static void on_written(struct bufferevent *bev, void *ctx) {
    (void)bev;
    sd_conn *c = ctx;
    sd_conn_count_unread(c); // less than before
    if (c->state == CONN_FLUSH) linger(c);
    if (c->state == CONN_BUSY && c->work) c->listener->o.on->on_writable(c->work);
    if (c->state == CONN_READ) pump(c);
}

// Is a client that sends no more still there? Looked at until the answer begins.
static void probe(sd_conn *c) {
    static const char ping[] = "HTTP/1.1 100 Continue\r\n\r\n";
    int fd = c->fd, error = 0;
    socklen_t n = sizeof error;
    if (c->state != CONN_BUSY || c->streaming) return;
    if (c->probes++ % PROBES_BETWEEN_SENDS == 0 && c->http.head.minor >= 1 &&
        evbuffer_get_length(bufferevent_get_output(c->bev)) == 0 &&
        send(fd, ping, sizeof ping - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof ping - 1)
        error = EPIPE; // also where 25 bytes find no room: nobody reads
    if (!error) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) {
        sd_conn_abort(c);
        return;
    }
    c->wait = WAIT_NONE;
    set_wait(c, WAIT_PROBE);
}

static void on_event(struct bufferevent *bev, short what, void *ctx);

static void begin(sd_conn *c) {
    struct timeval write_limit = {WRITE_S, 0}; // without any progress
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    bufferevent_set_timeouts(c->bev, NULL, &write_limit);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

// A client that speaks HTTP to a port that speaks TLS is told so, in HTTP.
static void answer_plain(sd_conn *c) {
    sd_api_error e;
    struct bufferevent *plain = bufferevent_socket_new(c->listener->base, c->fd, 0);
    if (!plain) {
        sd_conn_abort(c);
        return;
    }
    free_buffers(c);
    c->bev = plain;
    c->secure = c->shaking = false;
    begin(c);
    c->arrival_ns = sd_now_ns();
    sd_api_fail(&e, 400, NULL, "this port speaks TLS; use https://");
    refuse(c, &e, NULL);
}

static void on_event(struct bufferevent *bev, short what, void *ctx) {
    sd_conn *c = ctx;
    if (what & BEV_EVENT_CONNECTED) {
        c->shaking = false;
        set_wait(c, WAIT_IDLE);
        return;
    }
    if (c->shaking && (what & BEV_EVENT_ERROR) && sd_tls_is_plain_http(bev)) {
        answer_plain(c);
        return;
    }
    bool answers = evbuffer_get_length(bufferevent_get_output(bev)) > 0;
    bool ended = (what & BEV_EVENT_EOF) && (what & BEV_EVENT_READING) && !c->secure;
    if (!ended || c->state == CONN_LINGER || (c->state == CONN_READ && !answers)) {
        sd_conn_abort(c);
        return;
    }
    c->ended = true;
    bufferevent_disable(bev, EV_READ);
    if (c->state == CONN_READ) pump(c);
    if (c->state == CONN_BUSY) probe(c);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_conn *c = ctx;
    if (c->wait == WAIT_PROBE) {
        probe(c);
        return;
    }
    size_t unread = evbuffer_get_length(bufferevent_get_output(c->bev));
    if (c->wait == WAIT_DRAIN && unread + DRAIN_BYTES <= c->drain_from) { // it reads on
        c->wait = WAIT_NONE;
        set_wait(c, WAIT_DRAIN);
        return;
    }
    if (c->wait != WAIT_HEAD && c->wait != WAIT_BODY) {
        sd_conn_abort(c);
        return;
    }
    sd_api_error e;
    sd_api_fail(&e, 408, NULL, "the %s did not come within %d seconds",
                c->wait == WAIT_HEAD ? "head of the request" : "body",
                c->wait == WAIT_HEAD ? HEAD_S : BODY_S);
    c->wait = WAIT_NONE;
    refuse(c, &e, NULL);
}

// The server's own descriptor; closed when the connection is freed.
static sd_conn *conn_new(sd_listener *l, int fd, const struct sockaddr *addr) {
    sd_memory_lost_clear();
    sd_conn *c = sd_alloc(1, sizeof *c);
    if (!c) return NULL;
    c->listener = l;
    c->fd = fd;
    c->address = sd_address_of(addr);
    c->secure = c->shaking = l->tls != NULL;
    c->bev = l->tls ? sd_tls_accept(l->tls, l->base, fd) : bufferevent_socket_new(l->base, fd, 0);
    c->timer = evtimer_new(l->base, on_timer, c);
    c->turn = event_new(l->base, -1, 0, on_turn, c);
    if (c->turn) event_priority_set(c->turn, SD_PRIORITY_LAST);
    if (c->bev && c->timer && c->turn && sd_conn_enter(c)) return c;
    if (c->timer) event_free(c->timer);
    if (c->turn) event_free(c->turn);
    if (c->bev) free_buffers(c);
    sd_conn_leave(c);
    free(c);
    return NULL;
}

void sd_conn_accept(sd_listener *l, int fd, const struct sockaddr *addr) {
    sd_conn *c = conn_new(l, fd, addr);
    if (!c) {
        l->counts.sockets_refused++;
        evutil_closesocket(fd);
        return;
    }
    c->next = l->conns;
    if (l->conns) l->conns->prev = c;
    l->conns = c;
    sd_http_init(&c->http);
    sd_address_print(addr, c->remote, sizeof c->remote);
    set_wait(c, c->shaking ? WAIT_HANDSHAKE : WAIT_IDLE);
    begin(c);
    // libevent makes a half of one where it has no memory: it would not be read, or never written.
    if (sd_memory_lost()) conn_free(c);
}

void sd_listener_close_idle(sd_listener *l) {
    for (sd_conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_READ && sd_http_is_idle(&c->http) &&
            evbuffer_get_length(bufferevent_get_input(c->bev)) == 0 &&
            evbuffer_get_length(bufferevent_get_output(c->bev)) == 0)
            conn_free(c);
    }
}

void sd_conn_close_all(sd_listener *l) {
    while (l->conns) sd_conn_abort(l->conns);
}

bool sd_listener_flushing(const sd_listener *l) {
    for (const sd_conn *c = l->conns; c; c = c->next)
        if (evbuffer_get_length(bufferevent_get_output(c->bev)) > 0) return true;
    return false;
}
