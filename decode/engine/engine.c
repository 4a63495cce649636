// Opening and closing, what a request must be, and what other threads may ask.
//
// Everything a request needs while it runs was allocated when the engine was opened or when it was
// submitted.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/log.h"
#include "decode/engine/private.h"
#include "model/infer/weight_cache/cache.h"

#include <math.h>
#include <string.h>

const char *sd_source_name(sd_source s) {
    static const char *const names[SD_SOURCE_COUNT] = {"suffix", "index", "draft"};
    return (unsigned)s < SD_SOURCE_COUNT ? names[s] : "unknown";
}

const char *sd_finish_name(sd_finish f) {
    static const char *const names[] = {"", "stop", "length", "cancelled", "error"};
    return (unsigned)f < sizeof names / sizeof names[0] ? names[f] : "unknown";
}

// A file with GGUF's magic or a folder with a config.json is a model; a file, or a folder that
// holds corpus.idx or draft/corpus.idx, is a corpus index.
static sd_status open_draft(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = NULL;
    char *index = NULL;
    const char *path = e->o.draft;
    sd_path_kind kind, in;
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND,
             "%s: there is no such draft; give a model, a corpus index or a run's folder", path);
    bool is_model = false;
    if (kind == SD_PATH_FOLDER) {
        static const char *const places[] = {"corpus.idx", "draft/corpus.idx"};
        for (int i = 0; i < 2 && !index; i++) {
            index = sd_path_join(path, places[i]);
            SD_CHECK_ALLOC(index, err);
            SD_TRY(sd_path_look(&in, index, err));
            if (in == SD_PATH_NONE) free(index), index = NULL;
        }
        is_model = !index;
    } else {
        char magic[4] = {0};
        size_t got;
        SD_TRY(sd_file_head(magic, sizeof magic, &got, path, err));
        is_model = memcmp(magic, "GGUF", 4) == 0;
    }
    if (is_model) {
        SD_TRY(sd_model_open(&m, path, err));
        m->stop = e->model->stop;
        if (e->model->pack_dir)
            SD_TRY(sd_model_use_pack_cache(m, e->model->pack_dir, e->model->pack_least, err));
        SD_CHECK(e->o.spec != SD_SPEC_INDEX, err, SD_EINVAL,
                 "%s: is a model and --spec index drafts from a corpus index; give --spec draft or "
                 "auto",
                 path);
        SD_TRY(sd_draft_model_open(&e->draft, m, e->model, e->pool, e->o.isa, err));
    } else {
        SD_TRY(sd_corpus_open(&e->corpus, index ? index : path, err));
        const char *want = e->model->tokenizer ? sd_tokenizer_fingerprint(e->model->tokenizer) : "";
        const char *got = sd_corpus_tokenizer(e->corpus);
        SD_CHECK(!*want || strcmp(want, got) == 0, err, SD_EINVAL,
                 "%s: this index was made with another tokenizer (%.12s, the model has %.12s)",
                 path, got, want);
    }
out:
    sd_model_release(m);
    free(index);
    return st;
}

static sd_status open_slot(sd_engine *e, sd_slot *s, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_kv_open(&s->kv, e->cx, e->ctx, err));
    s->timeline = sd_alloc((size_t)e->ctx, sizeof *s->timeline);
    SD_CHECK_ALLOC(s->timeline, err);
    s->text = sd_buf_make((size_t)1 << 24);
    SD_TRY(sd_drafter_suffix_open(&s->drafter[SD_SOURCE_SUFFIX], e->ctx, err));
    SD_TRY(sd_drafter_corpus_open(&s->drafter[SD_SOURCE_CORPUS], err));
    if (e->draft)
        SD_TRY(sd_drafter_model_open(&s->drafter[SD_SOURCE_MODEL], e->draft, e->ctx, err));
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
    SD_CHECK(o->spec_length >= 0 && o->spec_length <= SD_MAX_DRAFT, err, SD_EINVAL,
             "drafts of %d tokens are outside 0 to %d; choose another --spec-length",
             o->spec_length, SD_MAX_DRAFT);
out:
    return st;
}

static sd_status open_tensors(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine_options *o = &e->o;
    int drafted = o->spec_length > 0 ? e->n_slots * o->spec_length : SD_DRAFT_ROWS;
    int decode = e->n_slots + drafted;
    e->max_logits = decode;
    // Decoding alone never fills a step: prompts always get on.
    e->max_rows = o->prefill_chunk > decode + 16 ? o->prefill_chunk : decode + 16;
    SD_TRY(sd_context_open(&e->cx, e->model, e->pool,
                           &(sd_context_options){e->max_rows, o->compute, o->kv, o->isa}, err));
    size_t n_logits;
    SD_CHECK(sd_mul_size(&n_logits, (size_t)e->max_logits, (size_t)e->model->hp.V), err, SD_ELIMIT,
             "%d rows of %d logits do not fit; use fewer slots", e->max_logits, e->model->hp.V);
    // calloc: pages of rows that are never verified stay untouched.
    e->logits = calloc(n_logits, sizeof *e->logits);
    e->rows = sd_alloc((size_t)e->max_rows, sizeof *e->rows);
    e->candidates = sd_alloc((size_t)e->n_slots, sizeof *e->candidates);
    e->sampler = sd_sampler_open(e->model->hp.V);
    e->readers = sd_alloc((size_t)e->n_slots * 2, sizeof *e->readers);
    SD_CHECK_ALLOC(e->logits && e->rows && e->candidates && e->sampler && e->readers ? e : NULL,
                   err);
out:
    return st;
}

