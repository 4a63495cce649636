// specdec train RECIPE [key=value ...]: the run itself is trainer/run/run.c; here are the options, the
// plan's table and the summary.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "trainer/recipe/starter.h"
#include "trainer/run/run.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *init, *model, *chat_template, *out, *resume, *device;
    int64_t threads;
    bool plan, json, help_recipe;
} args;

static const sd_option rows[] = {
    {.name = "plan",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, plan),
     .help = "print memory by part, steps and tokens, and train nothing"},
    {.name = "resume",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, resume),
     .value = "auto|never|PATH",
     .help = "auto: go on from the newest checkpoint in the run's folder; never: begin anew"},
    SD_OUTPUT_ROW(args, out, "PATH", false,
                  "the run's folder (default runs/<name>); with --init the file for the recipe"),
    {.name = "device",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, device),
     .value = SD_DEVICES,
     .help = "where to train; the same as device.kind and device.index of the recipe"},
    SD_THREADS_ROW(args, threads, "as the recipe says, else one per processor"),
    SD_JSON_ROW(args, json, "the plan or the summary as one JSON object"),
    {.name = "init",
     .type = SD_OPT_STRING,
     .offset = offsetof(args, init),
     .value = "DATA",
     .help = "print a recipe for this data (with --model) and train nothing"},
    {.name = "model",
     .letter = 'm',
     .type = SD_OPT_STRING,
     .offset = offsetof(args, model),
     .value = "MODEL",
     .help = "the base; for a recipe the same as base.model=MODEL"},
    SD_CHAT_TEMPLATE_ROW(args, chat_template,
                         "what the recipe's data.chat_template says, else the model's own"),
    {.name = "help-recipe",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, help_recipe),
     .help = "print every key of a recipe"},
    {0}};

static void say(const char *text) {
    fprintf(stderr, "%s\n", text);
}

static double mib(size_t bytes) {
    return (double)bytes / 1048576;
}

static void print_parts(const sd_train_plan_report *p, int from, int to) {
    for (int i = from; i < to; i++)
        printf("  %-36s %10.1f MiB\n", p->row[i].part, mib(p->row[i].bytes));
}

static void print_plan(const sd_run_report *r) {
    const sd_run_counts *d = &r->data;
    size_t n_compute, n_recompute;
    const char *compute = sd_option_word(&n_compute, SD_TRAIN_COMPUTE, r->plan.compute);
    const char *recompute = sd_option_word(&n_recompute, SD_RECOMPUTE, r->plan.recompute);
    printf("%s on %s: %lld parameters in %.*s on %s, recompute %.*s\n\n", r->dir, r->base,
           (long long)r->parameters, (int)n_compute, compute, r->device, (int)n_recompute,
           recompute);
    print_parts(&r->plan, 0, r->plan.n_total);
    printf("  %-36s %10.1f MiB\n", "total", mib(r->plan.total));
    print_parts(&r->plan, r->plan.n_total, r->plan.n);
    printf("\n");
    if (r->done_before) printf("this run is finished already; training would do nothing\n");
    printf("%lld records in %lld rows, %lld tokens an epoch (%lld supervised); %lld held out\n",
           (long long)d->records, (long long)d->rows, (long long)d->tokens,
           (long long)d->supervised, (long long)d->eval_records);
    printf("%lld steps, %lld an epoch, of at most %lld tokens in micro-batches of %lld\n",
           (long long)d->steps, (long long)d->epoch_steps, (long long)d->step_tokens,
           (long long)r->micro_batch_tokens);
}

static void set_number(json_t *j, const char *name, double v) {
    json_object_set_new(j, name, isfinite(v) ? json_real(v) : json_null());
}

static double best_eval(const sd_run_report *r) {
    return r->state.has_best ? r->state.best_loss : NAN;
}

