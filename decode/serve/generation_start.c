// The beginning: who may come in, under which model, and into the engine's queue.
#include "decode/engine/fair.h"
#include "decode/serve/generation_private.h"

#include <string.h>
#include <sys/random.h>

// ---- into the engine

// Under --spec index, a model that has no index is decoded plainly.
static sd_spec_mode spec_of(const sd_call *j) {
    const sd_engine_options *o = &j->server->o->engine;
    bool no_index = o->spec == SD_SPEC_INDEX && !j->model->card->has_corpus && !o->draft;
    return j->request.speculate && !no_index ? o->spec : SD_SPEC_OFF;
}

static int submit_choice(sd_call *j, sd_choice *c, sd_api_error *e) {
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
                    .spec = spec_of(j),
                    .client = j->client->id};
    // A prompt is sampled as it would be alone, whatever its place in a list.
    q.sampling.choice = (uint32_t)(c->index % r->n);
    memcpy(q.stop, r->stop, sizeof q.stop);
    sd_provider *p = j->server->provider;
    sd_provider_request *m = NULL;
    uint32_t row = (uint32_t)(j->model - j->server->model);
    sd_status st = sd_provider_request_make(&m, &q, row, &err);
    if (st == SD_OK) st = p->ops->start(p, m, (sd_sink){sd_call_on_event, c}, &c->id, &err);
    free(m);
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
    sd_server *s = j->server;
    sd_engine_stats stats = sd_server_stats(s);
    int n = j->request.n_prompts * j->request.n, most = stats.slots + stats.queue;
    if (n > most)
        return sd_api_fail(e, 400, "n",
                           "the request asks for %d answers, and slots and queue hold %d; ask for "
                           "fewer or start the server with a larger --queue",
                           n, most);
    double wait_s;
    if (!s->provider->ops->room(s->provider, j->client->id, n, &wait_s)) {
        s->metrics.rejected[SD_REJECT_QUEUE_FULL]++;
        sd_api_fail(e, 429, NULL, "the queue is full; try again later");
        e->retry_s = wait_s;
        return e->status;
    }
    if (sd_call_reserve(j, stats.ctx, e)) return e->status;
    j->choices = sd_alloc((size_t)n, sizeof *j->choices);
    if (!j->choices) return sd_api_fail(e, 500, NULL, "out of memory");
    j->n_choices = n;
    for (int i = 0; i < n; i++) {
        sd_choice *c = &j->choices[i];
        *c = (sd_choice){.call = j, .index = i, .prompt = i / j->request.n};
        c->last = (sd_message){.event = (void *)c->last_event, .room = sizeof c->last_event};
        c->text = sd_buf_make(SD_HTTP_MAX_BODY);
        c->kept = sd_buf_make((size_t)1 << 30); // sd_call_reserve bounds it
        if (!j->request.stream && j->request.echo && !sd_call_echo(j, c->prompt, &c->text))
            return sd_api_fail(e, 500, NULL, "out of memory");
    }
    for (int i = 0; i < n; i++)
        if (submit_choice(j, &j->choices[i], e)) return e->status;
    if (!j->request.echo) sd_call_drop_prompt(j);
    return 0;
}

// Before any work: 503 while loading or draining, 429 when the queue is full anyway.
static int admit(sd_server *s, const sd_client *client, sd_api_error *e) {
    if (s->phase != SD_PHASE_READY) {
        bool loading = s->phase == SD_PHASE_LOADING;
        s->metrics.rejected[loading ? SD_REJECT_LOADING : SD_REJECT_DRAINING]++;
        return sd_api_fail(e, 503, NULL,
                           loading ? "the model is being loaded"
                                   : "the server is draining and will end");
    }
    sd_engine_stats stats = sd_server_stats(s);
    double wait_s;
    bool room = s->provider->ops->room(s->provider, client->id, 1, &wait_s);
    sd_share reading = {stats.queue + stats.slots, s->metrics.reading, client->n_reading,
                        s->listener.clients.reading + (client->n_reading == 0)};
    if (!room || !sd_fair_room(&reading, 1)) {
        s->metrics.rejected[SD_REJECT_QUEUE_FULL]++;
        sd_api_fail(e, 429, NULL,
                    "the queue is full: %d requests wait and %d are read; try again later",
                    stats.waiting, (int)s->metrics.reading);
        e->retry_s = wait_s;
        return e->status;
    }
    return 0;
}

// Its client gets the error; choices that were submitted end by themselves.
static void refuse(sd_call *j, const sd_api_error *e) {
    sd_conn *conn = j->conn;
    sd_conn_set_work(conn, NULL);
    j->conn = NULL;
    sd_call_cancel(j);
    if (j->open == 0) sd_call_free(j);
    sd_conn_error(conn, e);
}

// The body is read, or what is wrong with it is known.
static void on_read(sd_work *item) {
    sd_call *j = item->ctx;
    sd_server *s = j->server;
    sd_memory_lost_clear();
    sd_api_error e = j->error;
    j->reading = false;
    s->metrics.reading--;
    sd_client_add_reading(&s->listener.clients, j->client, -1);
    if (!j->conn) { // its client left meanwhile
        sd_call_free(j);
        return;
    }
    if (!e.status && atomic_load(&j->cut))
        sd_api_fail(&e, 503, NULL, "the server ends; send the request again elsewhere");
    if (e.status) {
        refuse(j, &e);
        return;
    }
    j->model = j->found;
    j->model->running++;
    j->answer.model = j->model->card->name;
    j->answer.tokenizer = s->local->model->tokenizer;
    if (!j->request.has_seed &&
        getrandom(&j->request.sampling.seed, sizeof j->request.sampling.seed, 0) < 0)
        j->request.sampling.seed = sd_mix64(s->id_key + s->n_ids++);
    if (submit(j, &e)) refuse(j, &e);
}

void sd_call_start(sd_conn *conn, const sd_dialect *dialect) {
    sd_server *s = sd_conn_owner(conn);
    sd_api_error e = {0};
    sd_call *j = NULL;
    if (!admit(s, sd_conn_client(conn), &e) && !(j = sd_call_new(conn, dialect)))
        sd_api_fail(&e, 500, NULL, "out of memory");
    if (!j) {
        sd_conn_error(conn, &e);
        return;
    }
    j->body = sd_conn_take_body(conn, &j->held);
    sd_conn_set_work(conn, j);
    j->work = (sd_work){.owner = j->client->id, .step = sd_call_read, .done = on_read, .ctx = j};
    if (!sd_workers_add(s->workers, &j->work)) {
        sd_api_fail(&e, 500, NULL, "out of memory");
        refuse(j, &e);
        return;
    }
    j->reading = true;
    s->metrics.reading++;
    sd_client_add_reading(&s->listener.clients, j->client, 1);
}