// Drafts of a chosen length and steps with a limit need them.
static void know_costs(sd_engine *e) {
    sd_step_costs costs;
    sd_controller_init(&e->control);
    bool drafts = e->o.spec != SD_SPEC_OFF && e->o.spec_length == 0;
    if ((drafts || e->o.step_ms > 0) && sd_step_costs_get(&costs, e->cx))
        sd_controller_know_costs(&e->control, &costs);
}

sd_status sd_engine_open(sd_engine **out, sd_model *m, const sd_engine_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine *e = sd_alloc(1, sizeof *e);
    SD_CHECK_ALLOC(e, err);
    e->o = o ? *o : (sd_engine_options){0};
    e->model = sd_model_acquire(m);
    SD_TRY(check_options(&e->o, m, err));
    e->ctx = e->o.ctx;
    e->n_slots = e->o.slots + e->o.reserve;
    e->answer_share = 1;
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&e->wakeup, &clock);
    pthread_condattr_destroy(&clock);
    e->locks_made = true;
    SD_TRY(sd_pool_open(&e->pool, e->o.threads, err));
    SD_TRY(open_tensors(e, err));
    if (e->o.draft) SD_TRY(open_draft(e, err));
    SD_CHECK(e->o.spec != SD_SPEC_DRAFT || e->draft, err, SD_EINVAL,
             "speculation by a draft model was asked for without a draft model; give one with -d");
    e->slot = sd_alloc((size_t)e->n_slots, sizeof *e->slot);
    SD_CHECK_ALLOC(e->slot, err);
    for (int i = 0; i < e->n_slots; i++) SD_TRY(open_slot(e, &e->slot[i], err));
    know_costs(e);
    e->next_id = 1;
    e->stats.slots = e->o.slots;
    e->stats.queue = e->o.queue;
    e->stats.ctx = e->ctx;
    e->stats.kv_total = (int64_t)e->n_slots * e->ctx;
    for (int i = 0; i < e->n_slots; i++) e->stats.kv_bytes += e->slot[i].kv->bytes;
    e->published = e->stats;
    *out = e, e = NULL;
out:
    sd_engine_close(e);
    return st;
}

void sd_job_free(sd_job *j) {
    if (!j) return;
    for (int i = 0; i < SD_MAX_STOPS; i++) free(j->stop[i]);
    free(j->prompt);
    free(j->stop_token);
    if (j->carried) {
        sd_buf_free(&j->carried->text);
        free(j->carried->timeline);
        free(j->carried);
    }
    sd_adapter_release(j->r.adapter);
    free(j);
}

static void close_slot(sd_engine *e, sd_slot *s) {
    if (s->job) {
        s->finish = SD_FINISH_CANCELLED;
        s->n_info = 0;
        sd_slot_deliver(e, s, NULL);
    }
    for (int i = 0; i < SD_SOURCE_COUNT; i++) sd_drafter_close(s->drafter[i]);
    sd_kv_close(s->kv);
    free(s->timeline);
    sd_buf_free(&s->text);
}

void sd_engine_close(sd_engine *e) {
    if (!e) return;
    for (int i = 0; e->slot && i < e->n_slots; i++) close_slot(e, &e->slot[i]);
    sd_queue_close(e);
    free(e->slot);
    free(e->readers);
    sd_draft_model_close(e->draft);
    sd_corpus_close(e->corpus);
    free(e->logits);
    free(e->rows);
    free(e->candidates);
    sd_sampler_close(e->sampler);
    sd_context_close(e->cx);
    sd_pool_close(e->pool);
    sd_model_release(e->model);
    if (e->locks_made) {
        pthread_cond_destroy(&e->wakeup);
        pthread_mutex_destroy(&e->lock);
    }
    free(e);
}

static sd_status check_sampling(const sd_sampling *p, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(isfinite(p->temperature) && p->temperature >= 0 && p->temperature <= 100, err,
             SD_EINVAL, "temperature %g is outside 0 to 100", (double)p->temperature);
    SD_CHECK(p->top_k >= 0, err, SD_EINVAL, "top_k %d is negative; 0 turns it off", p->top_k);
    SD_CHECK(p->top_p >= 0 && p->top_p <= 1, err, SD_EINVAL,
             "top_p %g is outside 0 to 1; 1 turns it off", (double)p->top_p);
    SD_CHECK(p->min_p >= 0 && p->min_p <= 1, err, SD_EINVAL,
             "min_p %g is outside 0 to 1; 0 turns it off", (double)p->min_p);
out:
    return st;
}

