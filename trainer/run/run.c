// A run from recipe to finished folder, in the order in which things can be known: recipe, folder,
// where to go on from (which fixes what auto had become), base, first parameters, data, memory
// plan, loop, exports.
#include "trainer/run/run.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "trainer/run/private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// The products of the parts.
typedef struct {
    const sd_run_options *o;
    sd_run_report report;
    sd_recipe recipe;
    sd_run_folder folder;
    sd_run_start start;
    sd_run_base base;
    sd_run_data data;
    sd_train_options pass;
    sd_buf resolved; // text of recipe.resolved.yaml
    sd_checkpoint c; // borrows it
    sd_metrics *metrics;
    sd_learner learner;
} run;

static void run_close(run *r) {
    sd_learner_close(&r->learner);
    sd_metrics_close(r->metrics);
    sd_run_close_data(&r->data);
    sd_run_close_base(&r->base);
    sd_buf_free(&r->resolved);
    free(r->c.theta);
    free(r->c.m);
    free(r->c.v);
    free(r->c.best);
    free(r->start.from);
    sd_run_close_folder(&r->folder);
    sd_recipe_free(&r->recipe);
}

static sd_status private_as(const char *path, sd_error *err) {
    sd_path_kind kind = SD_PATH_NONE;
    sd_status st = path ? sd_path_look(&kind, path, err) : SD_OK;
    // One that is not there is refused where it is wanted, by the key that names it.
    return st == SD_OK && kind != SD_PATH_NONE ? sd_keep_private(path, err) : st;
}

/// Checkpoints, prepared data, index and adapter hold what the sources say: none of them may be
/// read by those who may not read a source.
static sd_status keep_private(const sd_recipe *e, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(private_as(e->base.model, err));
    SD_TRY(private_as(e->adapter.from, err));
    SD_TRY(private_as(e->data.chat_template, err));
    SD_TRY(private_as(e->data.prepared, err));
    for (int i = 0; i < e->data.train.n; i++) SD_TRY(private_as(e->data.train.item[i].path, err));
    for (int i = 0; i < e->data.eval.n; i++) SD_TRY(private_as(e->data.eval.item[i].path, err));
out:
    return st;
}

/// All that can be known and refused before the first step.
static sd_status prepare(run *r, bool plan_only, sd_error *err) {
    sd_status st = SD_OK;
    sd_run_report *p = &r->report;
    SD_TRY(sd_recipe_load(&r->recipe, r->o->recipe, r->o->override, r->o->n_overrides, err));
    SD_TRY(keep_private(&r->recipe, err));
    SD_TRY(sd_run_open_folder(&r->folder, r->o->out, r->recipe.name, plan_only, err));
    snprintf(p->dir, sizeof p->dir, "%s", r->folder.dir);
    SD_TRY(sd_run_choose_start(&r->start, &r->recipe, r->folder.dir, r->o->resume, err));
    p->done_before = r->start.finished;
    if (r->start.finished && !plan_only) goto out;
    SD_TRY(sd_run_choose_device(&r->recipe, r->start.from || r->start.finished, err));
    sd_run_name_device(p->device, sizeof p->device, &r->recipe);
    SD_TRY(sd_run_open_base(&r->base, &r->recipe, r->o->threads, err));
    snprintf(p->base, sizeof p->base, "%s", r->recipe.base.model);
    p->parameters = (int64_t)r->base.layout.n_params;
    SD_TRY(sd_run_init_parameters(&r->c, &r->recipe, &r->base, err));
    SD_TRY(
        sd_run_open_data(&r->data, r->o, &r->recipe, &r->base, &r->folder, r->start.of_0_4, err));
    p->data = r->data.counts;
    SD_TRY(sd_run_resolve(&r->pass, &p->plan, &r->recipe, &r->base, &r->data, err));
    p->micro_batch_tokens = r->recipe.train.micro_batch_tokens;
    r->resolved = sd_buf_make(1 << 20);
    SD_TRY(sd_recipe_text(&r->recipe, &r->resolved, err));
    if (r->start.finished) goto out;
    SD_TRY(
        sd_run_load_start(&r->c, &r->start, &r->recipe, &r->base, &r->data, p->plan.kernels, err));
    r->c.recipe = r->resolved;
    p->state = r->c.state;
    p->started_at = r->c.state.step;
out:
    return st;
}

