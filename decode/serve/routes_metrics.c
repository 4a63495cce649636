// GET /metrics: what the server, its listener and its provider count, brought together.
#include "base/clock.h"
#include "decode/serve/metrics/page.h"
#include "decode/serve/routes.h"
#include "decode/serve/server.h"

enum { PAGE_BYTES = 64 << 20 }; // a model's part is 20 KiB

// The base, what drains, and the adapters that are served: of one name the newest is the last.
static sd_metrics_served *list_models(const sd_served *all, int *n, int *draining) {
    *draining = 0;
    for (const sd_served_model *m = all->draining; m; m = m->next) ++*draining;
    sd_metrics_served *row = sd_alloc((size_t)(all->n + *draining) + 1, sizeof *row);
    const sd_served_model *d = all->draining;
    *n = all->n ? all->n + *draining : 0;
    for (int i = 0; row && i < *n; i++) {
        const bool drains = i > 0 && i <= *draining;
        const sd_served_model *m = drains ? d : all->model[i == 0 ? 0 : i - *draining];
        if (drains) d = d->next;
        row[i] = (sd_metrics_served){.counts = m->counts,
                                     .draft = m->card->draft,
                                     .sha256 = m->card->sha256,
                                     .generation = m->card->generation,
                                     .running = m->running};
    }
    return row;
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
    int n, draining;
    sd_metrics_served *row = list_models(&s->served, &n, &draining);
    sd_buf out = sd_buf_make(PAGE_BYTES);
    const sd_listener *l = &s->listener;
    int64_t log_lost = l->access_log ? sd_access_log_lost(l->access_log) : 0;
    sd_metrics_page p = {.counted = &s->metrics,
                         .ready =
                             s->phase == SD_PHASE_READY && !stats.model_lost && !stats.wake_failed,
                         .engine = n ? &stats : NULL,
                         .model = row,
                         .n_models = n,
                         .n_draining = draining,
                         .loads_adapters = s->adapter_root.path != NULL,
                         .key = keys_seen(c),
                         .vllm = s->o->vllm_metrics,
                         .now_s = sd_now_s(),
                         .started = s->created,
                         .log_lost = l->access_log ? &log_lost : NULL};
    count_listener(&p, l);
    if (s->local) sd_models_bytes(s->local, &p.adapter_factors, &p.indexes);
    if (s->local && s->local->grammars) {
        p.grammar_bytes = sd_grammar_cache_bytes(s->local->grammars);
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
