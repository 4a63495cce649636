// How many sockets and how many bytes there may be, and what is given up when others need them.
//
// The listener is never off: when all places are taken, a newcomer gets that of the socket that has
// been idle longest, of the client that has the most sockets; a client with as many itself gives
// one of its own. Only sockets whose request is being answered are never given up, and those are
// few, because the queue is bounded. So a probe is answered at once whatever lies open.
//
// Bodies and answers come out of one memory. While there is some left, anybody may have it, but for
// a quarter that is for clients that hold little. When it is used up, a client below its equal share
// gets room from the one that holds the most: its largest body that is still on its way is refused,
// or its largest unread answer dropped.
#include "base/clock.h"
#include "decode/serve/http/connection_private.h"

static const int64_t GIVEN_BACK_NS = 5000000000; // the period of that speed
enum { SEARCH = 16 };                            // clients looked at for an idle socket

// ---- sockets

static void leave_idle(sd_conn *c) {
    if (!c->is_idle) return;
    if (c->idle_prev)
        c->idle_prev->idle_next = c->idle_next;
    else
        c->peer->idle_first = c->idle_next;
    if (c->idle_next)
        c->idle_next->idle_prev = c->idle_prev;
    else
        c->peer->idle_last = c->idle_prev;
    c->idle_prev = c->idle_next = NULL;
    c->is_idle = false;
}

static void enter_idle(sd_conn *c) {
    c->idle_prev = c->peer->idle_last;
    if (c->idle_prev)
        c->idle_prev->idle_next = c;
    else
        c->peer->idle_first = c;
    c->peer->idle_last = c;
    c->is_idle = true;
}

void sd_conn_set_state(sd_conn *c, conn_state state) {
    c->state = state;
    leave_idle(c);
    if (state != CONN_BUSY && !c->peer->trusted) enter_idle(c);
}

// An idle socket of a client that has more than the newcomer, else of the newcomer itself.
static sd_conn *find_idle(const sd_listener *l, const sd_client *newcomer) {
    const sd_clients *t = &l->clients;
    int looked = 0;
    for (int n = t->top; n > newcomer->sockets && looked < SEARCH; n--)
        for (sd_client *c = t->rank[n]; c && looked < SEARCH; c = c->rank_next, looked++)
            if (c->idle_first) return c->idle_first;
    return newcomer->idle_first;
}

bool sd_listener_make_place(sd_listener *l, sd_client *newcomer) {
    sd_conn *idle = find_idle(l, newcomer);
    if (!idle) return false;
    l->counts.displaced++;
    l->give_up(idle);
    return true;
}

bool sd_conn_enter(sd_conn *c) {
    sd_listener *l = c->listener;
    sd_client_name name = sd_client_of_address(&c->address);
    sd_client *peer = sd_client_acquire(&l->clients, &name);
    if (!peer) return false;
    peer->trusted = sd_cidr_has(l->proxies, l->n_proxies, &c->address);
    // While all are busy, a few further places are for clients that have none.
    if (l->n_conns >= l->max_conns && !sd_listener_make_place(l, peer) &&
        (peer->sockets > 0 || l->n_conns >= l->max_conns + SD_SPARE_CONNECTIONS)) {
        sd_client_release(&l->clients, peer);
        return false;
    }
    c->peer = peer;
    l->n_conns++;
    sd_client_add_socket(&l->clients, peer, 1);
    sd_conn_set_state(c, CONN_READ);
    return true;
}

void sd_conn_leave(sd_conn *c) {
    sd_listener *l = c->listener;
    if (!c->peer) return; // it never entered
    sd_listener_hold(l, c->client, &c->body_bytes_held, 0);
    sd_listener_hold(l, c->peer, &c->unread, 0);
    leave_idle(c);
    sd_client_add_socket(&l->clients, c->peer, -1);
    l->n_conns--;
    sd_client_release(&l->clients, c->client);
    sd_client_release(&l->clients, c->peer);
}

// ---- bytes