// ---- the loop

static bool has_sink(const sd_recipe *e, const char *name) {
    for (int i = 0; i < e->log.sinks.n; i++)
        if (strcmp(e->log.sinks.item[i], name) == 0) return true;
    return false;
}

static sd_status open_metrics(run *r, sd_error *err) {
    const sd_recipe *e = &r->recipe;
    char title[256];
    const sd_train_state *s = &r->c.state;
    snprintf(title, sizeof title, "%s: LoRA r %lld on %.100s", e->name, (long long)e->adapter.r,
             r->base.model->name);
    sd_metrics_options o = {.dir = r->folder.dir,
                            .title = title,
                            .tty = has_sink(e, "tty"),
                            .csv = has_sink(e, "csv"),
                            .jsonl = has_sink(e, "jsonl"),
                            .plot = has_sink(e, "plot"),
                            .every = e->log.every,
                            .total = r->data.counts.steps,
                            .keep_until = s->eval_due ? s->step - 1 : s->step};
    return sd_metrics_open(&r->metrics, &o, err);
}

/// The metrics of a run whose checkpoints could not be gone on from.
static sd_status set_metrics_aside(const char *dir, sd_error *err) {
    static const char *const names[] = {"metrics.csv", "metrics.jsonl"};
    sd_status st = SD_OK;
    char *from = NULL, *to = NULL, *got = NULL;
    for (int i = 0; i < 2; i++) {
        sd_path_kind kind;
        from = sd_path_join(dir, names[i]);
        SD_CHECK_ALLOC(from, err);
        to = sd_sprintf("%s.given-up", from);
        SD_CHECK_ALLOC(to, err);
        SD_TRY(sd_path_look(&kind, from, err));
        if (kind != SD_PATH_NONE) SD_TRY(sd_rename_aside(&got, from, to, err));
        free(from), free(to), free(got);
        from = to = got = NULL;
    }
out:
    free(from), free(to), free(got);
    return st;
}

static sd_status write_resolved(const char *dir, const sd_buf *text, sd_error *err) {
    char *path = sd_path_join(dir, "recipe.resolved.yaml");
    if (!path) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_file_write(path, text->data, text->len, err);
    free(path);
    return st;
}

/// Prepares the folder for the first step: this start's recipe and metrics, and no checkpoint that
/// it does not go on from.
static sd_status settle_folder(run *r, sd_checkpoints *checkpoints, sd_error *err) {
    sd_status st = SD_OK;
    sd_run_start *s = &r->start;
    SD_TRY(sd_checkpoints_sweep(checkpoints->dir,
                                err)); // a run whose last save was killed makes no other
    if (s->begins_anew) SD_TRY(sd_checkpoints_give_up(&s->others, checkpoints->dir, err));
    if (!s->from && s->others > 0) SD_TRY(set_metrics_aside(r->folder.dir, err));
    SD_TRY(write_resolved(r->folder.dir, &r->resolved, err));
    SD_TRY(open_metrics(r, err));
    if (s->from) {
        sd_run_say(r->o, "resuming from %s: step %lld of %lld is done", s->from,
                   (long long)r->c.state.step, (long long)r->data.counts.steps);
        SD_TRY(sd_checkpoints_own(checkpoints, r->c.state.step, s->from, err));
    }
    if (s->others > 0)
        sd_run_say(r->o,
                   "%d checkpoints that this start has not made stay in %s; remove them by hand",
                   s->others, checkpoints->dir);
out:
    return st;
}

