// The beginning: who may come in, under which model, and into the engine's queue.
#include "decode/engine/fair.h"
#include "decode/serve/generation_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// ---- into the engine

// Under --spec index, a model that has no index is decoded plainly.
static sd_spec_mode spec_of(const sd_generation *g) {
    const sd_engine_options *o = &g->server->o->engine;
    bool no_index = o->spec == SD_SPEC_CORPUS && !g->model->card->has_corpus && !o->draft;
    return g->request.speculate && !no_index ? o->spec : SD_SPEC_OFF;
}

// A key's requests find the prefixes of that key's, those with a salt the ones of the same salt. Without
// keys there is one tenant, wherever requests come from.
sd_status sd_generation_tenant(uint64_t *out, const sd_generation *g, sd_error *err) {
    const char *salt = g->request.cache_salt ? g->request.cache_salt : "";
    const sd_client_name *name = &g->client->name;
    struct {
        uint8_t key[sizeof g->server->tenant_key], client[sizeof name->byte];
        char salt[SD_API_MAX_SALT + 1];
    } of = {0};
    sd_sha256 hash;
    memcpy(of.key, g->server->tenant_key, sizeof of.key);
    if (name->is_key) memcpy(of.client, name->byte, sizeof of.client);
    snprintf(of.salt, sizeof of.salt, "%s", salt);
    sd_status st = sd_sha256_of(&hash, &of, sizeof of, err);
    hash.hex[16] = '\0';
    if (st == SD_OK) *out = strtoull(hash.hex, NULL, 16);
    return st;
}

// q is complete but for whose it is.
static int submit_request(sd_generation *g, sd_choice *c, sd_request *q, sd_api_error *e) {
    sd_provider *p = g->model->provider;
    sd_provider_request *m = NULL;
    sd_error err = {0};
    q->client = g->client->id;
    q->priority = g->request.priority;
    q->admin_priority = g->client->admin;
    sd_status st = sd_generation_tenant(&q->tenant, g, &err);
    if (st == SD_OK) st = sd_provider_request_make(&m, q, (uint32_t)g->model->row, &err);
    if (st == SD_OK) st = p->ops->start(p, m, (sd_sink){sd_generation_on_event, c}, &c->id, &err);
    free(m);
    if (st == SD_OK) {
        g->open++;
        return 0;
    }
    c->id = 0;
    if (st == SD_ELIMIT) return sd_api_fail(e, 429, NULL, "the queue is full; try again later");
    return sd_api_fail(e, st == SD_EINVAL ? 400 : 500, NULL, "%s", err.message);
}

int sd_generation_submit_reading(sd_generation *g, sd_choice *c, const sd_ids *prompt,
                                 const sd_request_reading *reading, sd_api_error *e) {
    sd_request q = {.prompt = prompt->id,
                    .n_prompt = prompt->n,
                    .logprobs = -1,
                    .spec = SD_SPEC_OFF,
                    .reading = *reading};
    return submit_request(g, c, &q, e);
}

static int submit_choice(sd_generation *g, sd_choice *c, sd_api_error *e) {
    const sd_api_request *r = &g->request;
    sd_request q = {.prompt = g->prompt[c->prompt].id,
                    .n_prompt = g->prompt[c->prompt].n,
                    .max_tokens = r->max_tokens,
                    .sampling = r->sampling,
                    .shaping = r->shaping,
                    .n_stop = r->n_stop,
                    .stop_token = r->stop_token,
                    .n_stop_token = r->n_stop_token,
                    .ignore_end = r->ignore_end,
                    .logprobs = r->logprobs,
                    .score = r->score,
                    .score_from = r->score_from,
                    .no_answer = r->no_answer,
                    .max_draft = r->max_draft,
                    .constraint = {r->constraint, r->constraint_text, r->constraint_len},
                    .spec = spec_of(g)};
    // A prompt is sampled as it would be alone, whatever its place in a list.
    q.sampling.choice = (uint32_t)(c->index % r->n);
    q.shaping.bad_words = g->bad_words.id, q.shaping.n_bad_words = g->bad_words.n;
    memcpy(q.stop, r->stop, sizeof q.stop);
    if (c->parser) {
        const sd_dialogue *d = &sd_server_row(g->server, g->model)->dialogue;
        q.n_shown_tokens = d->n_markers;
        memcpy(q.shown_token, d->marker, sizeof q.shown_token);
        if (g->reasons)
            q.reasoning = (sd_request_reasoning){.open = g->marks.open,
                                                 .close = g->marks.close,
                                                 .inside = g->in_reasoning,
                                                 .again = g->marks.again,
                                                 .bounded = r->reasoning_budget >= 0,
                                                 .budget = r->reasoning_budget,
                                                 .forced = g->closing.id,
                                                 .n_forced = g->closing.n};
    }
    if (submit_request(g, c, &q, e) == 429)
        sd_metrics_reject(&g->server->metrics, g->key, SD_REJECT_QUEUE_FULL);
    return c->id ? 0 : e->status;
}

