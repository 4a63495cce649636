// specdec chat: a conversation in the terminal. The answer streams; Ctrl-C stops the answer, not
// the program.
#include "base/log.h"
#include "cli/decoding.h"
#include "cli/shaping.h"
#include "cli/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    sd_model_args common;
    sd_decoding_args decoding;
    sd_shaping_args shaping;
    const char *system;
    int64_t n;
} chat_args;

static const sd_option rows[] = {
    SD_COMMON_ROWS(chat_args),
    SD_DECODING_ROWS(chat_args),
    SD_KV_POOL_ROWS(chat_args, decoding.kv_memory, decoding.prefix_cache, "on"),
    SD_SHAPING_ROWS(chat_args),
    SD_DEFAULTS_ROW(chat_args),
    SD_SYSTEM_ROW(chat_args, system),
    {.name = "tokens",
     .letter = 'n',
     .type = SD_OPT_INT,
     .def = "0",
     .min = 0,
     .max = 1 << 24,
     .unit = "tokens",
     .offset = offsetof(chat_args, n),
     .given = offsetof(chat_args, decoding.given[SD_DEFAULT_MAX_TOKENS]),
     .help = "longest answer; 0: until the context is full"},
    {0}};

static volatile sig_atomic_t stop_answer;
static void on_ctrl_c(int sig) {
    (void)sig;
    stop_answer = 1;
}

typedef struct {
    const chat_args *a;
    sd_decoding d;
    sd_shaping_options shaping;
    json_t *messages;
    sd_buf answer;
    sd_request_stats stats;
    sd_finish finish;
    bool have_stats, failed;
    bool terminal;
} chat;

static void on_event(void *ctx, const sd_event *ev) {
    chat *c = ctx;
    if (ev->text_len) {
        fwrite(ev->text, 1, ev->text_len, stdout);
        fflush(stdout);
        sd_buf_add(&c->answer, ev->text, ev->text_len);
    }
    if (!ev->finish) return;
    c->stats = *ev->stats;
    c->have_stats = true;
    c->failed = ev->finish == SD_FINISH_ERROR;
    if (c->failed) fprintf(stderr, "specdec: %s\n", ev->error);
    c->finish = ev->finish;
}

static sd_status set_system(chat *c, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    json_array_clear(c->messages);
    if (!text || !*text) goto out;
    json_t *m = json_pack("{s:s, s:s}", "role", "system", "content", text);
    SD_CHECK(m, err, SD_EINVAL, "the system message is not valid UTF-8; a message must be");
    json_array_append_new(c->messages, m);
out:
    return st;
}

// The user's, else the one that the adapter was trained with.
static sd_status begin_system(chat *c, const char *given, sd_error *err) {
    sd_status st = SD_OK;
    sd_system_use use;
    SD_TRY(set_system(c, given, err));
    if (given) goto out;
    SD_TRY(sd_defaults_fill_system(&use, c->messages, &c->d.defaults, err));
    if (use == SD_SYSTEM_FILLED)
        sd_log(SD_LOG_INFO,
               "the system message is the one of the training (%zu bytes); --system "
               "gives another",
               strlen(c->d.defaults.system));
out:
    return st;
}

// One user message; what was said is kept only when an answer came.
static sd_status say(chat *c, const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    sd_ids ids = {0};
    size_t before = json_array_size(c->messages);
    json_t *m = json_pack("{s:s, s:s%}", "role", "user", "content", text, len);
    SD_CHECK(m, err, SD_EINVAL, "the message is not valid UTF-8; a message must be");
    json_array_append_new(c->messages, m);
    SD_TRY(sd_model_chat_ids(c->d.model, c->messages, NULL, NULL, true, &ids, err));
    sd_buf_clear(&c->answer);
    sd_request r = {.prompt = ids.id,
                    .n_prompt = ids.n,
                    .max_tokens = (int)c->a->n,
                    .sampling = sd_decoding_sampling(&c->a->decoding),
                    .shaping = c->shaping.request,
                    .logprobs = -1,
                    .adapter = c->d.adapter,
                    .corpus = c->d.corpus,
                    .on_event = on_event,
                    .ctx = c};
    uint64_t id;
    SD_TRY(sd_engine_submit(c->d.engine, &r, &id, err));
    stop_answer = 0;
    while (sd_engine_step(c->d.engine))
        if (stop_answer) sd_engine_cancel(c->d.engine, id);
    stop_answer = 0;
    fputc('\n', stdout);
    fflush(stdout);
    if (c->finish == SD_FINISH_CANCELLED) fprintf(stderr, "(stopped)\n");
    if (c->finish == SD_FINISH_LENGTH)
        fprintf(stderr, "(the answer was cut at its limit; /reset empties the context)\n");
    SD_CHECK(!c->failed, err, SD_EIO, "the answer failed; try again");
    m = json_pack("{s:s, s:s%}", "role", "assistant", "content",
                  c->answer.data ? c->answer.data : "", c->answer.len);
    SD_CHECK_ALLOC(m, err);
    json_array_append_new(c->messages, m);
out:
    if (st != SD_OK)
        while (json_array_size(c->messages) > before)
            json_array_remove(c->messages, json_array_size(c->messages) - 1);
    sd_ids_free(&ids);
    return st;
}

static void print_stats(const chat *c) {
    if (!c->have_stats) {
        fprintf(stderr, "no answer yet\n");
        return;
    }
    const sd_request_stats *s = &c->stats;
    const sd_spec_stats *p = &s->spec;
    fprintf(stderr,
            "prompt %d tokens in %.0f ms; %d tokens at %.1f tok/s; %lld rounds, %lld of %lld "
            "drafted tokens accepted\n",
            s->prompt_tokens, s->prefill_ms, s->generated, sd_decode_speed(s), (long long)p->rounds,
            (long long)p->accepted, (long long)p->drafted);
}

