// Answers are sent as chunks of a stream while tokens come, or in one piece when all choices have
// ended.
//
// A whole answer is written as its client reads it, a slice at a time, so that neither memory nor
// the event loop pays for its size. What fits into one slice goes out with its length.
//
// Sending may find that the client reads too slowly; the connection is then gone and g->conn NULL,
// so it is looked at again after every piece.
#include "decode/serve/generation_private.h"

#include "base/json.h"
#include "base/list.h"
#include "base/utf8.h"

#include <string.h>

enum {
    SLICE = 64 * 1024,               // bytes of a whole answer written at a time: under a ms
    ANSWER_MEMORY = 64 << 20,        // bytes of logprobs that one request may have kept
    TOOLS_MEMORY = 8,                // bytes of a parsed schema for each byte of its text
    JSON_TOKEN = 96,                 // bytes of a token with its log probability, as JSON
    MAX_SCRATCH = 256 * 1024,        // what is kept for the next piece
    MAX_PIECE = 8 * SD_HTTP_MAX_BODY // an echoed prompt may be long
};

static sd_finish worst_finish(const sd_generation *g) {
    sd_finish f = SD_FINISH_STOP;
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].finish > f) f = g->choices[i].finish;
    return f;
}

static sd_usage usage_of(const sd_generation *g) {
    sd_usage u = {.prompt = g->prompt_tokens, .reasons = g->reasons};
    if (g->dialect->readings) u.cached = sd_generation_cached_readings(g);
    for (int i = 0; i < g->n_choices && !g->dialect->readings; i++) {
        u.generated += g->choices[i].generated;
        u.reasoning += g->choices[i].stats.reasoning;
        if (g->choices[i].index % g->request.n == 0) u.cached += g->choices[i].cached;
    }
    return u;
}

static sd_request_stats sum_stats(const sd_generation *g) {
    sd_request_stats sum = {0};
    for (int i = 0; i < g->n_choices; i++) sd_stats_add(&sum, &g->choices[i].stats);
    return sum;
}

bool sd_generation_echo(const sd_generation *g, int prompt, sd_buf *out) {
    const sd_api_prompt *p = &g->request.prompt[prompt];
    if (p->text) return sd_buf_add(out, p->text, p->len);
    sd_buf bytes = sd_buf_make(out->max); // ids may end within a character
    bool ok = sd_tokenizer_decode(g->server->local->model->tokenizer, p->ids, p->n_ids, false,
                                  &bytes, NULL) == SD_OK &&
              sd_utf8_lossy(out, bytes.data ? bytes.data : "", bytes.len);
    sd_buf_free(&bytes);
    return ok;
}

// Bytes of the log probabilities that an answer in one piece keeps; SIZE_MAX after an error.
static size_t logprobs_bytes(const sd_generation *g, int ctx, sd_api_error *e) {
    const sd_api_request *r = &g->request;
    size_t tokens = 0;
    // A stream that says them again has them as JSON too.
    const size_t each = sd_logprobs_stride(r->logprobs < 0 ? 0 : r->logprobs) +
                        (r->stream ? JSON_TOKEN * (1 + (size_t)r->logprobs) : 0);
    if (r->logprobs < 0 || (r->stream && !g->dialect->keeps_logprobs)) return 0;
    for (int i = 0; i < r->n_prompts; i++) {
        int most = ctx - g->prompt[i].n;
        if (r->max_tokens > 0 && r->max_tokens < most) most = r->max_tokens;
        if (r->no_answer) most = 0;
        if (r->score) most += g->prompt[i].n;
        tokens += (size_t)most * (size_t)r->n;
    }
    // At most 64 answers of a context: no product overflows.
    size_t bytes = tokens * each;
    if (bytes <= ANSWER_MEMORY) return bytes;
    sd_api_fail(e, 400, "logprobs",
                "logprobs of up to %zu tokens with %d alternatives each would take %zu MB, and a "
                "request may take %d; lower max_tokens, n or the alternatives, or ask for a stream",
                tokens, r->logprobs, bytes >> 20, ANSWER_MEMORY >> 20);
    return SIZE_MAX;
}

