#include "decode/serve/adapters.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "decode/serve/api/field.h"
#include "decode/serve/server.h"

#include <stdio.h>
#include <string.h>

enum { MAX_BODY = 64 << 10, MAX_JSON = 1 << 20, MAX_CALLS = 32, MAX_ALIASES = 16 };

struct sd_adapter_call {
    sd_pending pending;
    sd_server *server;
    sd_conn *conn; // NULL: nobody waits any more
    json_t *body;  // what the strings of `asked` are in
    sd_provider_adapter asked;
    const char *alias[MAX_ALIASES];
    int n_aliases;    // -1: none are said, those of before stay
    int64_t expected; // the generation that it must find; 0: no such adapter; < 0: any
    bool begun;       // a worker has it
    bool bad_draft;   // the draft is why it was refused
    sd_work work;
    int row;
    double begin_s, stopped_s;
    sd_error result;
    sd_adapter_call *next;
};

// ---- what a body says

static bool read_name(const json_t *body, const char **out, sd_api_error *e) {
    if (!sd_field_string(body, "lora_name", out, e)) return false;
    if (*out && sd_model_name_is_good(*out)) return true;
    sd_api_fail(e, 400, "lora_name",
                "lora_name is %.80s; give 1 to %d letters, digits, '.', '_' or '-'",
                *out ? *out : "missing", SD_MODEL_NAME);
    return false;
}

static bool read_expected(const json_t *body, int64_t *out, sd_api_error *e) {
    *out = -1;
    return sd_field_int(body, "expected_generation", 0, INT64_MAX, out, e);
}

// A document of at most MAX_BODY bytes, the caller's; NULL with e filled.
static json_t *read_body(sd_conn *c, sd_api_error *e) {
    sd_server *s = sd_conn_owner(c);
    size_t held;
    json_t *root = NULL;
    sd_error err = {0};
    sd_buf body = sd_conn_take_body(c, &held);
    if (body.len > MAX_BODY)
        sd_api_fail(e, 400, NULL, "the body has %zu bytes; at most %d are read here", body.len,
                    MAX_BODY);
    else if (sd_json_load_within(&root, body.data ? body.data : "", body.len,
                                 JSON_REJECT_DUPLICATES, MAX_JSON, NULL, &err) != SD_OK)
        sd_api_fail(e, err.status == SD_ENOMEM ? 500 : 400, NULL, "%s", err.message);
    else if (!json_is_object(root))
        sd_api_fail(e, 400, NULL, "the body is no JSON object; give {\"lora_name\": ...}");
    sd_buf_free(&body);
    sd_listener_hold(&s->listener, sd_conn_client(c), &held, 0);
    if (!e->status) return root;
    json_decref(root);
    return NULL;
}

static bool read_aliases(sd_adapter_call *k, sd_api_error *e) {
    const json_t *list = sd_field_get(k->body, "aliases"), *v;
    size_t i;
    if (list && (!json_is_array(list) || json_array_size(list) > MAX_ALIASES)) {
        sd_api_fail(e, 400, "aliases", "aliases: give an array of at most %d names", MAX_ALIASES);
        return false;
    }
    k->n_aliases = list ? 0 : -1;
    json_array_foreach(list, i, v) {
        const char *name = json_string_value(v);
        if (!name || !sd_model_name_is_good(name)) {
            sd_api_fail(e, 400, "aliases",
                        "aliases[%zu] is %.80s; give 1 to %d letters, digits, '.', '_' or '-'", i,
                        name ? name : "no string", SD_MODEL_NAME);
            return false;
        }
        k->alias[k->n_aliases++] = name;
    }
    return true;
}

static bool read_load(sd_adapter_call *k, sd_api_error *e) {
    sd_provider_adapter *a = &k->asked;
    if (!read_name(k->body, &a->name, e) || !sd_field_string(k->body, "lora_path", &a->path, e) ||
        !sd_field_string(k->body, "draft_lora_path", &a->draft_path, e) ||
        !read_expected(k->body, &k->expected, e) || !read_aliases(k, e))
        return false;
    if (a->path && a->path[0]) return true;
    sd_api_fail(e, 400, "lora_path", "lora_path is missing; give a path below --adapter-root");
    return false;
}

// ---- what is served now

// The adapter of that name, or NULL.
static sd_served_model *loaded(const sd_server *s, const char *name) {
    for (int i = 1; i < s->served.n; i++)
        if (strcmp(s->served.model[i]->card->name, name) == 0) return s->served.model[i];
    return NULL;
}