// A line that begins with '/'. False ends the program.
static bool command(chat *c, const char *line, sd_error *err) {
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) return false;
    if (strcmp(line, "/reset") == 0) {
        json_t *first = json_array_get(c->messages, 0);
        const char *role = json_string_value(json_object_get(first, "role"));
        size_t keep = role && strcmp(role, "system") == 0;
        while (json_array_size(c->messages) > keep)
            json_array_remove(c->messages, json_array_size(c->messages) - 1);
        fprintf(stderr, "the conversation was emptied\n");
    } else if (strncmp(line, "/system", 7) == 0 && (line[7] == ' ' || !line[7])) {
        const char *text = line[7] ? line + 8 : "";
        if (set_system(c, text, err) != SD_OK)
            fprintf(stderr, "specdec: %s\n", err->message);
        else
            fprintf(stderr, "%s; the conversation was emptied\n",
                    *text ? "system message set" : "no system message");
    } else if (strcmp(line, "/stats") == 0) {
        print_stats(c);
    } else {
        if (strcmp(line, "/help") != 0) fprintf(stderr, "'%s' is unknown. ", line);
        fprintf(stderr,
                "/help  /reset (empty the conversation)  /system TEXT  /stats (of the last "
                "answer)  /exit; Ctrl-C stops an answer; \"\"\" begins and ends a message of "
                "several lines\n");
    }
    return true;
}

static const char QUOTES[] = "\"\"\"";

// A message of several lines: what stands between the quotes that `first` begins with and those that
// end a later line or the same. The end of the input ends it too. False: it grew too large.
static bool quoted(sd_buf *text, const chat *c, const char *first) {
    enum { N = sizeof QUOTES - 1 };
    char *line = NULL;
    size_t cap = 0, n = strlen(first + N);
    bool ok = sd_buf_add(text, first + N, n);
    while (ok && !(text->len >= N && memcmp(text->data + text->len - N, QUOTES, N) == 0)) {
        if (c->terminal) fputs("... ", stderr);
        ssize_t got = getline(&line, &cap, stdin);
        if (got < 0) break;
        while (got > 0 && (line[got - 1] == '\n' || line[got - 1] == '\r')) got--;
        ok = sd_buf_addc(text, '\n') && sd_buf_add(text, line, (size_t)got);
    }
    free(line);
    if (ok && text->len >= N && memcmp(text->data + text->len - N, QUOTES, N) == 0) text->len -= N;
    return ok;
}

static void loop(chat *c, sd_error *err) {
    char *line = NULL;
    size_t cap = 0;
    sd_buf block = sd_buf_make((size_t)16 << 20);
    for (;;) {
        if (c->terminal) fputs("> ", stderr);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0 && errno == EINTR && stop_answer) { // Ctrl-C at the prompt
            stop_answer = 0;
            clearerr(stdin);
            fputs("\n(/exit or Ctrl-D leaves)\n", stderr);
            continue;
        }
        if (n < 0) break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n == 0) continue;
        if (line[0] == '/') {
            if (!command(c, line, err)) break;
        } else if (strncmp(line, QUOTES, sizeof QUOTES - 1) == 0) {
            sd_buf_clear(&block);
            bool whole = quoted(&block, c, line);
            if (!whole || stop_answer)
                fprintf(stderr, "specdec: the message %s\n",
                        whole ? "was given up" : "is longer than 16 MiB");
            else if (block.len && say(c, block.data, block.len, err) != SD_OK)
                fprintf(stderr, "specdec: %s\n", err->message);
            if (stop_answer) clearerr(stdin);
            stop_answer = 0;
        } else if (say(c, line, (size_t)n, err) != SD_OK) {
            fprintf(stderr, "specdec: %s\n", err->message);
        }
        errno = 0;
    }
    if (c->terminal) fputc('\n', stderr);
    sd_buf_free(&block);
    free(line);
}

sd_status sd_verb_chat(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    chat_args a = {0};
    sd_strings rest;
    char *system = NULL;
    chat c = {.a = &a, .answer = sd_buf_make((size_t)1 << 28)};
    if (sd_verb_help("chat -m MODEL [-a ADAPTER] [-d DRAFT]",
                     "A conversation in the terminal; /help lists its commands.", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "chat: '%s' is not an option", rest.item[0]);
    if (a.system) SD_TRY(sd_system_text(&system, a.system, err));
    SD_TRY(sd_decoding_load(&c.d, &a.common, &a.decoding, err));
    SD_CHECK(
        c.d.model->tokenizer && c.d.model->chat, err, SD_EINVAL,
        "%s: no chat template%s%s; give one with --chat-template FILE, or use specdec generate",
        a.common.model, c.d.model->chat_error ? ": " : "",
        c.d.model->chat_error ? c.d.model->chat_error : "");
    SD_TRY(sd_shaping_open(&c.shaping, &a.shaping, c.d.model, err));
    SD_TRY(sd_decoding_defaults(&c.d, &a.decoding, &a.n, true, err));
    SD_TRY(sd_decoding_start(&c.d, &a.common, &a.decoding, 1, 0, err));
    sd_decoding_announce(&c.d);
    c.messages = json_array();
    SD_CHECK_ALLOC(c.messages, err);
    SD_TRY(begin_system(&c, system, err));
    c.terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    if (c.terminal) fprintf(stderr, "/help lists the commands\n");
    struct sigaction sa = {.sa_handler = on_ctrl_c}; // no SA_RESTART: reading a line ends too
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    loop(&c, err);
out:
    free(system);
    json_decref(c.messages);
    sd_buf_free(&c.answer);
    sd_shaping_close(&c.shaping);
    sd_decoding_close(&c.d);
    return st;
}