// The request's own are gone before an answer ends.
static bool keep_stops(sd_generation *g) {
    const sd_api_request *r = &g->request;
    size_t n = 1, at = 0;
    if (!g->dialect->names_stop || r->n_stop == 0) return true;
    for (int i = 0; i < r->n_stop; i++) n += strlen(r->stop[i]) + 1;
    g->stops = sd_alloc(n, 1);
    for (int i = 0; g->stops && i < r->n_stop; i++) {
        strcpy(g->stops + at, r->stop[i]);
        at += strlen(r->stop[i]) + 1;
    }
    return g->stops != NULL;
}

static int submit(sd_generation *g, sd_api_error *e) {
    sd_server *s = g->server;
    sd_engine_stats stats = sd_server_stats(s);
    const bool reads = g->dialect->readings != NULL;
    int n = reads ? sd_generation_count_readings(g) : g->request.n_prompts * g->request.n,
        most = stats.slots + stats.queue;
    if (n > most && !reads)
        return sd_api_fail(e, 400, "n",
                           "the request asks for %d answers, and slots and queue hold %d; ask for "
                           "fewer or start the server with a larger --queue",
                           n, most);
    double wait_s;
    // Readings come one after another.
    if (!g->model->provider->ops->room(g->model->provider, g->client->id, reads ? 1 : n, &wait_s)) {
        sd_metrics_reject(&s->metrics, g->key, SD_REJECT_QUEUE_FULL);
        sd_api_fail(e, 429, NULL, "the queue is full; try again later");
        e->retry_s = wait_s;
        return e->status;
    }
    if (sd_generation_reserve(g, stats.ctx, e)) return e->status;
    g->choices = sd_alloc((size_t)n, sizeof *g->choices);
    if (!g->choices) return sd_api_fail(e, 500, NULL, "out of memory");
    g->n_choices = n;
    for (int i = 0; i < n; i++) {
        sd_choice *c = &g->choices[i];
        *c = (sd_choice){.generation = g, .index = i, .prompt = reads ? 0 : i / g->request.n};
        c->last = (sd_engine_event){.event = (void *)c->last_event, .room = sizeof c->last_event};
        c->text = sd_buf_make(SD_HTTP_MAX_BODY);
        c->said = sd_buf_make(SD_HTTP_MAX_BODY);
        c->stream.text = sd_buf_make(SD_HTTP_MAX_BODY);
        c->stream.done = sd_buf_make(8 * SD_HTTP_MAX_BODY);
        c->kept = sd_buf_make((size_t)1 << 30); // sd_generation_reserve bounds it
        if (!g->request.stream && g->request.echo && !sd_generation_echo(g, c->prompt, &c->text))
            return sd_api_fail(e, 500, NULL, "out of memory");
        sd_error err;
        if (!reads && sd_generation_open_answer(g, c, &err) != SD_OK)
            return sd_api_fail(e, 500, NULL, "%s", err.message);
    }
    if (reads) return sd_generation_begin_readings(g, e);
    if (!keep_stops(g)) return sd_api_fail(e, 500, NULL, "out of memory");
    for (int i = 0; i < n; i++)
        if (submit_choice(g, &g->choices[i], e)) return e->status;
    if (!g->request.echo) sd_generation_drop_prompt(g);
    return 0;
}