int sd_generation_reserve(sd_generation *g, int ctx, sd_api_error *e) {
    const sd_api_request *r = &g->request;
    const size_t logprobs = logprobs_bytes(g, ctx, e), held = g->bytes_held,
                 rules = g->grammar ? sd_grammar_rule_bytes(g->grammar) + r->constraint_len : 0;
    const size_t most = sd_listener_hold_most(&g->server->listener);
    if (logprobs == SIZE_MAX) return e->status;
    const size_t readings = g->dialect->readings ? sd_generation_readings_bytes(g) : 0;
    // What the parsed tools and the constraint take is kept until the answer's end.
    g->answer_bytes = r->tools_bytes * TOOLS_MEMORY + rules + logprobs + readings;
    if (g->answer_bytes == 0 ||
        sd_listener_hold(&g->server->listener, g->client, &g->bytes_held, held + g->answer_bytes))
        return 0;
    const size_t wanted = g->answer_bytes;
    g->answer_bytes = 0;
    g->server->listener.counts.bodies_refused++;
    const char *param = logprobs ? "logprobs" : NULL;
    if (held + wanted > most)
        return sd_api_fail(
            e, 400, param,
            "the request takes %zu MiB until its answer's end, and one request has at "
            "most %zu MiB of --body-memory; ask for %s",
            (held + wanted) >> 20, most >> 20,
            readings   ? "less at once"
            : logprobs ? "a stream or fewer logprobs"
                       : "fewer or smaller tools, or a smaller schema");
    sd_api_fail(e, 429, param,
                "other requests hold the memory that --body-memory gives; try again later%s",
                logprobs ? ", or ask for a stream or fewer logprobs" : "");
    e->retry_s = sd_listener_bytes_wait_s(&g->server->listener, (int64_t)wanted);
    return e->status;
}

// ---- pieces

static sd_json_out begin_piece(sd_generation *g) {
    sd_json_out t = {.buf = g->server->scratch};
    g->server->scratch = (sd_buf){0};
    t.buf.max = MAX_PIECE;
    t.buf.len = 0;
    return t;
}

static void end_piece(sd_generation *g, sd_json_out *t) {
    if (t->buf.cap > MAX_SCRATCH) sd_buf_free(&t->buf);
    sd_buf_free(&g->server->scratch);
    g->server->scratch = t->buf;
}

static void fail_memory(sd_generation *g) {
    g->failed = true;
    sd_api_fail(&g->error, 500, NULL, "out of memory");
}

// True while the client still reads; takes t.
static bool send_event(sd_generation *g, sd_json_out *t) {
    bool ok = !t->lost;
    if (!ok)
        fail_memory(g);
    else if (g->conn)
        sd_conn_stream_data(g->conn, t->buf.data, t->buf.len);
    end_piece(g, t);
    return ok && g->conn;
}

// Which generation of an adapter answers (0: the base), what was filled into the request, and what of it is
// not as the model was trained.
typedef struct {
    char lines[2 * SD_LOG_NOTE + SD_API_MAX_SKIPPED + 192];
} headers;

static headers headers_of(const sd_generation *g) {
    headers h = {""};
    int n = snprintf(h.lines, sizeof h.lines, "X-Specdec-Adapter-Generation: %llu\r\n",
                     (unsigned long long)g->target->card->generation);
    if (g->defaults[0])
        n += snprintf(h.lines + n, sizeof h.lines - (size_t)n, "X-Specdec-Defaults: %s\r\n",
                      g->defaults);
    if (g->departs[0])
        n += snprintf(h.lines + n, sizeof h.lines - (size_t)n, "X-Specdec-Departs: %s\r\n",
                      g->departs);
    if (g->request.skipped[0])
        snprintf(h.lines + n, sizeof h.lines - (size_t)n, "X-Specdec-Skipped-Tools: %s\r\n",
                 g->request.skipped);
    return h;
}