static bool check_expected(const sd_server *s, const char *name, int64_t expected,
                           sd_api_error *e) {
    const sd_served_model *now = loaded(s, name);
    const uint64_t have = now ? now->card->generation : 0;
    if (expected < 0 || (uint64_t)expected == have) return true;
    sd_api_fail(
        e, 409, "expected_generation",
        "adapter '%s' has generation %llu, not %lld; read GET /v1/lora_adapters and decide again",
        name, (unsigned long long)have, (long long)expected);
    e->code = "generation_conflict";
    return false;
}

static bool check_names(const sd_adapter_call *k, sd_api_error *e) {
    const sd_served *all = &k->server->served;
    const char *name = k->asked.name;
    sd_error err = {0};
    if (sd_model_card_is(all->model[0]->card, name) || sd_served_find_alias(all, name)) {
        sd_api_fail(e, 400, "lora_name", "'%s' is %s; give another name", name,
                    sd_served_find_alias(all, name) ? "an alias" : "a name of the base");
        return false;
    }
    for (int i = 0; i < k->n_aliases; i++)
        if (sd_served_check_alias(all, k->alias[i], name, &err) != SD_OK) {
            sd_api_fail(e, 400, "aliases", "%s", err.message);
            return false;
        }
    return true;
}

static bool check_aliases(const sd_adapter_call *k, sd_api_error *e) {
    if (k->n_aliases <= 0 || k->server->served.n_aliases + k->n_aliases <= SD_SERVED_ALIASES)
        return true;
    sd_api_fail(e, 400, "aliases",
                "%d aliases are there, and %d are possible; unload what some stand for",
                k->server->served.n_aliases, SD_SERVED_ALIASES);
    return false;
}

static bool check_now(const sd_adapter_call *k, sd_api_error *e) {
    return check_names(k, e) && check_aliases(k, e) &&
           check_expected(k->server, k->asked.name, k->expected, e);
}

// ---- models that nobody names any more

static bool counts_for(const sd_served_model *list, const sd_model_counts *c) {
    for (; list; list = list->next)
        if (list->counts == c) return true;
    return false;
}

// A name's counts are kept while it has a generation that is served or drains.
static void retire_counts(sd_server *s, sd_model_counts *c) {
    bool used = !c || counts_for(s->served.draining, c);
    for (int i = 0; i < s->served.n; i++) used = used || s->served.model[i]->counts == c;
    if (!used) sd_metrics_retire(&s->metrics, c);
}

static bool unload(sd_work *item) {
    sd_served_model *m = item->ctx;
    m->provider->ops->unload(m->provider, m->row);
    return false;
}

static void on_unloaded(sd_work *item) {
    sd_served_model *m = item->ctx;
    sd_served_end(m->list, m);
}

void sd_adapters_let_go(sd_server *s, sd_served_model *m) {
    if (atomic_load(&s->stop)) return; // the provider, which may be gone, ends its models
    if (!sd_served_let_go(&s->served, m)) return;
    sd_log(SD_LOG_INFO, "adapter %s: generation %llu has drained", m->card->name,
           (unsigned long long)m->card->generation);
    retire_counts(s, m->counts);
    m->list = &s->served;
    m->end = (sd_work){.step = unload, .done = on_unloaded, .ctx = m};
    if (sd_workers_add(s->workers, &m->end)) return;
    unload(&m->end); // out of memory: it goes here and now
    on_unloaded(&m->end);
}

// ---- loading

static void free_call(sd_adapter_call *k) {
    json_decref(k->body);
    free(k);
}

void sd_adapters_free_calls(sd_server *s) {
    for (sd_adapter_call *k; (k = s->calls);) {
        s->calls = k->next;
        free_call(k);
    }
}

// Whoever waits for it gets the answer; the call is over.
static void answer(sd_adapter_call *k, const sd_api_error *e, json_t *v) {
    sd_conn *c = k->conn;
    free_call(k);
    if (!c) {
        json_decref(v);
        return;
    }
    sd_conn_set_work(c, NULL);
    if (e->status)
        sd_conn_error(c, e);
    else
        sd_conn_json(c, 200, v);
}

static const char *pair_word(sd_pair pair) {
    static const char *const words[] = {"none", "unknown", "aligned", "other"};
    return words[pair];
}

