// A call is one API request from its parsed body to its last byte: n choices of each prompt, each a
// request of the engine.
//
// The engine calls on_event on its own thread. What it says is copied into a message and appended
// to the server's outbox under a lock that is held for a few instructions; an eventfd wakes the
// event loop when the outbox was empty. The message that ends a choice is part of the choice, so an
// end is delivered even when memory is short. A call is freed when all its choices have ended,
// whether or not a client still waits.
#include "base/clock.h"
#include "base/log.h"
#include "decode/serve/server.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef struct choice choice;

struct sd_message {
    sd_message *next;
    choice *to;
    int64_t at_ns;
    int n;                 // tokens
    sd_token_info *tokens; // NULL unless logprobs are wanted
    char *text;
    size_t text_len;
    sd_finish finish;
    bool lost;     // text or tokens could not be copied
    void *payload; // malloc'ed: tokens, then text
};

struct choice {
    sd_call *call;
    int index, prompt; // among all choices; which prompt
    uint64_t id;       // the engine's; 0: not submitted
    bool begun, ended;
    sd_finish finish;
    sd_buf text;      // of an answer in one piece
    json_t *logprobs; // likewise
    int64_t offset;   // characters so far, for text_offset
    int64_t last_ns;  // when its last tokens came
    int generated;
    // Written by the engine's thread before the last message is in the outbox.
    sd_message last;
    sd_request_stats stats;
    char error[512];
};

struct sd_call {
    sd_server *server;
    sd_call *prev, *next;
    sd_conn *conn; // NULL: nobody waits any more
    sd_api_request request;
    sd_served *model;
    sd_answer answer;
    char id[40];
    sd_ids prompt[SD_API_MAX_PROMPTS];
    choice *choices;
    int n_choices, open; // open: submitted and not ended
    bool streaming, failed;
    int64_t arrival_ns, first_ns;
    sd_api_error error;
};

// ---- the engine's thread

static void copy_payload(sd_message *m, const sd_event *ev, bool with_tokens) {
    size_t tokens = with_tokens ? (size_t)ev->n * sizeof *ev->tokens : 0;
    if (tokens + ev->text_len == 0) return;
    m->payload = malloc(tokens + ev->text_len);
    if (!m->payload) {
        m->lost = true;
        return;
    }
    if (tokens) {
        m->tokens = m->payload;
        memcpy(m->tokens, ev->tokens, tokens);
    }
    if (ev->text_len) {
        m->text = (char *)m->payload + tokens;
        memcpy(m->text, ev->text, ev->text_len);
        m->text_len = ev->text_len;
    }
}

static void outbox_add(sd_server *s, sd_message *m) {
    pthread_mutex_lock(&s->outbox_lock);
    bool was_empty = s->outbox_head == NULL;
    if (was_empty)
        s->outbox_head = m;
    else
        s->outbox_tail->next = m;
    s->outbox_tail = m;
    pthread_mutex_unlock(&s->outbox_lock);
    uint64_t one = 1;
    if (was_empty && write(s->wake_fd, &one, sizeof one) < 0) return; // full is awake
}

static void on_event(void *ctx, const sd_event *ev) {
    choice *c = ctx;
    bool end = ev->finish != SD_FINISH_NONE;
    sd_message *m = end ? &c->last : calloc(1, sizeof *m);
    if (!m) {
        c->last.lost = true; // the end will say so
        return;
    }
    m->to = c;
    m->at_ns = sd_now_ns();
    m->n = ev->n;
    m->finish = ev->finish;
    copy_payload(m, ev, c->call->request.logprobs >= 0);
    if (end) {
        if (ev->stats) c->stats = *ev->stats;
        snprintf(c->error, sizeof c->error, "%s", ev->error ? ev->error : "");
    }
    outbox_add(c->call->server, m);
}

// ---- life and death

static void call_free(sd_call *j) {
    sd_server *s = j->server;
    if (j->prev)
        j->prev->next = j->next;
    else
        s->calls = j->next;
    if (j->next) j->next->prev = j->prev;
    s->n_calls--;
    if (j->model) j->model->running--;
    for (int i = 0; i < j->n_choices; i++) {
        sd_buf_free(&j->choices[i].text);
        json_decref(j->choices[i].logprobs);
    }
    for (int i = 0; i < SD_API_MAX_PROMPTS; i++) sd_ids_free(&j->prompt[i]);
    free(j->choices);
    sd_api_request_free(&j->request);
    free(j);
}