// ---- a stream

static bool begin_stream(sd_generation *g, const char *type) {
    if (g->streaming) return true;
    g->streaming = true;
    headers h = headers_of(g);
    return sd_conn_stream_begin(g->conn, type, h.lines);
}

static bool begin_events(sd_generation *g) {
    return begin_stream(g, g->dialect->stream_type);
}

// Usage stands in every chunk when it is wanted as it grows; when it comes at the end alone, the
// others say null.
static bool send_chunk(sd_generation *g, sd_chunk *c) {
    sd_usage usage = usage_of(g);
    sd_choice *choice = &g->choices[c->index];
    const sd_logprobs_source all = {
        .kept = &choice->kept, .top = g->request.logprobs, .n = choice->n_kept};
    c->state = &choice->stream;
    if (g->dialect->keeps_logprobs && g->request.logprobs >= 0) c->all = &all;
    if (g->request.continuous_usage) c->usage = &usage;
    c->usage_null = g->request.include_usage;
    sd_json_out t = begin_piece(g);
    g->dialect->chunk(&t, &g->answer, c);
    return send_event(g, &t);
}

// The opening chunk of a choice: its role (chat), or its echoed prompt, with logprobs where they are at hand.
static bool begin_choice(sd_generation *g, sd_choice *c, const sd_logprobs_source *logprobs) {
    if (c->begun) return true;
    c->begun = true;
    if (g->dialect->opens_choices)
        return send_chunk(g, &(sd_chunk){.index = c->index, .first = true});
    if (!g->request.echo) return true;
    sd_buf text = sd_buf_make(SD_HTTP_MAX_BODY);
    bool ok = sd_generation_echo(g, c->prompt, &text);
    if (!ok)
        fail_memory(g);
    else
        ok = send_chunk(g, &(sd_chunk){.index = c->index,
                                       .first = true,
                                       .text = text.data ? text.data : "",
                                       .len = text.len,
                                       .logprobs = logprobs,
                                       .cursor = &c->cursor});
    sd_buf_free(&text);
    return ok;
}

// ---- an answer's text becomes content, reasoning and tool calls (model/dialogue/answer.h)

// The dialect's prefix and 24 letters and digits.
static void make_id(sd_generation *g, char *out) {
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    sd_server *s = g->server;
    size_t n = strlen(g->dialect->call_prefix);
    memcpy(out, g->dialect->call_prefix, n);
    uint64_t bits = 0;
    for (int i = 0; i < 24; i++) {
        if (i % 8 == 0) bits = sd_mix64(s->id_key ^ sd_mix64(s->n_ids++));
        out[n + (size_t)i] = digits[bits % 62];
        bits /= 62;
    }
    out[n + 24] = '\0';
}

static sd_tool_call *add_call(sd_generation *g, sd_choice *c, const sd_delta *d) {
    if (!SD_GROW(c->calls, c->n_calls + 1, c->cap_calls)) return NULL;
    sd_tool_call *call = &c->calls[c->n_calls++];
    *call = (sd_tool_call){.arguments = sd_buf_make(SD_HTTP_MAX_BODY)};
    make_id(g, call->id);
    snprintf(call->name, sizeof call->name, "%.*s", (int)d->len, d->text);
    return call;
}

static bool keep(sd_choice *c, const sd_delta *d) {
    switch (d->kind) {
    case SD_DELTA_CONTENT:
        return sd_buf_add(&c->text, d->text, d->len);
    case SD_DELTA_REASONING:
        return sd_buf_add(&c->reasoning, d->text, d->len);
    case SD_DELTA_ARGUMENTS:
        return sd_buf_add(&c->calls[d->call].arguments, d->text, d->len);
    default:
        return true; // the call is in the list
    }
}

