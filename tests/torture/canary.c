// Clients whose answers must never be anybody else's.
//
//     canary PORT PID REQUESTS CLIENTS SEED [MODEL,MODEL...]   asks a running server; TAP on standard output
//     canary --write-adapter MODEL.gguf DIR                    a random adapter of the model, as PEFT writes it
//
// KINDS requests of all sorts (both endpoints, n, lists of prompts, stop strings, logprobs, adapters, greedy and sampled, echo) are
// asked alone first, whole and as a stream, which must agree. Then CLIENTS threads ask them at random, on connections that stay or
// are new, while a third of what they begin is left: in the middle of the request, while it waits or runs, in the middle of the
// answer, with a reset or without. Each whole answer must have the bytes of the one asked alone from "choices" through
// "usage" (but for the tokens that the prefix cache had), each stream its text, logprobs, ends and usage. Afterwards the server's descriptors, memory and gauges must be what they
// were after the first tenth.
#include "base/clock.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/adapter/adapter.h"
#include "tests/torture/lib/answers.h"
#include "tests/torture/lib/client.h"

#include <dirent.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KINDS = 64, MAX_MODELS = 4 };

static int port, pid, clients;
static int64_t requests;
static char *model_name[MAX_MODELS];
static int n_models;

typedef struct {
    const char *path;
    char *whole, *stream; // bodies
    char *bytes;          // "choices" to the end of "usage" of the whole answer
    char *meaning;        // text, logprobs, ends, usage
} kind;
static kind kinds[KINDS];

typedef struct {
    uint64_t state;
} dice;
static uint32_t roll(dice *d, uint32_t n) {
    d->state = sd_mix64(d->state + 0x9E3779B97F4A7C15u);
    return (uint32_t)(d->state >> 33) % n;
}

// ---- requests

static json_t *words(dice *d) {
    char text[256];
    size_t n = 0;
    for (int w = 1 + (int)roll(d, 12); w > 0 && n < sizeof text - 12; w--) {
        for (int l = 1 + (int)roll(d, 6); l > 0; l--) text[n++] = (char)('a' + roll(d, 8));
        text[n++] = ' ';
    }
    return json_stringn(text, n - 1);
}

static json_t *ids(dice *d) {
    json_t *list = json_array();
    for (int n = 1 + (int)roll(d, 12); n > 0; n--)
        json_array_append_new(list, json_integer(roll(d, 280)));
    return list;
}

static json_t *prompt(dice *d) {
    uint32_t shape = roll(d, 5);
    if (shape == 0) return ids(d);
    if (shape > 2) return words(d);
    json_t *list = json_array();
    for (int n = 2 + (int)roll(d, 2); n > 0; n--)
        json_array_append_new(list, shape == 1 ? ids(d) : words(d));
    return list;
}

static json_t *messages(dice *d) {
    json_t *list = json_array();
    if (roll(d, 3) == 0)
        json_array_append_new(list, json_pack("{s:s, s:o}", "role", "system", "content", words(d)));
    json_array_append_new(list, json_pack("{s:s, s:o}", "role", "user", "content", words(d)));
    return list;
}

static void make_kind(kind *k, int i) {
    static const double temperatures[] = {0, 0.7, 1, 1.5};
    dice d = {(uint64_t)i * 7919 + 1};
    bool chat = roll(&d, 2);
    json_t *b = json_object();
    k->path = chat ? "/v1/chat/completions" : "/v1/completions";
    json_object_set_new(b, "model", json_string(model_name[roll(&d, (uint32_t)n_models)]));
    json_object_set_new(b, chat ? "messages" : "prompt", chat ? messages(&d) : prompt(&d));
    json_object_set_new(b, "max_tokens", json_integer(1 + roll(&d, i % 8 == 0 ? 60 : 12)));
    json_object_set_new(b, "temperature", json_real(temperatures[roll(&d, 4)]));
    json_object_set_new(b, "seed", json_integer(i - 5));
    json_object_set_new(b, "n", json_integer(roll(&d, 3) ? 1 : 2 + roll(&d, 2)));
    json_object_set_new(b, "ignore_eos", json_boolean(roll(&d, 10) < 7));
    if (roll(&d, 3) == 0) json_object_set_new(b, "top_p", json_real(0.9));
    if (roll(&d, 3) == 0) json_object_set_new(b, "top_k", json_integer(5));
    if (roll(&d, 3) == 0) json_object_set_new(b, "min_p", json_real(0.05));
    if (roll(&d, 3) == 0)
        json_object_set_new(b, "stop", json_pack("[s, s]", roll(&d, 2) ? "a" : "e", " th"));
    bool logprobs = roll(&d, 3) == 0;
    if (logprobs && chat) {
        json_object_set_new(b, "logprobs", json_true());
        json_object_set_new(b, "top_logprobs", json_integer(roll(&d, 6)));
    } else if (logprobs) {
        json_object_set_new(b, "logprobs", json_integer(roll(&d, 6)));
    } else if (!chat && roll(&d, 4) == 0) {
        json_object_set_new(b, "echo", json_true());
    }
    if (roll(&d, 5) == 0) json_object_set_new(b, "speculative", json_pack("{s:b}", "enabled", 0));
    k->whole = client_must(json_dumps(b, JSON_COMPACT));
    json_object_set_new(b, "stream", json_true());
    json_object_set_new(b, "stream_options", json_pack("{s:b}", "include_usage", 1));
    k->stream = client_must(json_dumps(b, JSON_COMPACT));
    json_decref(b);
}

