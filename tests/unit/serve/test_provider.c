// The local provider behind its flat messages: in this process, and in another behind a socket.
#include "base/files/path.h"
#include "base/memory.h"
#include "decode/serve/provider/local.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REQUESTS = 3, TOKENS = 40 };

static void post(void *ctx) {
    sem_post(ctx);
}

static sd_provider *open_local(const char *model, sem_t *opened) {
    sd_provider *p = NULL;
    sd_error err = {0};
    sem_init(opened, 0, 0);
    sd_local_options o = {.models = {.model = model},
                          .engine = {.ctx = 256, .slots = 2, .threads = 1},
                          .on_opened = post,
                          .ctx = opened};
    if (sd_local_open(&p, &o, &err) != SD_OK) return NULL;
    sem_wait(opened);
    return p->ops->ready(p, &err) == SD_PROVIDER_READY ? p : NULL;
}

// Greedy with logprobs; drawn, with a stop string; drawn, until a stop token.
static sd_provider_request *request(int i) {
    static const int32_t prompt[] = {72, 101, 108, 108, 111, 32, 119};
    static const int32_t stop_token[] = {3, 9, 27};
    sd_provider_request *m = NULL;
    sd_request r = {.prompt = prompt,
                    .n_prompt = 7 - i,
                    .max_tokens = TOKENS,
                    .logprobs = i == 0 ? 2 : -1,
                    .ignore_end = true,
                    .priority = -i,
                    .admin_priority = i == 1,
                    .spec = SD_SPEC_OFF};
    if (i > 0) r.sampling = (sd_sampling){.temperature = 1, .top_p = 1, .seed = 7, .choice = i};
    if (i == 1) r.stop[r.n_stop++] = "e", r.stop[r.n_stop++] = "zz";
    if (i == 2) r.stop_token = stop_token, r.n_stop_token = 3;
    static const sd_token_bias bias[] = {{101, 4}, {32, -100}};
    static const int32_t bad_words[] = {2, 101, 101};
    if (i > 0)
        r.shaping = (sd_request_shaping){.presence = .5f,
                                         .repetition = 1.1f,
                                         .bias = bias,
                                         .n_bias = 2,
                                         .bad_words = bad_words,
                                         .n_bad_words = 3,
                                         .min_tokens = i};
    cr_assert_eq(sd_provider_request_make(&m, &r, 0, NULL), SD_OK);
    return m;
}

// What one request's events say.
typedef struct {
    uint64_t id;
    sd_token_info tokens[TOKENS];
    char text[4096];
    int n, n_infos, len, finish, generated;
} answer;

static void add_event(answer *a, const void *block, size_t bytes) {
    const sd_provider_event *e = block;
    cr_assert_eq(sd_provider_event_check(block, bytes, NULL), SD_OK);
    cr_assert_eq(e->lost, 0);
    const sd_token_info *tokens = sd_provider_event_tokens(e);
    for (int i = 0; tokens && i < e->n; i++) a->tokens[a->n_infos++] = tokens[i];
    memcpy(a->text + a->len, sd_provider_event_text(e), e->text.n);
    a->len += (int)e->text.n;
    a->n += e->n;
    a->finish = e->finish;
    if (e->finish) a->generated = sd_provider_event_stats(e)->generated;
}

static void cr_same(const answer *a, const answer *b) {
    cr_assert_eq(a->n, b->n);
    cr_assert_eq(a->len, b->len);
    cr_assert_eq(a->n_infos, b->n_infos);
    cr_assert_eq(a->finish, b->finish);
    cr_assert_eq(a->generated, b->generated);
    cr_assert_eq(memcmp(a->text, b->text, (size_t)a->len), 0);
    for (int i = 0; i < a->n_infos; i++) {
        const sd_token_info *x = &a->tokens[i], *y = &b->tokens[i];
        cr_assert(x->token == y->token && memcmp(&x->logprob, &y->logprob, sizeof x->logprob) == 0);
        cr_assert_eq(x->n_top, y->n_top);
    }
}

// ---- in this process

typedef struct {
    sem_t said;
    sd_buf blocks; // behind one another
} in_process;

