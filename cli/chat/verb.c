// specdec chat: a conversation in the terminal. The answer streams; Ctrl-C stops the answer, not
// the program.
#include "base/log.h"
#include "cli/chat/chat.h"
#include "cli/chat/margin.h"
#include "cli/chat/talk.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

// Small models repeat themselves without an end when they are asked greedily: a person wants an answer that ends. A
// tuned one is asked as it was judged (cli/decoding.h).
const sd_option sd_chat_rows[] = {
    SD_COMMON_ROWS(sd_chat_args),
    SD_DECODING_ROWS_WITH(sd_chat_args, "0.7", "0.95", "0.05"),
    SD_KV_POOL_ROWS(sd_chat_args, decoding.kv_memory, decoding.prefix_cache, "on"),
    SD_SHAPING_ROWS(sd_chat_args),
    SD_DEFAULTS_ROW(sd_chat_args),
    SD_SYSTEM_ROW(sd_chat_args, system),
    {.name = "tokens",
     .letter = 'n',
     .type = SD_OPT_INT,
     .def = "1024",
     .min = 0,
     .max = 1 << 24,
     .unit = "tokens",
     .offset = offsetof(sd_chat_args, n),
     .given = offsetof(sd_chat_args, decoding.given[SD_DEFAULT_MAX_TOKENS]),
     .help = "longest answer; 0: until the context is full"},
    {.name = "no-history",
     .type = SD_OPT_FLAG,
     .offset = offsetof(sd_chat_args, no_history),
     .help = "do not keep what is typed for the arrow keys of the next chat"},
    {0}};

// ---- an answer

typedef struct {
    sd_chat *c;
    sd_margin margin;
    sd_buf text;
    sd_finish finish;
} answer;

static void on_event(void *ctx, const sd_event *ev) {
    answer *a = ctx;
    if (ev->text_len) {
        sd_margin_write(&a->margin, ev->text, ev->text_len);
        fflush(stdout);
        sd_buf_add(&a->text, ev->text, ev->text_len);
    }
    if (!ev->finish) return;
    a->finish = ev->finish;
    a->c->stats = *ev->stats;
    a->c->have_stats = true;
    if (ev->finish == SD_FINISH_ERROR) fprintf(stderr, "specdec: %s\n", ev->error);
}

// The width of standard output, where it is a terminal; 0: it is none.
static int columns(void) {
    struct winsize w;
    bool terminal = isatty(STDOUT_FILENO) == 1 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0;
    return terminal && w.ws_col > 0 ? w.ws_col : 0;
}

static void say_end(const sd_chat *c, const answer *a) {
    if (a->finish == SD_FINISH_CANCELLED) fprintf(stderr, "(stopped)\n");
    if (a->finish != SD_FINISH_LENGTH) return;
    if (c->a.n > 0 && c->stats.generated >= c->a.n)
        fprintf(stderr, "(cut at %lld tokens; /set max_tokens changes that)\n", (long long)c->a.n);
    else
        fprintf(stderr, "(the context is full; /clear empties it)\n");
}

static sd_status run(answer *a, const sd_ids *ids, sd_error *err) {
    sd_chat *c = a->c;
    uint64_t id;
    sd_request r = {.prompt = ids->id,
                    .n_prompt = ids->n,
                    .max_tokens = (int)c->a.n,
                    .sampling = sd_decoding_sampling(&c->a.decoding),
                    .shaping = c->shaping.request,
                    .logprobs = -1,
                    .adapter = c->d.adapter,
                    .corpus = c->d.corpus,
                    .on_event = on_event,
                    .ctx = a};
    r.shaping.presence = (float)c->a.shaping.presence; // /set may have changed them
    r.shaping.frequency = (float)c->a.shaping.frequency;
    r.shaping.repetition = (float)c->a.shaping.repetition;
    sd_status st = sd_engine_submit(c->d.engine, &r, &id, err);
    if (st != SD_OK) return st;
    sd_editor_forget_interrupt();
    while (sd_engine_step(c->d.engine))
        if (sd_editor_interrupted()) sd_engine_cancel(c->d.engine, id);
    sd_editor_forget_interrupt();
    sd_margin_end(&a->margin);
    fputc('\n', stdout);
    fflush(stdout);
    return SD_OK;
}

// One user message; what was said is kept only when an answer came.
static sd_status say(sd_chat *c, const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    sd_ids ids = {0};
    answer a = {.c = c,
                .margin = {.out = stdout, .columns = columns()},
                .text = sd_buf_make((size_t)1 << 28)};
    size_t before = json_array_size(c->messages);
    SD_TRY(sd_talk_add(c->messages, "user", text, len, err));
    SD_TRY(sd_model_chat_ids(c->d.model, c->messages, NULL, NULL, true, &ids, err));
    SD_TRY(run(&a, &ids, err));
    say_end(c, &a);
    SD_CHECK(a.finish != SD_FINISH_ERROR, err, SD_EIO, "the answer failed; try again");
    SD_TRY(sd_talk_add(c->messages, "assistant", a.text.data ? a.text.data : "", a.text.len, err));
out:
    if (st != SD_OK) sd_talk_cut(c->messages, before);
    sd_ids_free(&ids);
    sd_buf_free(&a.text);
    return st;
}