static sd_status check_stops(const sd_engine *e, const sd_request *r, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(r->n_stop >= 0 && r->n_stop <= SD_MAX_STOPS, err, SD_EINVAL,
             "%d stop strings; at most %d are possible", r->n_stop, SD_MAX_STOPS);
    SD_CHECK(r->n_stop == 0 || e->model->tokenizer, err, SD_EINVAL,
             "stop strings need a tokenizer and this model has none; use stop tokens");
    for (int i = 0; i < r->n_stop; i++) {
        size_t len = r->stop[i] ? strlen(r->stop[i]) : 0;
        SD_CHECK(len >= 1 && len <= SD_MAX_STOP_BYTES, err, SD_EINVAL,
                 "stop string %d has %zu bytes; 1 to %d are possible", i, len, SD_MAX_STOP_BYTES);
    }
    SD_CHECK(r->n_stop_token >= 0 && r->n_stop_token <= 4096, err, SD_EINVAL,
             "%d stop tokens; at most 4096 are possible", r->n_stop_token);
out:
    return st;
}

static sd_status check_request(const sd_engine *e, const sd_request *r, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(r->n_prompt >= 1 && r->prompt, err, SD_EINVAL,
             "the prompt has no tokens; at least one is needed");
    SD_CHECK(r->n_prompt < e->ctx, err, SD_EINVAL,
             "the prompt has %d tokens and the context %d; shorten it or raise --ctx", r->n_prompt,
             e->ctx);
    for (int i = 0; i < r->n_prompt; i++)
        SD_CHECK(r->prompt[i] >= 0 && r->prompt[i] < e->model->hp.V, err, SD_EINVAL,
                 "prompt token %d is %d, outside the vocabulary of %d", i, r->prompt[i],
                 e->model->hp.V);
    SD_TRY(check_sampling(&r->sampling, err));
    SD_TRY(check_stops(e, r, err));
    SD_CHECK(r->logprobs >= -1 && r->logprobs <= 20, err, SD_EINVAL,
             "logprobs %d is outside -1 to 20", r->logprobs);
    SD_CHECK((unsigned)r->spec <= SD_SPEC_INDEX, err, SD_EINVAL, "speculation mode %d is unknown",
             (int)r->spec);
    SD_CHECK(r->spec != SD_SPEC_DRAFT || e->draft, err, SD_EINVAL,
             "speculation by a draft model was asked for without a draft model; give one with -d");
    SD_CHECK(r->spec != SD_SPEC_INDEX || e->corpus || r->corpus, err, SD_EINVAL,
             "speculation by a corpus index was asked for without an index; give one with -d or "
             "use an adapter's run folder");
    SD_CHECK(!r->adapter || r->adapter->L == e->model->hp.L, err, SD_EINVAL,
             "adapter %s has %d layers, the model %d", r->adapter->name, r->adapter->L,
             e->model->hp.L);
out:
    return st;
}

static sd_status copy_request(sd_job **out, const sd_request *r, sd_error *err) {
    sd_status st = SD_OK;
    sd_job *j = sd_alloc(1, sizeof *j);
    SD_CHECK_ALLOC(j, err);
    j->r = *r;
    j->r.adapter = r->adapter ? sd_adapter_acquire(r->adapter) : NULL;
    j->prompt = sd_alloc((size_t)r->n_prompt, sizeof *j->prompt);
    j->stop_token = sd_alloc((size_t)r->n_stop_token, sizeof *j->stop_token);
    SD_CHECK_ALLOC(j->prompt && j->stop_token ? j : NULL, err);
    memcpy(j->prompt, r->prompt, (size_t)r->n_prompt * sizeof *j->prompt);
    if (r->n_stop_token)
        memcpy(j->stop_token, r->stop_token, (size_t)r->n_stop_token * sizeof *j->stop_token);
    for (int i = 0; i < r->n_stop; i++) {
        j->stop[i] = sd_strdup(r->stop[i]);
        SD_CHECK_ALLOC(j->stop[i], err);
        j->stop_len[i] = strlen(j->stop[i]);
    }
    j->r.prompt = j->prompt, j->r.stop_token = j->stop_token;
    j->submitted = sd_now_s();
    *out = j, j = NULL;
out:
    sd_job_free(j);
    return st;
}

sd_status sd_engine_submit(sd_engine *e, const sd_request *r, uint64_t *id, sd_error *err) {
    sd_status st = SD_OK;
    sd_job *j = NULL;
    SD_TRY(check_request(e, r, err));
    SD_TRY(copy_request(&j, r, err));
    SD_TRY(sd_queue_add(e, j, id, err));
    j = NULL;
out:
    sd_job_free(j);
    return st;
}

static bool has_work(const sd_engine *e) {
    if (e->waiting > 0) return true;
    for (int i = 0; i < e->n_slots; i++)
        if (e->slot[i].job) return true;
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

void sd_engine_get_stats(sd_engine *e, sd_engine_stats *out) {
    pthread_mutex_lock(&e->lock);
    *out = e->published;
    pthread_mutex_unlock(&e->lock);
}

sd_context *sd_engine_context(sd_engine *e) {
    return e->cx;
}