// A model's entry wherever adapters are listed.
static json_t *adapter_json(const sd_server *s, const sd_served_model *m, bool listed) {
    const sd_model_card *card = m->card;
    json_t *aliases = json_array();
    for (int i = 0; listed && i < s->served.n_aliases; i++)
        if (strcmp(s->served.alias[i].of, card->name) == 0)
            json_array_append_new(aliases, json_string(s->served.alias[i].name));
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:i, s:I, s:s, s:s, s:o, s:i, s:s}", "object",
                     "lora_adapter", "lora_name", card->name, "generation",
                     (json_int_t)card->generation, "lora_path", card->path, "parent",
                     s->served.model[0]->card->name, "sha256", card->sha256, "rank", card->rank,
                     "bytes", (json_int_t)card->bytes, "draft", card->draft, "pair",
                     pair_word(card->pair), "aliases", aliases, "running", m->running, "state",
                     listed ? "loaded" : "draining");
}

// The name means the new generation from here on.
static void publish(sd_adapter_call *k, sd_served_model *m, sd_api_error *e, json_t **v) {
    sd_server *s = k->server;
    sd_served_model *old = NULL;
    if (!m->counts || (k->n_aliases > 0 && !sd_served_reserve(&s->served, k->n_aliases)) ||
        !sd_served_put(&s->served, m, &old)) {
        sd_api_fail(e, 500, NULL, "out of memory");
        return;
    }
    if (k->n_aliases >= 0)
        sd_served_keep_aliases(&s->served, m->card->name, k->alias, k->n_aliases);
    for (int i = 0; i < k->n_aliases; i++)
        sd_served_set_alias(&s->served, k->alias[i], m->card->name);
    const double seconds = sd_now_s() - k->begin_s;
    sd_metrics *count = &s->metrics;
    count->loads.read_s += seconds;
    count->loads.waited_s += k->stopped_s;
    if (k->stopped_s > count->loads.longest_s) count->loads.longest_s = k->stopped_s;
    sd_log(SD_LOG_INFO,
           "adapter %s: generation %llu from %s serves, read in %.0f ms, steps waited %.2f ms",
           m->card->name, (unsigned long long)m->card->generation, m->card->path, seconds * 1e3,
           k->stopped_s * 1e3);
    *v = adapter_json(s, m, true);
    if (old) json_object_set_new(*v, "replaced", json_integer((json_int_t)old->card->generation));
    json_object_set_new(*v, "load_ms", json_real(seconds * 1e3));
    json_object_set_new(*v, "swap_ms", json_real(k->stopped_s * 1e3));
    if (old) sd_adapters_let_go(s, old);
}

static void begin_first(sd_server *s);

static void on_read(sd_work *item) {
    sd_adapter_call *k = item->ctx;
    sd_server *s = k->server;
    sd_api_error e = {0};
    json_t *v = NULL;
    sd_served_model *m = NULL;
    sd_memory_lost_clear();
    s->calls = k->next;
    const bool read = k->result.status == SD_OK;
    if (!read)
        sd_api_fail(&e,
                    k->result.status == SD_ENOMEM         ? 500
                    : k->result.status == SD_EINTERRUPTED ? 503
                                                          : 400,
                    k->bad_draft ? "draft_lora_path" : "lora_path", "%s", k->result.message);
    // What was true when it began may have changed.
    else if (check_now(k, &e) && !(m = sd_alloc(1, sizeof *m)))
        sd_api_fail(&e, 500, NULL, "out of memory");
    if (m) {
        sd_provider *p = s->provider;
        *m = (sd_served_model){.provider = p,
                               .row = k->row,
                               .card = p->ops->model(p, k->row),
                               .counts = sd_metrics_model(&s->metrics, k->asked.name)};
        publish(k, m, &e, &v);
    }
    if (e.status) {
        if (m) retire_counts(s, m->counts);
        free(m);
        if (read) s->provider->ops->unload(s->provider, k->row);
        sd_log(SD_LOG_WARN, "adapter %s was not loaded: %s", k->asked.name, e.message);
    }
    ++*(e.status ? &s->metrics.loads.refused : &s->metrics.loads.done);
    begin_first(s);
    answer(k, &e, v);
}

static bool read_files(sd_work *item) {
    sd_adapter_call *k = item->ctx;
    sd_provider *p = k->server->provider;
    sd_memory_lost_clear();
    k->asked.bad_draft = &k->bad_draft;
    k->result.status = p->ops->load(p, &k->asked, &k->row, &k->stopped_s, &k->result);
    return false;
}

