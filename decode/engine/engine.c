// Opening and closing, and what other threads may ask.
//
// Everything a request needs while it runs was allocated when the engine was opened or when it was
// submitted.
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "decode/engine/private.h"
#include "model/infer/backend.h"
#include "model/infer/prefix_cache.h"
#include "model/infer/weight_cache/cache.h"

#include <string.h>

const char *sd_finish_name(sd_finish f) {
#define WORD(name, word) word,
    static const char *const words[SD_FINISH_COUNT] = {SD_FINISH_LIST(WORD)};
#undef WORD
    return (unsigned)f < SD_FINISH_COUNT ? words[f] : "unknown";
}

static sd_status open_drafters(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    if (e->o.draft) SD_TRY(sd_draft_open(&e->draft, e->o.draft, e->model, e->o.stop, err));
    if (e->draft.kind == SD_DRAFT_MODEL && e->o.cache.dir)
        sd_weight_cache_attach(e->draft.model, e->o.cache.dir);
    if (e->o.draft_adapter) SD_TRY(sd_draft_take_adapter(&e->draft, e->o.draft_adapter, err));
    SD_TRY(sd_drafters_register(e, err));
    SD_TRY(sd_engine_open_planner(e, err));
out:
    return st;
}

static sd_status open_slot(sd_engine *e, sd_slot *s, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_kv_open_in(&s->kv, e->kv, e->ctx, err));
    s->timeline = sd_alloc((size_t)e->ctx, sizeof *s->timeline);
    SD_CHECK_ALLOC(s->timeline, err);
    s->text = sd_buf_make((size_t)1 << 24);
    SD_TRY(sd_slot_open_shaping(e, s, err));
    SD_TRY(sd_slot_open_drafters(e, s, err));
out:
    return st;
}

static sd_status check_options(sd_engine_options *o, const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    int train = m->hp.ctx_train > 0 ? m->hp.ctx_train : 4096;
    if (o->ctx == 0) o->ctx = train < 4096 ? train : 4096;
    if (o->slots == 0) o->slots = 8;
    if (o->queue == 0) o->queue = 64;
    if (o->prefill_chunk == 0) o->prefill_chunk = 192;
    SD_CHECK(o->ctx >= 2 && o->ctx <= train, err, SD_EINVAL,
             "a context of %d tokens is outside 2 to %d, what the model was trained for; choose "
             "another --ctx",
             o->ctx, train);
    SD_CHECK(o->slots >= 1 && o->slots <= 1024, err, SD_EINVAL,
             "%d slots are outside 1 to 1024; choose another number", o->slots);
    SD_CHECK(o->reserve >= 0 && o->reserve <= 1024 && o->step_ms >= 0, err, SD_EINVAL,
             "%d slots in reserve or %g ms a step are not possible", o->reserve, o->step_ms);
    SD_CHECK(o->queue >= 1 && o->queue <= 1 << 16, err, SD_EINVAL,
             "a queue of %d is outside 1 to 65536; choose another number", o->queue);
    SD_CHECK(o->prefill_chunk >= 1 && o->prefill_chunk <= 8192, err, SD_EINVAL,
             "a prefill chunk of %d is outside 1 to 8192; choose another number", o->prefill_chunk);
    SD_CHECK(o->draft_kv >= 0, err, SD_EINVAL,
             "%lld positions of a draft model's keys and values are not possible; give 0 or more",
             (long long)o->draft_kv);
    SD_CHECK(o->spec_length >= 0 && o->spec_length <= SD_MAX_DRAFT, err, SD_EINVAL,
             "drafts of %d tokens are outside 0 to %d; choose another --spec-length",
             o->spec_length, SD_MAX_DRAFT);
out:
    return st;
}

