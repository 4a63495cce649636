// Clients whose answers must never be anybody else's.
//
//     canary PORT PID REQUESTS CLIENTS SEED [MODEL,MODEL... [KEYS]]   asks a running server; TAP on standard output
//     canary --write-adapter MODEL.gguf DIR                           a random adapter of the model, as PEFT writes it
//
// Requests of all sorts (lib/kinds.h) are asked alone first, whole and as a stream, which must agree. Then
// CLIENTS threads ask them at random, on connections that stay or are new, while a third of what they begin
// is left: in the middle of the request, while it waits or runs, in the middle of the answer, with a reset or
// without. Each whole answer must have the bytes of the one asked alone from "choices" through "usage" (but for
// the tokens that the prefix cache had), each stream its text, logprobs, ends and usage. Afterwards the
// server's descriptors and gauges must be what they were at first, its memory what it was after a tenth.
//
// KEYS, the server's file of keys: each is a tenant. No answer may have another tenant's marker, and no
// tenant finds in the prefix cache what another one's prompt has computed.
#include "base/clock.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "tests/torture/lib/answers.h"
#include "tests/torture/lib/client.h"
#include "tests/torture/lib/kinds.h"

#include <dirent.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KINDS = 64, TENANTS_KINDS = 128, MAX_MODELS = 4 };

static int port, pid, clients;
static int64_t requests;
static char *model_name[MAX_MODELS];
static int n_models;
static kind_tenant tenant[KIND_TENANTS];
static int n_tenants;
static kind kinds[TENANTS_KINDS];
static int n_kinds = KINDS;

// The file's lines; it stays in memory.
static void read_keys(const char *path) {
    static char text[4096];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (!f || n == 0) client_die("canary: %s: no keys there", path);
    fclose(f);
    for (char *key = strtok(text, "\n"); key && n_tenants < KIND_TENANTS;
         key = strtok(NULL, "\n")) {
        tenant[n_tenants].key = key;
        kind_mark(&tenant[n_tenants], n_tenants);
        n_tenants++;
    }
    n_kinds = TENANTS_KINDS;
}

// ---- alone

static void ask_alone(client *c, kind *k) {
    sd_buf out = sd_buf_make(1 << 20), body = sd_buf_make(1 << 26);
    bool keep = true;
    for (int stream = 0; stream < 2; stream++) {
        if (c->fd < 0 && !client_dial(c, port))
            client_die("canary: no connection to port %d", port);
        client_write_request(&out, k->path, k->key, stream ? k->stream : k->whole);
        int status = client_put(c, out.data, out.len) ? client_read_answer(c, &body, &keep) : 0;
        if (status != 200)
            client_die("canary: %d for %s: %.300s", status, k->whole, body.data ? body.data : "");
        if (!stream) {
            k->bytes = client_must(answer_bytes(&body));
            k->meaning = client_must(answer_meaning_of_whole(&body));
        } else {
            char *same = answer_meaning_of_stream(&body);
            if (!same || strcmp(same, k->meaning) != 0)
                client_die("canary: a stream differs from the whole answer of %s:\n# %s\n# %s",
                           k->whole, same ? same : "no end", k->meaning);
            free(same);
        }
        if (!keep) client_hang_up(c, false);
    }
    sd_buf_free(&out);
    sd_buf_free(&body);
}

// ---- together

