// What is sent back: chunks of a stream as tokens come, or one answer when all choices have ended.
//
// A whole answer is written as its client reads it, a slice at a time, so that neither memory nor
// the event loop pays for its size. What fits into one slice goes out with its length.
//
// Sending may find that the client reads too slowly; the connection is then gone and j->conn NULL,
// so it is looked at again after every piece.
#include "decode/serve/generation_private.h"

#include "base/json.h"
#include "base/utf8.h"

#include <string.h>

enum {
    SLICE = 64 * 1024,               // bytes of a whole answer written at a time: under a ms
    ANSWER_MEMORY = 64 << 20,        // bytes of logprobs that one request may have kept
    MAX_SCRATCH = 256 * 1024,        // what is kept for the next piece
    MAX_PIECE = 8 * SD_HTTP_MAX_BODY // an echoed prompt may be long
};

static sd_finish worst_finish(const sd_call *j) {
    sd_finish f = SD_FINISH_STOP;
    for (int i = 0; i < j->n_choices; i++)
        if (j->choices[i].finish > f) f = j->choices[i].finish;
    return f;
}

static sd_usage usage_of(const sd_call *j) {
    sd_usage u = {.prompt = j->prompt_tokens};
    for (int i = 0; i < j->n_choices; i++) {
        u.generated += j->choices[i].generated;
        if (j->choices[i].index % j->request.n == 0) u.cached += j->choices[i].cached;
    }
    return u;
}

static sd_request_stats sum_stats(const sd_call *j) {
    sd_request_stats sum = {0};
    for (int i = 0; i < j->n_choices; i++) sd_stats_add(&sum, &j->choices[i].stats);
    return sum;
}

bool sd_call_echo(const sd_call *j, int prompt, sd_buf *out) {
    const sd_api_prompt *p = &j->request.prompt[prompt];
    if (p->text) return sd_buf_add(out, p->text, p->len);
    sd_buf bytes = sd_buf_make(out->max); // ids may end within a character
    bool ok = sd_tokenizer_decode(j->server->local->model->tokenizer, p->ids, p->n_ids, false,
                                  &bytes, NULL) == SD_OK &&
              sd_utf8_lossy(out, bytes.data ? bytes.data : "", bytes.len);
    sd_buf_free(&bytes);
    return ok;
}

int sd_call_reserve(sd_call *j, int ctx, sd_api_error *e) {
    const sd_api_request *r = &j->request;
    if (r->stream || r->logprobs < 0) return 0;
    size_t tokens = 0;
    for (int i = 0; i < r->n_prompts; i++) {
        int most = ctx - j->prompt[i].n;
        if (r->max_tokens > 0 && r->max_tokens < most) most = r->max_tokens;
        tokens += (size_t)most * (size_t)r->n;
    }
    // At most 64 answers of a context: no product overflows.
    size_t bytes = tokens * sd_logprobs_stride(r->logprobs);
    if (bytes > ANSWER_MEMORY)
        return sd_api_fail(
            e, 400, "logprobs",
            "logprobs of up to %zu tokens with %d alternatives each would take %zu MB, and a "
            "request may take %d; lower max_tokens, n or the alternatives, or ask for a stream",
            tokens, r->logprobs, bytes >> 20, ANSWER_MEMORY >> 20);
    j->answer_bytes = bytes;
    size_t held = j->held;
    if (sd_listener_hold(&j->server->listener, j->client, &j->held, held + bytes)) return 0;
    j->answer_bytes = 0;
    j->server->listener.counts.bodies_refused++;
    return sd_api_fail(e, 429, "logprobs",
                       "other requests hold the memory that --body-memory gives; try again later, "
                       "or ask for a stream or fewer logprobs");
}

// ---- pieces

static sd_json_out begin_piece(sd_call *j) {
    sd_json_out t = {.buf = j->server->scratch};
    j->server->scratch = (sd_buf){0};
    t.buf.max = MAX_PIECE;
    t.buf.len = 0;
    return t;
}

