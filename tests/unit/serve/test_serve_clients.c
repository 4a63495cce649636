// Clients are told apart, and each holds its share while others need theirs: addresses of 127/8.
#include "base/clock.h"
#include "base/memory.h"
#include "decode/engine/fair.h"
#include "decode/serve/http/client.h"
#include "tests/unit/support/live.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// ---- names

static sd_address address(const char *text) {
    sd_address a;
    cr_assert(sd_address_parse(&a, text, strlen(text)), "%s", text);
    return a;
}

static bool same_client(const char *a, const char *b) {
    sd_address x = address(a), y = address(b);
    sd_client_name m = sd_client_of_address(&x), n = sd_client_of_address(&y);
    return memcmp(&m, &n, sizeof m) == 0;
}

Test(clients, an_address_is_a_client_and_so_is_a_network_of_64_bits) {
    cr_assert(same_client("192.0.2.1", "::ffff:192.0.2.1"));
    cr_assert(same_client("192.0.2.1", " 192.0.2.1:4711 "));
    cr_assert(same_client("2001:db8:1:2::1", "[2001:db8:1:2:ffff::9]:80"));
    cr_assert_not(same_client("192.0.2.1", "192.0.2.2"));
    cr_assert_not(same_client("2001:db8:1:2::1", "2001:db8:1:3::1"));
    cr_assert_not(same_client("::1", "127.0.0.1"));
    static const char *const bad[] = {"",          "unknown", "_hidden", "1.2.3",
                                      "1.2.3.4.5", "[::1",    ":80"};
    sd_address a;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_not(sd_address_parse(&a, bad[i], strlen(bad[i])), "%s", bad[i]);
}

