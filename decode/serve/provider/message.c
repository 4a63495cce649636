#include "decode/serve/provider/message.h"

#include "base/memory.h"

#include <limits.h>
#include <string.h>

// The parts behind the struct stand behind one another, each aligned to 8 bytes.
typedef struct {
    char *block; // NULL: only counted
    size_t end;
} writer;

static sd_span put(writer *w, const void *data, size_t n, size_t each) {
    sd_span s = {(uint32_t)w->end, (uint32_t)n};
    if (n == 0) return (sd_span){0};
    if (w->block) memcpy(w->block + w->end, data, n * each);
    w->end += (n * each + 7) & ~(size_t)7;
    return s;
}

// Whether a span lies behind the struct and within the block.
static bool inside(sd_span s, size_t each, size_t least, size_t bytes) {
    if (s.n == 0) return true;
    return s.at % 8 == 0 && s.at >= least && s.at <= bytes && s.n <= (bytes - s.at) / each;
}

static sd_status check_head(const void *block, size_t bytes, size_t least, sd_error *err) {
    const sd_provider_head *head = block;
    sd_status st = SD_OK;
    SD_CHECK(bytes >= least, err, SD_EFORMAT, "a message has %zu bytes, want at least %zu", bytes,
             least);
    SD_CHECK(head->version == SD_PROVIDER_VERSION, err, SD_EFORMAT,
             "a message has version %u, want %d; run both sides of one build",
             (unsigned)head->version, SD_PROVIDER_VERSION);
    SD_CHECK(head->bytes == bytes, err, SD_EFORMAT, "a message of %zu bytes says it has %u", bytes,
             (unsigned)head->bytes);
out:
    return st;
}

// ---- requests

static void put_request(writer *w, sd_provider_request *m, const sd_request *r) {
    w->end = (sizeof *m + 7) & ~(size_t)7;
    m->prompt = put(w, r->prompt, (size_t)r->n_prompt, sizeof *r->prompt);
    m->stop_token = put(w, r->stop_token, (size_t)r->n_stop_token, sizeof *r->stop_token);
    const sd_request_shaping *h = &r->shaping;
    m->bias = put(w, h->bias, (size_t)h->n_bias, sizeof *h->bias);
    m->allowed = put(w, h->allowed, (size_t)h->n_allowed, sizeof *h->allowed);
    m->bad_words = put(w, h->bad_words, (size_t)h->n_bad_words, sizeof *h->bad_words);
    m->read_token = put(w, r->reading.token, (size_t)r->reading.n_tokens, sizeof *r->reading.token);
    m->constraint = put(w, r->constraint.text, r->constraint.len, 1);
    const sd_request_reasoning *g = &r->reasoning;
    if (g->open) m->reasoning_mark[0] = put(w, g->open, strlen(g->open) + 1, 1);
    if (g->open) m->reasoning_mark[1] = put(w, g->close, strlen(g->close) + 1, 1);
    m->forced = put(w, g->forced, (size_t)g->n_forced, sizeof *g->forced);
    for (int i = 0; i < r->n_stop; i++) m->stop[i] = put(w, r->stop[i], strlen(r->stop[i]) + 1, 1);
}

