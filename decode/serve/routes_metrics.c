// GET /metrics: what the server, its listener and its provider count, brought together.
#include "base/clock.h"
#include "decode/serve/metrics/page.h"
#include "decode/serve/routes.h"
#include "decode/serve/server.h"

enum { PAGE_BYTES = 64 << 20 }; // a model's part is 20 KiB

// The memory of what the local provider has beside its engine.
static void count_local(sd_metrics_page *p, const sd_models *local) {
    for (int i = 0; i < local->n; i++) {
        const sd_models_row *row = &local->row[i];
        if (row->adapter)
            p->adapter_factors += (size_t)row->adapter->n_params * sizeof(float) +
                                  (size_t)row->adapter->n_linears * sizeof *row->adapter->lora;
        if (row->corpus) p->indexes += sd_corpus_bytes(row->corpus);
    }
    if (local->grammars) p->grammar_bytes = sd_grammar_cache_bytes(local->grammars);
}

static void count_listener(sd_metrics_page *p, const sd_listener *l) {
    p->body_bytes = l->counts.bytes_held;
    p->bodies_refused = l->counts.bodies_refused;
    p->sockets_refused = l->counts.sockets_refused;
    p->displaced = l->counts.displaced;
    p->answered = l->counts.answered;
    p->n_answered = SD_STATUSES;
}

// An administrator sees every key's counts, others their own.
static const char *keys_seen(const sd_conn *c) {
    const sd_client *client = sd_conn_client(c);
    return client->admin ? NULL : client->key;
}

void sd_get_metrics(sd_conn *c) {
    sd_server *s = sd_conn_owner(c);
    sd_engine_stats stats = sd_server_stats(s);
    sd_grammar_cache_stats grammars;
    sd_metrics_served *row = sd_alloc((size_t)s->n_models + 1, sizeof *row);
    sd_buf out = sd_buf_make(PAGE_BYTES);
    for (int i = 0; row && i < s->n_models; i++) {
        const sd_served_model *m = &s->model[i];
        row[i] = (sd_metrics_served){.counts = m->counts,
                                     .draft = m->card->draft,
                                     .sha256 = m->card->sha256,
                                     .generation = m->card->generation,
                                     .running = m->running};
    }
    const sd_listener *l = &s->listener;
    int64_t log_lost = l->access_log ? sd_access_log_lost(l->access_log) : 0;
    sd_metrics_page p = {.counted = &s->metrics,
                         .ready = s->phase == SD_PHASE_READY && !stats.model_lost,
                         .engine = s->n_models ? &stats : NULL,
                         .model = row,
                         .n_models = s->n_models,
                         .key = keys_seen(c),
                         .vllm = s->o->vllm_metrics,
                         .now_s = sd_now_s(),
                         .started = s->created,
                         .log_lost = l->access_log ? &log_lost : NULL};
    count_listener(&p, l);
    if (s->local) count_local(&p, s->local);
    if (s->local && s->local->grammars) {
        sd_grammar_cache_get_stats(s->local->grammars, &grammars);
        p.grammars = &grammars;
    }
    if (row && sd_metrics_write(&out, &p))
        sd_conn_reply(c, &(sd_reply){.status = 200,
                                     .type = "text/plain; version=0.0.4; charset=utf-8",
                                     .body = out.data,
                                     .len = out.len});
    else
        sd_conn_json(c, 500, NULL);
    sd_buf_free(&out);
    free(row);
}