// ---- alone

static void ask_alone(kind *k) {
    static client c = {.fd = -1};
    sd_buf out = sd_buf_make(1 << 20), body = sd_buf_make(1 << 26);
    bool keep = true;
    for (int stream = 0; stream < 2; stream++) {
        if (c.fd < 0 && !client_dial(&c, port))
            client_die("canary: no connection to port %d", port);
        client_write_request(&out, k->path, stream ? k->stream : k->whole);
        int status = client_put(&c, out.data, out.len) ? client_read_answer(&c, &body, &keep) : 0;
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
        if (!keep) client_hang_up(&c, false);
    }
    sd_buf_free(&out);
    sd_buf_free(&body);
}

// ---- together

static atomic_llong asked, same, foreign, left, refused, broken;

static void report(const char *what, const kind *k, const char *got) {
    if (atomic_fetch_add(&foreign, 1) < 5) {
        printf("# %s: %s\n# got  %.600s\n# want %.600s\n", what, k->whole, got ? got : "nothing",
               k->meaning);
        fflush(stdout);
    }
}

// Leaves at a random place. True when the connection may go on: a half-closed one is read to its end.
static void leave(client *c, const kind *k, dice *d, sd_buf *out) {
    size_t n = client_write_request(out, k->path, roll(d, 2) ? k->stream : k->whole);
    if (roll(d, 3) == 0) n = roll(d, (uint32_t)n);
    client_put(c, out->data, n);
    if (roll(d, 3)) usleep(roll(d, 30000));
    char piece[200];
    if (n == out->len && roll(d, 4) == 0 && recv(c->fd, piece, sizeof piece, 0) < 0)
        atomic_fetch_add(&broken, 1);
    client_hang_up(c, roll(d, 2));
    atomic_fetch_add(&left, 1);
}

static void ask(client *c, const kind *k, dice *d, sd_buf *out, sd_buf *body) {
    bool stream = roll(d, 2), keep = false, shut = roll(d, 16) == 0;
    client_write_request(out, k->path, stream ? k->stream : k->whole);
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
        if (got && strcmp(got, stream ? k->meaning : k->bytes) == 0)
            atomic_fetch_add(&same, 1);
        else
            report(stream ? "a foreign stream" : "a foreign answer", k, got);
        free(got);
    }
    if (!keep || shut || roll(d, 8) == 0) client_hang_up(c, false);
}

static void *run_client(void *seed) {
    dice d = {*(uint64_t *)seed};
    client *c = client_must(calloc(1, sizeof *c));
    sd_buf out = sd_buf_make(1 << 20), body = sd_buf_make(1 << 26);
    c->fd = -1;
    while (atomic_fetch_add(&asked, 1) < requests) {
        const kind *k = &kinds[roll(&d, KINDS)];
        if (c->fd < 0 && !client_dial(c, port)) {
            atomic_fetch_add(&broken, 1);
            usleep(50000);
            continue;
        }
        if (roll(&d, 3) == 0)
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
    char mark[96];
    static const char get_page[] =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (!client_dial(&c, port) || !client_put(&c, get_page, sizeof get_page - 1) ||
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

static void say(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
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
        fprintf(stderr, "usage: canary PORT PID REQUESTS CLIENTS SEED [MODEL,MODEL...]\n");
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
    for (int i = 0; i < KINDS; i++) {
        make_kind(&kinds[i], i);
        ask_alone(&kinds[i]);
    }
    say(true, "%d kinds asked alone, whole and as streams, agree", KINDS);
    hammer(all / 10, seed);
    if (!wait_idle()) client_die("canary: the server is not idle after its clients left");
    int fds = descriptors();
    long kb = rss_kb();
    double begin = sd_now_s();
    hammer(all - all / 10, seed + 1);
    double took = sd_now_s() - begin;
    say(wait_idle(), "running, waiting, reading and held bytes are 0 afterwards");
    for (double end = sd_now_s() + 30; descriptors() > fds && sd_now_s() < end;) usleep(20000);
    long grown = rss_kb() - kb;
    printf("# %lld answered alike, %lld left, %lld turned away, %lld connections broken; %.0f a "
           "second; RSS %ld -> %ld KB, %d -> %d descriptors\n",
           (long long)same, (long long)left, (long long)refused, (long long)broken,
           (double)(all - all / 10) / took, kb, kb + grown, fds, descriptors());
    say(foreign == 0 && same > 0, "%lld answers are those of the same request alone, %lld differ",
        (long long)same, (long long)foreign);
    say(descriptors() <= fds, "as many descriptors as before");
    bool sanitized = getenv("CANARY_NO_RSS") != NULL; // a sanitizer keeps what was freed
    say(sanitized || grown < 2048 + kb / 50, "memory grew by %ld KB%s", grown,
        sanitized ? " (not judged)" : "");
    return failures > 0;
}