static atomic_llong asked, same, foreign, left, refused, broken;
static void say(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static atomic_llong own_markers, foreign_markers; // answers that have one

static void report(const char *what, const kind *k, const char *got) {
    if (atomic_fetch_add(&foreign, 1) < 5) {
        printf("# %s: %s\n# got  %.600s\n# want %.600s\n", what, k->whole, got ? got : "nothing",
               k->meaning);
        fflush(stdout);
    }
}

// Looks for markers in an answer, also in one that differs.
static void look_for_markers(const kind *k, const char *answer) {
    for (int t = 0; t < n_tenants && answer; t++) {
        if (!strstr(answer, tenant[t].marker)) continue;
        atomic_fetch_add(t == k->tenant ? &own_markers : &foreign_markers, 1);
        if (t != k->tenant) report("another tenant's marker", k, answer);
    }
}

// Leaves at a random place. True when the connection may go on: a half-closed one is read to its end.
static void leave(client *c, const kind *k, kind_dice *d, sd_buf *out) {
    size_t n = client_write_request(out, k->path, k->key, kind_roll(d, 2) ? k->stream : k->whole);
    if (kind_roll(d, 3) == 0) n = kind_roll(d, (uint32_t)n);
    client_put(c, out->data, n);
    if (kind_roll(d, 3)) usleep(kind_roll(d, 30000));
    char piece[200];
    if (n == out->len && kind_roll(d, 4) == 0 && recv(c->fd, piece, sizeof piece, 0) < 0)
        atomic_fetch_add(&broken, 1);
    client_hang_up(c, kind_roll(d, 2));
    atomic_fetch_add(&left, 1);
}

static void ask(client *c, const kind *k, kind_dice *d, sd_buf *out, sd_buf *body) {
    bool stream = kind_roll(d, 2), keep = false, shut = kind_roll(d, 16) == 0;
    client_write_request(out, k->path, k->key, stream ? k->stream : k->whole);
    bool sent = client_put(c, out->data, out->len);
    if (shut) shutdown(c->fd, SHUT_WR); // it still waits for its answer
    int status = sent ? client_read_answer(c, body, &keep) : 0;
    if (status == 429 || status == 503) {
        atomic_fetch_add(&refused, 1);
        usleep(20000);
    } else if (status != 200) {
        if (status == 0) atomic_fetch_add(&broken, 1);
        report(status ? "a bad status" : "no answer", k, body->data);
    } else {
        char *got = stream ? answer_meaning_of_stream(body) : answer_bytes(body);
        look_for_markers(k, stream ? got : body->data); // a stream's pieces cut words
        if (got && strcmp(got, stream ? k->meaning : k->bytes) == 0)
            atomic_fetch_add(&same, 1);
        else
            report(stream ? "a foreign stream" : "a foreign answer", k, got);
        free(got);
    }
    if (!keep || shut || kind_roll(d, 8) == 0) client_hang_up(c, false);
}

static void *run_client(void *seed) {
    kind_dice d = {*(uint64_t *)seed};
    client *c = client_must(calloc(1, sizeof *c));
    sd_buf out = sd_buf_make(1 << 20), body = sd_buf_make(1 << 26);
    c->fd = -1;
    while (atomic_fetch_add(&asked, 1) < requests) {
        const kind *k = &kinds[kind_roll(&d, (uint32_t)n_kinds)];
        if (c->fd < 0 && !client_dial(c, port)) {
            atomic_fetch_add(&broken, 1);
            usleep(50000);
            continue;
        }
        if (kind_roll(&d, 3) == 0)
            leave(c, k, &d, &out);
        else
            ask(c, k, &d, &out, &body);
    }
    client_hang_up(c, false);
    sd_buf_free(&out);
    sd_buf_free(&body);
    free(c);
    return NULL;
}

// ---- what a tenant finds

// Tokens that were found of a prompt asked with a key.
static int found(const char *key, const char *body) {
    client c = {.fd = -1};
    sd_buf out = sd_buf_make(1 << 20), answer = sd_buf_make(1 << 22);
    bool keep;
    client_write_request(&out, "/v1/completions", key, body);
    if (!client_dial(&c, port) || !client_put(&c, out.data, out.len) ||
        client_read_answer(&c, &answer, &keep) != 200)
        client_die("canary: no answer for %.200s", body);
    client_hang_up(&c, false);
    const char *at = strstr(answer.data, "\"cached_tokens\":");
    if (!at) client_die("canary: no cached_tokens in %.300s", answer.data);
    int n = atoi(at + strlen("\"cached_tokens\":"));
    sd_buf_free(&out);
    sd_buf_free(&answer);
    return n;
}

// Each tenant's prompt is asked by all tenants in turn, twice: the first time of each it is new.
static void probe_tenants(void) {
    int others = 0, own = 0;
    for (int p = 0; p < n_tenants; p++) {
        char *body = kind_probe(p, model_name[p % n_models]);
        for (int i = 0; i < n_tenants; i++) {
            const char *key = tenant[(p + i) % n_tenants].key;
            others += found(key, body) > 0;
            own += found(key, body) > 0;
        }
        free(body);
    }
    say(others == 0 && own == n_tenants * n_tenants,
        "of %d prompts new to a tenant %d were found, which others had asked; %d of %d asked again "
        "were found",
        n_tenants * n_tenants, others, own, n_tenants * n_tenants);
}

// ---- the server afterwards

static int descriptors(void) {
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *d = opendir(path);
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static long rss_kb(void) {
    char path[64], line[256];
    long kb = -1;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmRSS: %ld", &kb);
    if (f) fclose(f);
    return kb;
}

static double gauge(const char *name) {
    client c;
    sd_buf body = sd_buf_make(1 << 22);
    bool keep;
    char mark[96], head[256];
    const char *key = n_tenants > 0 ? tenant[0].key : NULL;
    int n = snprintf(head, sizeof head,
                     "GET /metrics HTTP/1.1\r\nHost: localhost\r\n%s%s%sConnection: close\r\n\r\n",
                     key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "");
    if (!client_dial(&c, port) || !client_put(&c, head, (size_t)n) ||
        client_read_answer(&c, &body, &keep) != 200)
        client_die("canary: no metrics");
    client_hang_up(&c, false);
    double value = -1;
    // With whichever prefix the names have.
    snprintf(mark, sizeof mark, "%s{", name);
    for (const char *at = body.data; (at = strstr(at, mark)); at++)
        if (at > body.data && (at[-1] == ':' || at[-1] == '_')) {
            value = atof(strchr(at, '}') + 1);
            break;
        }
    sd_buf_free(&body);
    return value;
}

static bool idle(void) {
    static const char *const names[] = {"num_requests_running", "num_requests_waiting",
                                        "num_requests_reading", "request_body_bytes"};
    for (int i = 0; i < 4; i++)
        if (gauge(names[i]) != 0) return false;
    return true;
}

static bool wait_idle(void) {
    for (double end = sd_now_s() + 60; sd_now_s() < end; usleep(20000))
        if (idle()) return true;
    return false;
}

static int failures;
static void say(bool ok, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf(ok ? "ok - canary: " : "not ok - canary: ");
    vprintf(fmt, ap);
    printf("\n");
    fflush(stdout);
    failures += !ok;
}

static void hammer(int64_t n, uint64_t seed) {
    pthread_t thread[64];
    uint64_t seeds[64];
    requests = n;
    atomic_store(&asked, 0);
    for (int i = 0; i < clients; i++) {
        seeds[i] = sd_mix64(seed * 64 + (uint64_t)i);
        if (pthread_create(&thread[i], NULL, run_client, &seeds[i]) != 0)
            client_die("canary: no thread");
    }
    for (int i = 0; i < clients; i++) pthread_join(thread[i], NULL);
}

static int write_adapter(const char *path, const char *dir) {
    sd_model *m = NULL;
    sd_adapter *a = NULL;
    sd_error err = {0};
    if (sd_model_open(&m, path, &err) != SD_OK) client_die("canary: %s", err.message);
    int slots = m->n_linears;
    sd_lora *lora = client_must(calloc((size_t)slots, sizeof *lora));
    uint64_t seed = 1;
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        rows = m->linear[i].w.rows, cols = m->linear[i].w.cols;
        float *f = client_must(calloc((size_t)(4 * (rows + cols)), sizeof *f));
        for (int k = 0; k < 4 * (rows + cols); k++)
            f[k] = ((float)(sd_mix64(seed++) % 2001) - 1000) * 1e-4f;
        lora[i] = (sd_lora){.r = 4, .A = f, .B = f + 4 * cols, .scale = 1};
    }
    if (sd_mkdirs(dir, &err) != SD_OK || sd_adapter_from_factors(&a, "x", lora, m, &err) != SD_OK ||
        sd_adapter_write_peft(dir, a, m, NULL, &err) != SD_OK)
        client_die("canary: %s", err.message);
    for (int i = 0; i < slots; i++) free((void *)(uintptr_t)lora[i].A);
    free(lora);
    sd_adapter_release(a);
    sd_model_release(m);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--write-adapter") == 0)
        return write_adapter(argv[2], argv[3]);
    if (argc < 6) {
        fprintf(stderr, "usage: canary PORT PID REQUESTS CLIENTS SEED [MODEL,MODEL... [KEYS]]\n");
        return 2;
    }
    port = atoi(argv[1]), pid = atoi(argv[2]), clients = atoi(argv[4]);
    int64_t all = atoll(argv[3]);
    uint64_t seed = strtoull(argv[5], NULL, 10);
    if (clients < 1 || clients > 64) client_die("canary: 1 to 64 clients");
    char none[] = "";
    for (char *name = argc > 6 ? strtok(argv[6], ",") : NULL; name && n_models < MAX_MODELS;
         name = strtok(NULL, ","))
        model_name[n_models++] = name;
    if (n_models == 0) model_name[n_models++] = none; // the base
    if (argc > 7) read_keys(argv[7]);
    int fds = descriptors();
    client one = {.fd = -1};
    for (int i = 0; i < n_kinds; i++) {
        kind_make(&kinds[i], i, model_name, n_models, tenant, n_tenants);
        ask_alone(&one, &kinds[i]);
    }
    client_hang_up(&one, false);
    say(true, "%d kinds asked alone, whole and as streams, agree", n_kinds);
    if (n_tenants > 0) probe_tenants();
    hammer(all / 10, seed);
    if (!wait_idle()) client_die("canary: the server is not idle after its clients left");
    long kb = rss_kb();
    double begin = sd_now_s();
    hammer(all - all / 10, seed + 1);
    double took = sd_now_s() - begin;
    say(wait_idle(), "running, waiting, reading and held bytes are 0 afterwards");
    // A connection that the server ends lingers for the client's last bytes.
    for (double end = sd_now_s() + 30; descriptors() > fds && sd_now_s() < end;) usleep(20000);
    int fds_after = descriptors();
    long grown = rss_kb() - kb;
    printf("# %lld answered alike, %lld left, %lld turned away, %lld connections broken; %.0f a "
           "second; RSS %ld -> %ld KB, %d -> %d descriptors\n",
           (long long)same, (long long)left, (long long)refused, (long long)broken,
           (double)(all - all / 10) / took, kb, kb + grown, fds, fds_after);
    say(foreign == 0 && same > 0, "%lld answers are those of the same request alone, %lld differ",
        (long long)same, (long long)foreign);
    if (n_tenants > 0) {
        say(foreign_markers == 0 && own_markers > 0,
            "%lld answers of %d tenants had a foreign marker, %lld their own",
            (long long)foreign_markers, n_tenants, (long long)own_markers);
        say(gauge("prefix_cache_hits_total") > 0,
            "the prefix cache was used: %.0f of %.0f tokens found",
            gauge("prefix_cache_hits_total"), gauge("prefix_cache_queries_total"));
    }
    say(fds_after >= 0 && fds_after <= fds, "%d descriptors, as before the first request",
        fds_after);
    bool sanitized = getenv("CANARY_NO_RSS") != NULL; // a sanitizer keeps what was freed
    say(sanitized || grown < 2048 + kb / 50, "memory grew by %ld KB%s", grown,
        sanitized ? " (not judged)" : "");
    return failures > 0;
}