static void keep_block(void *ctx, const sd_provider_event *e) {
    in_process *to = ctx;
    sd_buf_add(&to->blocks, (const char *)e, e->head.bytes);
    if (e->finish) sem_post(&to->said);
}

static void run_here(const char *model, answer *a) {
    sem_t opened;
    sd_provider *p = open_local(model, &opened);
    cr_assert_not_null(p);
    for (int i = 0; i < REQUESTS; i++) {
        in_process to = {.blocks = sd_buf_make(1 << 20)};
        sd_provider_request *m = request(i);
        sem_init(&to.said, 0, 0);
        cr_assert_eq(p->ops->start(p, m, (sd_sink){keep_block, &to}, &a[i].id, NULL), SD_OK);
        free(m);
        sem_wait(&to.said);
        for (size_t at = 0; at < to.blocks.len;) {
            const sd_provider_event *e = (const void *)(to.blocks.data + at);
            cr_assert_eq(e->id, a[i].id);
            add_event(&a[i], e, e->head.bytes);
            at += e->head.bytes;
        }
        sd_buf_free(&to.blocks);
    }
    p->ops->close(p);
}

// ---- in another

// One block as it came: the head says how long it is. NULL: the other side is gone.
static void *receive(int fd) {
    sd_provider_head head;
    if (recv(fd, &head, sizeof head, MSG_WAITALL) != sizeof head) return NULL;
    char *block = malloc(head.bytes);
    memcpy(block, &head, sizeof head);
    size_t rest = head.bytes - sizeof head;
    if (recv(fd, block + sizeof head, rest, MSG_WAITALL) == (ssize_t)rest) return block;
    free(block);
    return NULL;
}

typedef struct {
    int fd;
    sem_t ended;
} other_side;

static void send_block(void *ctx, const sd_provider_event *e) {
    other_side *s = ctx;
    if (send(s->fd, e, e->head.bytes, MSG_NOSIGNAL) != (ssize_t)e->head.bytes) _exit(3);
    if (e->finish) sem_post(&s->ended);
}

static void provide(const char *model, int fd) {
    sem_t opened;
    other_side s = {.fd = fd};
    sem_init(&s.ended, 0, 0);
    sd_provider *p = open_local(model, &opened);
    if (!p) _exit(1);
    int started = 0;
    for (void *m; (m = receive(fd)); free(m), started++) {
        uint64_t id;
        if (p->ops->start(p, m, (sd_sink){send_block, &s}, &id, NULL) != SD_OK) _exit(2);
    }
    while (started-- > 0) sem_wait(&s.ended);
    p->ops->close(p);
    _exit(0);
}

static void run_there(const char *model, answer *a) {
    int pair[2], status;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        close(pair[0]);
        provide(model, pair[1]);
    }
    close(pair[1]);
    for (int i = 0; i < REQUESTS; i++) {
        sd_provider_request *m = request(i);
        cr_assert_eq(send(pair[0], m, m->head.bytes, 0), (ssize_t)m->head.bytes);
        free(m);
    }
    shutdown(pair[0], SHUT_WR);
    for (void *block; (block = receive(pair[0])); free(block)) {
        const sd_provider_event *e = block;
        cr_assert(e->id >= 1 && e->id <= REQUESTS, "ids are given in order from 1");
        add_event(&a[e->id - 1], block, e->head.bytes);
    }
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    close(pair[0]);
}