static sd_status print_json(const sd_run_report *r, bool plan, sd_error *err) {
    const sd_run_counts *d = &r->data;
    const sd_run_verification *v = &r->verified;
    json_t *j =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "run", r->dir, "steps",
                  (json_int_t)(plan ? d->steps : r->state.step), "steps_per_epoch",
                  (json_int_t)d->epoch_steps, "parameters", (json_int_t)r->parameters, "records",
                  (json_int_t)d->records, "tokens", (json_int_t)d->tokens, "supervised_tokens",
                  (json_int_t)d->supervised, "eval_records", (json_int_t)d->eval_records,
                  "micro_batch_tokens", (json_int_t)r->micro_batch_tokens, "started_after_step",
                  (json_int_t)r->started_at);
    if (!j) return sd_fail(err, SD_ENOMEM, "out of memory");
    json_object_set_new(j, "done_before", json_boolean(r->done_before));
    json_object_set_new(j, "device", json_string(r->device));
    if (plan) {
        json_t *parts = json_object();
        for (int i = 0; i < r->plan.n; i++)
            json_object_set_new(parts, r->plan.row[i].part,
                                json_integer((json_int_t)r->plan.row[i].bytes));
        json_object_set_new(j, "memory_bytes", parts);
        json_object_set_new(j, "total_bytes", json_integer((json_int_t)r->plan.total));
    } else {
        json_object_set_new(j, "ended_by", r->ended_by ? json_string(r->ended_by) : json_null());
        set_number(j, "first_loss", r->first_loss);
        set_number(j, "last_loss", r->last_loss);
        set_number(j, "best_eval_loss", best_eval(r));
        set_number(j, "wall_s", r->state.wall_s);
        set_number(j, "peak_mb", r->peak_mb);
        set_number(j, "verify_mean_kl", v->artefacts ? v->worst_kl : NAN);
        set_number(j, "verify_top1", v->artefacts ? v->worst_top1 : NAN);
    }
    sd_status st = sd_json_print(stdout, j, JSON_COMPACT | JSON_REAL_PRECISION(9), err);
    if (st == SD_OK) putchar('\n');
    json_decref(j);
    return st;
}

static void print_summary(const sd_run_report *r) {
    if (r->done_before) {
        printf("%s is finished already; nothing was done (give another name= for a new run)\n",
               r->dir);
        return;
    }
    printf("%s: %lld steps, loss %.4f -> %.4f", r->dir, (long long)r->state.step, r->first_loss,
           r->last_loss);
    if (r->state.has_best)
        printf(", best eval %.4f at step %lld", r->state.best_loss, (long long)r->state.best_step);
    if (r->ended_by && strcmp(r->ended_by, "eval.patience") == 0)
        printf(", ended by eval.patience");
    printf("; %.0f s, %.0f MB at most\n", r->state.wall_s, r->peak_mb);
    printf("serve it:  specdec serve -m %s -a NAME=%s\n", r->base, r->dir);
}

/// An option that says what a key of the recipe says: KEY="VALUE", or nothing without a value. *out
/// is the caller's.
static sd_status option_as_override(char **out, const char *key, const char *value, sd_error *err) {
    sd_buf b = sd_buf_make(8192);
    *out = NULL;
    if (!value) return SD_OK;
    bool ok = sd_buf_printf(&b, "%s=\"", key);
    for (const char *c = value; *c; c++)
        ok = ok && (*c == '"' || *c == '\\' ? sd_buf_printf(&b, "\\%c", *c) : sd_buf_addc(&b, *c));
    ok = ok && sd_buf_addc(&b, '"');
    *out = b.data;
    return ok ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
}

/// --device as the recipe has it: device.kind and device.index.
static sd_status device_as_overrides(char *own[2], const char *device, sd_error *err) {
    sd_status st = SD_OK;
    if (!device) return SD_OK;
    const size_t len = strcspn(device, ":"),
                 digits = strspn(device + len + !!device[len], "0123456789");
    size_t word_len;
    bool known = false;
    for (int i = SD_TRAIN_DEVICE_AUTO; i <= SD_TRAIN_DEVICE_CUDA; i++) {
        const char *word = sd_option_word(&word_len, SD_TRAIN_DEVICES, i);
        known = known || (word_len == len && memcmp(word, device, len) == 0);
    }
    if (device[len])
        known = known && strncmp(device, "auto", len) != 0 && digits >= 1 && digits <= 3 &&
                !device[len + 1 + digits];
    SD_CHECK(known, err, SD_EINVAL, "--device: '%.40s' is unknown; choose one of " SD_DEVICES,
             device);
    own[0] = sd_sprintf("device.kind=%.*s", (int)len, device);
    own[1] = sd_sprintf("device.index=%s", device[len] ? device + len + 1 : "0");
    SD_CHECK_ALLOC(own[0] && own[1], err);
out:
    return st;
}