static void cancel_open(sd_call *j) {
    for (int i = 0; i < j->n_choices; i++)
        if (j->choices[i].id && !j->choices[i].ended)
            sd_engine_cancel(j->server->engine, j->choices[i].id);
}

static int prompt_tokens(const sd_call *j) {
    int n = 0;
    for (int i = 0; i < j->request.n_prompts; i++) n += j->prompt[i].n;
    return n;
}

static void log_facts(const sd_call *j, const char *finish) {
    int generated = 0;
    for (int i = 0; i < j->n_choices; i++) generated += j->choices[i].generated;
    double ttft = j->first_ns ? (double)(j->first_ns - j->arrival_ns) * 1e-6 : -1;
    sd_conn_set_log(j->conn,
                    &(sd_log_facts){j->model->name, finish, prompt_tokens(j), generated, ttft});
}

void sd_call_abandon(sd_call *j) {
    if (j->conn) log_facts(j, "cancelled");
    j->conn = NULL;
    cancel_open(j);
}

void sd_calls_cancel(sd_server *s) {
    for (sd_call *j = s->calls; j; j = j->next) cancel_open(j);
}

// ---- the answer

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
        if (j->choices[i].index % j->request.n == 0) cached += j->choices[i].stats.cached_tokens;
    }
    return sd_usage_json(prompt_tokens(j), generated, cached);
}

static sd_request_stats sum_stats(const sd_call *j) {
    sd_request_stats sum = {0};
    for (int i = 0; i < j->n_choices; i++) sd_stats_add(&sum, &j->choices[i].stats);
    return sum;
}

// Text that echo puts before the answer: the prompt as it was read.
static bool echo_text(const sd_call *j, int prompt, sd_buf *out) {
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
    } else if (j->conn) {
        sd_conn_stream_data(j->conn, frame.data, frame.len);
    }
    sd_buf_free(&frame);
    return ok && j->conn;
}

static bool begin_stream(sd_call *j) {
    if (!j->streaming) {
        j->streaming = true;
        sd_conn_stream_begin(j->conn, "text/event-stream; charset=utf-8");
    }
    return true;
}

static json_t *running_usage(const sd_call *j) {
    return j->request.continuous_usage ? usage(j) : NULL;
}

// The opening chunk of a choice: its role (chat), or its echoed prompt.
static bool begin_choice(sd_call *j, choice *c) {
    if (c->begun) return true;
    c->begun = true;
    if (j->answer.kind == SD_API_CHAT)
        return send_event(j, sd_chunk_json(&j->answer, c->index, true, NULL, 0, NULL,
                                           SD_FINISH_NONE, running_usage(j)));
    if (!j->request.echo) return true;
    sd_buf text = sd_buf_make(SD_HTTP_MAX_BODY);
    bool ok = echo_text(j, c->prompt, &text) &&
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
    choice *c = m->to;
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
    sd_request_stats sum = sum_stats(j);
    if (j->open == 0) sd_add_stats(v, &sum);
    send_event(j, v);
}

static void collect_message(sd_call *j, const sd_message *m) {
    choice *c = m->to;
    json_t *logprobs = message_logprobs(j, m);
    if (!sd_buf_add(&c->text, m->text, m->text_len) ||
        (logprobs && !sd_logprobs_append(&c->logprobs, logprobs))) {
        j->failed = true;
        sd_api_fail(&j->error, 500, NULL, "out of memory");
    }
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
    sd_conn_stream_end(conn);
}

