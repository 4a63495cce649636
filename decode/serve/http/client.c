// Clients live in a hash table while anything of theirs is open, and in lists by their number of
// sockets, so that the one with the most is found at once however many there are.
#include "decode/serve/http/client.h"

#include "base/memory.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- addresses

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_v4(const sd_address *a) {
    return memcmp(a->byte, v4_prefix, sizeof v4_prefix) == 0;
}

static sd_address from_v4(const void *four) {
    sd_address a;
    memcpy(a.byte, v4_prefix, sizeof v4_prefix);
    memcpy(a.byte + sizeof v4_prefix, four, 4);
    return a;
}

sd_address sd_address_of(const struct sockaddr *a) {
    sd_address out = {{0}};
    if (a->sa_family == AF_INET)
        return from_v4(&((const struct sockaddr_in *)(const void *)a)->sin_addr);
    if (a->sa_family == AF_INET6)
        memcpy(out.byte, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
    return out;
}

void sd_address_print(const struct sockaddr *a, char *out, size_t size) {
    char host[INET6_ADDRSTRLEN] = "?";
    int port = 0;
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)a;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        port = ntohs(v4->sin_port);
    } else if (a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)a;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        port = ntohs(v6->sin6_port);
    }
    snprintf(out, size, "%s:%d", host, port);
}

bool sd_address_parse(sd_address *out, const char *text, size_t len) {
    char s[64];
    struct in_addr v4;
    struct in6_addr v6;
    while (len && (*text == ' ' || *text == '\t')) text++, len--;
    while (len && (text[len - 1] == ' ' || text[len - 1] == '\t')) len--;
    if (len && *text == '[') { // [v6] or [v6]:port
        const char *end = memchr(text, ']', len);
        if (!end) return false;
        len = (size_t)(end - text) - 1, text++;
    } else if (memchr(text, '.', len)) { // v4 or v4:port; ::ffff:1.2.3.4 has more colons
        const char *colon = memchr(text, ':', len);
        if (colon && !memchr(colon + 1, ':', len - (size_t)(colon + 1 - text)))
            len = (size_t)(colon - text);
    }
    if (len == 0 || len >= sizeof s) return false;
    memcpy(s, text, len);
    s[len] = '\0';
    if (inet_pton(AF_INET, s, &v4) == 1) {
        *out = from_v4(&v4);
        return true;
    }
    if (inet_pton(AF_INET6, s, &v6) != 1) return false;
    memcpy(out->byte, &v6, 16);
    return true;
}

sd_status sd_cidr_parse(sd_cidr *out, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    const char *slash = strchr(text, '/');
    char *end = NULL;
    bool ok = sd_address_parse(&out->base, text, slash ? (size_t)(slash - text) : strlen(text));
    int most = ok && is_v4(&out->base) ? 32 : 128;
    long bits = slash ? strtol(slash + 1, &end, 10) : most;
    ok = ok && (!slash || (end != slash + 1 && *end == '\0')) && bits >= 0 && bits <= most;
    SD_CHECK(ok, err, SD_EINVAL,
             "--trusted-proxy %s: give an address or a network such as 10.0.0.0/8", text);
    out->bits = (int)bits + 128 - most;
out:
    return st;
}

bool sd_cidr_has(const sd_cidr *list, int n, const sd_address *a) {
    for (int i = 0; i < n; i++) {
        int whole = list[i].bits / 8, rest = list[i].bits % 8;
        unsigned mask = 0xff00u >> rest & 0xff;
        if (memcmp(list[i].base.byte, a->byte, (size_t)whole) == 0 &&
            (rest == 0 || ((list[i].base.byte[whole] ^ a->byte[whole]) & mask) == 0))
            return true;
    }
    return false;
}

bool sd_last_hop(sd_address *out, const char *field, const sd_cidr *list, int n) {
    for (size_t end = strlen(field);;) {
        size_t begin = end;
        while (begin > 0 && field[begin - 1] != ',') begin--;
        if (!sd_address_parse(out, field + begin, end - begin)) return false;
        if (!sd_cidr_has(list, n, out)) return true;
        if (begin == 0) return false;
        end = begin - 1;
    }
}

