// A run from recipe to finished folder, in the order in which things can be known: recipe, folder,
// where to go on from (which fixes what auto had become), base, first parameters, data, memory
// plan, loop, exports.
#include "trainer/run/run.h"

#include "base/files/file.h"
#include "trainer/lora_targets.h"
#include "trainer/run/private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { AUTO_MICRO_BATCH = 2048 }; // tokens: GEMMs are efficient from there, activations still small

static void run_close(sd_run *r) {
    sd_train_close(r->trainer);
    sd_metrics_close(r->metrics);
    sd_rows_close(&r->train);
    sd_rows_close(&r->eval);
    sd_dataset_close(r->train_data);
    sd_dataset_close(r->eval_data);
    sd_lora_layout_free(&r->layout);
    sd_model_release(r->model);
    sd_pool_close(r->pool);
    sd_buf_free(&r->resolved_text);
    free(r->c.theta);
    free(r->c.m);
    free(r->c.v);
    free(r->c.best);
    free(r->resume_from);
    sd_run_close_folder(r);
    sd_recipe_free(&r->recipe);
}

static sd_status open_base(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    const sd_recipe *e = &r->recipe;
    if (!e->base.model)
        return sd_recipe_fail(e, "base.model", err,
                              "is missing; give the path of a GGUF file or a Hugging Face folder");
    SD_TRY(sd_pool_open(&r->pool, r->o->threads > 0 ? r->o->threads : (int)e->device.threads, err));
    SD_TRY(sd_model_open(&r->model, e->base.model, err));
    snprintf(r->report->base, sizeof r->report->base, "%s", e->base.model);
    SD_TRY(sd_model_sha256(r->model, &r->base_sha256, err));
    if (e->base.sha256 && strcmp(e->base.sha256, r->base_sha256.hex) != 0)
        return sd_recipe_fail(e, "base.sha256", err,
                              "%s has SHA-256 %s; give the right file, or null", e->base.model,
                              r->base_sha256.hex);
out:
    return st;
}