sd_status sd_engine_configure(sd_engine *e, const sd_engine_options *o, const sd_model *m,
                              sd_error *err) {
    e->o = o ? *o : (sd_engine_options){0};
    sd_status st = check_options(&e->o, m, err);
    if (st != SD_OK) return st;
    e->ctx = e->o.ctx;
    e->n_slots = e->o.slots + e->o.reserve;
    const int drafted = e->o.spec_length > 0 ? e->n_slots * e->o.spec_length : SD_DRAFT_ROWS;
    e->max_picked = e->n_slots + drafted + 1; // one scores a prompt, whatever the others do
    // Decoding alone never fills a step: prompts always get on.
    e->max_rows = e->o.prefill_chunk > e->max_picked + 16 ? e->o.prefill_chunk : e->max_picked + 16;
    return SD_OK;
}

static sd_status open_tensors(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine_options *o = &e->o;
    SD_TRY(sd_context_open(&e->cx, e->model, e->pool,
                           &(sd_context_options){.max_rows = e->max_rows,
                                                 .compute = o->compute,
                                                 .kv = o->kv,
                                                 .isa = o->isa,
                                                 .cache = o->cache,
                                                 .stop = o->stop,
                                                 .backend = o->backend,
                                                 .device = o->device,
                                                 .max_picked = e->max_picked},
                           err));
    size_t n_logits;
    SD_CHECK(sd_mul_size(&n_logits, (size_t)e->max_picked, (size_t)e->model->hp.V), err, SD_ELIMIT,
             "%d rows of %d logits do not fit; use fewer slots", e->max_picked, e->model->hp.V);
    // calloc: it stays untouched while nobody wants log probabilities.
    e->logits = calloc(n_logits, sizeof *e->logits);
    if (e->model->output.pooling != SD_POOL_NONE) {
        e->hidden = calloc((size_t)e->max_rows, (size_t)e->model->hp.C * sizeof *e->hidden);
        SD_CHECK_ALLOC(e->hidden, err);
    }
    e->rows = sd_alloc((size_t)e->max_rows, sizeof *e->rows);
    e->picked = sd_alloc((size_t)e->max_picked, sizeof *e->picked);
    e->readers = sd_alloc((size_t)e->n_slots * 2, sizeof *e->readers);
    e->positions = sd_alloc((size_t)e->n_slots + 2, sizeof *e->positions);
    SD_CHECK_ALLOC(e->logits && e->rows && e->picked && e->readers && e->positions, err);
out:
    return st;
}

static sd_status open_pool(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    const sd_kv_pool_size size = sd_engine_pool_size(e);
    SD_TRY(sd_kv_pool_open(&e->kv, e->cx, &size, err));
    if (!e->o.no_prefix_cache) SD_TRY(sd_prefix_open(e->kv, err));
    e->longest = sd_kv_pool_longest(e->kv);
    e->stats.kv_total = sd_kv_pool_positions(e->kv);
    e->stats.kv_bytes = sd_kv_pool_bytes(e->kv);
    e->stats.prefix_cache = !e->o.no_prefix_cache;
out:
    return st;
}

// Drafts of a chosen length and steps with a limit need them.
static void load_costs(sd_engine *e) {
    sd_step_costs costs;
    sd_controller_init(&e->control);
    bool drafts = e->o.spec != SD_SPEC_OFF && e->o.spec_length == 0;
    bool have = (drafts || e->o.step_ms > 0) && sd_step_costs_get(&costs, e->cx);
    if (have) sd_controller_load_costs(&e->control, &costs);
    if (e->o.trace) sd_trace_head(e->o.trace, e->planner, have ? &costs : NULL);
}

sd_status sd_engine_open(sd_engine **out, sd_model *m, const sd_engine_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine *e = sd_alloc(1, sizeof *e);
    SD_CHECK_ALLOC(e, err);
    e->model = sd_model_acquire(m);
    SD_TRY(sd_engine_configure(e, o, m, err));
    e->answer_share = 1;
    e->mask_budget = sd_gspend_of_a_mask();
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&e->wakeup, &clock);
    pthread_condattr_destroy(&clock);
    pthread_cond_init(&e->errand_done, NULL);
    e->locks_made = true;
    SD_TRY(sd_pool_open(&e->pool, e->o.threads, err));
    SD_TRY(open_tensors(e, err));
    SD_TRY(open_drafters(e, err));
    e->slot = sd_alloc((size_t)e->n_slots, sizeof *e->slot);
    SD_CHECK_ALLOC(e->slot, err);
    SD_TRY(open_pool(e, err));
    for (int i = 0; i < e->n_slots; i++) SD_TRY(open_slot(e, &e->slot[i], err));
    load_costs(e);
    e->next_id = 1;
    e->stats.device = e->o.backend ? e->o.backend->word : "cpu";
    e->stats.slots = e->o.slots;
    e->stats.queue = e->o.queue;
    e->stats.ctx = e->ctx;
    e->stats.draft_kv_bytes = sd_drafters_kv_bytes(e);
    sd_engine_get_memory(e, &e->stats.memory);
    e->published = e->stats;
    *out = e, e = NULL;