sd_status sd_provider_request_make(sd_provider_request **out, const sd_request *r, uint32_t model,
                                   sd_error *err) {
    sd_status st = SD_OK;
    sd_provider_request m = {.client = r->client,
                             .tenant = r->tenant,
                             .priority = r->priority,
                             .admin_priority = r->admin_priority,
                             .seed = r->sampling.seed,
                             .model = model,
                             .choice = r->sampling.choice,
                             .max_tokens = r->max_tokens,
                             .min_tokens = r->shaping.min_tokens,
                             .logprobs = r->logprobs,
                             .spec = (int32_t)r->spec,
                             .top_k = r->sampling.top_k,
                             .ignore_end = r->ignore_end,
                             .constraint_kind = (int32_t)r->constraint.kind,
                             .reasoning = r->reasoning.inside | r->reasoning.again << 1,
                             .budget = r->reasoning.bounded ? r->reasoning.budget : -1,
                             .score = r->score,
                             .score_from = r->score_from,
                             .no_answer = r->no_answer,
                             .max_draft = r->max_draft,
                             .read_kind = (int32_t)r->reading.kind,
                             .n_stop = r->n_stop,
                             .n_shown_tokens = r->n_shown_tokens,
                             .temperature = r->sampling.temperature,
                             .top_p = r->sampling.top_p,
                             .min_p = r->sampling.min_p,
                             .presence = r->shaping.presence,
                             .frequency = r->shaping.frequency,
                             .repetition = r->shaping.repetition};
    writer w = {0};
    put_request(&w, &m, r);
    SD_CHECK(w.end <= INT32_MAX, err, SD_ELIMIT, "a request of %zu bytes is too large to be sent",
             w.end);
    w.block = sd_alloc(1, w.end);
    SD_CHECK_ALLOC(w.block, err);
    memcpy(m.shown_token, r->shown_token, sizeof m.shown_token);
    m.head = (sd_provider_head){SD_PROVIDER_VERSION, (uint32_t)w.end};
    put_request(&w, &m, r);
    memcpy(w.block, &m, sizeof m);
    *out = (void *)w.block;
out:
    return st;
}

static const void *part(const char *base, sd_span s) {
    return s.n ? base + s.at : NULL;
}

// Lists that the engine checks value by value.
static sd_status read_shaping(sd_request_shaping *h, const sd_provider_request *m, size_t bytes,
                              sd_error *err) {
    sd_status st = SD_OK;
    const char *base = (const char *)m;
    SD_CHECK(inside(m->bias, sizeof *h->bias, sizeof *m, bytes) &&
                 inside(m->allowed, sizeof *h->allowed, sizeof *m, bytes) &&
                 inside(m->bad_words, sizeof *h->bad_words, sizeof *m, bytes) &&
                 m->bias.n <= INT_MAX && m->allowed.n <= INT_MAX && m->bad_words.n <= INT_MAX,
             err, SD_EFORMAT, "what shapes a request's logits lies outside its %zu bytes", bytes);
    *h = (sd_request_shaping){.presence = m->presence,
                              .frequency = m->frequency,
                              .repetition = m->repetition,
                              .bias = part(base, m->bias),
                              .allowed = part(base, m->allowed),
                              .bad_words = part(base, m->bad_words),
                              .n_bias = (int)m->bias.n,
                              .n_allowed = (int)m->allowed.n,
                              .n_bad_words = (int)m->bad_words.n,
                              .min_tokens = m->min_tokens};
out:
    return st;
}

static bool is_text(sd_span s, const char *base, size_t bytes) {
    return s.n > 0 && inside(s, 1, sizeof(sd_provider_request), bytes) &&
           base[s.at + s.n - 1] == '\0';
}

static sd_status read_reasoning(sd_request_reasoning *g, const sd_provider_request *m, size_t bytes,
                                sd_error *err) {
    sd_status st = SD_OK;
    const char *base = (const char *)m;
    bool marks = m->reasoning_mark[0].n > 0;
    SD_CHECK((!marks || (is_text(m->reasoning_mark[0], base, bytes) &&
                         is_text(m->reasoning_mark[1], base, bytes))) &&
                 inside(m->forced, sizeof *g->forced, sizeof *m, bytes) && m->forced.n <= INT_MAX,
             err, SD_EFORMAT, "what a request says of reasoning lies outside its %zu bytes", bytes);
    *g = (sd_request_reasoning){.open = marks ? part(base, m->reasoning_mark[0]) : NULL,
                                .close = marks ? part(base, m->reasoning_mark[1]) : NULL,
                                .inside = m->reasoning & 1,
                                .again = m->reasoning >> 1 & 1,
                                .bounded = m->budget >= 0,
                                .budget = m->budget,
                                .forced = part(base, m->forced),
                                .n_forced = (int)m->forced.n};
out:
    return st;
}