static sd_status run_loop(run *r, sd_checkpoints *checkpoints, const char *hint, sd_error *err) {
    sd_status st = SD_OK;
    sd_run_report *p = &r->report;
    sd_loop loop = {.recipe = &r->recipe,
                    .learner = &r->learner,
                    .order = r->data.order,
                    .eval = &r->data.eval,
                    .layout = &r->base.layout,
                    .steps = r->data.counts.steps,
                    .micro_batch_tokens = (int)r->recipe.train.micro_batch_tokens,
                    .c = &r->c,
                    .checkpoints = checkpoints,
                    .resume_hint = hint,
                    .metrics = r->metrics,
                    .stop = r->o->stop};
    SD_TRY(sd_loop_run(&loop, err));
    sd_metrics_quiet(r->metrics);
    SD_TRY(sd_metrics_plot(r->metrics, err));
    int64_t n = 0;
    const sd_metric *rows = sd_metrics_all(r->metrics, &n);
    if (n) p->first_loss = rows[0].loss, p->last_loss = rows[n - 1].loss;
    p->state = r->c.state;
    p->ended_by = sd_run_ended_by(&r->recipe, &r->c.state, &r->data.counts);
    p->peak_mb = sd_peak_memory_mb();
out:
    return st;
}

static sd_status finish(run *r, sd_error *err) {
    sd_status st = SD_OK;
    sd_run_text text = {0};
    sd_run_trained trained = {.o = r->o,
                              .dir = r->folder.dir,
                              .recipe = &r->recipe,
                              .base = &r->base,
                              .data = &r->data,
                              .c = &r->c,
                              .last_loss = r->report.last_loss};
    free(r->c.m), r->c.m = NULL; // what comes now needs the memory and not the optimiser
    free(r->c.v), r->c.v = NULL;
    SD_TRY(sd_run_collect_text(&text, &trained, &r->learner, r->pass.max_tokens, err));
    sd_learner_close(&r->learner);
    SD_TRY(sd_run_finish(&r->report.verified, &trained, &text, err));
out:
    free(text.token);
    return st;
}

static sd_status train(run *r, sd_error *err) {
    sd_status st = SD_OK;
    char *dir = sd_path_join(r->folder.dir, "checkpoints");
    char *hint = NULL;
    sd_checkpoints checkpoints = {.dir = dir, .keep = (int)r->recipe.checkpoint.keep};
    SD_CHECK_ALLOC(dir, err);
    if (r->o->resume_hint && strcmp(r->recipe.checkpoint.resume, "auto") != 0) {
        hint = sd_sprintf("%s --resume auto", r->o->resume_hint); // the recipe's would begin anew
        SD_CHECK_ALLOC(hint, err);
    }
    if (r->o->begins) r->o->begins();
    sd_run_keep_folder(&r->folder);
    SD_TRY(settle_folder(r, &checkpoints, err));
    SD_TRY(sd_run_open_learner(&r->learner, &r->recipe, &r->base, &r->pass, err));
    SD_TRY(run_loop(r, &checkpoints, hint ? hint : r->o->resume_hint, err));
    SD_TRY(finish(r, err));
out:
    sd_checkpoints_free(&checkpoints);
    free(hint);
    free(dir);
    return st;
}

static sd_status run_recipe(const sd_run_options *o, bool plan_only, sd_run_report *report,
                            sd_error *err) {
    run r = {.o = o,
             .folder.lock = -1,
             .report = {.first_loss = NAN,
                        .last_loss = NAN,
                        .verified = {.worst_top1 = 1, .trainer_loss = NAN, .reloaded_loss = NAN}}};
    sd_status st = prepare(&r, plan_only, err);
    if (st == SD_OK && !plan_only && !r.start.finished) st = train(&r, err);
    *report = r.report;
    run_close(&r);
    return st;
}

sd_status sd_run_train(const sd_run_options *o, sd_run_report *report, sd_error *err) {
    return run_recipe(o, false, report, err);
}

sd_status sd_run_plan(const sd_run_options *o, sd_run_report *report, sd_error *err) {
    return run_recipe(o, true, report, err);
}
