// Everything here happens once a step and costs nothing beside the pass. The order matters:
// parameters move, then the step is evaluated, then it is recorded, then saved; a kill between any
// two of these repeats from the last save.
#include "trainer/loop.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    sd_loop *l;
    sd_learner_range *range; // parameters with one learning rate
    int ranges;
    sd_batch batch;
    int64_t *item; // items of a micro-batch
    int64_t item_cap;
    sd_schedule schedule;
    double started; // clock at the state's wall_s
    int64_t saved;  // step of the newest checkpoint, -1: none by this process
} work;

static bool stopping(const work *w) {
    return w->l->stop && *w->l->stop;
}

static sd_status save(work *w, sd_error *err) {
    sd_loop *l = w->l;
    double now = sd_now_s();
    l->c->state.wall_s += now - w->started;
    w->started = now;
    sd_status st = l->learner->read(l->learner->ctx, true, err);
    if (st == SD_OK) st = sd_checkpoint_save(l->checkpoints, l->c, NULL, err);
    if (st == SD_OK) w->saved = l->c->state.step;
    if (st == SD_OK && l->metrics) st = sd_metrics_plot(l->metrics, err);
    return st;
}

static sd_status interrupted(work *w, sd_error *err) {
    sd_loop *l = w->l;
    sd_status st = SD_OK;
    if (l->metrics) sd_metrics_quiet(l->metrics);
    if (w->saved != l->c->state.step || l->c->state.eval_due) st = save(w, err);
    if (st != SD_OK) return st;
    return sd_fail(err, SD_EINTERRUPTED,
                   "interrupted after step %lld of %lld; the state is saved; continue with: %s",
                   (long long)l->c->state.step, (long long)l->steps,
                   l->resume_hint ? l->resume_hint : "the same command");
}

/// Items [from, from + *n) of `items` that fit a micro-batch, at least one.
static int micro_batch(const sd_rows *rows, const int64_t *item, int64_t left, int limit) {
    int64_t tokens = 0;
    int n = 0;
    for (; n < left; n++) {
        int64_t t = rows->tokens[item[n]];
        if (n > 0 && tokens + t > limit) break;
        tokens += t;
    }
    return n;
}

static sd_status reserve_items(work *w, int64_t n, sd_error *err) {
    if (SD_GROW(w->item, n, w->item_cap)) return SD_OK;
    return sd_fail(err, SD_ENOMEM, "out of memory for a step of %lld rows", (long long)n);
}

/// The sum of gradients over the step's items; SD_EINTERRUPTED without a message when stopped.
static sd_status accumulate(work *w, int64_t n, sd_train_sum *sum, sd_error *err) {
    sd_loop *l = w->l;
    sd_status st = SD_OK;
    for (int64_t at = 0; at < n;) {
        if (stopping(w)) return SD_EINTERRUPTED;
        int m = micro_batch(l->order.rows, w->item + at, n - at, l->micro_batch_tokens);
        SD_TRY(sd_batch_fill(&w->batch, l->order.rows, w->item + at, m, err));
        SD_TRY(l->learner->accumulate(l->learner->ctx, &w->batch.batch, err));
        at += m;
        if (l->metrics && at < n) sd_metrics_busy(l->metrics, "step's rows", at, n);
    }
    SD_TRY(l->learner->finish(l->learner->ctx, sum, err));
out:
    return st;
}

/// One range of everything, or each A and each B with its own learning rate (LoRA+).
static sd_status cut_ranges(work *w, sd_error *err) {
    sd_status st = SD_OK;
    const sd_lora_layout *lay = w->l->layout;
    const double ratio = w->l->recipe->adapter.lr_ratio;
    const bool apart = lay && ratio != 1;
    w->range = sd_alloc(apart ? 2 * (size_t)lay->n_linears : 1, sizeof *w->range);
    SD_CHECK_ALLOC(w->range, err);
    if (!apart) w->range[w->ranges++] = (sd_learner_range){0, w->l->c->n, 1};
    for (int i = 0; apart && i < lay->n_linears; i++) {
        const sd_lora_slot *s = &lay->slot[i];
        if (!s->r) continue;
        w->range[w->ranges++] = (sd_learner_range){s->a, (size_t)s->r * (size_t)s->in, 1};
        w->range[w->ranges++] = (sd_learner_range){s->b, (size_t)s->r * (size_t)s->out, ratio};
    }
out:
    return st;
}