enum { OWN = 4 }; // overrides that options stand for
/// The recipe and its overrides. own: those that options stand for, the caller's to free.
static sd_status split_rest(const char **recipe, const char **override, int *n, char *own[OWN],
                            const sd_strings *rest, const args *a, sd_error *err) {
    sd_status st = SD_OK;
    *recipe = NULL;
    *n = 0;
    for (int i = 0; i < rest->n; i++) {
        if (!*recipe && !strchr(rest->item[i], '='))
            *recipe = rest->item[i];
        else
            override[(*n)++] = rest->item[i];
    }
    SD_CHECK(*recipe, err, SD_EINVAL,
             "train: no recipe is given; write one with: specdec train --init DATA -m MODEL");
    SD_TRY(option_as_override(&own[0], "base.model", a->model, err));
    SD_TRY(option_as_override(&own[1], "data.chat_template", a->chat_template, err));
    SD_TRY(device_as_overrides(own + 2, a->device, err));
    for (int i = 0; i < OWN; i++)
        if (own[i]) override[(*n)++] = own[i];
out:
    return st;
}

/// Prints the recipe, or writes it to a new file.
static sd_status init(const args *a, sd_error *err) {
    sd_buf b = sd_buf_make(1 << 16);
    sd_status st = SD_OK;
    sd_path_kind kind;
    SD_CHECK(a->model, err, SD_EINVAL, "train --init: -m is missing; give -m MODEL");
    if (a->out) {
        SD_TRY(sd_path_look(&kind, a->out, err));
        SD_CHECK(kind == SD_PATH_NONE, err, SD_EINVAL, "%s: exists already; give another --output",
                 a->out);
        SD_TRY(sd_check_writable(a->out, err)); // before all of the data is read
    }
    SD_TRY(sd_recipe_init(&b, a->init, a->model, a->chat_template, err));
    if (a->out)
        SD_TRY(sd_file_write(a->out, b.data, b.len, err));
    else
        fputs(b.data, stdout);
out:
    sd_buf_free(&b);
    return st;
}

/// One word for a shell.
static bool add_word(sd_buf *b, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./=:,+@%";
    if (word[0] && strspn(word, plain) == strlen(word)) return sd_buf_printf(b, " %s", word);
    bool ok = sd_buf_adds(b, " '");
    for (const char *c = word; *c; c++)
        ok = ok && (*c == '\'' ? sd_buf_adds(b, "'\\''") : sd_buf_addc(b, *c));
    return ok && sd_buf_addc(b, '\'');
}

/// The command that goes on with an interrupted run: this one without its --resume, which would begin anew
/// or go back. Left empty when it does not fit.
static void command_line(sd_buf *b, int argc, char **argv) {
    bool ok = sd_buf_adds(b, "specdec train");
    for (int i = 0; i < argc && ok; i++) {
        if (strcmp(argv[i], "--resume") == 0)
            i++;
        else if (strncmp(argv[i], "--resume=", 9) != 0)
            ok = add_word(b, argv[i]);
    }
    if (!ok) sd_buf_free(b);
}

sd_status sd_verb_train(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    const char *override[SD_MAX_LIST + OWN];
    char *own[OWN] = {0};
    sd_buf again = sd_buf_make(1 << 14);
    sd_run_report report;
    if (sd_verb_help("train RECIPE [key=value ...]", "tune a LoRA adapter by a recipe", rows, argc,
                     argv))
        return SD_OK;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    if (a.help_recipe) {
        sd_recipe_help(stdout);
        goto out;
    }
    if (a.init) {
        SD_CHECK(rest.n == 0, err, SD_EINVAL, "train --init: '%s' is not expected; remove it",
                 rest.item[0]);
        st = init(&a, err);
        goto out;
    }
    command_line(&again, argc, argv);
    sd_run_options o = {.override = override,
                        .out = a.out,
                        .resume = a.resume,
                        .threads = (int)a.threads,
                        .begins = sd_catch_interrupts,
                        .stop = &sd_interrupted,
                        .resume_hint = again.data,
                        .say = say,
                        .progress = sd_progress};
    SD_TRY(split_rest(&o.recipe, override, &o.n_overrides, own, &rest, &a, err));
    if (!a.plan) sd_outlive_broken_pipes();
    SD_TRY(a.plan ? sd_run_plan(&o, &report, err) : sd_run_train(&o, &report, err));
    if (a.json)
        SD_TRY(print_json(&report, a.plan, err));
    else if (a.plan)
        print_plan(&report);
    else
        print_summary(&report);
out:
    for (int i = 0; i < OWN; i++) free(own[i]);
    sd_buf_free(&again);
    return st;
}
