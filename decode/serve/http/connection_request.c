// A request's client, its id, and what the log says of it.
#include "base/clock.h"
#include "decode/serve/http/connection_private.h"

#include <string.h>

// The client's x-request-id when it is harmless, else one of our own.
void sd_conn_take_id(sd_conn *c) {
    const char *given = sd_http_field_get(&c->http.head, "x-request-id");
    size_t n = given ? strlen(given) : 0;
    if (n >= 1 && n <= MAX_ID &&
        strspn(given, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") == n) {
        memcpy(c->id, given, n + 1);
        return;
    }
    uint64_t x = sd_mix64(c->listener->o.id_key + c->listener->n_ids++);
    snprintf(c->id, sizeof c->id, "req-%016llx", (unsigned long long)x);
}

// The request belongs to its key, else to the last hop that a trusted proxy names, else to the
// peer.
void sd_conn_take_client(sd_conn *c) {
    sd_listener *l = c->listener;
    sd_address hop;
    const char *forwarded = NULL;
    sd_client_name name = c->peer->name;
    int key = sd_keys_find_either(&l->keys, sd_http_field_get(&c->http.head, "authorization"),
                                  sd_http_field_get(&c->http.head, "x-api-key"));
    snprintf(c->key_id, sizeof c->key_id, "%s", key >= 0 ? l->keys.key[key].id : "");
    if (c->peer->trusted) forwarded = sd_http_field_last(&c->http.head, "x-forwarded-for");
    if (key >= 0)
        name = sd_client_of_key(&l->keys.key[key].hash);
    else if (forwarded && sd_last_hop(&hop, forwarded, l->proxies, l->n_proxies))
        name = sd_client_of_address(&hop);
    sd_client_release(&l->clients, c->client);
    c->client = sd_client_acquire(&l->clients, &name);
    if (!c->client)
        c->client = sd_client_again(c->peer);
    else if (key >= 0) {
        c->client->admin = l->keys.key[key].admin;
        memcpy(c->client->key, l->keys.key[key].id, sizeof c->client->key);
    }
}

// One line for a request that ended, however it ended.
void sd_conn_log(sd_conn *c) {
    if (!c->listener->access_log || !c->arrival_ns) return;
    const sd_http_head *head = &c->http.head;
    const char *trace = head->method ? sd_http_field_get(head, "traceparent") : NULL;
    sd_log_request(c->listener->access_log,
                   &(sd_logged){.id = c->id,
                                .remote = c->remote,
                                .key = c->key_id,
                                .trace = trace && sd_log_is_trace(trace) ? trace : NULL,
                                .method = head->method ? head->method : "-",
                                .path = head->path ? head->path : "-",
                                .status = c->status,
                                .ms = (double)(sd_now_ns() - c->arrival_ns) * 1e-6,
                                .bytes = c->bytes_out,
                                .facts = c->facts});
}