Test(clients, a_trusted_network_is_read_as_written_or_refused_by_name) {
    static const struct {
        const char *network, *in, *out;
    } rows[] = {{"10.0.0.0/8", "10.255.0.1", "11.0.0.1"},
                {"10.0.0.128/25", "10.0.0.200", "10.0.0.127"},
                {"192.0.2.7", "192.0.2.7", "192.0.2.8"},
                {"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"},
                {"0.0.0.0/0", "8.8.8.8", "2001::1"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_cidr c;
        cr_assert_eq(sd_cidr_parse(&c, rows[i].network, NULL), SD_OK, "%s", rows[i].network);
        sd_address in = address(rows[i].in), out = address(rows[i].out);
        cr_assert(sd_cidr_has(&c, 1, &in) && !sd_cidr_has(&c, 1, &out), "%s", rows[i].network);
    }
    static const char *const bad[] = {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8x", "proxy",
                                      "::1/129"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_cidr c;
        sd_error err = {0};
        cr_assert_eq(sd_cidr_parse(&c, bad[i], &err), SD_EINVAL);
        cr_assert(strstr(err.message, bad[i]), "%s", err.message);
    }
}

Test(clients, only_the_last_hop_that_is_no_proxy_counts) {
    sd_cidr proxy;
    cr_assert_eq(sd_cidr_parse(&proxy, "10.0.0.0/8", NULL), SD_OK);
    static const struct {
        const char *field, *hop; // NULL: none
    } rows[] = {{"192.0.2.1", "192.0.2.1"},
                {"1.2.3.4, 192.0.2.1", "192.0.2.1"}, // what the client wrote itself is not believed
                {"192.0.2.1, 10.0.0.5", "192.0.2.1"},
                {"192.0.2.1,\t2001:db8::1 ", "2001:db8::1"},
                {"192.0.2.1, unknown", NULL},
                {"10.1.1.1", NULL},
                {"", NULL},
                {",", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sd_address hop, want;
        bool found = sd_last_hop(&hop, rows[i].field, &proxy, 1);
        cr_assert_eq(found, rows[i].hop != NULL, "%s", rows[i].field);
        if (!found) continue;
        want = address(rows[i].hop);
        cr_assert_eq(memcmp(&hop, &want, sizeof hop), 0, "%s", rows[i].field);
    }
}

Test(clients, a_share_binds_only_while_others_use_theirs) {
    sd_share s = {.limit = 12, .total = 0, .own = 0, .clients = 1};
    cr_assert(sd_fair_room(&s, 12) && !sd_fair_room(&s, 13));
    s = (sd_share){.limit = 12, .total = 12, .own = 0, .clients = 2};
    cr_assert(sd_fair_room(&s, 6) && !sd_fair_room(&s, 7));
    s = (sd_share){.limit = 12, .total = 12, .own = 12, .clients = 2};
    cr_assert_not(sd_fair_room(&s, 1));
    s = (sd_share){.limit = 12, .total = 24, .own = 0, .clients = 90};
    cr_assert_not(sd_fair_room(&s, 1), "the whole is bounded whoever comes");
}

Test(clients, the_client_with_the_most_sockets_is_known_whatever_comes_and_goes) {
    enum { N = 9, MAX = 64 };
    sd_clients t;
    sd_client *c[N];
    int open[N] = {0};
    cr_assert_eq(sd_clients_open(&t, MAX, 5, NULL), SD_OK);
    for (int i = 0; i < N; i++) {
        sd_sha256 key;
        cr_assert_eq(sd_sha256_of(&key, (char[]){(char)('a' + i % 8)}, 1, NULL), SD_OK);
        sd_client_name name = sd_client_of_key(&key);
        c[i] = sd_client_acquire(&t, &name);
    }
    cr_assert_eq(c[0], c[8]); // known
    sd_client_release(&t, c[8]);
    unsigned random = 1;
    for (int step = 0; step < 5000; step++) {
        random = random * 1103515245u + 12345u;
        int i = (int)(random >> 16) % 8, by = (random >> 24) % 2 && open[i] > 0 ? -1 : 1;
        if (open[i] + by > MAX) by = -1;
        open[i] += by;
        sd_client_add_socket(&t, c[i], by);
        int most = 0;
        for (int k = 0; k < 8; k++) most = open[k] > most ? open[k] : most;
        cr_assert_eq(t.top, most);
        if (most > 0) cr_assert(t.rank[most] && t.rank[most]->sockets == most);
    }
    for (int i = 0; i < 8; i++) {
        while (open[i]-- > 0) sd_client_add_socket(&t, c[i], -1);
        sd_client_release(&t, c[i]);
    }
    sd_clients_close(&t);
}

// ---- a live server

static const char *const HOG = "127.0.0.66", *const OTHER = "127.0.0.2";

static int post_from(const live *s, const char *source, const char *body) {
    int fd = live_dial_from(s, source, 0);
    cr_assert(fd >= 0 && live_post(fd, body));
    return fd;
}

static void expect(char *out, const char *what) {
    cr_assert(strstr(out, what), "wanted %s: %.400s", what, out);
    free(out);
}

#define LONG_ONE "{\"prompt\":[1],\"max_tokens\":15000,\"ignore_eos\":true}"

Test(clients, idle_sockets_give_their_place_to_newcomers) {
    enum { IDLE = 300 };
    struct rlimit few = {200, 200}; // 104 for clients
    live s;
    live_write_model(&s);
    int ends[2];
    // The sockets of this side count too: they are another process's.
    cr_assert_eq(pipe(ends), 0);
    pid_t hog = fork();
    if (hog == 0) {
        char port[16] = "";
        close(ends[1]);
        if (read(ends[0], port, sizeof port) <= 0) _exit(1);
        live there = {.port = atoi(port)};
        for (int i = 0; i < IDLE; i++) live_dial_from(&there, HOG, 0);
        for (;;) pause();
    }
    close(ends[0]);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    live_start_with(&s, 512, 2, 8, NULL);
    int kept = live_dial_from(&s, OTHER, 0);
    cr_assert(dprintf(ends[1], "%d", s.port) > 0);
    for (double end = sd_now_s() + 60; sd_now_s() < end; usleep(5000))
        if (live_metric(&s, "connections_displaced_total") >= IDLE - 104) break;
    cr_assert_geq(live_metric(&s, "connections_displaced_total"), IDLE - 104);
    expect(live_get(&s, "/health"), " 200 OK");
    expect(live_ask_from(&s, OTHER, "{\"prompt\":[1],\"max_tokens\":1}"), " 200 OK");
    // Nobody took the one socket of the other client.
    cr_assert(live_post(kept, "{\"prompt\":[1],\"max_tokens\":1}"));
    expect(live_read(kept), " 200 OK");
    kill(hog, SIGKILL);
    close(kept), close(ends[1]);
    live_stop(&s);
}

Test(clients, a_full_server_answers_another_client_and_tells_the_first_when) {
    live s;
    live_start(&s, 16384, 2, 4);
    int held[6];
    for (int i = 0; i < 6; i++) held[i] = post_from(&s, HOG, LONG_ONE);
    cr_assert(live_wait_metric(&s, "num_requests_waiting", 4));
    char *out = live_ask_from(&s, HOG, LONG_ONE);
    cr_assert(strstr(out, " 429 ") && strstr(out, "Retry-After: "), "%.300s", out);
    free(out);
    for (int i = 0; i < 3; i++)
        expect(live_ask_from(&s, OTHER, "{\"prompt\":[1,2],\"max_tokens\":3}"), " 200 OK");
    expect(live_ask_from(&s, OTHER, "{\"prompt\":[1,2],\"max_tokens\":3,\"n\":2}"), " 200 OK");
    cr_assert_geq(live_metric(&s, "num_requests_waiting"), 4);
    for (int i = 0; i < 6; i++) close(held[i]);
    cr_assert(live_wait_metric(&s, "num_requests_running", 0));
    live_stop(&s);
}

// Nobody else holds anything: to wait would help nobody.
Test(clients, an_answer_that_can_never_be_kept_is_refused_for_good) {
    live s;
    live_write_model(&s);
    s.o.body_memory = 1 << 20;
    live_start_with(&s, 4096, 2, 8, NULL);
    static const char body[] = "{\"prompt\":[1],\"max_tokens\":4000,\"logprobs\":20,\"n\":4%s}";
    char text[128];
    snprintf(text, sizeof text, body, "");
    char *out = live_ask(&s, text);
    cr_expect(strstr(out, " 400 ") && strstr(out, "--body-memory; ask for a stream"), "%s", out);
    free(out);
    snprintf(text, sizeof text, body, ",\"stream\":true,\"ignore_eos\":false");
    expect(live_ask(&s, text), " 200 OK");
    live_stop(&s);
}

Test(clients, a_client_below_its_share_of_memory_takes_it_from_the_one_above) {
    live s;
    live_write_model(&s);
    s.o.body_memory = 1 << 20;
    live_start_with(&s, 512, 2, 8, NULL);
    int fd = live_dial_from(&s, HOG, 0);
    char head[] = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                  "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
    char *blanks = malloc(990000), body[400001];
    memset(blanks, ' ', 990000);
    cr_assert(live_send(fd, head, sizeof head - 1) && live_send(fd, blanks, 990000));
    cr_assert(live_wait_metric(&s, "request_body_bytes", 990000));
    // As large as a share allows, and it is read.
    memset(body, ' ', 400000), body[400000] = '\0';
    static const char json[] = "{\"prompt\":[1],\"max_tokens\":1}";
    memcpy(body, json, sizeof json - 1);
    expect(live_ask_from(&s, OTHER, body), " 200 OK");
    expect(live_read(fd), " 429 ");
    cr_assert(live_wait_metric(&s, "request_body_bytes", 0));
    free(blanks);
    close(fd);
    live_stop(&s);
}

// A request whose X-Forwarded-For names a client.
static char *ask_for(const live *s, const char *client, const char *body) {
    char head[400];
    int fd = live_dial(s, 0);
    int n = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.9, %s\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     client, strlen(body));
    cr_assert(live_send(fd, head, (size_t)n) && live_send(fd, body, strlen(body)));
    char *out = live_read(fd);
    close(fd);
    return out;
}

Test(clients, a_trusted_proxy_says_whose_a_request_is_and_nobody_else_does) {
    for (int trusted = 0; trusted < 2; trusted++) {
        live s;
        sd_strings proxies = {.item = {"127.0.0.0/8"}, .n = trusted};
        live_write_model(&s);
        s.o.trusted_proxies = &proxies;
        live_start_with(&s, 16384, 1, 2, NULL);
        int held[3];
        for (int i = 0; i < 3; i++) held[i] = post_from(&s, "127.0.0.1", LONG_ONE);
        cr_assert(live_wait_metric(&s, "num_requests_waiting", 2));
        // Behind the same address: another client, or the one that has filled the queue.
        expect(ask_for(&s, "192.0.2.2", "{\"prompt\":[1],\"max_tokens\":2}"),
               trusted ? " 200 OK" : " 429 ");
        for (int i = 0; i < 3; i++) close(held[i]);
        cr_assert(live_wait_metric(&s, "num_requests_running", 0));
        live_stop(&s);
    }
}

// The kernel's timer of each connection on the server's port: /proc/net/tcp, "tr" 02 is keepalive.
static int kept_alive(int port) {
    char line[256];
    int n = 0;
    FILE *f = fopen("/proc/net/tcp", "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned local, state, timer;
        if (sscanf(line, " %*d: %*8x:%4x %*8x:%*4x %2x %*8x:%*8x %2x", &local, &state, &timer) == 3)
            n += local == (unsigned)port && state == 1 && timer == 2;
    }
    if (f) fclose(f);
    return n;
}

Test(clients, a_peer_that_vanishes_is_asked_for) {
    live s;
    live_start(&s, 512, 1, 2);
    int fd = live_dial_from(&s, OTHER, 0);
    bool seen = false;
    for (double end = sd_now_s() + 30; !seen && sd_now_s() < end; usleep(5000))
        seen = kept_alive(s.port) >= 1;
    cr_assert(seen);
    close(fd);
    live_stop(&s);
}
