// Sockets without a client library: a test says which bytes go out when. What must not happen
// aborts, which fails the test under every runner of tests.
#include "tests/unit/support/live.h"

#include "tests/unit/support/must.h"

#include "base/clock.h"
#include "base/files/hash.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/support/tiny/model.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_ready(void *ctx, const char *address) {
    live *s = ctx;
    s->port = atoi(strrchr(address, ':') + 1);
    sem_post(&s->ready);
}

static void *serve(void *ctx) {
    live *s = ctx;
    s->st = sd_serve(&s->o, &s->err);
    if (s->st != SD_OK) sem_post(&s->ready);
    return NULL;
}

void live_write_model(live *s) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.ctx = 16384;
    *s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "tiny.gguf");
    MUST(sd_tiny_write_gguf(s->model, &t, &s->err) == SD_OK, "%s", s->err.message);
}

static char key_line[96];

const char *live_key_line(void) {
    return key_line;
}

void live_give_admin_key(live *s) {
    static const char key[] = "the-key-of-an-administrator";
    sd_sha256 hash;
    MUST(sd_sha256_of(&hash, key, sizeof key - 1, &s->err) == SD_OK, "%s", s->err.message);
    char *line = sd_sprintf("ops sha256:%s admin\n", hash.hex);
    s->key_file = sd_path_join(s->dir, "keys");
    MUST(sd_file_write(s->key_file, line, strlen(line), &s->err) == SD_OK, "%s", s->err.message);
    snprintf(key_line, sizeof key_line, "Authorization: Bearer %s\r\n", key);
    s->o.key_file = s->key_file;
    free(line);
}

void live_start_with(live *s, int ctx, int slots, int queue, const sd_strings *adapters) {
    sem_init(&s->ready, 0, 0);
    s->o.model = s->model;
    s->o.adapters = adapters;
    s->o.engine = (sd_engine_options){.ctx = ctx,
                                      .slots = slots,
                                      .queue = queue,
                                      .threads = 2,
                                      .compute = s->o.engine.compute,
                                      .draft = s->o.engine.draft,
                                      .spec = s->o.engine.spec,
                                      .spec_length = s->o.engine.spec_length,
                                      .sleep_idle_s = s->o.engine.sleep_idle_s};
    s->o.on_ready = on_ready;
    s->o.ctx = s;
    MUST(pthread_create(&s->thread, NULL, serve, s) == 0, "no thread");
    sem_wait(&s->ready);
    MUST(s->port > 0, "%s", s->err.message);
}

void live_start(live *s, int ctx, int slots, int queue) {
    live_write_model(s);
    live_start_with(s, ctx, slots, queue, NULL);
}

void live_stop(live *s) {
    kill(getpid(), SIGTERM);
    live_join(s);
}

void live_join(live *s) {
    pthread_join(s->thread, NULL);
    MUST(s->st == SD_OK, "%s", s->err.message);
    sem_destroy(&s->ready);
    free(s->model), free(s->key_file);
    sd_tiny_remove(s->dir);
}

int live_dial(const live *s, int receive_buffer) {
    return live_dial_from(s, "127.0.0.1", receive_buffer);
}

int live_dial_from(const live *s, const char *source, int receive_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET};
    inet_pton(AF_INET, source, &own.sin_addr);
    MUST(fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof own) == 0, "no socket at %s", source);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    if (receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    struct timeval limit = {60, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool live_send(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

bool live_post(int fd, const char *body) {
    return live_post_to(fd, "completions", body);
}

bool live_post_to(int fd, const char *route, const char *body) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST /v1/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     route, key_line, strlen(body));
    return live_send(fd, head, (size_t)n) && live_send(fd, body, strlen(body));
}

// All bytes until the server closes, 0-terminated; the caller frees.
char *live_read(int fd) {
    sd_buf b = sd_buf_make(64 << 20);
    char piece[16384];
    ssize_t n;
    while ((n = recv(fd, piece, sizeof piece, 0)) > 0) sd_buf_add(&b, piece, (size_t)n);
    if (!b.data) sd_buf_adds(&b, "");
    return b.data;
}

bool live_began(int fd) {
    char c;
    return recv(fd, &c, 1, MSG_PEEK) == 1;
}

char *live_ask_at(const live *s, const char *route, const char *body) {
    int fd = live_dial(s, 0);
    MUST(fd >= 0 && live_post_to(fd, route, body), "no answer to %s", body);
    char *out = live_read(fd);
    close(fd);
    return out;
}

json_t *live_json(const live *s, const char *route, const char *body, int status) {
    char *out = live_ask_at(s, route, body);
    char *at = strstr(out, "\r\n\r\n");
    MUST(at && strlen(out) > 12 && atoi(out + 9) == status, "%s: %s", body, out);
    json_t *v = json_loads(at + 4, 0, NULL);
    MUST(v, "no JSON: %s", out);
    free(out);
    return v;
}

json_t *live_chat(const live *s, const char *body) {
    return live_json(s, "chat/completions", body, 200);
}

const json_t *live_at(const json_t *v, const char *path) {
    char key[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        v = json_is_array(v) ? json_array_get(v, (size_t)atoi(key)) : json_object_get(v, key);
        path += n + (path[n] == '.');
    }
    return v;
}

const char *live_text_at(const json_t *v, const char *path) {
    const char *s = json_string_value(live_at(v, path));
    return s ? s : "(none)";
}

char *live_ask(const live *s, const char *body) {
    return live_ask_from(s, "127.0.0.1", body);
}

char *live_ask_from(const live *s, const char *source, const char *body) {
    int fd = live_dial_from(s, source, 0);
    char *out = fd >= 0 && live_post(fd, body) ? live_read(fd) : sd_strdup("");
    if (fd >= 0) close(fd);
    return out;
}

char *live_get(const live *s, const char *path) {
    char get[256];
    int fd = live_dial(s, 0);
    snprintf(get, sizeof get, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n",
             path, key_line);
    MUST(fd >= 0 && live_send(fd, get, strlen(get)), "%s could not be sent", path);
    char *out = live_read(fd);
    close(fd);
    return out;
}

double live_metric(const live *s, const char *name) {
    char *page = live_get(s, "/metrics"), line[128];
    snprintf(line, sizeof line, "\nspecdec_%s{", name);
    const char *at = strstr(page, line);
    MUST(at, "no metric %s", name);
    double value = atof(strchr(at, '}') + 1);
    free(page);
    return value;
}

bool live_wait_metric(const live *s, const char *name, double value) {
    for (double end = sd_now_s() + 120; sd_now_s() < end; usleep(5000))
        if (live_metric(s, name) == value) return true;
    return false;
}

// What stands between "choices" and its end: the answer without ids and times.
char *live_answer(char *response) {
    char *from = strstr(response, "\"choices\""), *to = from ? strstr(from, "\"usage\"") : NULL;
    char *out = to ? sd_strndup(from, (size_t)(to - from)) : NULL;
    free(response);
    return out;
}
