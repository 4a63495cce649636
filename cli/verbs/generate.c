// specdec generate: one answer, streamed as text or reported as JSON.
#include "base/files/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/decoding.h"
#include "cli/shaping.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PROMPT = 16 << 20 };

typedef struct {
    sd_model_args common;
    sd_decoding_args decoding;
    sd_shaping_args shaping;
    const char *prompt, *file, *system;
    int64_t n;
    bool chat, json, ignore_end;
    sd_strings stop;
} generate_args;

static const sd_option rows[] = {
    SD_COMMON_ROWS(generate_args),
    SD_DECODING_ROWS(generate_args),
    SD_SHAPING_ROWS(generate_args),
    SD_DEFAULTS_ROW(generate_args),
    SD_SYSTEM_ROW(generate_args, system),
    {.name = "prompt",
     .letter = 'p',
     .type = SD_OPT_STRING,
     .value = "TEXT",
     .offset = offsetof(generate_args, prompt),
     .help = "what to continue or, with --chat, to answer"},
    {.name = "file",
     .letter = 'f',
     .type = SD_OPT_STRING,
     .value = "FILE",
     .offset = offsetof(generate_args, file),
     .help = "read the prompt from a file instead (/dev/stdin works)"},
    {.name = "chat",
     .type = SD_OPT_FLAG,
     .offset = offsetof(generate_args, chat),
     .help = "the prompt is a user's message: apply the model's chat template"},
    {.name = "tokens",
     .letter = 'n',
     .type = SD_OPT_INT,
     .def = "256",
     .min = 0,
     .max = 1 << 24,
     .unit = "tokens",
     .offset = offsetof(generate_args, n),
     .given = offsetof(generate_args, decoding.given[SD_DEFAULT_MAX_TOKENS]),
     .help = "generate at most so many; 0: until the context is full"},
    {.name = "stop",
     .type = SD_OPT_LIST,
     .value = "TEXT",
     .offset = offsetof(generate_args, stop),
     .help = "end before this text (may be given several times)"},
    {.name = "ignore-end",
     .type = SD_OPT_FLAG,
     .offset = offsetof(generate_args, ignore_end),
     .help = "go on after the model's end tokens"},
    SD_JSON_ROW(generate_args, json, "one JSON object instead of text"),
    {0}};

// The answer as it comes in.
typedef struct {
    bool stream;
    sd_buf text;
    sd_ids ids;
    bool full; // out of memory
    sd_finish finish;
    sd_request_stats stats;
    char error[512];
} answer;

static void on_event(void *ctx, const sd_event *ev) {
    answer *a = ctx;
    for (int i = 0; i < ev->n; i++) a->full |= !sd_ids_add(&a->ids, &ev->tokens[i].token, 1);
    if (ev->text_len && a->stream) {
        fwrite(ev->text, 1, ev->text_len, stdout);
        fflush(stdout);
    } else if (ev->text_len) {
        a->full |= !sd_buf_add(&a->text, ev->text, ev->text_len);
    }
    if (!ev->finish) return;
    a->finish = ev->finish;
    a->stats = *ev->stats;
    if (ev->error) snprintf(a->error, sizeof a->error, "%s", ev->error);
}

// The conversation of --chat: a system message, given or of the training, and the user's.
static sd_status make_messages(json_t **out, const generate_args *a, const sd_defaults *d,
                               const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    char *system = NULL;
    json_t *user = NULL;
    sd_system_use use;
    *out = json_array();
    SD_CHECK_ALLOC(*out, err);
    if (a->system) {
        SD_TRY(sd_system_text(&system, a->system, err));
        json_t *turn = json_pack("{s:s, s:s}", "role", "system", "content", system);
        SD_CHECK(turn || !sd_memory_lost(), err, SD_ENOMEM, "out of memory");
        SD_CHECK(turn, err, SD_EINVAL, "--system: is not valid UTF-8; a message must be");
        SD_CHECK_ALLOC(json_array_append_new(*out, turn) == 0, err);
    } else {
        SD_TRY(sd_defaults_fill_system(&use, *out, d, err));
    }
    user = json_pack("{s:s, s:s%}", "role", "user", "content", text, len);
    SD_CHECK(user || !sd_memory_lost(), err, SD_ENOMEM, "out of memory");
    SD_CHECK(user, err, SD_EINVAL, "the prompt is not valid UTF-8; a message must be");
    SD_CHECK_ALLOC(json_array_append(*out, user) == 0, err);
out:
    json_decref(user);
    free(system);
    return st;
}

static sd_status read_prompt(sd_ids *ids, const generate_args *a, const sd_model *m,
                             const sd_defaults *d, sd_error *err) {
    sd_status st = SD_OK;
    char *data = NULL;
    json_t *messages = NULL;
    size_t len = a->prompt ? strlen(a->prompt) : 0;
    const char *text = a->prompt;
    SD_CHECK(!a->prompt != !a->file, err, SD_EINVAL,
             "generate: give the prompt with either -p TEXT or -f FILE");
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: this model has no tokenizer; it cannot read text",
             m->path);
    if (a->file) {
        SD_TRY(sd_stream_read(&data, &len, a->file, MAX_PROMPT, err));
        text = data;
    }
    if (a->chat) {
        SD_CHECK(
            m->chat, err, SD_EINVAL,
            "%s: no chat template%s%s; give one with --chat-template FILE, or run without --chat",
            m->path, m->chat_error ? ": " : "", m->chat_error ? m->chat_error : "");
        SD_TRY(make_messages(&messages, a, d, text, len, err));
        SD_TRY(sd_model_chat_ids(m, messages, NULL, NULL, true, ids, err));
    } else {
        SD_TRY(sd_tokenizer_encode(m->tokenizer, text, len, SD_TOK_SPECIAL | SD_TOK_ADD_BOS, ids,
                                   err));
    }
    SD_CHECK(ids->n > 0, err, SD_EINVAL, "the prompt is empty; give at least one token of text");