static bool on_delta(void *ctx, const sd_delta *d) {
    static const sd_chunk_kind kinds[] = {[SD_DELTA_CONTENT] = SD_CHUNK_CONTENT,
                                          [SD_DELTA_REASONING] = SD_CHUNK_REASONING,
                                          [SD_DELTA_CALL] = SD_CHUNK_CALL,
                                          [SD_DELTA_ARGUMENTS] = SD_CHUNK_ARGUMENTS};
    sd_choice *c = ctx;
    sd_generation *g = c->generation;
    const sd_tool_call *call = NULL;
    if (d->kind == SD_DELTA_CALL && !(call = add_call(g, c, d))) return false;
    const int at = c->n_kept - c->fresh + 1;
    if (d->kind == SD_DELTA_CONTENT && c->first_content == 0) c->first_content = at;
    if (d->kind == SD_DELTA_CALL && c->first_content > 0 && c->content_end == 0)
        c->content_end = at;
    c->fresh = 0;
    if (!g->request.stream) return keep(c, d);
    sd_chunk chunk = {.index = c->index,
                      .kind = kinds[d->kind],
                      .call = d->call,
                      .call_id = call ? call->id : NULL,
                      .text = d->text,
                      .len = d->len,
                      .logprobs = c->delta_logprobs,
                      .cursor = &c->cursor};
    c->delta_logprobs = NULL; // with the first delta that these tokens gave
    return send_chunk(g, &chunk);
}

sd_status sd_generation_open_answer(sd_generation *g, sd_choice *c, sd_error *err) {
    const sd_api_request *r = &g->request;
    const sd_dialogue *d = &sd_server_row(g->server, g->target)->dialogue;
    bool calls = r->tools && r->tool_choice != SD_API_TOOL_NONE && d->format != SD_TOOL_NONE;
    c->reasoning = sd_buf_make(SD_HTTP_MAX_BODY);
    // An answer that is held to a form of the client's is content alone.
    if (r->constraint != SD_GRAMMAR_NONE && r->constraint != SD_GRAMMAR_CALLS) return SD_OK;
    if (r->kind != SD_API_CHAT ||
        (!calls && d->think == SD_THINK_NONE && d->format != SD_TOOL_HARMONY))
        return SD_OK;
    sd_answer_options o = {.format = d->format,
                           .think = d->think,
                           .calls = calls,
                           .held = r->constraint == SD_GRAMMAR_CALLS,
                           .in_reasoning = g->in_reasoning,
                           .max_calls = r->parallel_calls ? 0 : 1,
                           .tools = r->tools};
    return sd_answer_parser_open(&c->parser, &o, on_delta, c, err);
}

void sd_generation_close_answer(sd_choice *c) {
    sd_answer_parser_close(c->parser);
    for (int i = 0; i < c->n_calls; i++) sd_buf_free(&c->calls[i].arguments);
    free(c->calls);
    sd_buf_free(&c->stream.text);
    sd_buf_free(&c->stream.done);
    sd_buf_free(&c->reasoning);
}

static bool parse(sd_choice *c, const char *text, size_t len, bool end) {
    return sd_answer_parser_add(c->parser, text, len) && (!end || sd_answer_parser_end(c->parser));
}

// The stop string that ended it, where the dialect names it.
static const char *stop_of(const sd_generation *g, const sd_choice *c) {
    const char *stop = c->stats.stop > 0 ? g->stops : NULL;
    for (int k = 1; stop && k < c->stats.stop; k++) stop += strlen(stop) + 1;
    return stop;
}

// ---- the new text of a stream

