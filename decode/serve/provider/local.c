// The engine's thread opens the models while its owner already answers "loading", then steps until it
// is told to stop. `state` publishes what it opened.
#include "decode/serve/provider/local.h"

#include "base/clock.h"
#include "base/memory.h"
#include "model/infer/weight_cache/cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

// A newcomer has a slot at once, and a stream's next tokens come within STEP_MS under prompts of
// others.
enum { RESERVE = 1, STEP_MS = 100 };

typedef struct {
    sd_provider provider;
    sd_local_options o;
    pthread_t thread;
    bool joined;
    atomic_bool stop;
    atomic_int state; // sd_provider_state
    // Written before `state` is set, only read afterwards.
    sd_error why;
    sd_models models;
    sd_engine *engine;
    // The thread's own.
    void *event; // the block of the event that is being said
    size_t room;
} sd_local;

// A request that the engine has.
typedef struct {
    sd_local *local;
    sd_sink sink;
    bool with_tokens;
} running;

sd_engine_options sd_local_engine_options(const sd_local_options *l) {
    sd_engine_options o = l->engine;
    o.cache = (sd_weight_cache){l->models.pack_dir, SD_WEIGHT_CACHE_LEAST};
    if (o.reserve == 0) o.reserve = RESERVE;
    if (o.step_ms <= 0) o.step_ms = STEP_MS;
    return o;
}

static sd_status load(sd_local *l, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine_options o = sd_local_engine_options(&l->o);
    SD_TRY(sd_models_open(&l->models, &l->o.models, &l->stop, err));
    bool index = o.draft != NULL || l->o.adapter_root;
    for (int i = 0; i < l->models.n; i++) index |= l->models.row[i]->corpus != NULL;
    SD_CHECK(o.spec != SD_SPEC_CORPUS || index, err, SD_EINVAL,
             "--spec index needs a corpus index; give one with -d, or a run's folder with -a");
    o.stop = &l->stop; // a signal ends packing and timing
    SD_TRY(sd_engine_open(&l->engine, l->models.model, &o, err));
out:
    return st;
}

static void *run(void *ctx) {
    sd_local *l = ctx;
    sd_status st = load(l, &l->why);
    atomic_store(&l->state, st == SD_OK ? SD_PROVIDER_READY : SD_PROVIDER_FAILED);
    if (l->o.on_opened) l->o.on_opened(l->o.ctx);
    while (st == SD_OK && !atomic_load(&l->stop)) {
        if (!sd_engine_step(l->engine)) sd_engine_wait(l->engine, 1000);
        if (l->o.between_steps) l->o.between_steps(l->o.ctx);
    }
    if (st == SD_OK) sd_engine_stop_errands(l->engine);
    return NULL;
}

// ---- requests

static bool is_ready(const sd_local *l) {
    return atomic_load(&l->state) == SD_PROVIDER_READY;
}

// The engine's callback. The block is used again, so that a step allocates nothing.
static void on_event(void *ctx, const sd_event *ev) {
    running *r = ctx;
    sd_local *l = r->local;
    size_t need = sd_provider_event_bytes(ev, r->with_tokens);
    if (need > l->room) {
        void *more = realloc(l->event, need);
        if (more) l->event = more, l->room = need;
    }
    sd_provider_event_write(l->event, l->room, ev, sd_now_ns(), r->with_tokens);
    sd_sink sink = r->sink;
    if (ev->finish != SD_FINISH_NONE) free(r);
    sink.event(sink.ctx, l->event);
}

static sd_status start(sd_provider *p, const sd_provider_request *m, sd_sink sink, uint64_t *id,
                       sd_error *err) {
    sd_local *l = (sd_local *)p;
    sd_status st = SD_OK;
    sd_request q = {0};
    running *r = NULL;
    SD_CHECK(is_ready(l), err, SD_ELIMIT, "the model is being loaded");
    SD_TRY(sd_provider_request_read(&q, m, m->head.bytes, err));
    const sd_models_row *row = m->model < SD_MODELS_MOST ? l->models.row[m->model] : NULL;
    SD_CHECK(row, err, SD_EFORMAT, "a request means model %u, and there is none; the first is 0",
             (unsigned)m->model);
    r = sd_alloc(1, sizeof *r);
    SD_CHECK_ALLOC(r, err);
    *r = (running){.local = l, .sink = sink, .with_tokens = q.logprobs >= 0};
    q.adapter = row->adapter;
    q.draft_adapter = row->draft_adapter;
    q.corpus = row->corpus;
    if (q.adapter && row->end_token >= 0) q.end_token[q.n_end_tokens++] = row->end_token;
    // The front has compiled it before and holds it: it is found.
    if (q.constraint.kind != SD_GRAMMAR_NONE) {
        SD_CHECK(l->models.grammars, err, SD_EINVAL,
                 "a constraint needs a tokenizer and this model has none");
        SD_TRY(
            sd_grammar_cache_get_for(&q.grammar, l->models.grammars, q.tenant, &q.constraint, err));
    }
    q.on_event = on_event;
    q.ctx = r;
    SD_TRY(sd_engine_submit(l->engine, &q, id, err));
    r = NULL; // freed with its last event
out:
    sd_grammar_release(q.grammar);
    free(r);
    return st;
}

