// What is sent back: chunks of a stream as tokens come, or one answer when all choices have ended.
//
// Sending may find that the client reads too slowly; the connection is then gone and j->conn NULL,
// so it is looked at again after every piece.
#include "decode/serve/call.h"

static sd_finish worst_finish(const sd_call *j) {
    sd_finish f = SD_FINISH_STOP;
    for (int i = 0; i < j->n_choices; i++)
        if (j->choices[i].finish > f) f = j->choices[i].finish;
    return f;
}

static json_t *usage(const sd_call *j) {
    int generated = 0, cached = 0;
    for (int i = 0; i < j->n_choices; i++) {
        generated += j->choices[i].generated;
        if (j->choices[i].index % j->request.n == 0) cached += j->choices[i].cached;
    }
    return sd_usage_json(j->prompt_tokens, generated, cached);
}

// The engine's thread writes a choice's stats up to its end: only when all have ended.
static sd_request_stats sum_stats(const sd_call *j) {
    sd_request_stats sum = {0};
    for (int i = 0; i < j->n_choices; i++) sd_stats_add(&sum, &j->choices[i].stats);
    return sum;
}

bool sd_call_echo(const sd_call *j, int prompt, sd_buf *out) {
    const sd_api_prompt *p = &j->request.prompt[prompt];
    if (p->text) return sd_buf_add(out, p->text, p->len);
    return sd_tokenizer_decode(j->server->model->tokenizer, p->ids, p->n_ids, false, out, NULL) ==
           SD_OK;
}

// True while the client still reads; takes v.
static bool send_event(sd_call *j, json_t *v) {
    sd_buf frame = sd_buf_make((size_t)8 * SD_HTTP_MAX_BODY); // an echoed prompt may be long
    bool ok = sd_sse_frame(&frame, v);
    if (!ok) {
        j->failed = true;
        sd_api_fail(&j->error, 500, NULL, "out of memory");
        sd_memory_lost_clear(); // it is answered for by an event of its own
    } else if (j->conn) {
        sd_conn_stream_data(j->conn, frame.data, frame.len);
    }
    sd_buf_free(&frame);
    return ok && j->conn;
}

static bool begin_stream(sd_call *j) {
    if (!j->streaming) {
        j->streaming = true;
        return sd_conn_stream_begin(j->conn, "text/event-stream; charset=utf-8");
    }
    return true;
}

static json_t *running_usage(const sd_call *j) {
    return j->request.continuous_usage ? usage(j) : NULL;
}

// The opening chunk of a choice: its role (chat), or its echoed prompt.
static bool begin_choice(sd_call *j, sd_choice *c) {
    if (c->begun) return true;
    c->begun = true;
    if (j->answer.kind == SD_API_CHAT)
        return send_event(j, sd_chunk_json(&j->answer, c->index, true, NULL, 0, NULL,
                                           SD_FINISH_NONE, running_usage(j)));
    if (!j->request.echo) return true;
    sd_buf text = sd_buf_make(SD_HTTP_MAX_BODY);
    bool ok = sd_call_echo(j, c->prompt, &text) &&
              send_event(j, sd_chunk_json(&j->answer, c->index, true, text.data ? text.data : "",
                                          text.len, NULL, SD_FINISH_NONE, running_usage(j)));
    sd_buf_free(&text);
    return ok;
}

static json_t *message_logprobs(sd_call *j, const sd_message *m) {
    if (!m->tokens || m->n == 0) return NULL;
    return sd_logprobs_json(j->answer.kind, m->tokens, m->n, j->server->model->tokenizer,
                            &m->to->offset);
}

static void stream_message(sd_call *j, const sd_message *m) {
    sd_choice *c = m->to;
    if (m->finish == SD_FINISH_CANCELLED || m->finish == SD_FINISH_ERROR || m->lost) return;
    if (!begin_stream(j) || !begin_choice(j, c)) return;
    json_t *logprobs = message_logprobs(j, m);
    if (m->text_len || logprobs) {
        if (!send_event(j, sd_chunk_json(&j->answer, c->index, false, m->text ? m->text : "",
                                         m->text_len, logprobs, SD_FINISH_NONE, running_usage(j))))
            return;
    }
    if (m->finish == SD_FINISH_NONE) return;
    json_t *v =
        sd_chunk_json(&j->answer, c->index, false, NULL, 0, NULL, m->finish, running_usage(j));
    if (j->open == 0) {
        sd_request_stats sum = sum_stats(j);
        sd_add_stats(v, &sum);
    }
    send_event(j, v);
}

static void collect_message(sd_call *j, const sd_message *m) {
    sd_choice *c = m->to;
    json_t *logprobs = message_logprobs(j, m);
    if (!sd_buf_add(&c->text, m->text, m->text_len) ||
        (logprobs && !sd_logprobs_append(&c->logprobs, logprobs)) || sd_memory_lost()) {
        sd_memory_lost_clear();
        j->failed = true;
        sd_api_fail(&j->error, 500, NULL, "out of memory");
    }
}

void sd_call_deliver(sd_call *j, const sd_message *m) {
    if (j->request.stream)
        stream_message(j, m);
    else
        collect_message(j, m);
}

static void end_stream(sd_call *j) {
    sd_conn *conn = j->conn;
    bool ok = true;
    if (j->failed) {
        ok = begin_stream(j) && send_event(j, sd_error_json(&j->error));
    } else {
        if (j->request.include_usage) ok = send_event(j, sd_usage_chunk_json(&j->answer, usage(j)));
        ok = ok && sd_conn_stream_data(conn, "data: [DONE]\n\n", 14);
    }
    if (!ok && !j->conn) return; // the client was too slow for its end
    j->conn = NULL;
    sd_conn_set_job(conn, NULL);
    if (ok)
        sd_conn_stream_end(conn);
    else
        sd_conn_drop(conn); // no memory even for its error: a stream that breaks off says so
}

static void end_whole(sd_call *j) {
    sd_conn *conn = j->conn;
    json_t *choices = json_array();
    for (int i = 0; i < j->n_choices; i++) {
        sd_choice *c = &j->choices[i];
        json_array_append_new(choices, sd_choice_json(j->answer.kind, c->index, c->text.data,
                                                      c->text.len, c->logprobs, c->finish));
        c->logprobs = NULL;
    }
    sd_request_stats sum = sum_stats(j);
    json_t *v = sd_answer_json(&j->answer, choices, usage(j), &sum);
    j->conn = NULL;
    sd_conn_set_job(conn, NULL);
    sd_conn_json(conn, 200, v);
}

void sd_call_end(sd_call *j) {
    if (j->conn) {
        sd_call_log(j, sd_finish_name(worst_finish(j)));
        if (j->request.stream && (j->streaming || !j->failed)) {
            end_stream(j);
        } else if (j->failed) {
            sd_conn *conn = j->conn;
            j->conn = NULL;
            sd_conn_set_job(conn, NULL);
            sd_conn_error(conn, &j->error);
        } else {
            end_whole(j);
        }
    }
    sd_call_free(j);
}