static sd_status open_layout(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &r->model->hp;
    size_t slots = (size_t)hp->L * SD_PROJ_COUNT;
    int *rank = sd_alloc(slots, sizeof *rank);
    double *alpha = sd_alloc(slots, sizeof *alpha);
    SD_CHECK_ALLOC(rank, err);
    SD_CHECK_ALLOC(alpha, err);
    SD_TRY(sd_targets_of(rank, alpha, &r->recipe, hp, err));
    SD_TRY(sd_lora_layout_init(&r->layout, hp, rank, alpha, r->recipe.adapter.scaling == 1, err));
    r->report->parameters = (int64_t)r->layout.n_params;
out:
    free(rank);
    free(alpha);
    return st;
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

/// micro_batch_tokens, compute_dtype, recompute: what auto becomes. Small micro-batches are only
/// chosen to keep a memory limit.
static sd_status resolve(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    sd_recipe *e = &r->recipe;
    int longest = r->train.longest, threads = sd_pool_threads(r->pool);
    int micro = (int)e->train.micro_batch_tokens;
    bool chosen = micro == 0;
    if (micro && micro < longest)
        return sd_recipe_fail(e, "train.micro_batch_tokens", err,
                              "%d is less than the longest row of %d tokens, and rows are not cut; "
                              "give at least that, or auto",
                              micro, longest);
    if (chosen) {
        int step = r->step_tokens < AUTO_MICRO_BATCH ? (int)r->step_tokens : AUTO_MICRO_BATCH;
        micro = larger(longest, step);
    }
    for (;;) {
        size_t data = sd_dataset_memory(r->train_data);
        if (r->eval_data) data += sd_dataset_memory(r->eval_data);
        r->pass = (sd_train_options){.data = data,
                                     .max_tokens = larger(micro, r->eval.longest),
                                     .compute = (sd_train_compute)e->base.compute_dtype,
                                     .recompute = (sd_recompute)e->train.recompute,
                                     .memory_limit = (size_t)e->device.memory_limit};
        st = sd_train_plan(&r->plan, r->model, &r->layout, &r->pass, threads, err);
        if (st != SD_ELIMIT || !chosen || micro == longest) break;
        micro = larger(longest, micro / 2);
    }
    SD_TRY(st);
    e->train.micro_batch_tokens = micro;
    e->base.compute_dtype = (int)r->plan.compute;
    e->train.recompute = (int)r->plan.recompute;
    r->pass.compute = r->plan.compute;
    r->pass.recompute = r->plan.recompute;
    r->report->plan = r->plan;
    r->report->micro_batch_tokens = micro;
    r->resolved_text = sd_buf_make(1 << 20);
    SD_TRY(sd_recipe_text(e, &r->resolved_text, err));
out:
    return st;
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
    SD_TRY(private_as(e->data.prepared, err));
    for (int i = 0; i < e->data.train.n; i++) SD_TRY(private_as(e->data.train.item[i].path, err));
    for (int i = 0; i < e->data.eval.n; i++) SD_TRY(private_as(e->data.eval.item[i].path, err));
out:
    return st;
}

/// All that can be known and refused before the first step.
static sd_status prepare(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    bool *done = &r->report->done_before;
    SD_TRY(sd_recipe_load(&r->recipe, r->o->recipe, r->o->override, r->o->n_overrides, err));
    SD_TRY(keep_private(&r->recipe, err));
    SD_TRY(sd_run_open_folder(r, err));
    SD_TRY(sd_run_choose_start(r, done, err));
    if (*done && !r->plan_only) goto out;
    SD_TRY(open_base(r, err));
    SD_TRY(open_layout(r, err));
    SD_TRY(sd_run_init_parameters(r, err));
    SD_TRY(sd_run_open_data(r, err));
    SD_TRY(resolve(r, err));
    if (!*done) SD_TRY(sd_run_load_start(r, err));
out:
    return st;
}

// ---- the loop's view of the model

static sd_status accumulate(void *ctx, const float *theta, float *grad, const sd_train_batch *b,
                            sd_train_sum *sum, sd_error *err) {
    return sd_train_accumulate(ctx, theta, grad, b, sum, err);
}
static sd_status loss(void *ctx, const float *theta, const sd_train_batch *b, sd_train_sum *sum,
                      sd_error *err) {
    return sd_train_loss(ctx, theta, b, sum, err);
}

static bool has_sink(const sd_recipe *e, const char *name) {
    for (int i = 0; i < e->log.sinks.n; i++)
        if (strcmp(e->log.sinks.item[i], name) == 0) return true;
    return false;
}

static sd_status open_metrics(sd_run *r, sd_error *err) {
    const sd_recipe *e = &r->recipe;
    char title[256];
    const sd_train_state *s = &r->c.state;
    snprintf(title, sizeof title, "%s: LoRA r %lld on %.100s", e->name, (long long)e->adapter.r,
             r->model->name);
    sd_metrics_options o = {.dir = r->dir,
                            .title = title,
                            .tty = has_sink(e, "tty"),
                            .csv = has_sink(e, "csv"),
                            .jsonl = has_sink(e, "jsonl"),
                            .plot = has_sink(e, "plot"),
                            .every = e->log.every,
                            .total = r->steps,
                            .keep_until = s->eval_due ? s->step - 1 : s->step};
    return sd_metrics_open(&r->metrics, &o, err);
}

/// The metrics of a run whose checkpoints could not be gone on from.
static sd_status set_metrics_aside(const sd_run *r, sd_error *err) {
    static const char *const names[] = {"metrics.csv", "metrics.jsonl"};
    sd_status st = SD_OK;
    char *from = NULL, *to = NULL, *got = NULL;
    for (int i = 0; i < 2; i++) {
        sd_path_kind kind;
        from = sd_run_path(r, names[i]);
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

static sd_status write_resolved(sd_run *r, sd_error *err) {
    char *path = sd_run_path(r, "recipe.resolved.yaml");
    if (!path) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_file_write(path, r->resolved_text.data, r->resolved_text.len, err);
    free(path);
    return st;
}

static void fill_report(sd_run *r) {
    sd_run_report *p = r->report;
    const sd_train_state *s = &r->c.state;
    int64_t n = 0;
    const sd_metric *rows = sd_metrics_all(r->metrics, &n);
    p->first_loss = n ? rows[0].loss : NAN;
    p->last_loss = n ? rows[n - 1].loss : NAN;
    p->best_eval = s->has_best ? s->best_loss : NAN;
    p->last_eval = s->has_best ? s->last_eval : NAN;
    p->best_step = s->best_step;
    p->steps = s->step;
    p->wall_s = s->wall_s;
    p->peak_mb = sd_peak_memory_mb();
}

static sd_status train(sd_run *r, sd_error *err) {
    sd_status st = SD_OK;
    char *dir = sd_run_path(r, "checkpoints");
    char *hint = NULL;
    sd_checkpoints checkpoints = {.dir = dir, .keep = (int)r->recipe.checkpoint.keep};
    SD_CHECK_ALLOC(dir, err);
    if (r->o->resume_hint && strcmp(r->recipe.checkpoint.resume, "auto") != 0) {
        hint = sd_sprintf("%s --resume auto", r->o->resume_hint); // the recipe's would begin anew
        SD_CHECK_ALLOC(hint, err);
    }
    if (r->o->begins) r->o->begins();
    sd_run_keep_folder(r);
    SD_TRY(sd_checkpoints_sweep(dir, err)); // a run whose last save was killed makes no other
    if (r->begins_anew) SD_TRY(sd_checkpoints_give_up(&r->other_checkpoints, dir, err));
    if (!r->resume_from && r->other_checkpoints > 0) SD_TRY(set_metrics_aside(r, err));
    SD_TRY(write_resolved(r, err));
    SD_TRY(open_metrics(r, err));
    if (r->resume_from) {
        sd_run_say(r, "resuming from %s: step %lld of %lld is done", r->resume_from,
                   (long long)r->c.state.step, (long long)r->steps);
        SD_TRY(sd_checkpoints_own(&checkpoints, r->c.state.step, r->resume_from, err));
    }
    if (r->other_checkpoints > 0)
        sd_run_say(r, "%d checkpoints that this start has not made stay in %s; remove them by hand",
                   r->other_checkpoints, dir);
    SD_TRY(sd_train_open(&r->trainer, r->model, &r->layout, r->pool, &r->pass, err));
    sd_loop loop = {.recipe = &r->recipe,
                    .pass = {r->trainer, accumulate, loss},
                    .order = r->order,
                    .eval = &r->eval,
                    .layout = &r->layout,
                    .pool = r->pool,
                    .steps = r->steps,
                    .micro_batch_tokens = (int)r->recipe.train.micro_batch_tokens,
                    .c = &r->c,
                    .checkpoints = &checkpoints,
                    .resume_hint = hint ? hint : r->o->resume_hint,
                    .metrics = r->metrics,
                    .stop = r->o->stop};
    SD_TRY(sd_loop_run(&loop, err));
    sd_metrics_quiet(r->metrics);
    SD_TRY(sd_metrics_plot(r->metrics, err));
    fill_report(r);
    free(r->c.m), r->c.m = NULL; // what comes now needs the memory and not the optimiser
    free(r->c.v), r->c.v = NULL;
    SD_TRY(sd_run_finish(r, err));
out:
    sd_checkpoints_free(&checkpoints);
    free(hint);
    free(dir);
    return st;
}

static void report_init(sd_run_report *p) {
    *p = (sd_run_report){.first_loss = NAN,
                         .last_loss = NAN,
                         .best_eval = NAN,
                         .last_eval = NAN,
                         .trainer_loss = NAN,
                         .reloaded_loss = NAN,
                         .worst_top1 = 1};
}

sd_status sd_run_train(const sd_run_options *o, sd_run_report *report, sd_error *err) {
    sd_run r = {.o = o, .report = report, .lock = -1};
    report_init(report);
    sd_status st = prepare(&r, err);
    if (st == SD_OK && !report->done_before) st = train(&r, err);
    run_close(&r);
    return st;
}

sd_status sd_run_plan(const sd_run_options *o, sd_run_report *report, sd_error *err) {
    sd_run r = {.o = o, .report = report, .lock = -1, .plan_only = true};
    report_init(report);
    sd_status st = prepare(&r, err);
    run_close(&r);
    return st;
}