static void end_piece(sd_call *j, sd_json_out *t) {
    if (t->buf.cap > MAX_SCRATCH) sd_buf_free(&t->buf);
    sd_buf_free(&j->server->scratch);
    j->server->scratch = t->buf;
}

static void fail_memory(sd_call *j) {
    j->failed = true;
    sd_api_fail(&j->error, 500, NULL, "out of memory");
}

// True while the client still reads; takes t.
static bool send_event(sd_call *j, sd_json_out *t) {
    bool ok = !t->lost;
    if (!ok)
        fail_memory(j);
    else if (j->conn)
        sd_conn_stream_data(j->conn, t->buf.data, t->buf.len);
    end_piece(j, t);
    return ok && j->conn;
}

// ---- a stream

static bool begin_stream(sd_call *j, const char *type) {
    if (j->streaming) return true;
    j->streaming = true;
    return sd_conn_stream_begin(j->conn, type);
}

static bool begin_events(sd_call *j) {
    return begin_stream(j, j->dialect->stream_type);
}

// Usage stands in every chunk when it is wanted as it grows; when it comes at the end alone, the
// others say null.
static bool send_chunk(sd_call *j, sd_chunk *c) {
    sd_usage usage = usage_of(j);
    if (j->request.continuous_usage) c->usage = &usage;
    c->usage_null = j->request.include_usage;
    sd_json_out t = begin_piece(j);
    j->dialect->chunk(&t, &j->answer, c);
    return send_event(j, &t);
}

// The opening chunk of a choice: its role (chat), or its echoed prompt.
static bool begin_choice(sd_call *j, sd_choice *c) {
    if (c->begun) return true;
    c->begun = true;
    if (j->dialect->opens_choices)
        return send_chunk(j, &(sd_chunk){.index = c->index, .first = true});
    if (!j->request.echo) return true;
    sd_buf text = sd_buf_make(SD_HTTP_MAX_BODY);
    bool ok = sd_call_echo(j, c->prompt, &text);
    if (!ok)
        fail_memory(j);
    else
        ok = send_chunk(j, &(sd_chunk){.index = c->index,
                                       .first = true,
                                       .text = text.data ? text.data : "",
                                       .len = text.len});
    sd_buf_free(&text);
    return ok;
}

static void stream_message(sd_call *j, const sd_message *m) {
    sd_choice *c = m->to;
    const sd_provider_event *ev = m->event;
    if (ev->finish == SD_FINISH_CANCELLED || ev->finish == SD_FINISH_ERROR || ev->lost) return;
    if (!begin_events(j) || !begin_choice(j, c)) return;
    sd_logprobs_source logprobs = {.tokens = sd_provider_event_tokens(ev), .n = ev->n};
    bool with_logprobs = logprobs.tokens != NULL;
    if (ev->text.n || with_logprobs) {
        sd_chunk chunk = {.index = c->index,
                          .text = sd_provider_event_text(ev),
                          .len = ev->text.n,
                          .logprobs = with_logprobs ? &logprobs : NULL,
                          .cursor = &c->cursor};
        if (!send_chunk(j, &chunk)) return;
    }
    if (ev->finish == SD_FINISH_NONE) return;
    sd_chunk last = {.index = c->index, .finish = (sd_finish)ev->finish};
    sd_request_stats sum;
    if (j->open == 0) {
        sum = sum_stats(j);
        last.sum = &sum;
    }
    send_chunk(j, &last);
}

static void end_stream(sd_call *j) {
    sd_conn *conn = j->conn;
    bool ok = true;
    if (j->failed) {
        if (!begin_events(j)) return;
        sd_json_out t = begin_piece(j);
        j->dialect->error(&t, &j->error);
        ok = send_event(j, &t);
    } else {
        if (j->request.include_usage) {
            sd_usage usage = usage_of(j);
            sd_json_out t = begin_piece(j);
            j->dialect->usage(&t, &j->answer, &usage);
            ok = send_event(j, &t);
        }
        const char *end = j->dialect->stream_end;
        ok = ok && sd_conn_stream_data(conn, end, strlen(end));
    }
    if (!ok && !j->conn) return; // the client was too slow for its end
    j->conn = NULL;
    sd_conn_set_work(conn, NULL);
    if (ok)
        sd_conn_stream_end(conn);
    else
        sd_conn_drop(conn); // no memory even for its error: a stream that breaks off says so
}