// The front compiles on a worker's thread and holds what it got; the provider, on the event loop,
// must find it, whatever others asked for meanwhile, and for that tenant alone.
Test(provider, a_constraint_that_its_front_holds_is_found_by_its_tenant) {
    char *dir = sd_tiny_dir(), *model = sd_path_join(dir, "model.gguf");
    sd_tiny_model tiny = sd_tiny_default(&sd_arch_llama);
    cr_assert_eq(sd_tiny_write_gguf(model, &tiny, NULL), SD_OK);
    sem_t opened;
    sd_provider *p = open_local(model, &opened);
    cr_assert_not_null(p);
    sd_grammar_cache *c = sd_local_models(p)->grammars;
    const sd_grammar_spec want = {SD_GRAMMAR_REGEX, "[a-f]{3}", 8};
    sd_grammar *held = NULL, *g;
    cr_assert_eq(sd_grammar_cache_get_for(&held, c, 7, &want, NULL), SD_OK);
    for (int i = 0; i < 2 * SD_GRAMMAR_KEPT; i++) {
        char text[16];
        int n = snprintf(text, sizeof text, "x{%d}", i);
        const sd_grammar_spec other = {SD_GRAMMAR_REGEX, text, (size_t)n};
        cr_assert_eq(sd_grammar_cache_get_for(&g, c, 8, &other, NULL), SD_OK);
        sd_grammar_release(g);
    }
    sd_grammar_cache_stats before, after;
    for (uint64_t tenant = 7; tenant < 9; tenant++) {
        in_process to = {.blocks = sd_buf_make(1 << 20)};
        uint64_t id;
        int32_t prompt = 1;
        sd_request r = {.prompt = &prompt,
                        .n_prompt = 1,
                        .max_tokens = 8,
                        .sampling = {.top_p = 1},
                        .logprobs = -1,
                        .constraint = want,
                        .tenant = tenant};
        sd_provider_request *m = NULL;
        sd_error err = {0};
        cr_assert_eq(sd_provider_request_make(&m, &r, 0, &err), SD_OK, "%s", err.message);
        sd_grammar_cache_get_stats(c, &before);
        sem_init(&to.said, 0, 0);
        cr_assert_eq(p->ops->start(p, m, (sd_sink){keep_block, &to}, &id, &err), SD_OK, "%s",
                     err.message);
        sem_wait(&to.said);
        sd_grammar_cache_get_stats(c, &after);
        cr_expect_eq(after.compiled - before.compiled, tenant != 7);
        cr_expect_eq(after.found - before.found, tenant == 7);
        free(m);
        sd_buf_free(&to.blocks);
        sem_destroy(&to.said);
    }
    sd_grammar_release(held);
    p->ops->close(p);
    sem_destroy(&opened);
    free(model);
    sd_tiny_remove(dir);
}

Test(provider, another_process_behind_a_socket_gives_the_same_tokens) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK, "%s", err.message);
    static answer there[REQUESTS], here[REQUESTS];
    run_there(path, there); // before this process has threads of its own
    run_here(path, here);
    for (int i = 0; i < REQUESTS; i++) {
        cr_assert_neq(here[i].finish, SD_FINISH_NONE);
        cr_assert_gt(here[i].generated, 0);
        cr_same(&here[i], &there[i]);
    }
    cr_assert_eq(here[0].n_infos, TOKENS);
    cr_assert_gt(here[0].len, 0);
    free(path);
    sd_tiny_remove(dir);
}

// ---- blocks

