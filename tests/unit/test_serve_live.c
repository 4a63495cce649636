// The server in this process over a tiny random model and real sockets: what threads and sanitizers
// must see. The API's fine print is tested in test_api_request.c and over the binary in tests/e2e.
#include "base/clock.h"
#include "base/file.h"
#include "datasets/corpus_index.h"
#include "decode/serve/serve.h"
#include "tests/unit/support_tiny_model.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    sd_serve_options o;
    char *dir, *model;
    pthread_t thread;
    sem_t ready;
    int port;
    sd_status st;
    sd_error err;
} live;

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

static void write_model(live *s) {
    sd_tiny_model t = sd_tiny_default(SD_ARCH_LLAMA);
    t.ctx = 16384;
    *s = (live){.dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(s->model, &t, &s->err), SD_OK, "%s", s->err.message);
}

static void start_with(live *s, int ctx, int slots, int queue, const sd_strings *adapters) {
    sem_init(&s->ready, 0, 0);
    s->o = (sd_serve_options){.model = s->model,
                              .adapters = adapters,
                              .port = 0,
                              .drain_s = 20,
                              .engine = {.ctx = ctx, .slots = slots, .queue = queue, .threads = 2},
                              .on_ready = on_ready,
                              .ctx = s};
    cr_assert_eq(pthread_create(&s->thread, NULL, serve, s), 0);
    sem_wait(&s->ready);
    cr_assert_gt(s->port, 0, "%s", s->err.message);
}

static void start(live *s, int ctx, int slots, int queue) {
    write_model(s);
    start_with(s, ctx, slots, queue, NULL);
}

static void stop(live *s) {
    kill(getpid(), SIGTERM);
    pthread_join(s->thread, NULL);
    cr_assert_eq(s->st, SD_OK, "%s", s->err.message);
    sem_destroy(&s->ready);
    free(s->model);
    sd_tiny_remove(s->dir);
}

static int dial(const live *s, int receive_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
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

static bool send_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool post(int fd, const char *body) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     strlen(body));
    return send_all(fd, head, (size_t)n) && send_all(fd, body, strlen(body));
}

// All bytes until the server closes, 0-terminated; the caller frees.
static char *read_all(int fd) {
    sd_buf b = sd_buf_make(64 << 20);
    char piece[16384];
    ssize_t n;
    while ((n = recv(fd, piece, sizeof piece, 0)) > 0) sd_buf_add(&b, piece, (size_t)n);
    if (!b.data) sd_buf_adds(&b, "");
    return b.data;
}

static char *ask(const live *s, const char *body) {
    int fd = dial(s, 0);
    char *out = fd >= 0 && post(fd, body) ? read_all(fd) : sd_strdup("");
    if (fd >= 0) close(fd);
    return out;
}

static double metric(const live *s, const char *name) {
    int fd = dial(s, 0);
    const char *get = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    cr_assert(fd >= 0 && send_all(fd, get, strlen(get)));
    char *page = read_all(fd), line[128];
    close(fd);
    snprintf(line, sizeof line, "\nspecdec:%s{", name);
    const char *at = strstr(page, line);
    cr_assert_not_null(at, "no metric %s", name);
    double value = atof(strchr(at, '}') + 1);
    free(page);
    return value;
}

static bool wait_metric(const live *s, const char *name, double value) {
    for (double end = sd_now_s() + 120; sd_now_s() < end; usleep(5000))
        if (metric(s, name) == value) return true;
    return false;
}

// What stands between "choices" and its end: the answer without ids and times.
static char *answer_of(char *response) {
    char *from = strstr(response, "\"choices\""), *to = from ? strstr(from, "\"usage\"") : NULL;
    char *out = to ? sd_strndup(from, (size_t)(to - from)) : NULL;
    free(response);
    return out;
}

enum { CLIENTS = 16 };

typedef struct {
    const live *s;
    int i;
    char *answer;
} client;

static void *run_client(void *ctx) {
    client *c = ctx;
    char body[256];
    snprintf(body, sizeof body,
             "{\"prompt\":[%d,%d,7],\"max_tokens\":%d,\"temperature\":%d,\"seed\":%d,"
             "\"ignore_eos\":true,\"logprobs\":2,\"n\":%d}",
             c->i, c->i + 30, 20 + c->i, c->i % 2, c->i, 1 + c->i % 3);
    c->answer = answer_of(ask(c->s, body));
    return NULL;
}