// ---- a whole answer

static void collect_message(sd_call *j, const sd_message *m) {
    sd_choice *c = m->to;
    const sd_provider_event *ev = m->event;
    const sd_token_info *tokens = sd_provider_event_tokens(ev);
    bool ok = sd_buf_add(&c->text, sd_provider_event_text(ev), ev->text.n);
    if (tokens && ok) {
        ok = sd_logprobs_keep(&c->kept, tokens, ev->n, j->request.logprobs);
        if (ok) c->n_kept += ev->n;
    }
    if (!ok) fail_memory(j);
}

void sd_call_deliver(sd_call *j, const sd_message *m) {
    if (j->request.stream)
        stream_message(j, m);
    else
        collect_message(j, m);
}

static sd_whole_choice whole_choice(const void *ctx, int i) {
    const sd_call *j = ctx;
    const sd_choice *c = &j->choices[i];
    return (sd_whole_choice){
        .index = c->index,
        .text = c->text.data ? c->text.data : "",
        .len = c->text.len,
        .has_logprobs = j->request.logprobs >= 0 && c->n_kept > 0,
        .logprobs = {.kept = &c->kept, .top = j->request.logprobs, .n = c->n_kept},
        .finish = c->finish};
}

// The next slice; true when it is the last.
static bool write_slice(sd_call *j, sd_json_out *t) {
    sd_usage usage = usage_of(j);
    sd_request_stats sum = sum_stats(j);
    return j->dialect->whole(t, &j->whole, &j->answer, j->n_choices, whole_choice, j, &usage, &sum,
                             SLICE);
}

static sd_conn *leave_conn(sd_call *j) {
    sd_conn *conn = j->conn;
    j->conn = NULL;
    sd_conn_set_work(conn, NULL);
    return conn;
}

// True when nothing is left to do for the client.
static bool begin_whole(sd_call *j) {
    sd_json_out t = begin_piece(j);
    bool done = write_slice(j, &t);
    if (t.lost) { // nothing was sent yet
        sd_api_error e;
        sd_api_fail(&e, 500, NULL, "out of memory");
        sd_conn_error(leave_conn(j), &e);
    } else if (done) {
        sd_conn_reply(leave_conn(j), &(sd_reply){.status = 200,
                                                 .type = j->dialect->whole_type,
                                                 .body = t.buf.data,
                                                 .len = t.buf.len});
    } else {
        j->writing = j->in_slice = true;
        if (begin_stream(j, j->dialect->whole_type))
            sd_conn_stream_data(j->conn, t.buf.data, t.buf.len);
        j->in_slice = false;
    }
    end_piece(j, &t);
    return !j->conn;
}

static void free_written(sd_call *j) {
    sd_server *s = j->server;
    sd_call_free(j);
    // A drain waits for the last call.
    if (s->phase == SD_PHASE_DRAINING) event_active(s->flush_event, EV_TIMEOUT, 0);
}

void sd_call_more(void *call) {
    sd_call *j = call;
    if (!j->writing) return;
    sd_memory_lost_clear();
    j->in_slice = true;
    sd_json_out t = begin_piece(j);
    bool done = write_slice(j, &t);
    if (t.lost)
        sd_conn_drop(leave_conn(j)); // or what was cut off would pass for a whole answer
    else if (sd_conn_stream_data(j->conn, t.buf.data, t.buf.len) && done)
        sd_conn_stream_end(leave_conn(j));
    end_piece(j, &t);
    j->in_slice = false;
    if (!j->conn) free_written(j);
}

void sd_call_end(sd_call *j) {
    if (j->conn) {
        sd_call_log(j, sd_finish_name(worst_finish(j)));
        if (j->request.stream && (j->streaming || !j->failed))
            end_stream(j);
        else if (j->failed)
            sd_conn_error(leave_conn(j), &j->error);
        else if (!begin_whole(j))
            return; // freed with its last slice
    }
    sd_call_free(j);
}