out:
    sd_engine_close(e);
    return st;
}

static void close_slot(sd_engine *e, sd_slot *s) {
    if (s->request) {
        s->finish = SD_FINISH_CANCELLED;
        s->n_info = 0;
        sd_slot_deliver(e, s, NULL);
    }
    for (int i = 0; i < e->n_drafters; i++) sd_drafter_close(s->drafter[i]);
    sd_kv_close(s->kv);
    sd_slot_close_shaping(s);
    sd_slot_close_constraint(s);
    free(s->timeline);
    sd_buf_free(&s->text);
}

void sd_engine_close(sd_engine *e) {
    if (!e) return;
    for (int i = 0; e->slot && i < e->n_slots; i++) close_slot(e, &e->slot[i]);
    sd_queue_close(e);
    free(e->slot);
    free(e->readers);
    free(e->positions);
    sd_drafters_unregister(e);
    sd_draft_close(&e->draft);
    free(e->logits);
    free(e->hidden);
    free(e->rows);
    sd_planner_close(e->planner);
    free(e->planned);
    free(e->picked);
    sd_kv_pool_close(e->kv);
    sd_context_close(e->cx);
    sd_pool_close(e->pool);
    sd_model_release(e->model);
    if (e->locks_made) {
        pthread_cond_destroy(&e->errand_done);
        pthread_cond_destroy(&e->wakeup);
        pthread_mutex_destroy(&e->lock);
    }
    free(e);
}

sd_status sd_engine_submit(sd_engine *e, const sd_request *r, uint64_t *id, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine_request *j = NULL;
    SD_TRY(sd_engine_request_check(e, r, err));
    SD_TRY(sd_engine_request_copy(&j, e, r, err));
    SD_TRY(sd_queue_add(e, j, id, err));
    j = NULL;
out:
    sd_engine_request_free(j);
    return st;
}

static bool has_work(const sd_engine *e) {
    if (e->waiting > 0) return true;
    for (int i = 0; i < e->n_slots; i++)
        if (e->slot[i].request) return true;
    return false;
}

void sd_engine_wait(sd_engine *e, int timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000000;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&e->lock);
    while (!e->woken && !has_work(e))
        if (pthread_cond_timedwait(&e->wakeup, &e->lock, &until) != 0) break;
    e->woken = false;
    pthread_mutex_unlock(&e->lock);
}

void sd_engine_wake(sd_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->woken = true;
    pthread_cond_broadcast(&e->wakeup);
    pthread_mutex_unlock(&e->lock);
}

void sd_spec_stats_add(sd_spec_stats *sum, const sd_spec_stats *a, int sign) {
    sum->rounds += sign * a->rounds;
    sum->drafted += sign * a->drafted;
    sum->accepted += sign * a->accepted;
    for (int i = 0; i < SD_MAX_DRAFTERS; i++) {
        if (a->by[i].name[0]) memcpy(sum->by[i].name, a->by[i].name, sizeof sum->by[i].name);
        sum->by[i].drafted += sign * a->by[i].drafted;
        sum->by[i].accepted += sign * a->by[i].accepted;
    }
    for (int i = 0; i < SD_MAX_DRAFT; i++) sum->accepted_at[i] += sign * a->accepted_at[i];
}

void sd_engine_get_stats(sd_engine *e, sd_engine_stats *out) {
    pthread_mutex_lock(&e->lock);
    *out = e->published;
    pthread_mutex_unlock(&e->lock);
}