Test(live, clients_at_once_get_what_each_gets_alone) {
    live s;
    start(&s, 512, 4, 64);
    client alone[CLIENTS], together[CLIENTS];
    pthread_t thread[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        alone[i] = (client){&s, i, NULL};
        run_client(&alone[i]);
        cr_assert_not_null(alone[i].answer);
    }
    for (int i = 0; i < CLIENTS; i++) {
        together[i] = (client){&s, i, NULL};
        pthread_create(&thread[i], NULL, run_client, &together[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(thread[i], NULL);
        cr_assert_not_null(together[i].answer);
        cr_assert_str_eq(together[i].answer, alone[i].answer);
        free(together[i].answer);
        free(alone[i].answer);
    }
    stop(&s);
}

static void *run_leaver(void *ctx) {
    client *c = ctx;
    for (int k = 0; k < 12; k++) {
        int fd = dial(c->s, 0);
        post(fd, k % 2 ? "{\"prompt\":[1,2,3],\"max_tokens\":4000,\"ignore_eos\":true,\"n\":2}"
                       : "{\"prompt\":[1,2,3],\"max_tokens\":4000,\"ignore_eos\":true,"
                         "\"stream\":true}");
        usleep((useconds_t)(c->i * 997 + k * 613) % 9000);
        close(fd);
    }
    return NULL;
}

Test(live, clients_that_leave_at_any_time_leave_nothing_behind) {
    live s;
    start(&s, 4096, 2, 8);
    client c[6];
    pthread_t thread[6];
    for (int i = 0; i < 6; i++) {
        c[i] = (client){&s, i, NULL};
        pthread_create(&thread[i], NULL, run_leaver, &c[i]);
    }
    for (int i = 0; i < 6; i++) pthread_join(thread[i], NULL);
    cr_assert(wait_metric(&s, "num_requests_running", 0));
    cr_assert(wait_metric(&s, "num_requests_waiting", 0));
    char *out = ask(&s, "{\"prompt\":[1],\"max_tokens\":2}");
    cr_assert(strstr(out, " 200 OK"), "%s", out);
    free(out);
    stop(&s);
}

Test(live, a_client_that_does_not_read_is_dropped) {
    live s;
    start(&s, 16384, 8, 8);
    int fd = dial(&s, 4096);
    cr_assert(post(fd, "{\"prompt\":[1,2],\"max_tokens\":16000,\"ignore_eos\":true,\"n\":8,"
                       "\"logprobs\":20,\"stream\":true}"));
    cr_assert(wait_metric(&s, "num_requests_running", 8));
    cr_assert(wait_metric(&s, "num_requests_running", 0));
    // It was cut off, not finished.
    cr_assert_lt(metric(&s, "generation_tokens_total"), 8 * 16000);
    close(fd);
    stop(&s);
}

Test(live, a_full_queue_is_a_429_and_nothing_of_the_request_stays) {
    live s;
    start(&s, 4096, 1, 2);
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = dial(&s, 0);
        cr_assert(post(fd[i], "{\"prompt\":[1],\"max_tokens\":4000,\"ignore_eos\":true}"));
        if (i == 0) cr_assert(wait_metric(&s, "num_requests_running", 1));
    }
    cr_assert(wait_metric(&s, "num_requests_waiting", 2));
    char *out = ask(&s, "{\"prompt\":[1]}");
    cr_assert(strstr(out, " 429 ") && strstr(out, "Retry-After: "), "%s", out);
    free(out);
    close(fd[2]);
    cr_assert(wait_metric(&s, "num_requests_waiting", 1));
    out = ask(&s, "{\"prompt\":[1],\"max_tokens\":1,\"n\":2}"); // room for one of the two
    cr_assert(strstr(out, " 429 "), "%s", out);
    free(out);
    cr_assert(wait_metric(&s, "num_requests_waiting", 1)); // what there was room for is gone again
    out = ask(&s, "{\"prompt\":[1],\"max_tokens\":1,\"n\":3}"); // never room for three
    cr_assert(strstr(out, " 400 ") && strstr(out, "--queue"), "%s", out);
    free(out);
    for (int i = 0; i < 2; i++) close(fd[i]);
    cr_assert(wait_metric(&s, "num_requests_running", 0));
    cr_assert(wait_metric(&s, "num_requests_waiting", 0));
    stop(&s);
}

Test(live, sigterm_lets_the_running_request_finish) {
    live s;
    start(&s, 4096, 2, 8);
    int fd = dial(&s, 0);
    cr_assert(post(fd, "{\"prompt\":[1],\"max_tokens\":300,\"ignore_eos\":true,\"stream\":true}"));
    cr_assert(wait_metric(&s, "num_requests_running", 1));
    kill(getpid(), SIGTERM);
    char *out = read_all(fd);
    cr_assert(strstr(out, "data: [DONE]"), "the stream was cut off");
    cr_assert(strstr(out, "\"finish_reason\":\"length\""));
    free(out);
    close(fd);
    pthread_join(s.thread, NULL);
    cr_assert_eq(s.st, SD_OK);
    free(s.model);
    sd_tiny_remove(s.dir);
}

// A run's folder: adapter/ as PEFT writes it, and draft/corpus.idx bound to it, or to another one.
static void write_run(const char *run, sd_model *base, uint64_t seed, bool bound) {
    int slots = base->hp.L * SD_PROJ_COUNT;
    sd_lora *lora = sd_alloc((size_t)slots, sizeof *lora);
    sd_error err = {0};
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        sd_proj_shape(&base->hp, (sd_proj)(i % SD_PROJ_COUNT), &rows, &cols);
        float *f = sd_alloc((size_t)(4 * (rows + cols)), sizeof *f);
        for (int k = 0; k < 4 * (rows + cols); k++)
            f[k] = (float)(sd_mix64(seed++) % 2001) * 3e-4f - 0.3f;
        lora[i] = (sd_lora){.r = 4, .A = f, .B = f + 4 * cols, .scale = 1};
    }
    sd_adapter *a;
    cr_assert_eq(sd_adapter_from_factors(&a, "x", lora, base, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < slots; i++) free((void *)(uintptr_t)lora[i].A);
    free(lora);
    char *peft = sd_path_join(run, "adapter"), *draft = sd_path_join(run, "draft");
    char *index = sd_path_join(draft, "corpus.idx");
    cr_assert_eq(sd_mkdirs(draft, &err), SD_OK);
    cr_assert_eq(sd_adapter_write_peft(peft, a, base, &err), SD_OK, "%s", err.message);
    sd_adapter_release(a);
    cr_assert_eq(sd_adapter_open(&a, run, base, &err), SD_OK, "%s", err.message);
    sd_sha256 other;
    cr_assert_eq(sd_sha256_of(&other, "other", 5, &err), SD_OK);
    const int32_t corpus[] = {1, 2, 3, 4, 5, 6, -1};
    cr_assert_eq(sd_corpus_write(index, corpus, 7, sd_tokenizer_fingerprint(base->tokenizer),
                                 bound ? &a->sha256 : &other, &err),
                 SD_OK, "%s", err.message);
    sd_adapter_release(a);
    free(peft), free(draft), free(index);
}

static char *ask_model(const live *s, const char *model) {
    char body[256];
    snprintf(body, sizeof body,
             "{\"model\":\"%s\",\"prompt\":[1,2,3,4],\"max_tokens\":32,\"temperature\":0,"
             "\"ignore_eos\":true,\"logprobs\":1}",
             model);
    char *answer = answer_of(ask(s, body));
    cr_assert_not_null(answer, "no answer of %s", model);
    return answer;
}

Test(live, adapters_are_models_of_their_own_and_pairs_are_checked) {
    live s;
    sd_error err = {0};
    sd_model *base;
    write_model(&s);
    cr_assert_eq(sd_model_open(&base, s.model, &err), SD_OK, "%s", err.message);
    char *one = sd_path_join(s.dir, "one"), *two = sd_path_join(s.dir, "two");
    write_run(one, base, 1, true);
    write_run(two, base, 100000, false);
    sd_model_release(base);
    char *first = sd_sprintf("first=%s", one), *second = sd_sprintf("second=%s", two);
    sd_strings adapters = {.item = {first, second}, .n = 2};
    start_with(&s, 512, 4, 64, &adapters);
    char *plain = ask_model(&s, "tiny"), *a = ask_model(&s, "first"), *b = ask_model(&s, "second");
    cr_assert_str_neq(plain, a);
    cr_assert_str_neq(plain, b);
    cr_assert_str_neq(a, b);
    int fd = dial(&s, 0);
    const char *get = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    cr_assert(send_all(fd, get, strlen(get)));
    char *models = read_all(fd);
    close(fd);
    const char *at = strstr(models, "\"first\"");
    cr_assert(at && strstr(at, "\"draft\":\"index\""), "%s", models);
    at = strstr(models, "\"second\"");
    cr_assert(at && strstr(at, "\"draft\":\"none\""), "a foreign index was taken: %s", models);
    char *nobody = ask(&s, "{\"model\":\"third\",\"prompt\":[1]}");
    cr_assert(strstr(nobody, " 404 ") && strstr(nobody, "tiny, first, second"), "%s", nobody);
    stop(&s);
    free(plain), free(a), free(b), free(models), free(nobody);
    free(one), free(two), free(first), free(second);
}

Test(live, a_model_that_is_not_there_ends_the_start) {
    sd_error err = {0};
    sd_serve_options o = {.model = "/nonexistent.gguf", .port = 0};
    cr_assert_eq(sd_serve(&o, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "/nonexistent.gguf"));
    o.model = "/dev/null";
    cr_assert_neq(sd_serve(&o, &err), SD_OK);
}