static void stream_message(sd_generation *g, const sd_engine_event *m) {
    sd_choice *c = m->to;
    const sd_provider_event *ev = m->event;
    if (ev->finish == SD_FINISH_CANCELLED || ev->finish == SD_FINISH_ERROR || ev->lost) return;
    bool end = ev->finish != SD_FINISH_NONE, begun = c->begun;
    sd_logprobs_source logprobs = {.tokens = sd_provider_event_tokens(ev),
                                   .n = ev->n,
                                   .n_prompt = ev->of_prompt ? ev->n : 0,
                                   .silent = ev->of_prompt && !begun && g->silent[c->prompt]};
    if (logprobs.tokens && g->dialect->keeps_logprobs) {
        if (!sd_logprobs_keep(&c->kept, logprobs.tokens, logprobs.n, g->request.logprobs)) {
            fail_memory(g);
            return;
        }
        c->n_kept += logprobs.n;
    }
    if (!begin_events(g) || !begin_choice(g, c, ev->of_prompt ? &logprobs : NULL)) return;
    if (ev->of_prompt && !begun) return; // they went along with its text
    bool with_logprobs = logprobs.tokens != NULL;
    const char *text = sd_provider_event_text(ev);
    size_t len = ev->text.n;
    if (c->parser) {
        c->delta_logprobs = with_logprobs ? &logprobs : NULL;
        bool ok = parse(c, text, len, end);
        with_logprobs = c->delta_logprobs != NULL; // these tokens gave nothing to say yet
        c->delta_logprobs = NULL;
        text = NULL, len = 0;
        if (!ok && g->conn && !g->failed) fail_memory(g);
        if (!ok) return;
    }
    if (len || with_logprobs) {
        sd_chunk chunk = {.index = c->index,
                          .text = text,
                          .len = len,
                          .logprobs = with_logprobs ? &logprobs : NULL,
                          .cursor = &c->cursor};
        if (!send_chunk(g, &chunk)) return;
    }
    if (!end) return;
    sd_chunk last = {.index = c->index,
                     .finish = (sd_finish)ev->finish,
                     .calls = c->n_calls > 0,
                     .stop = stop_of(g, c)};
    sd_request_stats sum;
    if (g->open == 0) {
        sum = sum_stats(g);
        last.sum = &sum;
    }
    send_chunk(g, &last);
}

static void end_stream(sd_generation *g) {
    sd_conn *conn = g->conn;
    bool ok = true;
    if (g->failed) {
        if (!begin_events(g)) return;
        sd_json_out t = begin_piece(g);
        g->dialect->error(&t, &g->error, &g->choices[0].stream);
        ok = send_event(g, &t);
    } else {
        if (g->request.include_usage) {
            sd_usage usage = usage_of(g);
            sd_json_out t = begin_piece(g);
            g->dialect->usage(&t, &g->answer, &usage);
            ok = send_event(g, &t);
        }
        const char *end = g->dialect->stream_end;
        ok = ok && sd_conn_stream_data(conn, end, strlen(end));
    }
    if (!ok && !g->conn) return; // the client was too slow for its end
    g->conn = NULL;
    sd_conn_set_work(conn, NULL);
    if (ok)
        sd_conn_stream_end(conn);
    else
        sd_conn_drop(conn); // no memory even for its error: a stream that breaks off says so
}

// ---- a whole answer

static void collect_message(sd_generation *g, const sd_engine_event *m) {
    sd_choice *c = m->to;
    const sd_provider_event *ev = m->event;
    const sd_token_info *tokens = sd_provider_event_tokens(ev);
    const char *text = sd_provider_event_text(ev);
    const size_t values = ev->values.n * sizeof(float);
    bool ok =
        values == 0 || sd_buf_add(&c->kept, (const char *)sd_provider_event_values(ev), values);
    if (tokens && ok) {
        ok = sd_logprobs_keep(&c->kept, tokens, ev->n, g->request.logprobs);
        if (ok) c->n_kept += ev->n, c->fresh = ev->n;
        if (ok && ev->of_prompt) c->n_of_prompt += ev->n;
    }
    if (ok)
        ok = c->parser ? parse(c, text, ev->text.n, ev->finish != SD_FINISH_NONE)
                       : sd_buf_add(&c->text, text, ev->text.n);
    c->fresh = 0;
    if (!ok) fail_memory(g);
}

void sd_generation_deliver(sd_generation *g, const sd_engine_event *m) {
    if (g->request.stream)
        stream_message(g, m);
    else
        collect_message(g, m);
}