static sd_status update(work *w, double lr, sd_error *err) {
    sd_loop *l = w->l;
    const sd_recipe *r = l->recipe;
    const sd_learner_update u = {
        .adamw = {r->train.beta1, r->train.beta2, r->train.epsilon, r->train.weight_decay},
        .lr = lr,
        .step = l->c->state.step - l->c->state.skipped + 1,
        .range = w->range,
        .ranges = w->ranges};
    return l->learner->update(l->learner->ctx, &u, err);
}

static sd_status one_step(work *w, sd_metric *row, sd_error *err) {
    sd_loop *l = w->l;
    sd_train_state *s = &l->c->state;
    sd_status st = SD_OK;
    sd_train_sum sum;
    if (s->index >= l->order.rows->n) s->epoch++, s->index = 0;
    int64_t n = sd_order_step(&l->order, s->epoch, s->index, NULL);
    double start = sd_now_s();
    SD_TRY(reserve_items(w, n, err));
    for (int64_t i = 0; i < n; i++) w->item[i] = sd_order_item(&l->order, s->epoch, s->index + i);
    SD_TRY(accumulate(w, n, &sum, err));
    double lr = sd_schedule_lr(&w->schedule, s->step), scale = 0, norm = 0;
    if (sum.supervised > 0) {
        scale = 1 / (double)sum.supervised;
        SD_TRY(
            l->learner->norm(l->learner->ctx, &norm, scale, l->recipe->train.max_grad_norm, err));
    }
    SD_CHECK(isfinite(norm) && isfinite(sum.loss), err, SD_EMISMATCH,
             "step %lld: loss %g, gradient norm %g: the run has diverged; lower "
             "train.learning_rate (%g) and begin anew",
             (long long)s->step + 1, sum.loss * scale, norm, l->recipe->train.learning_rate);
    if (sum.supervised > 0) {
        SD_TRY(update(w, lr, err));
    } else { // nothing to learn: the step is counted, the parameters and their moments stay
        s->skipped++;
    }
    s->step++;
    s->index += n;
    s->tokens += sum.tokens;
    s->supervised += sum.supervised;
    s->loss = sum.loss * scale, s->lr = lr, s->grad_norm = norm;
    s->step_tokens = sum.tokens, s->step_supervised = sum.supervised;
    row->tok_s = (double)sum.tokens / fmax(sd_now_s() - start, 1e-9);
out:
    return st;
}

static bool eval_is_due(const work *w, int64_t index_before) {
    const sd_loop *l = w->l;
    const sd_train_state *s = &l->c->state;
    const sd_recipe_every *e = &l->recipe->eval.every;
    if (!l->eval || l->eval->n == 0) return false;
    if (s->step == l->steps) return true;
    if (!e->per_epoch) return s->step % e->n == 0;
    int64_t rows = l->order.rows->n;
    return s->index * e->n / rows > index_before * e->n / rows; // crossed k/n of the epoch
}

/// *mean over all held-out rows; SD_EINTERRUPTED without a message when stopped.
static sd_status evaluate(work *w, double *mean, sd_error *err) {
    sd_loop *l = w->l;
    const sd_rows *rows = l->eval;
    sd_status st = SD_OK;
    sd_train_sum sum = {0};
    for (int64_t at = 0; at < rows->n;) {
        if (stopping(w)) return SD_EINTERRUPTED;
        int64_t left = rows->n - at < 4096 ? rows->n - at : 4096;
        SD_TRY(reserve_items(w, left, err));
        for (int64_t i = 0; i < left; i++) w->item[i] = at + i;
        int m = micro_batch(rows, w->item, left, l->micro_batch_tokens);
        SD_TRY(sd_batch_fill(&w->batch, rows, w->item, m, err));
        SD_TRY(l->learner->loss(l->learner->ctx, &w->batch.batch, err));
        at += m;
        if (l->metrics) sd_metrics_busy(l->metrics, "evaluating", at, rows->n);
    }
    SD_TRY(l->learner->finish(l->learner->ctx, &sum, err));
    SD_CHECK(sum.supervised > 0, err, SD_EFORMAT,
             "the held-out records have no supervised token; check data.eval and data.loss_on");
    *mean = sum.loss / (double)sum.supervised;
    SD_CHECK(isfinite(*mean), err, SD_EMISMATCH,
             "step %lld: the held-out loss is %g: the run has diverged; lower "
             "train.learning_rate (%g) and begin anew",
             (long long)l->c->state.step, *mean, l->recipe->train.learning_rate);
out:
    return st;
}

