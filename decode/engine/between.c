// Work between two steps: errands of other threads, which wait for them; sleeping and waking.
#include "base/clock.h"
#include "base/log.h"
#include "decode/engine/private.h"

sd_model *sd_engine_draft_model(const sd_engine *e) {
    return e->draft.kind == SD_DRAFT_MODEL ? e->draft.model : NULL;
}

static sd_status run_take(sd_engine *e, const sd_errand *x, sd_error *err) {
    sd_status st = SD_OK;
    if (x->adapter) SD_TRY(sd_context_take_adapter(e->cx, x->adapter, err));
    if (x->of_draft) SD_TRY(sd_context_take_adapter(sd_drafters_context(e), x->of_draft, err));
out:
    return st;
}

void sd_engine_run_errands(sd_engine *e) {
    pthread_mutex_lock(&e->lock);
    for (sd_errand *x; (x = e->errands);) {
        e->errands = x->next;
        pthread_mutex_unlock(&e->lock);
        double begin = sd_now_s();
        x->status = x->run(e, x, &x->err);
        x->seconds = sd_now_s() - begin;
        pthread_mutex_lock(&e->lock);
        x->done = true;
        pthread_cond_broadcast(&e->errand_done);
    }
    pthread_mutex_unlock(&e->lock);
}

void sd_engine_stop_errands(sd_engine *e) {
    pthread_mutex_lock(&e->lock);
    e->no_errands = true;
    pthread_cond_broadcast(&e->errand_done);
    pthread_mutex_unlock(&e->lock);
}

// Waits until the errand was run, or is nobody's any more.
static void wait_between_steps(sd_engine *e, sd_errand *x) {
    pthread_mutex_lock(&e->lock);
    sd_errand **last = &e->errands;
    while (*last) last = &(*last)->next;
    *last = x;
    e->woken = true;
    pthread_cond_broadcast(&e->wakeup);
    while (!x->done && !e->no_errands) pthread_cond_wait(&e->errand_done, &e->lock);
    for (last = &e->errands; *last && *last != x;) last = &(*last)->next;
    if (*last) *last = x->next;
    if (!x->done)
        x->status = sd_fail(&x->err, SD_EINTERRUPTED, "the server ends; try again elsewhere");
    pthread_mutex_unlock(&e->lock);
}

sd_status sd_engine_take_adapters(sd_engine *e, const sd_adapter *a, const sd_adapter *of_draft,
                                  double *stopped_s, sd_error *err) {
    sd_status st = SD_OK;
    sd_errand x = {.run = run_take, .adapter = a, .of_draft = of_draft};
    SD_CHECK(!of_draft || sd_drafters_context(e), err, SD_EINVAL,
             "an adapter of the draft needs a draft model; give one with -d");
    if (a) SD_TRY(sd_context_prepare_adapter(e->cx, a, err));
    if (of_draft) SD_TRY(sd_context_prepare_adapter(sd_drafters_context(e), of_draft, err));
    wait_between_steps(e, &x);
    st = x.status;
    if (st != SD_OK && err) *err = x.err;
    *stopped_s = x.seconds;
out:
    return st;
}

// ---- sleeping

static void weights_mib(const sd_engine *e, double *mib) {
    sd_engine_memory now;
    sd_engine_get_memory(e, &now);
    *mib = (double)(now.weights + now.draft_weights) / 1048576;
}

static bool fall_asleep(sd_engine *e) {
    double before, after;
    if (e->stats.asleep) return true;
    weights_mib(e, &before);
    if (!sd_context_sleep(e->cx)) return false;
    sd_context *draft = sd_drafters_context(e);
    if (draft) sd_context_sleep(draft);
    weights_mib(e, &after);
    e->stats.asleep = true;
    e->stats.sleeps++;
    sd_log(SD_LOG_INFO, "sleeping: %.0f MiB of weights were given back", before - after);
    return true;
}

static sd_status wake(sd_engine *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_context *draft = sd_drafters_context(e);
    const double begin = sd_now_s();
    if (!e->stats.asleep) return SD_OK;
    SD_TRY(sd_context_wake(e->cx, err));
    if (draft) SD_TRY(sd_context_wake(draft, err));
    e->stats.asleep = false;
    e->stats.wake_ups++;
    e->stats.last_wake_s = sd_now_s() - begin;
    e->stats.wake_s += e->stats.last_wake_s;
    sd_log(SD_LOG_INFO, "awake again after %.0f ms", e->stats.last_wake_s * 1e3);
out:
    e->stats.wake_failed = st != SD_OK;
    pthread_mutex_lock(&e->lock); // known before the requests that fail by it end
    e->published.wake_failed = e->stats.wake_failed;
    pthread_mutex_unlock(&e->lock);
    if (st != SD_OK)
        sd_log(SD_LOG_ERROR, "not awake: %s; the next request or POST /wake_up tries again",
               err->message);
    return st;
}

bool sd_engine_be_awake(sd_engine *e, sd_error *err) {
    return !e->stats.asleep || wake(e, err) == SD_OK;
}

void sd_engine_rest(sd_engine *e, bool has_work) {
    const double now = sd_now_s();
    if (has_work || e->idle_since == 0) e->idle_since = has_work ? 0 : now;
    if (has_work || e->o.sleep_idle_s <= 0 || e->stats.asleep) return;
    if (now - e->idle_since >= e->o.sleep_idle_s && !fall_asleep(e)) {
        sd_log(SD_LOG_WARN, "the device's weights cannot be given back: --sleep-idle does nothing");
        e->o.sleep_idle_s = 0;
    }
}

static sd_status run_sleep(sd_engine *e, const sd_errand *x, sd_error *err) {
    (void)x;
    sd_status st = SD_OK;
    SD_CHECK(!sd_engine_has_work(e), err, SD_ELIMIT,
             "requests run or wait; try again when they have ended");
    SD_CHECK(fall_asleep(e), err, SD_EINVAL, "the weights of this device cannot be given back");
out:
    return st;
}

static sd_status run_wake(sd_engine *e, const sd_errand *x, sd_error *err) {
    (void)x;
    e->idle_since = 0;
    return wake(e, err);
}

sd_status sd_engine_sleep(sd_engine *e, sd_error *err) {
    sd_errand x = {.run = run_sleep};
    wait_between_steps(e, &x);
    if (x.status != SD_OK && err) *err = x.err;
    return x.status;
}

sd_status sd_engine_wake_up(sd_engine *e, double *seconds, sd_error *err) {
    sd_errand x = {.run = run_wake};
    wait_between_steps(e, &x);
    if (x.status != SD_OK && err) *err = x.err;
    *seconds = x.seconds;
    return x.status;
}