sd_status sd_provider_request_read(sd_request *r, const void *block, size_t bytes, sd_error *err) {
    sd_status st = SD_OK;
    const sd_provider_request *m = block;
    const char *base = block;
    SD_TRY(check_head(block, bytes, sizeof *m, err));
    SD_CHECK(inside(m->prompt, sizeof *r->prompt, sizeof *m, bytes) &&
                 inside(m->stop_token, sizeof *r->stop_token, sizeof *m, bytes) &&
                 inside(m->read_token, sizeof(int32_t), sizeof *m, bytes) &&
                 inside(m->constraint, 1, sizeof *m, bytes) && m->prompt.n <= INT_MAX &&
                 m->read_token.n <= INT_MAX && m->stop_token.n <= INT_MAX,
             err, SD_EFORMAT, "a request's tokens lie outside its %zu bytes", bytes);
    SD_CHECK(m->constraint_kind >= 0 && m->constraint_kind < SD_GRAMMAR_KINDS, err, SD_EFORMAT,
             "a request has a constraint of kind %d, which is unknown", (int)m->constraint_kind);
    SD_CHECK(m->n_stop >= 0 && m->n_stop <= SD_MAX_STOPS, err, SD_EFORMAT,
             "a request has %d stop strings, at most %d are possible", (int)m->n_stop,
             SD_MAX_STOPS);
    *r = (sd_request){
        .prompt = part(base, m->prompt),
        .n_prompt = (int)m->prompt.n,
        .max_tokens = m->max_tokens,
        .sampling = {.temperature = m->temperature,
                     .top_k = m->top_k,
                     .top_p = m->top_p,
                     .min_p = m->min_p,
                     .seed = m->seed,
                     .choice = m->choice},
        .n_stop = m->n_stop,
        .stop_token = part(base, m->stop_token),
        .n_stop_token = (int)m->stop_token.n,
        .ignore_end = m->ignore_end != 0,
        .logprobs = m->logprobs,
        .score = m->score != 0,
        .score_from = m->score_from,
        .no_answer = m->no_answer != 0,
        .max_draft = m->max_draft,
        .reading = {(sd_read_kind)m->read_kind, part(base, m->read_token), (int)m->read_token.n},
        .spec = (sd_spec_mode)m->spec,
        .client = m->client,
        .tenant = m->tenant,
        .priority = m->priority,
        .admin_priority = m->admin_priority != 0};
    SD_CHECK(m->n_shown_tokens >= 0 && m->n_shown_tokens <= SD_MAX_SHOWN_TOKENS, err, SD_EFORMAT,
             "a request shows %d special tokens, at most %d are possible", (int)m->n_shown_tokens,
             SD_MAX_SHOWN_TOKENS);
    memcpy(r->shown_token, m->shown_token, sizeof r->shown_token);
    r->n_shown_tokens = m->n_shown_tokens;
    r->constraint = (sd_grammar_spec){(sd_grammar_kind)m->constraint_kind,
                                      part(base, m->constraint), m->constraint.n};
    SD_TRY(read_shaping(&r->shaping, m, bytes, err));
    SD_TRY(read_reasoning(&r->reasoning, m, bytes, err));
    for (int i = 0; i < m->n_stop; i++) {
        sd_span s = m->stop[i];
        SD_CHECK(is_text(s, base, bytes), err, SD_EFORMAT,
                 "stop string %d of a request lies outside it or has no end", i);
        r->stop[i] = base + s.at;
    }
out:
    return st;
}

// ---- events