Test(provider, a_request_comes_out_as_it_went_in) {
    int32_t prompt[] = {1, 2, 3}, stop_token[] = {9, 8}, allowed[] = {4, 5, 6}, bad[] = {1, 7},
            forced[] = {10, 20, 30};
    sd_token_bias bias[] = {{3, -100}, {4, .5f}};
    sd_request in = {.prompt = prompt,
                     .n_prompt = 3,
                     .max_tokens = 5,
                     .sampling = {0.5f, 7, 0.25f, 0.125f, UINT64_C(1) << 63, 4},
                     .shaping = {.presence = -.5f,
                                 .frequency = 1.5f,
                                 .repetition = 1.25f,
                                 .bias = bias,
                                 .allowed = allowed,
                                 .bad_words = bad,
                                 .n_bias = 2,
                                 .n_allowed = 3,
                                 .n_bad_words = 2,
                                 .min_tokens = 4},
                     .reasoning = {.open = "<t>",
                                   .close = "</t>",
                                   .inside = true,
                                   .bounded = true,
                                   .budget = 0,
                                   .forced = forced,
                                   .n_forced = 3},
                     .stop = {"a", "", "long one"},
                     .n_stop = 3,
                     .stop_token = stop_token,
                     .n_stop_token = 2,
                     .shown_token = {11, 12},
                     .n_shown_tokens = 2,
                     .ignore_end = true,
                     .logprobs = 20,
                     .spec = SD_SPEC_SUFFIX,
                     .constraint = {SD_GRAMMAR_REGEX, "a+b", 3},
                     .client = 42,
                     .priority = -7,
                     .admin_priority = true},
               out;
    sd_provider_request *m = NULL;
    cr_assert_eq(sd_provider_request_make(&m, &in, 3, NULL), SD_OK);
    cr_assert_eq(m->model, 3);
    cr_assert_eq(sd_provider_request_read(&out, m, m->head.bytes, NULL), SD_OK);
    cr_assert(out.n_prompt == 3 && memcmp(out.prompt, prompt, sizeof prompt) == 0);
    cr_assert(out.n_stop_token == 2 && memcmp(out.stop_token, stop_token, 8) == 0);
    cr_assert(out.n_shown_tokens == 2 && out.shown_token[1] == 12);
    cr_assert_eq(out.n_stop, 3);
    for (int i = 0; i < 3; i++) cr_assert_str_eq(out.stop[i], in.stop[i]);
    cr_assert(out.sampling.temperature == 0.5f && out.sampling.top_k == 7 &&
              out.sampling.top_p == 0.25f && out.sampling.min_p == 0.125f &&
              out.sampling.seed == in.sampling.seed && out.sampling.choice == 4);
    const sd_request_shaping *h = &out.shaping;
    cr_assert(h->presence == -.5f && h->frequency == 1.5f && h->repetition == 1.25f &&
              h->min_tokens == 4);
    cr_assert(h->n_bias == 2 && memcmp(h->bias, bias, sizeof bias) == 0);
    cr_assert(h->n_allowed == 3 && memcmp(h->allowed, allowed, sizeof allowed) == 0);
    cr_assert(h->n_bad_words == 2 && memcmp(h->bad_words, bad, sizeof bad) == 0);
    cr_assert(out.constraint.kind == SD_GRAMMAR_REGEX && out.constraint.len == 3 &&
              memcmp(out.constraint.text, "a+b", 3) == 0);
    cr_assert(out.max_tokens == 5 && out.ignore_end && out.logprobs == 20 &&
              out.spec == SD_SPEC_SUFFIX && out.client == 42 && out.priority == -7 &&
              out.admin_priority && !out.adapter && !out.on_event);
    const sd_request_reasoning *g = &out.reasoning;
    cr_assert(g->inside && !g->again && g->bounded && g->budget == 0 && g->n_forced == 3 &&
              memcmp(g->forced, forced, sizeof forced) == 0);
    cr_assert_str_eq(g->open, "<t>");
    cr_assert_str_eq(g->close, "</t>");
    in.reasoning.bounded = false, in.reasoning.again = true;
    sd_provider_request *free_one = NULL;
    cr_assert_eq(sd_provider_request_make(&free_one, &in, 3, NULL), SD_OK);
    cr_assert_eq(sd_provider_request_read(&out, free_one, free_one->head.bytes, NULL), SD_OK);
    cr_assert(!out.reasoning.bounded && out.reasoning.again && out.reasoning.inside);
    free(free_one);
    // A block of another process: what it is held to is checked before it is followed.
    m->constraint_kind = SD_GRAMMAR_KINDS;
    cr_assert_eq(sd_provider_request_read(&out, m, m->head.bytes, NULL), SD_EFORMAT);
    m->constraint_kind = SD_GRAMMAR_REGEX, m->constraint.n = m->head.bytes;
    cr_assert_eq(sd_provider_request_read(&out, m, m->head.bytes, NULL), SD_EFORMAT);
    free(m);
}

// Bytes that are read: a span that leads out of the block would show under a sanitiser.
static unsigned sum_request(const sd_request *r) {
    unsigned sum = 0;
    for (int i = 0; i < r->n_prompt; i++) sum += (unsigned)r->prompt[i];
    for (int i = 0; i < r->n_stop_token; i++) sum += (unsigned)r->stop_token[i];
    for (int i = 0; i < r->n_stop; i++) sum += (unsigned)strlen(r->stop[i]);
    for (int i = 0; i < r->shaping.n_bias; i++) sum += (unsigned)r->shaping.bias[i].token;
    for (int i = 0; i < r->shaping.n_allowed; i++) sum += (unsigned)r->shaping.allowed[i];
    for (int i = 0; i < r->shaping.n_bad_words; i++) sum += (unsigned)r->shaping.bad_words[i];
    for (int i = 0; i < r->reasoning.n_forced; i++) sum += (unsigned)r->reasoning.forced[i];
    if (r->reasoning.open)
        sum += (unsigned)(strlen(r->reasoning.open) + strlen(r->reasoning.close));
    return sum;
}