// The first of the calls goes to a worker, when it is still possible.
static void begin_first(sd_server *s) {
    for (sd_adapter_call *k; (k = s->calls);) {
        sd_api_error e = {0};
        if (k->begun) return;
        k->begun = true;
        k->begin_s = sd_now_s();
        k->work = (sd_work){.step = read_files, .done = on_read, .ctx = k};
        if (check_now(k, &e) && !sd_workers_add(s->workers, &k->work))
            sd_api_fail(&e, 500, NULL, "out of memory");
        if (!e.status) return;
        s->calls = k->next;
        s->metrics.loads.refused++;
        answer(k, &e, NULL);
    }
}

static void abandon(void *call) {
    ((sd_adapter_call *)call)->conn = NULL; // what it asked for is done all the same
}

static bool may_change(const sd_server *s, sd_api_error *e) {
    if (s->phase == SD_PHASE_READY) return true;
    sd_api_fail(e, 503, NULL,
                s->phase == SD_PHASE_LOADING ? "the model is being loaded"
                                             : "the server is draining and will end");
    return false;
}

static int count_calls(const sd_server *s) {
    int n = 0;
    for (const sd_adapter_call *k = s->calls; k; k = k->next) n++;
    return n;
}

void sd_adapters_load(sd_conn *c) {
    sd_server *s = sd_conn_owner(c);
    sd_api_error e = {0};
    sd_adapter_call *k = NULL, **last = &s->calls;
    if (!may_change(s, &e)) {
    } else if (!s->adapter_root.path) {
        sd_api_fail(
            &e, 403, NULL,
            "this server loads no adapters while it runs; start it with --adapter-root DIR");
    } else if (count_calls(s) >= MAX_CALLS) {
        sd_api_fail(&e, 429, NULL, "%d adapters wait to be loaded; try again later", MAX_CALLS);
    } else if (!(k = sd_alloc(1, sizeof *k))) {
        sd_api_fail(&e, 500, NULL, "out of memory");
    } else if ((k->body = read_body(c, &e))) {
        read_load(k, &e);
    }
    if (e.status) {
        if (k) free_call(k);
        sd_conn_error(c, &e);
        return;
    }
    k->pending = (sd_pending){.abandon = abandon};
    k->server = s;
    k->conn = c;
    sd_conn_set_work(c, k);
    while (*last) last = &(*last)->next;
    *last = k;
    begin_first(s);
}

// ---- unloading, and the list

void sd_adapters_unload(sd_conn *c) {
    sd_server *s = sd_conn_owner(c);
    sd_api_error e = {0};
    const char *name = NULL;
    int64_t expected;
    sd_served_model *m;
    json_t *body = may_change(s, &e) ? read_body(c, &e) : NULL, *v = NULL;
    if (body && read_name(body, &name, &e) && read_expected(body, &expected, &e)) {
        const sd_served_alias *alias = sd_served_find_alias(&s->served, name);
        if (alias && *alias->of) {
            sd_api_fail(&e, 400, "lora_name",
                        "'%s' is an alias of adapter '%s'; unload that, or load it again with "
                        "\"aliases\" without this one",
                        name, alias->of);
        } else if (alias) {
            sd_api_fail(&e, 400, "lora_name",
                        "'%s' is an alias of the base, which is not unloaded; --alias gives it",
                        name);
        } else if (!(m = loaded(s, name))) {
            sd_api_fail(&e, 404, "lora_name",
                        "adapter '%s' is not loaded; GET /v1/lora_adapters lists them", name);
            e.code = "model_not_found";
        } else if (check_expected(s, name, expected, &e)) {
            sd_served_remove(&s->served, m);
            s->metrics.loads.unloaded++;
            v = adapter_json(s, m, false);
            sd_log(SD_LOG_INFO, "adapter %s: generation %llu is unloaded, %d requests end on it",
                   m->card->name, (unsigned long long)m->card->generation, m->running);
            sd_adapters_let_go(s, m);
        }
    }
    json_decref(body);
    if (e.status)
        sd_conn_error(c, &e);
    else
        sd_conn_json(c, 200, v);
}

void sd_adapters_list(sd_conn *c) {
    const sd_server *s = sd_conn_owner(c);
    sd_api_error e = {0};
    if (s->served.n == 0) {
        sd_api_fail(&e, 503, NULL, "the model is being loaded");
        sd_conn_error(c, &e);
        return;
    }
    json_t *list = json_array();
    for (int i = 1; i < s->served.n; i++)
        json_array_append_new(list, adapter_json(s, s->served.model[i], true));
    for (const sd_served_model *m = s->served.draining; m; m = m->next)
        json_array_append_new(list, adapter_json(s, m, false));
    sd_conn_json(c, 200, json_pack("{s:s, s:o}", "object", "list", "data", list));
}
