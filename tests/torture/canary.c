// Clients whose answers must never be anybody else's.
//
//     canary PORT PID REQUESTS CLIENTS SEED [MODEL,MODEL...]   asks a running server; TAP on standard output
//     canary --write-adapter MODEL.gguf DIR                    a random adapter of the model, as PEFT writes it
//
// KINDS requests of all sorts (both endpoints, n, lists of prompts, stop strings, logprobs, adapters, greedy and sampled, echo) are
// asked alone first, whole and as a stream, which must agree. Then CLIENTS threads ask them at random, on connections that stay or
// are new, while a third of what they begin is left: in the middle of the request, while it waits or runs, in the middle of the
// answer, with a reset or without. Each whole answer must have the bytes of the one asked alone from "choices" to the end of
// "usage", each stream its text, logprobs, ends and usage. Afterwards the server's descriptors, memory and gauges must be what they
// were after the first tenth.
#include "base/clock.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/adapter/adapter.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KINDS = 64, MAX_MODELS = 4, PATIENCE_S = 600 };

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

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf("not ok - canary: ");
    vprintf(fmt, ap);
    printf("\n");
    exit(1);
}

static void *must(void *p) {
    if (!p) die("out of memory");
    return p;
}

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
    k->whole = must(json_dumps(b, JSON_COMPACT));
    json_object_set_new(b, "stream", json_true());
    json_object_set_new(b, "stream_options", json_pack("{s:b}", "include_usage", 1));
    k->stream = must(json_dumps(b, JSON_COMPACT));
    json_decref(b);
}

// ---- a connection

typedef struct {
    int fd;
    char in[1 << 16];
    size_t at, len;
} conn;

static bool dial(conn *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    c->at = c->len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {PATIENCE_S, 0};
    int on = 1;
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) == 0) return true;
    close(c->fd);
    c->fd = -1;
    return false;
}

static void hang_up(conn *c, bool reset) {
    struct linger now = {1, 0};
    if (c->fd < 0) return;
    if (reset) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(c->fd);
    c->fd = -1;
}

static bool put(conn *c, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n, len -= (size_t)n;
    }
    return true;
}

static int get(conn *c) {
    if (c->at == c->len) {
        ssize_t n = recv(c->fd, c->in, sizeof c->in, 0);
        if (n <= 0) return -1;
        c->at = 0, c->len = (size_t)n;
    }
    return (unsigned char)c->in[c->at++];
}

static bool get_line(conn *c, char *line, size_t cap) {
    size_t n = 0;
    for (int b; (b = get(c)) >= 0;) {
        if (b == '\n') {
            line[n] = '\0';
            return true;
        }
        if (b != '\r' && n + 1 < cap) line[n++] = (char)b;
    }
    return false;
}

static bool get_bytes(conn *c, sd_buf *out, size_t len) {
    while (len > 0) {
        int b = get(c);
        if (b < 0) return false;
        c->at--;
        size_t n = c->len - c->at < len ? c->len - c->at : len;
        if (!sd_buf_add(out, c->in + c->at, n)) die("out of memory");
        c->at += n, len -= n;
    }
    return true;
}

// An answer's status, 0 when the connection ended first; its body. keep: the connection stays.
static int read_answer(conn *c, sd_buf *body, bool *keep) {
    char line[1024];
    int status = 0;
    sd_buf_clear(body);
    do { // 100 Continue may stand before it
        if (!get_line(c, line, sizeof line) || sscanf(line, "HTTP/1.1 %d", &status) != 1) return 0;
        if (status == 100 && !get_line(c, line, sizeof line)) return 0;
    } while (status == 100);
    bool chunked = false;
    size_t length = 0;
    *keep = true;
    for (;;) {
        if (!get_line(c, line, sizeof line)) return 0;
        if (!line[0]) break;
        sscanf(line, "Content-Length: %zu", &length);
        if (strcmp(line, "Transfer-Encoding: chunked") == 0) chunked = true;
        if (strcmp(line, "Connection: close") == 0) *keep = false;
    }
    if (!chunked) return get_bytes(c, body, length) ? status : 0;
    for (;;) {
        size_t size;
        if (!get_line(c, line, sizeof line) || sscanf(line, "%zx", &size) != 1) return 0;
        if (!get_bytes(c, body, size) || !get_line(c, line, sizeof line)) return 0;
        if (size == 0) return status;
    }
}