static void end_whole(sd_call *j) {
    sd_conn *conn = j->conn;
    json_t *choices = json_array();
    for (int i = 0; i < j->n_choices; i++) {
        choice *c = &j->choices[i];
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

static void end_call(sd_call *j) {
    if (j->conn) {
        log_facts(j, sd_finish_name(worst_finish(j)));
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
    call_free(j);
}

// ---- messages on the event loop

static void count_tokens(sd_call *j, const sd_message *m) {
    choice *c = m->to;
    sd_histogram *h = j->server->metrics.histogram;
    if (m->n == 0) return;
    int n = m->n;
    c->generated += n;
    if (!j->first_ns) {
        j->first_ns = m->at_ns;
        sd_histogram_observe(&h[SD_H_time_to_first_token_seconds],
                             (double)(m->at_ns - j->arrival_ns) * 1e-9, 1);
    }
    // Tokens that came together share the time since the ones before them.
    if (c->last_ns)
        sd_histogram_observe(&h[SD_H_inter_token_latency_seconds],
                             (double)(m->at_ns - c->last_ns) * 1e-9 / n, n);
    c->last_ns = m->at_ns;
}

static void take_finish(sd_call *j, const sd_message *m) {
    choice *c = m->to;
    c->ended = true;
    c->finish = m->finish;
    j->open--;
    j->model->rounds += c->stats.spec.rounds;
    j->model->accepted += c->stats.spec.accepted;
    sd_metrics_finish(&j->server->metrics, m->finish, &c->stats,
                      (double)(m->at_ns - j->arrival_ns) * 1e-9, m->at_ns);
    if (j->failed) return;
    if (m->finish == SD_FINISH_ERROR || m->finish == SD_FINISH_CANCELLED || m->lost) {
        j->failed = true;
        if (m->finish == SD_FINISH_CANCELLED)
            sd_api_fail(&j->error, 503, NULL, "the server ends; send the request again elsewhere");
        else
            sd_api_fail(&j->error, 500, NULL, "%s", c->error[0] ? c->error : "out of memory");
        cancel_open(j); // one choice's failure ends the request
    }
}

static void take_message(sd_message *m) {
    choice *c = m->to;
    sd_call *j = c->call;
    count_tokens(j, m);
    if (m->lost) c->last.lost = true;
    if (m->finish != SD_FINISH_NONE) take_finish(j, m);
    if (j->conn && !j->failed) {
        if (j->request.stream)
            stream_message(j, m);
        else
            collect_message(j, m);
    }
    free(m->payload);
    if (m != &c->last) free(m);
    if (j->open == 0) end_call(j);
}

void sd_outbox_drain(sd_server *s) {
    pthread_mutex_lock(&s->outbox_lock);
    sd_message *m = s->outbox_head;
    s->outbox_head = s->outbox_tail = NULL;
    pthread_mutex_unlock(&s->outbox_lock);
    for (sd_message *next; m; m = next) {
        next = m->next;
        take_message(m);
    }
}

// ---- from the body to the engine

static int refuse_length(sd_api_error *e, const char *param, long long n, int ctx, bool at_least) {
    sd_api_fail(
        e, 400, param,
        "the prompt has %s%lld tokens and the context holds %d; shorten the prompt or start "
        "the server with a larger --ctx",
        at_least ? "at least " : "", n, ctx);
    e->code = "context_length_exceeded";
    return e->status;
}

// A text cannot have fewer tokens than its length over the longest token: megabytes that can never
// fit are refused before they are tokenised.
static int encode_text(sd_call *j, int i, int ctx, sd_api_error *e) {
    const sd_api_prompt *p = &j->request.prompt[i];
    const sd_model *m = j->server->model;
    sd_error err = {0};
    if (!m->tokenizer)
        return sd_api_fail(e, 400, "prompt", "this model has no tokenizer; give token ids");
    size_t least = p->len / (j->server->longest_token ? j->server->longest_token : 1);
    if (least >= (size_t)ctx) return refuse_length(e, "prompt", (long long)least, ctx, true);
    if (sd_tokenizer_encode(m->tokenizer, p->text, p->len, SD_TOK_SPECIAL | SD_TOK_ADD_BOS,
                            &j->prompt[i], &err) != SD_OK)
        return sd_api_fail(e, 500, "prompt", "%s", err.message);
    return 0;
}

static int encode_completion(sd_call *j, int ctx, sd_api_error *e) {
    const sd_model *m = j->server->model;
    for (int i = 0; i < j->request.n_prompts; i++) {
        const sd_api_prompt *p = &j->request.prompt[i];
        for (int k = 0; k < p->n_ids; k++)
            if (p->ids[k] >= m->hp.V)
                return sd_api_fail(e, 400, "prompt", "prompt: token id %d is not below %d",
                                   (int)p->ids[k], m->hp.V);
        if (p->text && encode_text(j, i, ctx, e)) return e->status;
        if (!p->text && !sd_ids_add(&j->prompt[i], p->ids, p->n_ids))
            return sd_api_fail(e, 500, "prompt", "out of memory");
    }
    if (j->request.echo && !m->tokenizer)
        return sd_api_fail(e, 400, "echo", "echo: this model has no tokenizer");
    return 0;
}

static int encode_chat(sd_call *j, int ctx, sd_api_error *e) {
    const sd_model *m = j->server->model;
    sd_api_request *r = &j->request;
    sd_error err = {0};
    size_t i, bytes = 0;
    json_t *message;
    r->n_prompts = 1;
    if (!m->tokenizer || !m->chat)
        return sd_api_fail(e, 400, "messages",
                           "this model has no usable chat template%s%s; use /v1/completions",
                           m->chat_error ? ": " : "", m->chat_error ? m->chat_error : "");
    json_array_foreach(r->messages, i, message) bytes +=
        json_string_length(json_object_get(message, "content"));
    size_t least = bytes / (j->server->longest_token ? j->server->longest_token : 1);
    if (least >= (size_t)ctx) return refuse_length(e, "messages", (long long)least, ctx, true);
    sd_status st =
        sd_model_chat_ids(m, r->messages, NULL, r->template_arguments, true, &j->prompt[0], &err);
    if (st != SD_OK)
        return sd_api_fail(e, st == SD_ENOMEM ? 500 : 400, "messages", "%s", err.message);
    return 0;
}

static int encode(sd_call *j, sd_api_error *e) {
    sd_engine_stats stats;
    sd_engine_get_stats(j->server->engine, &stats);
    bool chat = j->answer.kind == SD_API_CHAT;
    if (chat ? encode_chat(j, stats.ctx, e) : encode_completion(j, stats.ctx, e)) return e->status;
    for (int i = 0; i < j->request.n_prompts; i++) {
        if (j->prompt[i].n == 0)
            return sd_api_fail(e, 400, chat ? "messages" : "prompt",
                               "the prompt is empty; give at least one token");
        if (j->prompt[i].n >= stats.ctx)
            return refuse_length(e, chat ? "messages" : "prompt", j->prompt[i].n, stats.ctx, false);
    }
    for (int i = 0; i < j->request.n_stop_token; i++)
        if (j->request.stop_token[i] >= j->server->model->hp.V)
            return sd_api_fail(e, 400, "stop_token_ids", "stop_token_ids: %d is not below %d",
                               (int)j->request.stop_token[i], j->server->model->hp.V);
    return 0;
}

static int find_model(sd_call *j, sd_api_error *e) {
    sd_server *s = j->server;
    sd_served *m = sd_server_find(s, j->request.model);
    if (m) {
        j->model = m;
        m->running++;
        j->answer.model = m->name;
        return 0;
    }
    sd_buf known = sd_buf_make(400);
    for (int i = 0; i < s->n_served; i++)
        if (!sd_buf_printf(&known, "%s%s", i ? ", " : "", s->served[i].name)) break;
    sd_api_fail(e, 404, "model", "model '%.100s' is not served here; known: %s", j->request.model,
                known.data ? known.data : "");
    e->code = "model_not_found";
    sd_buf_free(&known);
    return e->status;
}

// Under --spec index, a model that has no index is decoded plainly.
static sd_spec_mode spec_of(const sd_call *j) {
    const sd_engine_options *o = &j->server->o->engine;
    bool no_index = o->spec == SD_SPEC_INDEX && !j->model->corpus && !o->draft;
    return j->request.speculate && !no_index ? o->spec : SD_SPEC_OFF;
}

static int submit_choice(sd_call *j, choice *c, sd_api_error *e) {
    const sd_api_request *r = &j->request;
    sd_error err = {0};
    sd_request q = {.prompt = j->prompt[c->prompt].id,
                    .n_prompt = j->prompt[c->prompt].n,
                    .max_tokens = r->max_tokens,
                    .sampling = r->sampling,
                    .n_stop = r->n_stop,
                    .stop_token = r->stop_token,
                    .n_stop_token = r->n_stop_token,
                    .ignore_end = r->ignore_end,
                    .logprobs = r->logprobs,
                    .adapter = j->model->adapter,
                    .corpus = j->model->corpus,
                    .spec = spec_of(j),
                    .on_event = on_event,
                    .ctx = c};
    q.sampling.choice = (uint32_t)c->index;
    memcpy(q.stop, r->stop, sizeof q.stop);
    sd_status st = sd_engine_submit(j->server->engine, &q, &c->id, &err);
    if (st == SD_OK) {
        j->open++;
        return 0;
    }
    c->id = 0;
    if (st == SD_ELIMIT) {
        j->server->metrics.rejected[SD_REJECT_QUEUE_FULL]++;
        return sd_api_fail(e, 429, NULL, "the queue is full; try again later");
    }
    return sd_api_fail(e, st == SD_EINVAL ? 400 : 500, NULL, "%s", err.message);
}

static int submit(sd_call *j, sd_api_error *e) {
    int n = j->request.n_prompts * j->request.n, queue = j->server->o->engine.queue;
    if (queue > 0 && n > queue)
        return sd_api_fail(e, 400, "n",
                           "the request asks for %d answers and the queue holds %d; ask for fewer "
                           "or start the server with a larger --queue",
                           n, queue);
    j->choices = sd_alloc((size_t)n, sizeof *j->choices);
    if (!j->choices) return sd_api_fail(e, 500, NULL, "out of memory");
    j->n_choices = n;
    for (int i = 0; i < n; i++) {
        choice *c = &j->choices[i];
        *c = (choice){.call = j, .index = i, .prompt = i / j->request.n};
        c->text = sd_buf_make(SD_HTTP_MAX_BODY);
        if (!j->request.stream && j->request.echo && !echo_text(j, c->prompt, &c->text))
            return sd_api_fail(e, 500, NULL, "out of memory");
    }
    for (int i = 0; i < n; i++)
        if (submit_choice(j, &j->choices[i], e)) return e->status;
    return 0;
}

// Before any work: 503 while loading or draining, 429 when the queue is full anyway.
static int admit(sd_server *s, sd_api_error *e) {
    if (s->phase != SD_PHASE_READY) {
        bool loading = s->phase == SD_PHASE_LOADING;
        s->metrics.rejected[loading ? SD_REJECT_LOADING : SD_REJECT_DRAINING]++;
        return sd_api_fail(e, 503, NULL,
                           loading ? "the model is being loaded"
                                   : "the server is draining and will end");
    }
    sd_engine_stats stats;
    sd_engine_get_stats(s->engine, &stats);
    int queue = s->o->engine.queue;
    if (queue > 0 && stats.waiting >= queue) {
        s->metrics.rejected[SD_REJECT_QUEUE_FULL]++;
        return sd_api_fail(e, 429, NULL, "the queue is full: %d requests wait; try again later",
                           stats.waiting);
    }
    return 0;
}

static sd_call *call_new(sd_conn *conn, sd_api_kind kind) {
    sd_server *s = sd_conn_server(conn);
    sd_call *j = sd_alloc(1, sizeof *j);
    if (!j) return NULL;
    j->server = s;
    j->next = s->calls;
    if (s->calls) s->calls->prev = j;
    s->calls = j;
    s->n_calls++;
    j->conn = conn;
    j->arrival_ns = sd_conn_arrival_ns(conn);
    uint64_t id = sd_mix64(s->id_key ^ sd_mix64(s->n_ids++));
    snprintf(j->id, sizeof j->id, "%s-%016llx", kind == SD_API_CHAT ? "chatcmpl" : "cmpl",
             (unsigned long long)id);
    j->answer = (sd_answer){.kind = kind, .id = j->id, .created = (int64_t)time(NULL)};
    return j;
}

static void start(sd_conn *conn, sd_api_kind kind) {
    sd_server *s = sd_conn_server(conn);
    sd_http *http = sd_conn_http(conn);
    sd_api_error e = {0};
    sd_call *j = NULL;
    if (admit(s, &e)) goto refuse;
    j = call_new(conn, kind);
    if (!j) {
        sd_api_fail(&e, 500, NULL, "out of memory");
        goto refuse;
    }
    if (sd_api_request_parse(&j->request, kind, http->body.data, http->body.len, &e) ||
        find_model(j, &e) || encode(j, &e))
        goto refuse;
    if (!j->request.has_seed &&
        getrandom(&j->request.sampling.seed, sizeof j->request.sampling.seed, 0) < 0)
        j->request.sampling.seed = sd_mix64(s->id_key + s->n_ids++);
    sd_conn_set_job(conn, j);
    if (submit(j, &e)) goto refuse;
    return;
refuse:
    sd_conn_set_job(conn, NULL);
    if (j) {
        j->conn = NULL;     // it gets its answer here
        sd_call_abandon(j); // choices that were submitted end by themselves
        if (j->open == 0) call_free(j);
    }
    sd_conn_error(conn, &e);
}

void sd_call_chat(sd_conn *c) {
    start(c, SD_API_CHAT);
}

void sd_call_completion(sd_conn *c) {
    start(c, SD_API_COMPLETION);
}