static void cancel(sd_provider *p, uint64_t id) {
    sd_local *l = (sd_local *)p;
    if (is_ready(l)) sd_engine_cancel(l->engine, id);
}

// ---- what may be asked

static const sd_model_card *model(sd_provider *p, int row) {
    const sd_local *l = (sd_local *)p;
    const sd_models_row *r =
        is_ready(l) && row >= 0 && row < SD_MODELS_MOST ? l->models.row[row] : NULL;
    return r ? &r->card : NULL;
}

static sd_status load_adapter(sd_provider *p, const sd_provider_adapter *a, int *at,
                              double *stopped_s, sd_error *err) {
    sd_local *l = (sd_local *)p;
    sd_status st = SD_OK;
    SD_CHECK(is_ready(l), err, SD_ELIMIT, "the model is being loaded");
    SD_CHECK(l->o.adapter_root, err, SD_EINVAL,
             "this server loads no adapters while it runs; start it with --adapter-root DIR");
    const sd_models_asked asked = {.name = a->name,
                                   .path = a->path,
                                   .draft_path = a->draft_path,
                                   .bad_draft = a->bad_draft,
                                   .root = l->o.adapter_root,
                                   .draft = sd_engine_draft_model(l->engine)};
    SD_TRY(sd_models_add(&l->models, at, &asked, &l->o.models, err));
    const sd_models_row *row = l->models.row[*at];
    st = sd_engine_take_adapters(l->engine, row->adapter, row->draft_adapter, stopped_s, err);
    if (st != SD_OK) sd_models_remove(&l->models, *at);
out:
    return st;
}

static void unload_adapter(sd_provider *p, int row) {
    sd_models_remove(&((sd_local *)p)->models, row);
}

static sd_provider_state ready(sd_provider *p, sd_error *why) {
    const sd_local *l = (sd_local *)p;
    sd_provider_state state = (sd_provider_state)atomic_load(&l->state);
    if (state == SD_PROVIDER_FAILED && why) *why = l->why;
    return state;
}

static bool room(sd_provider *p, uint64_t client, int n, double *wait_s) {
    sd_local *l = (sd_local *)p;
    *wait_s = 0;
    if (!is_ready(l)) return false;
    if (sd_engine_has_room(l->engine, client, n)) return true;
    *wait_s = sd_engine_wait_s(l->engine, client, n);
    return false;
}

static void stats(sd_provider *p, sd_engine_stats *out) {
    sd_local *l = (sd_local *)p;
    *out = (sd_engine_stats){0};
    if (is_ready(l)) sd_engine_get_stats(l->engine, out);
}

static sd_status sleep_now(sd_provider *p, sd_error *err) {
    sd_local *l = (sd_local *)p;
    if (!is_ready(l)) return sd_fail(err, SD_ELIMIT, "the model is being loaded");
    return sd_engine_sleep(l->engine, err);
}

static sd_status wake(sd_provider *p, double *seconds, sd_error *err) {
    sd_local *l = (sd_local *)p;
    if (!is_ready(l)) return sd_fail(err, SD_ELIMIT, "the model is being loaded");
    return sd_engine_wake_up(l->engine, seconds, err);
}

// ---- opening and closing

static void close_local(sd_provider *p) {
    sd_local *l = (sd_local *)p;
    sd_local_stop(p);
    sd_local_join(p);
    sd_engine_close(l->engine);
    sd_models_close(&l->models);
    free(l->event);
    free(l);
}

sd_status sd_local_open(sd_provider **out, const sd_local_options *o, sd_error *err) {
    static const sd_provider_ops ops = {.start = start,
                                        .cancel = cancel,
                                        .model = model,
                                        .load = load_adapter,
                                        .unload = unload_adapter,
                                        .sleep = sleep_now,
                                        .wake = wake,
                                        .ready = ready,
                                        .room = room,
                                        .stats = stats,
                                        .close = close_local};
    sd_status st = SD_OK;
    sd_local *l = sd_alloc(1, sizeof *l);
    SD_CHECK_ALLOC(l, err);
    l->provider.ops = &ops;
    l->o = *o;
    l->room = SD_PROVIDER_EVENT_LEAST;
    l->event = malloc(l->room);
    SD_CHECK_ALLOC(l->event, err);
    int rc = pthread_create(&l->thread, NULL, run, l);
    SD_CHECK(rc == 0, err, SD_EIO, "the engine's thread: %s", strerror(rc));
    *out = &l->provider, l = NULL;
out:
    if (l) free(l->event);
    free(l);
    return st;
}

void sd_local_stop(sd_provider *p) {
    sd_local *l = (sd_local *)p;
    atomic_store(&l->stop, true);
    if (is_ready(l)) sd_engine_wake(l->engine);
}

void sd_local_join(sd_provider *p) {
    sd_local *l = (sd_local *)p;
    if (!l->joined) pthread_join(l->thread, NULL);
    l->joined = true;
}

sd_models *sd_local_models(sd_provider *p) {
    sd_local *l = (sd_local *)p;
    return is_ready(l) ? &l->models : NULL;
}