// ---- what is typed

static const char QUOTES[] = "\"\"\"";
enum { N_QUOTES = sizeof QUOTES - 1 };

static bool ends_quoted(const sd_buf *text) {
    return text->len >= N_QUOTES &&
           memcmp(text->data + text->len - N_QUOTES, QUOTES, N_QUOTES) == 0;
}

// A message of several lines: what stands between the quotes that `first` begins with and those that
// end a later line or the same. The end of the input ends it too. False: it was given up, or grew too large.
static bool quoted(sd_buf *text, const sd_chat *c, const char *first, size_t len) {
    const char *line;
    bool ok = sd_buf_add(text, first + N_QUOTES, len - N_QUOTES);
    while (ok && !ends_quoted(text)) {
        sd_editor_got got = sd_editor_read(c->editor, "... ", &line, &len);
        if (got == SD_EDITOR_END) break;
        if (got == SD_EDITOR_INTERRUPTED) {
            sd_editor_forget_interrupt();
            fputs("\nthe message was given up\n", stderr);
            return false;
        }
        ok = sd_buf_addc(text, '\n') && sd_buf_add(text, line, len);
    }
    if (ok && ends_quoted(text)) text->len -= N_QUOTES;
    if (!ok) fputs("specdec: the message is longer than 16 MiB\n", stderr);
    return ok;
}

static void say_or_complain(sd_chat *c, const char *text, size_t len) {
    sd_error err = {0};
    if (len > 0 && say(c, text, len, &err) != SD_OK) fprintf(stderr, "specdec: %s\n", err.message);
}

static void loop(sd_chat *c) {
    const char *line;
    size_t len;
    sd_buf block = sd_buf_make((size_t)16 << 20);
    for (sd_editor_got got;
         (got = sd_editor_read(c->editor, "> ", &line, &len)) != SD_EDITOR_END;) {
        if (got == SD_EDITOR_INTERRUPTED) {
            sd_editor_forget_interrupt();
            fputs("\n(/exit or Ctrl-D leaves)\n", stderr);
        } else if (line[0] == '/') {
            if (!sd_chat_command(c, line)) break;
        } else if (strncmp(line, QUOTES, N_QUOTES) == 0) {
            sd_buf_clear(&block);
            if (quoted(&block, c, line, len)) say_or_complain(c, block.data, block.len);
        } else {
            say_or_complain(c, line, len);
        }
    }
    if (sd_editor_on_terminal(c->editor)) fputc('\n', stderr);
    sd_buf_free(&block);
}

// ---- the verb

// The user's, else the one that the adapter was trained with.
static sd_status begin_system(sd_chat *c, const char *given, sd_error *err) {
    sd_status st = SD_OK;
    sd_system_use use;
    SD_TRY(sd_talk_begin(c->messages, given, err));
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

static sd_status open_chat(sd_chat *c, const char *system, sd_error *err) {
    sd_status st = SD_OK;
    sd_chat_args *a = &c->a;
    SD_TRY(sd_decoding_load(&c->d, &a->common, &a->decoding, err));
    SD_CHECK(
        c->d.model->tokenizer && c->d.model->chat, err, SD_EINVAL,
        "%s: no chat template%s%s; give one with --chat-template FILE, or use specdec generate",
        a->common.model, c->d.model->chat_error ? ": " : "",
        c->d.model->chat_error ? c->d.model->chat_error : "");
    SD_TRY(sd_shaping_open(&c->shaping, &a->shaping, c->d.model, err));
    SD_TRY(sd_decoding_defaults(&c->d, &a->decoding, &a->n, true, err));
    SD_TRY(sd_decoding_start(&c->d, &a->common, &a->decoding, 1, 0, err));
    sd_decoding_announce(&c->d);
    c->messages = json_array();
    SD_CHECK_ALLOC(c->messages, err);
    SD_TRY(begin_system(c, system, err));
    SD_TRY(sd_editor_open(&c->editor, !a->no_history, err));
out:
    return st;
}

sd_status sd_verb_chat(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    sd_strings rest;
    char *system = NULL;
    sd_chat c = {0};
    if (sd_verb_help("chat -m MODEL [-a ADAPTER] [-d DRAFT]",
                     "A conversation in the terminal; /help lists its commands.", sd_chat_rows,
                     argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, sd_chat_rows, &c.a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "chat: '%s' is not an option", rest.item[0]);
    if (c.a.system) SD_TRY(sd_system_text(&system, c.a.system, err));
    SD_TRY(open_chat(&c, system, err));
    if (sd_editor_on_terminal(c.editor)) fprintf(stderr, "/help lists the commands\n");
    sd_editor_catch_interrupts();
    loop(&c);
out:
    free(system);
    sd_editor_close(c.editor);
    json_decref(c.messages);
    sd_shaping_close(&c.shaping);
    sd_decoding_close(&c.d);
    return st;
}