static unsigned sum_event(const sd_provider_event *e) {
    unsigned sum = 0;
    const sd_token_info *t = sd_provider_event_tokens(e);
    for (uint32_t i = 0; i < e->tokens.n; i++) sum += (unsigned)t[i].token;
    for (uint32_t i = 0; i < e->text.n; i++) sum += (unsigned)sd_provider_event_text(e)[i];
    for (uint32_t i = 0; i < e->error.n; i++) sum += (unsigned)sd_provider_event_error(e)[i];
    return sum + (e->stats.n ? (unsigned)sd_provider_event_stats(e)->generated : 0);
}

Test(provider, a_damaged_block_is_refused_or_harmless) {
    sd_token_info tokens[2] = {{.token = 5}, {.token = 6}};
    sd_request_stats stats = {.generated = 2};
    sd_event ev = {.id = 1,
                   .tokens = tokens,
                   .n = 2,
                   .text = "text",
                   .text_len = 4,
                   .finish = SD_FINISH_STOP,
                   .error = "why",
                   .stats = &stats};
    size_t bytes = sd_provider_event_bytes(&ev, true);
    sd_provider_request *m = request(2);
    uint64_t x = 1;
    int refused = 0, sum = 0;
    for (int i = 0; i < 20000; i++) {
        bool is_request = i & 1;
        size_t n = is_request ? m->head.bytes : bytes;
        char *block = malloc(n);
        if (is_request)
            memcpy(block, m, n);
        else
            sd_provider_event_write(block, SIZE_MAX, &ev, 0, true);
        size_t fixed = is_request ? sizeof *m : sizeof(sd_provider_event);
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint32_t word = (x >> 60) ? (uint32_t)(x >> 32) & 0xff : (uint32_t)(x >> 32);
        memcpy(block + (x >> 20) % (fixed / 4) * 4, &word, 4);
        size_t said = (x & 7) ? n : n - (x >> 8) % n;
        sd_request r;
        if (is_request && sd_provider_request_read(&r, block, said, NULL) == SD_OK)
            sum += sum_request(&r);
        else if (!is_request && sd_provider_event_check(block, said, NULL) == SD_OK)
            sum += sum_event((const void *)block);
        else
            refused++;
        free(block);
    }
    cr_assert_gt(refused, 5000);
    cr_assert_neq(sum, 0);
    free(m);
}

Test(provider, an_event_without_room_loses_its_text_and_says_so_but_not_its_end) {
    char text[2000];
    memset(text, 'x', sizeof text);
    sd_request_stats stats = {.generated = 9};
    sd_event ev = {.id = 4,
                   .n = 1,
                   .text = text,
                   .text_len = sizeof text,
                   .finish = SD_FINISH_ERROR,
                   .error = "because",
                   .stats = &stats};
    _Alignas(8) char whole[4096], least[SD_PROVIDER_EVENT_LEAST];
    sd_provider_event_write(whole, sizeof whole, &ev, 5, false);
    const sd_provider_event *e = (const void *)whole;
    cr_assert(e->lost == 0 && e->text.n == sizeof text);
    sd_provider_event_copy(least, sizeof least, e);
    e = (const void *)least;
    cr_assert_eq(sd_provider_event_check(least, e->head.bytes, NULL), SD_OK);
    cr_assert(e->lost && e->text.n == 0 && e->finish == SD_FINISH_ERROR && e->at_ns == 5);
    cr_assert_eq(sd_provider_event_stats(e)->generated, 9);
    cr_assert(e->error.n == 7 && memcmp(sd_provider_event_error(e), "because", 7) == 0);
    sd_provider_event_write(least, sizeof least, &ev, 6, false);
    cr_assert(e->lost && e->text.n == 0 && e->stats.n == 1);
}