// Before any work: 503 while loading or draining, 429 when the queue is full anyway. only_reads: no engine is
// asked.
static int admit(sd_server *s, const sd_client *client, bool only_reads, sd_api_error *e) {
    if (s->phase != SD_PHASE_READY && s->phase != SD_PHASE_LEAVING) {
        bool loading = s->phase == SD_PHASE_LOADING;
        sd_metrics_reject(&s->metrics, sd_metrics_key(&s->metrics, client->key),
                          loading ? SD_REJECT_LOADING : SD_REJECT_DRAINING);
        return sd_api_fail(e, 503, NULL,
                           loading ? "the model is being loaded"
                                   : "the server is draining and will end");
    }
    sd_engine_stats stats = sd_server_stats(s);
    double wait_s;
    bool room = s->provider->ops->room(s->provider, client->id, 1, &wait_s) || only_reads;
    sd_share reading = {stats.queue + stats.slots, s->metrics.reading, client->n_reading,
                        s->listener.clients.reading + (client->n_reading == 0)};
    if (!room || !sd_fair_room(&reading, 1)) {
        sd_metrics_reject(&s->metrics, sd_metrics_key(&s->metrics, client->key),
                          SD_REJECT_QUEUE_FULL);
        sd_api_fail(e, 429, NULL,
                    "the queue is full: %d requests wait and %d are read; try again later",
                    stats.waiting, (int)s->metrics.reading);
        e->retry_s = wait_s;
        return e->status;
    }
    return 0;
}

// Its client gets the error; choices that were submitted end by themselves.
static void refuse(sd_generation *g, const sd_api_error *e) {
    sd_conn *conn = g->conn;
    sd_conn_set_work(conn, NULL);
    g->conn = NULL;
    sd_generation_cancel(g);
    if (g->open == 0) sd_generation_free(g);
    sd_conn_error(conn, e);
}

// What was asked for was read, and the answer with it.
static void reply_read(sd_generation *g) {
    sd_conn *conn = g->conn;
    sd_generation_log(g, sd_finish_name(SD_FINISH_STOP));
    sd_conn_set_work(conn, NULL);
    g->conn = NULL;
    sd_conn_reply(conn, &(sd_reply){.status = 200,
                                    .type = g->dialect->whole_type,
                                    .body = g->reply.buf.data,
                                    .len = g->reply.buf.len});
    sd_generation_free(g);
}

// The body is read, or what is wrong with it is known.
static void on_read(sd_work *item) {
    sd_generation *g = item->ctx;
    sd_server *s = g->server;
    sd_memory_lost_clear();
    sd_api_error e = g->error;
    g->reading = false;
    s->metrics.reading--;
    sd_client_add_reading(&s->listener.clients, g->client, -1);
    if (!g->conn) { // its client left meanwhile
        sd_generation_free(g);
        return;
    }
    if (!e.status && atomic_load(&g->cancelled))
        sd_api_fail(&e, 503, NULL, "the server ends; send the request again elsewhere");
    if (e.status) {
        refuse(g, &e);
        return;
    }
    g->model = g->target;
    g->model->running++;
    if (g->dialect->read) {
        reply_read(g);
        return;
    }
    g->answer.model = g->model->card->name;
    g->answer.generation = g->model->card->generation;
    g->answer.tokenizer = s->local->model->tokenizer;
    if (!g->request.has_seed &&
        getrandom(&g->request.sampling.seed, sizeof g->request.sampling.seed, 0) < 0)
        g->request.sampling.seed = sd_mix64(s->id_key + s->n_ids++);
    if (submit(g, &e)) refuse(g, &e);
}

void sd_generation_start(sd_conn *conn, const sd_dialect *dialect) {
    sd_server *s = sd_conn_owner(conn);
    sd_api_error e = {0};
    sd_generation *g = NULL;
    if (!admit(s, sd_conn_client(conn), dialect->read != NULL, &e) &&
        !(g = sd_generation_new(conn, dialect)))
        sd_api_fail(&e, 500, NULL, "out of memory");
    if (!g) {
        sd_conn_error(conn, &e);
        return;
    }
    g->body = sd_conn_take_body(conn, &g->bytes_held);
    sd_conn_set_work(conn, g);
    g->work =
        (sd_work){.owner = g->client->id, .step = sd_generation_read, .done = on_read, .ctx = g};
    if (!sd_workers_add(s->workers, &g->work)) {
        sd_api_fail(&e, 500, NULL, "out of memory");
        refuse(g, &e);
        return;
    }
    g->reading = true;
    s->metrics.reading++;
    sd_client_add_reading(&s->listener.clients, g->client, 1);
}