// The fixed parts first.
static void put_event(writer *w, sd_provider_event *m, const sd_event *ev, bool with_tokens) {
    w->end = sizeof *m;
    size_t error = ev->error ? strlen(ev->error) : 0;
    if (error > SD_PROVIDER_ERROR) error = SD_PROVIDER_ERROR;
    m->stats = put(w, ev->stats, ev->stats ? 1 : 0, sizeof *ev->stats);
    m->error = put(w, ev->error, error, 1);
    m->tokens = put(w, ev->tokens, with_tokens ? (size_t)ev->n : 0, sizeof *ev->tokens);
    m->text = put(w, ev->text, ev->text_len, 1);
    m->values = put(w, ev->values, (size_t)ev->n_values, sizeof *ev->values);
}

size_t sd_provider_event_bytes(const sd_event *ev, bool with_tokens) {
    sd_provider_event m;
    writer w = {0};
    put_event(&w, &m, ev, with_tokens);
    return w.end;
}

void sd_provider_event_write(void *block, size_t room, const sd_event *ev, int64_t at_ns,
                             bool with_tokens) {
    sd_event fitting = *ev;
    bool lost = sd_provider_event_bytes(ev, with_tokens) > room;
    if (lost) fitting.text_len = 0, fitting.n_values = 0, with_tokens = false;
    sd_provider_event m = {.id = ev->id,
                           .at_ns = at_ns,
                           .n = ev->n,
                           .finish = (int32_t)ev->finish,
                           .lost = lost,
                           .of_prompt = ev->of_prompt,
                           .cached = ev->cached_tokens};
    writer w = {.block = block};
    put_event(&w, &m, &fitting, with_tokens);
    m.head = (sd_provider_head){SD_PROVIDER_VERSION, (uint32_t)w.end};
    memcpy(block, &m, sizeof m);
}

void sd_provider_event_copy(void *block, size_t room, const sd_provider_event *from) {
    if (from->head.bytes <= room) {
        memcpy(block, from, from->head.bytes);
        return;
    }
    sd_event fixed = {.id = from->id,
                      .n = from->n,
                      .of_prompt = from->of_prompt != 0,
                      .cached_tokens = from->cached,
                      .finish = (sd_finish)from->finish,
                      .stats = sd_provider_event_stats(from)};
    char error[SD_PROVIDER_ERROR + 1];
    memcpy(error, sd_provider_event_error(from), from->error.n);
    error[from->error.n] = '\0';
    if (from->error.n) fixed.error = error;
    sd_provider_event_write(block, room, &fixed, from->at_ns, false);
    ((sd_provider_event *)block)->lost = 1;
}

sd_status sd_provider_event_check(const void *block, size_t bytes, sd_error *err) {
    sd_status st = SD_OK;
    const sd_provider_event *m = block;
    SD_TRY(check_head(block, bytes, sizeof *m, err));
    SD_CHECK(inside(m->tokens, sizeof(sd_token_info), sizeof *m, bytes) &&
                 inside(m->values, sizeof(float), sizeof *m, bytes) &&
                 inside(m->text, 1, sizeof *m, bytes) && inside(m->error, 1, sizeof *m, bytes) &&
                 inside(m->stats, sizeof(sd_request_stats), sizeof *m, bytes),
             err, SD_EFORMAT, "a part of an event lies outside its %zu bytes", bytes);
    SD_CHECK(m->n >= 0 && (m->tokens.n == 0 || m->tokens.n == (uint32_t)m->n) &&
                 m->error.n <= SD_PROVIDER_ERROR && m->stats.n <= 1 &&
                 m->finish >= SD_FINISH_NONE && m->finish <= SD_FINISH_ERROR &&
                 (m->finish == SD_FINISH_NONE || m->stats.n == 1) &&
                 (m->finish == SD_FINISH_STOP || m->values.n == 0) &&
                 (!m->of_prompt || (m->text.n == 0 && m->finish == SD_FINISH_NONE)),
             err, SD_EFORMAT, "an event's counts do not go together");
out:
    return st;
}