static size_t write_request(sd_buf *out, const char *path, const char *body) {
    sd_buf_clear(out);
    if (!sd_buf_printf(out,
                       "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       path, strlen(body), body))
        die("out of memory");
    return out->len;
}

// ---- what an answer means

static char *bytes_of(const sd_buf *body) {
    const char *from = body->data ? strstr(body->data, "\"choices\":") : NULL;
    const char *to = from ? strstr(from, ",\"metrics\":{\"spec") : NULL;
    return to ? sd_strndup(from, (size_t)(to - from)) : NULL;
}

enum { MAX_ANSWERS = 64 };
typedef struct {
    sd_buf text[MAX_ANSWERS];
    json_t *logprobs[MAX_ANSWERS];
    const char *finish[MAX_ANSWERS]; // static
    json_t *usage;
    int n;
} collected;

static const char *finish_word(const json_t *v) {
    const char *s = json_string_value(v);
    return !s ? NULL : strcmp(s, "stop") == 0 ? "stop" : strcmp(s, "length") == 0 ? "length" : "?";
}

static void append_logprobs(json_t **to, json_t *more) {
    const char *key;
    json_t *list;
    if (!more || json_is_null(more)) return;
    if (!*to) {
        *to = json_deep_copy(more);
        return;
    }
    json_object_foreach(more, key, list) {
        if (json_is_array(list)) json_array_extend(json_object_get(*to, key), list);
    }
}

static void collect(collected *a, json_t *root) {
    size_t i;
    json_t *choice;
    json_array_foreach(json_object_get(root, "choices"), i, choice) {
        int index = (int)json_integer_value(json_object_get(choice, "index"));
        if (index < 0 || index >= MAX_ANSWERS) die("a choice of index %d", index);
        if (index >= a->n) a->n = index + 1;
        json_t *part = json_object_get(choice, "message"), *text;
        if (!part) part = json_object_get(choice, "delta");
        text = part ? json_object_get(part, "content") : json_object_get(choice, "text");
        if (!a->text[index].max) a->text[index] = sd_buf_make(1 << 24);
        if (text && !sd_buf_add(&a->text[index], json_string_value(text), json_string_length(text)))
            die("out of memory");
        const char *finish = finish_word(json_object_get(choice, "finish_reason"));
        if (finish) a->finish[index] = finish;
        append_logprobs(&a->logprobs[index], json_object_get(choice, "logprobs"));
    }
    json_t *usage = json_object_get(root, "usage");
    if (usage && json_is_object(usage)) {
        json_decref(a->usage);
        a->usage = json_incref(usage);
    }
}

static char *meaning_of(collected *a) {
    json_t *all = json_array();
    for (int i = 0; i < a->n; i++) {
        json_t *lp = a->logprobs[i] ? a->logprobs[i] : json_null();
        json_array_append_new(
            all, json_pack("[o, s?, o]",
                           json_stringn(a->text[i].data ? a->text[i].data : "", a->text[i].len),
                           a->finish[i], lp));
        sd_buf_free(&a->text[i]);
    }
    json_array_append_new(all, a->usage ? a->usage : json_null());
    char *out = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    *a = (collected){0};
    return out;
}

static char *meaning_of_whole(const sd_buf *body) {
    collected a = {0};
    json_t *root = json_loadb(body->data, body->len, JSON_ALLOW_NUL, NULL);
    if (root) collect(&a, root);
    char *out = meaning_of(&a);
    json_decref(root);
    return out;
}

// NULL when the stream has an error or no end.
static char *meaning_of_stream(const sd_buf *body) {
    collected a = {0};
    bool done = false, bad = false;
    const char *at = body->data, *end = at ? at + body->len : at;
    while (at < end && !bad) {
        const char *stop = memmem(at, (size_t)(end - at), "\n\n", 2);
        if (!stop || strncmp(at, "data: ", 6) != 0) break;
        if (strncmp(at, "data: [DONE]", 12) == 0) {
            done = stop + 2 == end;
        } else {
            json_t *root = json_loadb(at + 6, (size_t)(stop - at) - 6, JSON_ALLOW_NUL, NULL);
            if (!root || json_object_get(root, "error")) bad = true;
            if (root) collect(&a, root);
            json_decref(root);
        }
        at = stop + 2;
    }
    char *out = meaning_of(&a);
    if (done && !bad) return out;
    free(out);
    return NULL;
}

// ---- alone

static void ask_alone(kind *k) {
    static conn c = {.fd = -1};
    sd_buf out = sd_buf_make(1 << 20), body = sd_buf_make(1 << 26);
    bool keep = true;
    for (int stream = 0; stream < 2; stream++) {
        if (c.fd < 0 && !dial(&c)) die("no connection to port %d", port);
        write_request(&out, k->path, stream ? k->stream : k->whole);
        int status = put(&c, out.data, out.len) ? read_answer(&c, &body, &keep) : 0;
        if (status != 200) die("%d for %s: %.300s", status, k->whole, body.data ? body.data : "");
        if (!stream) {
            k->bytes = must(bytes_of(&body));
            k->meaning = must(meaning_of_whole(&body));
        } else {
            char *same = meaning_of_stream(&body);
            if (!same || strcmp(same, k->meaning) != 0)
                die("a stream differs from the whole answer of %s:\n# %s\n# %s", k->whole,
                    same ? same : "no end", k->meaning);
            free(same);
        }
        if (!keep) hang_up(&c, false);
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
static void leave(conn *c, const kind *k, dice *d, sd_buf *out) {
    size_t n = write_request(out, k->path, roll(d, 2) ? k->stream : k->whole);
    if (roll(d, 3) == 0) n = roll(d, (uint32_t)n);
    put(c, out->data, n);
    if (roll(d, 3)) usleep(roll(d, 30000));
    char piece[200];
    if (n == out->len && roll(d, 4) == 0 && recv(c->fd, piece, sizeof piece, 0) < 0)
        atomic_fetch_add(&broken, 1);
    hang_up(c, roll(d, 2));
    atomic_fetch_add(&left, 1);
}

static void ask(conn *c, const kind *k, dice *d, sd_buf *out, sd_buf *body) {
    bool stream = roll(d, 2), keep = false, shut = roll(d, 16) == 0;
    write_request(out, k->path, stream ? k->stream : k->whole);
    bool sent = put(c, out->data, out->len);
    if (shut) shutdown(c->fd, SHUT_WR); // it still waits for its answer
    int status = sent ? read_answer(c, body, &keep) : 0;
    if (status == 429 || status == 503) {
        atomic_fetch_add(&refused, 1);
        usleep(20000);
    } else if (status != 200) {
        if (status == 0) atomic_fetch_add(&broken, 1);
        report(status ? "a bad status" : "no answer", k, body->data);
    } else {
        char *got = stream ? meaning_of_stream(body) : bytes_of(body);
        if (got && strcmp(got, stream ? k->meaning : k->bytes) == 0)
            atomic_fetch_add(&same, 1);
        else
            report(stream ? "a foreign stream" : "a foreign answer", k, got);
        free(got);
    }
    if (!keep || shut || roll(d, 8) == 0) hang_up(c, false);
}

static void *run_client(void *seed) {
    dice d = {*(uint64_t *)seed};
    conn *c = must(calloc(1, sizeof *c));
    sd_buf out = sd_buf_make(1 << 20), body = sd_buf_make(1 << 26);
    c->fd = -1;
    while (atomic_fetch_add(&asked, 1) < requests) {
        const kind *k = &kinds[roll(&d, KINDS)];
        if (c->fd < 0 && !dial(c)) {
            atomic_fetch_add(&broken, 1);
            usleep(50000);
            continue;
        }
        if (roll(&d, 3) == 0)
            leave(c, k, &d, &out);
        else
            ask(c, k, &d, &out, &body);
    }
    hang_up(c, false);
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
    conn c;
    sd_buf body = sd_buf_make(1 << 22);
    bool keep;
    char mark[96];
    static const char get_page[] =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (!dial(&c) || !put(&c, get_page, sizeof get_page - 1) ||
        read_answer(&c, &body, &keep) != 200)
        die("no metrics");
    hang_up(&c, false);
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
        if (pthread_create(&thread[i], NULL, run_client, &seeds[i]) != 0) die("no thread");
    }
    for (int i = 0; i < clients; i++) pthread_join(thread[i], NULL);
}

static int write_adapter(const char *path, const char *dir) {
    sd_model *m = NULL;
    sd_adapter *a = NULL;
    sd_error err = {0};
    if (sd_model_open(&m, path, &err) != SD_OK) die("%s", err.message);
    int slots = m->n_linears;
    sd_lora *lora = must(calloc((size_t)slots, sizeof *lora));
    uint64_t seed = 1;
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        rows = m->linear[i].w.rows, cols = m->linear[i].w.cols;
        float *f = must(calloc((size_t)(4 * (rows + cols)), sizeof *f));
        for (int k = 0; k < 4 * (rows + cols); k++)
            f[k] = ((float)(sd_mix64(seed++) % 2001) - 1000) * 1e-4f;
        lora[i] = (sd_lora){.r = 4, .A = f, .B = f + 4 * cols, .scale = 1};
    }
    if (sd_mkdirs(dir, &err) != SD_OK || sd_adapter_from_factors(&a, "x", lora, m, &err) != SD_OK ||
        sd_adapter_write_peft(dir, a, m, NULL, &err) != SD_OK)
        die("%s", err.message);
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
    if (clients < 1 || clients > 64) die("1 to 64 clients");
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
    if (!wait_idle()) die("the server is not idle after its clients left");
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