static sd_status take_eval(work *w, double loss, sd_error *err) {
    sd_status st = SD_OK;
    sd_loop *l = w->l;
    sd_train_state *s = &l->c->state;
    bool better = !s->has_best || loss < s->best_loss;
    s->last_eval = loss;
    s->eval_due = false;
    if (better) {
        SD_TRY(l->learner->read(l->learner->ctx, false, err));
        memcpy(l->c->best, l->c->theta, l->c->n * sizeof *l->c->best);
        s->has_best = true;
        s->best_loss = loss;
        s->best_step = s->step;
        s->evals_without_gain = 0;
    } else if (++s->evals_without_gain >= l->recipe->eval.patience && l->recipe->eval.patience) {
        s->stopped = true;
    }
out:
    return st;
}

/// Evaluates when it is time, writes the step's row, saves when it is time.
static sd_status after_step(work *w, sd_metric *row, sd_error *err) {
    sd_loop *l = w->l;
    sd_train_state *s = &l->c->state;
    sd_status st = SD_OK;
    row->eval_loss = NAN;
    if (s->eval_due) {
        SD_TRY(evaluate(w, &row->eval_loss, err));
        SD_TRY(take_eval(w, row->eval_loss, err));
    }
    row->step = s->step;
    row->loss = s->loss, row->lr = s->lr, row->grad_norm = s->grad_norm;
    row->tokens = s->step_tokens, row->supervised = s->step_supervised;
    row->mem_mb = sd_peak_memory_mb();
    row->wall_s = s->wall_s + sd_now_s() - w->started;
    // A step without a supervised token has no loss; its row is for the evaluation.
    bool empty = s->step_supervised == 0 && isnan(row->eval_loss);
    if (l->metrics && !empty) SD_TRY(sd_metrics_add(l->metrics, row, err));
    if (s->step % l->recipe->checkpoint.every == 0 || s->step == l->steps || s->stopped)
        SD_TRY(save(w, err));
out:
    return st;
}

static sd_schedule schedule_of(const sd_loop *l) {
    const sd_recipe *r = l->recipe;
    return (sd_schedule){
        .kind = r->train.lr_scheduler,
        .peak = r->train.learning_rate,
        .min_ratio = r->train.min_lr_ratio,
        .warmup = sd_warmup(r->train.warmup_steps, r->train.warmup_ratio, l->steps),
        .steps = l->steps > 0 ? l->steps : 1,
        .from_start = strcmp(l->c->state.schedule, SD_SCHEDULE_NAME) != 0,
    };
}

sd_status sd_loop_run(sd_loop *l, sd_error *err) {
    sd_status st = SD_OK;
    work w = {.l = l, .started = sd_now_s(), .saved = l->c->state.step ? l->c->state.step : -1};
    sd_train_state *s = &l->c->state;
    const sd_learner_arrays arrays = {l->c->theta, l->c->m, l->c->v};
    w.schedule = schedule_of(l);
    SD_TRY(cut_ranges(&w, err));
    SD_CHECK(l->order.rows->n > 0, err, SD_EFORMAT,
             "there is no training record; check data.train and data.val_size");
    SD_TRY(l->learner->attach(l->learner->ctx, &arrays, err));
    if (s->eval_due) {                  // the evaluation that an interruption cut short
        sd_metric row = {.tok_s = NAN}; // the step's time went with the process that did it
        SD_TRY(after_step(&w, &row, err));
    }
    while (s->step < l->steps && !s->stopped) {
        sd_metric row = {0};
        int64_t before = s->index >= l->order.rows->n ? 0 : s->index;
        SD_TRY(one_step(&w, &row, err));
        s->eval_due = eval_is_due(&w, before);
        SD_TRY(after_step(&w, &row, err));
    }
    if (s->stopped && s->step < l->steps && l->metrics) {
        sd_metrics_quiet(l->metrics);
        sd_log(SD_LOG_INFO, "stopped at step %lld: %lld evaluations without a gain",
               (long long)s->step, (long long)s->evals_without_gain);
    }
    if (s->skipped > 0) {
        if (l->metrics) sd_metrics_quiet(l->metrics);
        sd_log(SD_LOG_WARN,
               "%lld of %lld steps had rows without a supervised token only and changed nothing; "
               "check data.loss_on, or take more rows for a step",
               (long long)s->skipped, (long long)s->step);
    }
    SD_TRY(l->learner->read(l->learner->ctx, false, err));
out:
    if (st == SD_EINTERRUPTED) st = interrupted(&w, err);
    free(w.range);
    free(w.item);
    sd_batch_free(&w.batch);
    return st;
}