static sd_whole_choice whole_choice(const void *ctx, int i) {
    const sd_generation *g = ctx;
    const sd_choice *c = &g->choices[i];
    return (sd_whole_choice){.index = c->index,
                             .text = c->text.data ? c->text.data : "",
                             .len = c->text.len,
                             .reasoning = c->reasoning.data,
                             .reasoning_len = c->reasoning.len,
                             .calls = c->calls,
                             .n_calls = c->n_calls,
                             .has_logprobs = g->request.logprobs >= 0 && c->n_kept > 0,
                             .logprobs = {.kept = &c->kept,
                                          .top = g->request.logprobs,
                                          .n = c->n_kept,
                                          .n_prompt = c->n_of_prompt,
                                          .silent = g->silent[c->prompt]},
                             .first_content = c->first_content ? c->first_content - 1 : 0,
                             .content_end = c->content_end ? c->content_end - 1 : c->n_kept,
                             .finish = c->finish,
                             .stop = stop_of(g, c)};
}

// The next slice; true when it is the last.
static bool write_slice(sd_generation *g, sd_json_out *t) {
    sd_usage usage = usage_of(g);
    sd_request_stats sum = sum_stats(g);
    if (g->dialect->readings) {
        const sd_readings read = sd_generation_take_readings(g);
        return g->dialect->readings(t, &g->whole, &g->answer, &read, &usage, SLICE);
    }
    return g->dialect->whole(t, &g->whole, &g->answer, g->n_choices, whole_choice, g, &usage, &sum,
                             SLICE);
}

static sd_conn *leave_conn(sd_generation *g) {
    sd_conn *conn = g->conn;
    g->conn = NULL;
    sd_conn_set_work(conn, NULL);
    return conn;
}

// True when nothing is left to do for the client.
static bool begin_whole(sd_generation *g) {
    sd_json_out t = begin_piece(g);
    bool done = write_slice(g, &t);
    if (t.lost) { // nothing was sent yet
        sd_api_error e;
        sd_api_fail(&e, 500, NULL, "out of memory");
        sd_conn_error(leave_conn(g), &e);
    } else if (done) {
        headers h = headers_of(g);
        sd_conn_reply(leave_conn(g), &(sd_reply){.status = 200,
                                                 .type = g->dialect->whole_type,
                                                 .extra = h.lines,
                                                 .body = t.buf.data,
                                                 .len = t.buf.len});
    } else {
        g->writing = g->in_slice = true;
        if (begin_stream(g, g->dialect->whole_type))
            sd_conn_stream_data(g->conn, t.buf.data, t.buf.len);
        g->in_slice = false;
    }
    end_piece(g, &t);
    return !g->conn;
}

static void free_written(sd_generation *g) {
    sd_server *s = g->server;
    sd_generation_free(g);
    // A drain waits for the last generation.
    if (s->phase >= SD_PHASE_LEAVING) event_active(s->flush_event, EV_TIMEOUT, 0);
}

void sd_generation_more(void *generation) {
    sd_generation *g = generation;
    if (!g->writing) return;
    sd_memory_lost_clear();
    g->in_slice = true;
    sd_json_out t = begin_piece(g);
    bool done = write_slice(g, &t);
    if (t.lost)
        sd_conn_drop(leave_conn(g)); // or what was cut off would pass for a whole answer
    else if (sd_conn_stream_data(g->conn, t.buf.data, t.buf.len) && done)
        sd_conn_stream_end(leave_conn(g));
    end_piece(g, &t);
    g->in_slice = false;
    if (!g->conn) free_written(g);
}

void sd_generation_end(sd_generation *g) {
    if (g->conn) {
        sd_generation_log(g, sd_finish_name(worst_finish(g)));
        if (g->request.stream && (g->streaming || !g->failed))
            end_stream(g);
        else if (g->failed)
            sd_conn_error(leave_conn(g), &g->error);
        else if (!begin_whole(g))
            return; // freed with its last slice
    }
    sd_generation_free(g);
}