out:
    json_decref(messages);
    free(data);
    return st;
}

static sd_status print_json(const answer *a, int prompt_tokens, sd_error *err) {
    sd_status st = SD_OK;
    json_t *tokens = json_array();
    for (int i = 0; i < a->ids.n; i++) json_array_append_new(tokens, json_integer(a->ids.id[i]));
    json_t *o =
        json_pack("{s:s%, s:o, s:s, s:i, s:{s:f, s:f, s:f}, s:o}", "text",
                  a->text.data ? a->text.data : "", a->text.len, "tokens", tokens, "finish_reason",
                  sd_finish_name(a->finish), "prompt_tokens", prompt_tokens, "timings",
                  "prefill_ms", a->stats.prefill_ms, "decode_ms", a->stats.decode_ms, "tok_s",
                  sd_decode_speed(&a->stats), "speculation", sd_spec_json(&a->stats.spec));
    SD_TRY(sd_json_print(stdout, o, JSON_COMPACT, err));
    fputc('\n', stdout);
out:
    json_decref(o);
    return st;
}

static sd_status run(sd_decoding *d, const generate_args *a, const sd_shaping_options *shaping,
                     const sd_ids *prompt, answer *out, sd_error *err) {
    sd_status st = SD_OK;
    sd_request r = {.prompt = prompt->id,
                    .n_prompt = prompt->n,
                    .max_tokens = (int)a->n,
                    .sampling = sd_decoding_sampling(&a->decoding),
                    .shaping = shaping->request,
                    .n_stop = a->stop.n,
                    .ignore_end = a->ignore_end,
                    .logprobs = -1,
                    .adapter = d->adapter,
                    .corpus = d->corpus,
                    .on_event = on_event,
                    .ctx = out};
    SD_CHECK(a->stop.n <= SD_MAX_STOPS, err, SD_EINVAL, "--stop: %d texts; at most %d are possible",
             a->stop.n, SD_MAX_STOPS);
    for (int i = 0; i < a->stop.n; i++) r.stop[i] = a->stop.item[i];
    uint64_t id;
    SD_TRY(sd_engine_submit(d->engine, &r, &id, err));
    while (sd_engine_step(d->engine))
        if (sd_interrupted) sd_engine_cancel(d->engine, id);
    if (out->stream) fputc('\n', stdout);
    SD_CHECK(out->finish != SD_FINISH_ERROR, err, SD_EIO, "%s", out->error);
    SD_CHECK(!out->full, err, SD_ENOMEM, "out of memory for the answer; ask for fewer tokens");
    if (!out->stream) SD_TRY(print_json(out, prompt->n, err));
    SD_CHECK(out->finish != SD_FINISH_CANCELLED, err, SD_EINTERRUPTED,
             "interrupted after %d tokens", out->stats.generated);
out:
    return st;
}

sd_status sd_verb_generate(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    generate_args a = {0};
    sd_strings rest;
    sd_decoding d = {0};
    sd_shaping_options shaping = {0};
    sd_ids prompt = {0};
    answer out = {.text = sd_buf_make((size_t)1 << 30)};
    if (sd_verb_help("generate -m MODEL [-a ADAPTER] [-d DRAFT] -p PROMPT|-f FILE",
                     "Generates one answer.", rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n == 0, err, SD_EINVAL, "generate: '%s' is not an option; quote the prompt: -p",
             rest.item[0]);
    SD_CHECK(!a.system || a.chat, err, SD_EINVAL,
             "--system: a raw prompt has no system message; give --chat too");
    SD_TRY(sd_decoding_load(&d, &a.common, &a.decoding, err));
    SD_TRY(sd_shaping_open(&shaping, &a.shaping, d.model, err));
    // A raw prompt is continued as it stands: nobody judged such answers.
    if (a.chat) SD_TRY(sd_decoding_defaults(&d, &a.decoding, &a.n, true, err));
    SD_CHECK(a.n == 0 || a.shaping.min_tokens <= a.n, err, SD_EINVAL,
             "--min-tokens is %lld and --tokens %lld; ask for no more than may come",
             (long long)a.shaping.min_tokens, (long long)a.n);
    SD_TRY(read_prompt(&prompt, &a, d.model, &d.defaults, err));
    SD_TRY(sd_decoding_start(&d, &a.common, &a.decoding, 1, prompt.n + a.n + 1, err));
    sd_decoding_announce(&d);
    sd_catch_interrupts();
    out.stream = !a.json;
    SD_TRY(run(&d, &a, &shaping, &prompt, &out, err));
out:
    sd_decoding_close(&d);
    sd_shaping_close(&shaping);
    sd_ids_free(&prompt);
    sd_ids_free(&out.ids);
    sd_buf_free(&out.text);
    return st;
}