// A part is for clients that hold little: what is being read or answered is not taken back.
static size_t reserve_of(size_t limit) {
    if (limit <= SD_HTTP_MAX_BODY) return 0;
    size_t spare = limit - SD_HTTP_MAX_BODY;
    return limit / 4 < spare ? limit / 4 : spare;
}

// The largest that the client has on its way; not one whose request is being answered.
static sd_conn *find_largest(const sd_listener *l, const sd_client *of, bool *is_body) {
    sd_conn *best = NULL;
    size_t most = 0;
    for (sd_conn *c = l->conns; c; c = c->next) {
        if (c->pumping) continue; // it is the one that asks
        if (c->client == of && c->state == CONN_READ && c->body_bytes_held > most)
            best = c, most = c->body_bytes_held, *is_body = true;
        if (c->peer == of && c->state != CONN_BUSY && c->unread > most)
            best = c, most = c->unread, *is_body = false;
    }
    return best;
}

static sd_client *find_fattest(const sd_listener *l) {
    sd_client *best = NULL;
    for (const sd_conn *c = l->conns; c; c = c->next) {
        if (c->client && c->client->bytes > 0 && (!best || c->client->bytes > best->bytes))
            best = c->client;
        if (c->peer->bytes > 0 && (!best || c->peer->bytes > best->bytes)) best = c->peer;
    }
    return best;
}

// Takes something from the client that holds the most; false when nobody has to give.
static bool make_bytes(sd_listener *l, const sd_client *newcomer, size_t share) {
    sd_client *from = find_fattest(l);
    bool is_body = false;
    if (!from || from == newcomer || from->bytes <= share) return false;
    sd_conn *c = find_largest(l, from, &is_body);
    if (!c) return false;
    if (is_body)
        l->refuse_body(c);
    else
        l->give_up(c);
    return true;
}

// Bytes in the running and the last full period.
static void count_given_back(sd_listener *l, int64_t bytes) {
    int64_t now = sd_now_ns(), since = now - l->given_back.began_ns;
    if (since > GIVEN_BACK_NS) {
        l->given_back.last = since > 2 * GIVEN_BACK_NS ? 0 : l->given_back.now;
        l->given_back.now = 0;
        l->given_back.began_ns = now;
    }
    l->given_back.now += bytes;
}

double sd_listener_bytes_wait_s(const sd_listener *l, int64_t bytes) {
    int64_t since = sd_now_ns() - l->given_back.began_ns;
    if (since > 2 * GIVEN_BACK_NS || bytes <= 0) return BODY_S; // nothing of late, or not known
    double seconds = (double)(since + (l->given_back.last ? GIVEN_BACK_NS : 0)) * 1e-9;
    double wait = (double)bytes * seconds / (double)(l->given_back.now + l->given_back.last + 1);
    return wait < BODY_S ? wait : BODY_S;
}

size_t sd_listener_hold_most(const sd_listener *l) {
    return l->o.memory - reserve_of(l->o.memory);
}

bool sd_listener_hold(sd_listener *l, sd_client *client, size_t *held, size_t bytes) {
    size_t limit = l->o.memory;
    if (bytes > limit) return false;
    while (bytes > *held) {
        size_t total = (size_t)l->counts.bytes_held, more = bytes - *held;
        size_t most = limit - (client->bytes + more > limit / 8 ? reserve_of(limit) : 0);
        if (more <= most && total <= most - more) break;
        int clients = l->clients.holding + (client->bytes == 0);
        size_t share = limit / (size_t)clients;
        if (client->bytes + more > share || !make_bytes(l, client, share)) return false;
    }
    if (bytes == *held) return true;
    int64_t by = (int64_t)bytes - (int64_t)*held;
    l->counts.bytes_held += by;
    if (by < 0) count_given_back(l, -by);
    sd_client_add_bytes(&l->clients, client, by);
    *held = bytes;
    return true;
}

bool sd_conn_count_unread(sd_conn *c) {
    size_t n = evbuffer_get_length(bufferevent_get_output(c->bev)) +
               evbuffer_get_length(bufferevent_get_input(c->bev));
    return sd_listener_hold(c->listener, c->peer, &c->unread, n);
}