sd_client_name sd_client_of_address(const sd_address *a) {
    sd_client_name n = {.is_key = false};
    memcpy(n.byte, a->byte, is_v4(a) ? 16 : 8);
    return n;
}

// By its hash: the keys' places change when their file is read anew.
sd_client_name sd_client_of_key(const sd_sha256 *key) {
    sd_client_name n = {.is_key = true};
    for (int i = 0; i < 16; i++) {
        unsigned byte = 0;
        sscanf(key->hex + 2 * i, "%2x", &byte);
        n.byte[i] = (uint8_t)byte;
    }
    return n;
}

// ---- the table

sd_status sd_clients_open(sd_clients *t, int max_sockets, uint64_t key, sd_error *err) {
    sd_status st = SD_OK;
    *t = (sd_clients){.n_buckets = 1024, .key = key, .next_id = 1, .max_sockets = max_sockets};
    t->bucket = sd_alloc(t->n_buckets, sizeof *t->bucket);
    t->rank = sd_alloc((size_t)max_sockets + 1, sizeof *t->rank);
    SD_CHECK_ALLOC(t->bucket && t->rank, err);
out:
    return st;
}

void sd_clients_close(sd_clients *t) {
    free(t->bucket);
    free(t->rank);
    *t = (sd_clients){0};
}

static sd_client **bucket_of(const sd_clients *t, const sd_client_name *name) {
    uint64_t half[2];
    memcpy(half, name->byte, sizeof half);
    uint64_t h = sd_mix64(t->key ^ half[0]);
    h = sd_mix64(h ^ half[1] ^ (name->is_key ? UINT64_C(1) << 63 : 0));
    return &t->bucket[h & (t->n_buckets - 1)];
}

static bool same(const sd_client_name *a, const sd_client_name *b) {
    return a->is_key == b->is_key && memcmp(a->byte, b->byte, sizeof a->byte) == 0;
}

sd_client *sd_client_again(sd_client *c) {
    c->refs++;
    return c;
}

sd_client *sd_client_acquire(sd_clients *t, const sd_client_name *name) {
    sd_client **at = bucket_of(t, name), *c = *at;
    while (c && !same(&c->name, name)) c = c->next;
    if (c) return sd_client_again(c);
    c = sd_alloc(1, sizeof *c);
    if (!c) return NULL;
    c->name = *name;
    c->id = t->next_id++;
    c->refs = 1;
    c->next = *at;
    *at = c;
    return c;
}

void sd_client_release(sd_clients *t, sd_client *c) {
    if (!c || --c->refs > 0) return;
    sd_client **at = bucket_of(t, &c->name);
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    free(c);
}

// ---- counts

static void leave_rank(sd_clients *t, sd_client *c) {
    if (c->sockets == 0) return;
    if (c->rank_prev)
        c->rank_prev->rank_next = c->rank_next;
    else
        t->rank[c->sockets] = c->rank_next;
    if (c->rank_next) c->rank_next->rank_prev = c->rank_prev;
    c->rank_prev = c->rank_next = NULL;
}

static void enter_rank(sd_clients *t, sd_client *c) {
    if (c->sockets == 0) return;
    c->rank_next = t->rank[c->sockets];
    if (c->rank_next) c->rank_next->rank_prev = c;
    t->rank[c->sockets] = c;
}

void sd_client_add_socket(sd_clients *t, sd_client *c, int by) {
    leave_rank(t, c);
    c->sockets += by;
    enter_rank(t, c);
    if (c->sockets > t->top) t->top = c->sockets;
    while (t->top > 0 && !t->rank[t->top]) t->top--;
}

void sd_client_add_bytes(sd_clients *t, sd_client *c, int64_t by) {
    bool had = c->bytes > 0;
    c->bytes = (size_t)((int64_t)c->bytes + by);
    t->holding += (c->bytes > 0) - had;
}

void sd_client_add_reading(sd_clients *t, sd_client *c, int by) {
    bool had = c->n_reading > 0;
    c->n_reading += by;
    t->reading += (c->n_reading > 0) - had;
}
