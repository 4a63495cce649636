// Whole runs on a tiny model: resumed is the same as never stopped, accumulation is exact to the
// token, and whatever would change the numbers of a resume is refused.
#include "base/files/file.h"
#include "datasets/corpus/corpus_index.h"
#include "datasets/dataset.h"
#include "kernels/train/gemm_packed.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny_model.h"
#include "trainer/checkpoint.h"
#include "trainer/recipe/starter.h"
#include "trainer/run/run.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;
static char *model_path, *data_path, *recipe_path;

static const char RECIPE[] = "recipe: 1\nname: t\nbase: {compute_dtype: fp32}\n"
                             "adapter: {r: 4, alpha: 8}\n"
                             "data: {sequence_len: 128, val_size: 0.2, packing: true}\n"
                             "train: {epochs: 2, batch_tokens: 256, learning_rate: 5e-3}\n"
                             "eval: {every: 2/epoch}\ncheckpoint: {every: 3}\n"
                             "log: {sinks: [csv, jsonl, plot]}\nexport_verify: {prompts: 2}\n";

static char *write_data(const char *name, int records, int salt) {
    char *path = sd_path_join(dir, name);
    sd_buf b = sd_buf_make(1 << 20);
    for (int i = 0; i < records; i++)
        sd_buf_printf(&b,
                      "{\"prompt\": \"item %d is \", \"completion\": \"%d and %d, for %.*s\"}\n", i,
                      i * 7919 % 1000 + salt, i % 7, 1 + i * 5 % 23, "abcdefghijklmnopqrstuvwxyz");
    cr_assert_eq(sd_file_write(path, b.data, b.len, NULL), SD_OK);
    sd_buf_free(&b);
    return path;
}

static void setup(void) {
    sd_error err = {0};
    dir = sd_tiny_dir();
    sd_tiny_model t = sd_tiny_default(SD_ARCH_LLAMA);
    model_path = sd_path_join(dir, "tiny.gguf");
    recipe_path = sd_path_join(dir, "r.yaml");
    cr_assert_eq(sd_tiny_write_gguf(model_path, &t, &err), SD_OK, "%s", err.message);
    data_path = write_data("d.jsonl", 60, 0);
    cr_assert_eq(sd_file_write(recipe_path, RECIPE, sizeof RECIPE - 1, NULL), SD_OK);
}
static void teardown(void) {
    free(model_path), free(data_path), free(recipe_path);
    sd_tiny_remove(dir);
}
TestSuite(run, .init = setup, .fini = teardown, .timeout = 300);

typedef struct {
    char *out;
    sd_run_report report;
    sd_error err;
    sd_status st;
} result;

static volatile int never;

static result run_with(const char *name, const char *const *extra, int n_extra, int threads,
                       const volatile int *stop, const char *resume) {
    result r = {.out = sd_path_join(dir, name)};
    char *model = sd_sprintf("base.model=%s", model_path),
         *data = sd_sprintf("data.train.0.path=%s", data_path);
    const char *override[16] = {data};
    int n = 1;
    bool own_model = false;
    for (int i = 0; i < n_extra; i++) {
        own_model = own_model || strncmp(extra[i], "base.model=", 11) == 0;
        override[n++] = extra[i];
    }
    if (!own_model) override[n++] = model;
    sd_run_options o = {.recipe = recipe_path,
                        .override = override,
                        .n_overrides = n,
                        .out = r.out,
                        .threads = threads,
                        .stop = stop,
                        .resume = resume};
    r.st = sd_run_train(&o, &r.report, &r.err);
    free(model), free(data);
    return r;
}
static result run(const char *name, const char *const *extra, int n_extra) {
    return run_with(name, extra, n_extra, 1, &never, NULL);
}

static sd_sha256 adapter_of(const result *r) {
    sd_sha256 h = {{0}};
    char *path = sd_path_join(r->out, "adapter/adapter_model.safetensors");
    cr_assert_eq(sd_sha256_of_file(&h, path, NULL), SD_OK, "%s is missing", path);
    free(path);
    return h;
}
static bool exists(const result *r, const char *name) {
    char *path = sd_path_join(r->out, name);
    bool yes = access(path, F_OK) == 0;
    free(path);
    return yes;
}

Test(run, a_finished_folder_holds_all_that_was_asked_for) {
    const char *more[] = {"export=[peft, gguf-lora, merged]"};
    result r = run("a", more, 1);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    static const char *const names[] = {"adapter/adapter_config.json",
                                        "adapter.gguf",
                                        "merged.gguf",
                                        "draft/corpus.idx",
                                        "metrics.csv",
                                        "metrics.jsonl",
                                        "loss.svg",
                                        "recipe.resolved.yaml",
                                        "manifest.json"};
    for (size_t i = 0; i < 9; i++) cr_expect(exists(&r, names[i]), "%s is missing", names[i]);
    static const char *const halves[] = {"adapter.unverified", "adapter.gguf.unverified",
                                         "merged.gguf.unverified"};
    for (size_t i = 0; i < 3; i++) cr_expect(!exists(&r, halves[i]), "%s is left", halves[i]);
    cr_assert_eq(r.report.verified.artefacts, 2);
    cr_assert(r.report.verified.worst_kl <= 1e-9 && r.report.verified.worst_top1 == 1);
    cr_assert_float_eq(r.report.verified.trainer_loss, r.report.verified.reloaded_loss, 1e-4);
    cr_assert(r.report.last_loss < r.report.first_loss - 0.3, "%g -> %g: it did not learn",
              r.report.first_loss, r.report.last_loss);
    cr_assert(r.report.state.has_best && r.report.data.eval_records > 3);
    result again = run("a", more, 1);
    cr_assert(again.st == SD_OK && again.report.done_before);
    const char *other[] = {more[0], "train.learning_rate=1e-3"};
    result refused = run("a", other, 2);
    cr_assert_eq(refused.st, SD_EINVAL);
    cr_assert(strstr(refused.err.message, "train.learning_rate"), "%s", refused.err.message);
    result anew = run_with("a", more, 1, 1, &never, "never");
    cr_assert_eq(anew.st, SD_EINVAL);
    free(r.out), free(again.out), free(refused.out), free(anew.out);
}

// A change that 16 bits cannot hold: the merge that was written is not the adapter's.
Test(run, an_export_that_does_not_hold_ends_the_run_without_a_file_that_looks_good) {
    const char *more[] = {"adapter.target_modules=[v_proj]", "adapter.alpha=1e6",
                          "train.learning_rate=1", "train.max_steps=2", "export=[merged]"};
    sd_tiny_model t = sd_tiny_default(SD_ARCH_LLAMA);
    t.dtype = SD_F16;
    cr_assert_eq(sd_tiny_write_gguf(model_path, &t, NULL), SD_OK);
    result r = run("unverified", more, 5);
    cr_assert_eq(r.st, SD_EMISMATCH, "%s", r.err.message);
    cr_assert_eq(sd_status_exit_code(r.st), 1);
    cr_assert(strstr(r.err.message, "merged.gguf.unverified") &&
                  strstr(r.err.message, "is not the base's with the adapter in it"),
              "%s", r.err.message);
    cr_assert(exists(&r, "merged.gguf.unverified") && exists(&r, "adapter/adapter_config.json"));
    cr_assert(!exists(&r, "merged.gguf") && !exists(&r, "manifest.json"));
    free(r.out);
}

Test(run, the_adapters_bytes_do_not_depend_on_threads) {
    result a = run("a", NULL, 0), b = run_with("b", NULL, 0, 2, &never, NULL);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    sd_sha256 x = adapter_of(&a), y = adapter_of(&b);
    cr_assert_str_eq(x.hex, y.hex);
    free(a.out), free(b.out);
}

typedef struct {
    volatile int stop;
    char *watch;
} stopper;
static void *stop_when_there(void *v) {
    stopper *s = v;
    while (access(s->watch, F_OK) != 0) usleep(200);
    s->stop = 1;
    return NULL;
}

Test(run, interrupted_and_resumed_is_the_same_as_never_stopped) {
    result whole = run("whole", NULL, 0);
    cr_assert_eq(whole.st, SD_OK, "%s", whole.err.message);
    volatile int at_once = 1;
    result first = run_with("cut", NULL, 0, 1, &at_once, NULL);
    cr_assert_eq(first.st, SD_EINTERRUPTED);
    cr_assert(strstr(first.err.message, "the state is saved"));
    free(first.out);
    int rounds = 0;
    for (bool done = false; !done; rounds++) {
        stopper s = {.watch = sd_sprintf("%s/cut/checkpoints/step-%08d", dir, 3 * (rounds + 1))};
        pthread_t id;
        cr_assert_eq(pthread_create(&id, NULL, stop_when_there, &s), 0);
        result part = run_with("cut", NULL, 0, 1, &s.stop, NULL);
        cr_assert(part.st == SD_OK || part.st == SD_EINTERRUPTED, "%s", part.err.message);
        done = part.st == SD_OK;
        if (done && access(s.watch, F_OK) != 0) sd_mkdirs(s.watch, NULL); // lets the stopper end
        pthread_join(id, NULL);
        free(s.watch);
        if (done) {
            sd_sha256 a = adapter_of(&whole), b = adapter_of(&part);
            cr_assert_str_eq(a.hex, b.hex);
        }
        free(part.out);
        cr_assert_lt(rounds, 100);
    }
    cr_assert_geq(rounds, 2, "it was never interrupted");
    free(whole.out);
}

static result unfinished(const char *name) { // a run whose exports were not reached
    result r = run(name, NULL, 0);
    char *manifest = sd_path_join(r.out, "manifest.json");
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    unlink(manifest);
    free(manifest);
    return r;
}

Test(run, a_run_that_cannot_begin_leaves_no_folder_and_keeps_one_that_was_there) {
    const char *base[] = {"base.model=nowhere.gguf"}, *row[] = {"data.sequence_len=8"};
    result a = run("bare", base, 1), b = run("bare", row, 1); // without a base; in its data
    cr_assert(a.st != SD_OK && b.st != SD_OK);
    cr_assert(access(a.out, F_OK) != 0, "%s is left", a.out);
    cr_assert_eq(sd_mkdirs(a.out, NULL), SD_OK);
    result c = run("bare", base, 1);
    cr_assert(c.st != SD_OK && access(c.out, F_OK) == 0);
    free(a.out), free(b.out), free(c.out);
}

Test(run, a_resume_under_another_recipe_base_or_data_is_refused_and_says_why) {
    result r = unfinished("u");
    const char *lr[] = {"train.epochs=3"}, *dtype[] = {"adapter.r=8"}, *log[] = {"log.every=5"};
    result a = run("u", lr, 1), b = run("u", dtype, 1);
    cr_assert(a.st == SD_EINVAL && strstr(a.err.message, "train.epochs"), "%s", a.err.message);
    cr_assert(b.st == SD_EINVAL && strstr(b.err.message, "adapter.r"), "%s", b.err.message);
    free(write_data("d.jsonl", 60, 1));
    result c = run("u", NULL, 0);
    cr_assert(c.st == SD_EINVAL && strstr(c.err.message, "the training data"), "%s", c.err.message);
    free(write_data("d.jsonl", 60, 0));
    sd_tiny_model t = sd_tiny_default(SD_ARCH_LLAMA);
    t.seed++;
    cr_assert_eq(sd_tiny_write_gguf(model_path, &t, NULL), SD_OK);
    result d = run("u", NULL, 0);
    cr_assert(d.st == SD_EINVAL && strstr(d.err.message, "the base model"), "%s", d.err.message);
    t.seed--;
    cr_assert_eq(sd_tiny_write_gguf(model_path, &t, NULL), SD_OK);
    result e = run("u", log, 1); // what does not change the numbers may change
    cr_assert_eq(e.st, SD_OK, "%s", e.err.message);
    cr_assert_eq(e.report.started_at, e.report.state.step);
    free(r.out), free(a.out), free(b.out), free(c.out), free(d.out), free(e.out);
}

Test(run, a_resume_with_kernels_for_other_instructions_is_refused_and_says_what_to_set) {
    setenv("SPECDEC_ISA", "plain", 1);
    result r = unfinished("k");
    unsetenv("SPECDEC_ISA");
    const char *best = sd_panels_best(false)->name;
    if (strcmp(best, "plain") == 0) cr_skip_test("this processor has the plain kernels only");
    result a = run("k", NULL, 0);
    cr_assert_eq(a.st, SD_EINVAL);
    cr_assert(strstr(a.err.message, "SPECDEC_ISA=plain") && strstr(a.err.message, best), "%s",
              a.err.message);
    setenv("SPECDEC_ISA", "plain", 1);
    result b = run("k", NULL, 0);
    cr_assert_eq(b.st, SD_OK, "%s", b.err.message);
    unsetenv("SPECDEC_ISA");
    free(r.out), free(a.out), free(b.out);
}

static double max_relative(const result *a, const result *b) {
    double worst = 0;
    char line[2][256],
        *path[2] = {sd_path_join(a->out, "metrics.csv"), sd_path_join(b->out, "metrics.csv")};
    FILE *f[2] = {fopen(path[0], "r"), fopen(path[1], "r")};
    int n = 0;
    while (fgets(line[0], 256, f[0]) && fgets(line[1], 256, f[1])) {
        double x, y;
        if (sscanf(line[0], "%*d,%lf", &x) != 1 || sscanf(line[1], "%*d,%lf", &y) != 1) continue;
        worst = fmax(worst, fabs(x - y) / x);
        n++;
    }
    cr_assert_gt(n, 3);
    for (int i = 0; i < 2; i++) fclose(f[i]), free(path[i]);
    return worst;
}

// A step in one piece against the same rows in many micro-batches of unequal supervised tokens:
// equal up to fp32 rounding over a few steps. A mean of means would differ in the second digit.
Test(run, accumulation_over_micro_batches_is_exact_to_the_token) {
    const char *whole[] = {"data.packing=false", "train.batch_tokens=null",
                           "train.batch_rows=8", "train.micro_batch_tokens=2000",
                           "train.max_steps=8",  "export_verify.prompts=0"};
    const char *parts[] = {"data.packing=false", "train.batch_tokens=null",
                           "train.batch_rows=8", "train.micro_batch_tokens=60",
                           "train.max_steps=8",  "export_verify.prompts=0"};
    result a = run("a", whole, 5), b = run("b", parts, 5);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    double off = max_relative(&a, &b);
    cr_assert(off < 2e-5, "losses differ by %g", off);
    free(a.out), free(b.out);
}

Test(run, patience_ends_a_run_and_the_best_adapter_is_kept) {
    const char *wild[] = {"train.learning_rate=0.3", "eval.patience=2", "train.epochs=40",
                          "eval.every=1", "export_verify.prompts=0"};
    result r = run("p", wild, 5);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    cr_assert(r.report.state.step == r.report.state.best_step + 2, "stopped at %d, best %d",
              (int)r.report.state.step, (int)r.report.state.best_step);
    result again = run("p", wild, 5);
    cr_assert(again.report.done_before);
    free(r.out), free(again.out);
}

Test(run, lora_plus_and_patterns_and_continuing_an_adapter_train) {
    const char *more[] = {"adapter.lr_ratio=4",
                          "adapter.rank_pattern={q_proj: 2}",
                          "adapter.alpha_pattern={\"layers.1.*down_proj\": 3}",
                          "adapter.target_modules=[q_proj, v_proj, down_proj]",
                          "adapter.scaling=rslora",
                          "train.max_steps=4"};
    result r = run("a", more, 6);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    cr_assert(r.report.last_loss < r.report.first_loss);
    result plain = run("b", NULL, 0);
    char *from = sd_sprintf("adapter.from=%s/b", dir);
    const char *on[] = {from};
    result next = run("c", on, 1);
    cr_assert_eq(next.st, SD_OK, "%s", next.err.message);
    cr_assert(next.report.first_loss < plain.report.first_loss - 0.2,
              "continuing began at %g, not near %g", next.report.first_loss,
              plain.report.last_loss);
    const char *none[] = {"adapter.target_modules=[w_proj]"},
               *idle[] = {"adapter.rank_pattern={lm_head: 2}"};
    result bad = run("d", none, 1), idle_run = run("e", idle, 1);
    cr_assert(bad.st == SD_EFORMAT && strstr(bad.err.message, "w_proj"), "%s", bad.err.message);
    cr_assert(idle_run.st == SD_EFORMAT && strstr(idle_run.err.message, "lm_head"));
    free(from), free(r.out), free(plain.out), free(next.out), free(bad.out), free(idle_run.out);
}

static sd_status plan(const char *name, const char *extra, const char *resume, sd_run_report *r,
                      sd_error *err) {
    char *model = sd_sprintf("base.model=%s", model_path),
         *data = sd_sprintf("data.train.0.path=%s", data_path), *out = sd_path_join(dir, name);
    const char *override[] = {model, data, extra};
    sd_run_options o = {.recipe = recipe_path,
                        .override = override,
                        .n_overrides = extra ? 3 : 2,
                        .out = out,
                        .threads = 1,
                        .resume = resume};
    sd_status st = sd_run_plan(&o, r, err);
    free(model), free(data), free(out);
    return st;
}

static size_t part(const sd_run_report *r, const char *name) {
    for (int i = 0; i < r->plan.n; i++)
        if (strcmp(r->plan.row[i].part, name) == 0) return r->plan.row[i].bytes;
    return 0;
}

Test(run, the_plan_counts_the_data_without_padding_and_all_five_vectors_of_parameters) {
    sd_run_report r;
    sd_error err = {0};
    cr_assert_eq(plan("p", "data.packing=false", NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert_eq(part(&r, "adapter, gradient, optimiser"), 5 * 4 * (size_t)r.parameters);
    size_t tokens = (size_t)r.data.tokens * 12,
           records = (size_t)(r.data.records + r.data.eval_records);
    size_t data = part(&r, "prepared data"), padded = (size_t)r.data.rows * 128 * 12;
    cr_assert(data > tokens && data < tokens * 2 + records * 80 && data < padded,
              "%zu bytes of data for %zu of tokens", data, tokens);
}

Test(run, the_plan_holds_and_a_memory_limit_shrinks_the_micro_batches) {
    char *model = sd_sprintf("base.model=%s", model_path),
         *data = sd_sprintf("data.train.0.path=%s", data_path), *out = sd_path_join(dir, "plan");
    const char *override[] = {model, data, "train.batch_tokens=4096", "device.memory_limit=1MiB"};
    sd_run_options o = {.recipe = recipe_path, .override = override, .n_overrides = 3, .out = out};
    sd_run_report r;
    sd_error err = {0};
    cr_assert_eq(sd_run_plan(&o, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.plan.n > 3 && r.plan.total > 0 && r.data.steps > 0);
    int64_t free_choice = r.micro_batch_tokens;
    size_t total = r.plan.total;
    o.n_overrides = 4;
    cr_assert_eq(sd_run_plan(&o, &r, &err), SD_ELIMIT); // not even one row fits 1 MiB
    char *limit = sd_sprintf("device.memory_limit=%zu", total - 1000000);
    override[3] = limit;
    cr_assert_eq(sd_run_plan(&o, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.plan.total <= total - 1000000);
    cr_assert(r.micro_batch_tokens < free_choice || r.plan.recompute != SD_RECOMPUTE_NONE);
    free(model), free(data), free(out), free(limit);
}

Test(run, a_plan_leaves_nothing_behind) {
    sd_run_report r;
    sd_error err = {0};
    char *tmp = sd_path_join(dir, "tmp"), *new = sd_path_join(dir, "new"),
         *prepared = sd_sprintf("data.prepared=%s/shared.h5", dir),
         *shared = sd_path_join(dir, "shared.h5");
    cr_assert_eq(sd_mkdirs(tmp, NULL), SD_OK);
    setenv("TMPDIR", tmp, 1);
    cr_assert_eq(plan("new/run", NULL, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.data.records > 40 && r.data.eval_records > 3);
    cr_assert(access(new, F_OK) != 0 && rmdir(tmp) == 0, "a folder is left");
    cr_assert_eq(sd_mkdirs(tmp, NULL), SD_OK);
    cr_assert_eq(plan("new", prepared, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(access(shared, F_OK) != 0 && rmdir(tmp) == 0, "a prepared file is left");
    cr_assert_eq(sd_mkdirs(tmp, NULL), SD_OK);
    result u = unfinished("u");
    cr_assert_eq(plan("u", NULL, "never", &r, &err), SD_OK, "%s", err.message);
    cr_assert(exists(&u, "checkpoints"), "a plan has removed the checkpoints");
    cr_assert_eq(plan("u", NULL, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.started_at > 0 && !r.done_before);
    free(tmp), free(new), free(prepared), free(shared), free(u.out);
}

Test(run, a_plan_refuses_what_the_run_would_refuse) {
    sd_run_report r;
    sd_error err = {0};
    char *file = sd_path_join(dir, "a-file");
    cr_assert_eq(sd_file_write(file, "x", 1, NULL), SD_OK);
    cr_assert_eq(plan("p", "adapter.from=nowhere", NULL, &r, &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "nowhere"), "%s", err.message);
    cr_assert_eq(plan("a-file/run", NULL, NULL, &r, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "a-file"), "%s", err.message);
    cr_assert_neq(plan("p", NULL, "nowhere", &r, &err), SD_OK);
    cr_assert(strstr(err.message, "--resume nowhere"), "%s", err.message);
    result u = unfinished("u"), whole = run("whole", NULL, 0);
    cr_assert_eq(plan("u", "adapter.r=8", NULL, &r, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "adapter.r"), "%s", err.message);
    free(write_data("d.jsonl", 60, 1));
    cr_assert_eq(plan("u", NULL, NULL, &r, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "the training data"), "%s", err.message);
    free(write_data("d.jsonl", 60, 0));
    cr_assert_eq(plan("whole", NULL, "never", &r, &err), SD_EINVAL);
    cr_assert_eq(plan("whole", NULL, NULL, &r, &err), SD_OK, "%s", err.message);
    cr_assert(r.done_before && r.plan.total > 0);
    free(file), free(u.out), free(whole.out);
}

static int64_t index_tokens(const result *r) {
    char *path = sd_path_join(r->out, "draft/corpus.idx");
    sd_corpus *c;
    sd_error err = {0};
    cr_assert_eq(sd_corpus_open(&c, path, &err), SD_OK, "%s", err.message);
    int64_t n = sd_corpus_tokens(c);
    sd_corpus_close(c);
    free(path);
    return n;
}

Test(run, the_corpus_index_holds_every_training_completion_however_early_the_run_ends) {
    const char *few[] = {"train.max_steps=1"}, *all[] = {"data.val_size=0", "train.max_steps=1"};
    result whole = run("whole", NULL, 0), early = run("early", few, 1), more = run("more", all, 2);
    cr_assert(whole.st == SD_OK && early.st == SD_OK && more.st == SD_OK);
    cr_assert_eq(early.report.state.step, 1);
    cr_assert_eq(index_tokens(&early), index_tokens(&whole));
    cr_assert_gt(index_tokens(&more), index_tokens(&whole), "held-out records are in it");
    free(whole.out), free(early.out), free(more.out);
}

Test(run, a_prepared_file_is_shared_by_runs_and_never_overwritten_when_it_is_another) {
    char *prepared = sd_sprintf("data.prepared=%s/shared.h5", dir);
    const char *more[] = {prepared, "train.max_steps=2"},
               *other[] = {prepared, more[1], "data.sequence_len=96"};
    result a = run("a", more, 2), b = run("b", more, 2), c = run("c", other, 3);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    cr_assert_not(exists(&b, "data/train.h5"));
    sd_sha256 x = adapter_of(&a), y = adapter_of(&b);
    cr_assert_str_eq(x.hex, y.hex);
    cr_assert(c.st == SD_EINVAL && strstr(c.err.message, "shared.h5"), "%s", c.err.message);
    free(prepared), free(a.out), free(b.out), free(c.out);
}

/// The newest checkpoint's step of an unfinished run.
static int64_t newest_step(const result *r) {
    char *path, *checkpoints = sd_path_join(r->out, "checkpoints");
    cr_assert_eq(sd_checkpoint_newest(&path, NULL, checkpoints, NULL), SD_OK);
    cr_assert(path);
    int64_t step = strtoll(strrchr(path, '-') + 1, NULL, 10);
    free(path), free(checkpoints);
    return step;
}

Test(run, a_checkpoint_that_cannot_be_read_ends_the_start_and_all_stay) {
    result r = unfinished("u");
    sd_names before, after;
    char *checkpoints = sd_path_join(r.out, "checkpoints"),
         *sums = sd_sprintf("%s/step-%08d/SHA256SUMS", checkpoints, (int)newest_step(&r));
    cr_assert_eq(sd_folder_list(&before, checkpoints, NULL), SD_OK);
    cr_assert(unlink(sums) == 0 && symlink(sums, sums) == 0); // ELOOP, as EIO or EACCES would be
    result a = run("u", NULL, 0);
    cr_assert_eq(a.st, SD_EIO, "%s", a.err.message);
    cr_assert(strstr(a.err.message, sums), "%s", a.err.message);
    cr_assert_eq(sd_folder_list(&after, checkpoints, NULL), SD_OK);
    cr_assert_eq(before.n, after.n);
    for (int i = 0; i < before.n; i++) cr_assert_str_eq(before.name[i], after.name[i]);
    sd_names_free(&before), sd_names_free(&after);
    free(checkpoints), free(sums), free(r.out), free(a.out);
}

Test(run, damaged_checkpoints_are_put_aside_and_none_that_was_found_is_removed) {
    const char *one[] = {"checkpoint.keep=1", "checkpoint.every=2"};
    result whole = run("whole", NULL, 0), r = run("u", one, 2);
    cr_assert(whole.st == SD_OK && r.st == SD_OK, "%s", r.err.message);
    int64_t step = newest_step(&r);
    char *manifest = sd_path_join(r.out, "manifest.json"),
         *state = sd_sprintf("%s/checkpoints/step-%08d/state.json", r.out, (int)step),
         *aside = sd_sprintf("checkpoints/given-up-%08d/theta.f32", (int)step);
    unlink(manifest);
    cr_assert_eq(sd_file_write(state, "{\"checkpoint\": 2}", 17, NULL), SD_OK);
    result again = run("u", one, 2); // nothing is left to go on from: it begins anew
    cr_assert_eq(again.st, SD_OK, "%s", again.err.message);
    cr_assert_eq(again.report.started_at, 0);
    cr_assert(exists(&again, aside) && exists(&again, "metrics.csv.given-up"));
    sd_sha256 a = adapter_of(&whole), b = adapter_of(&again);
    cr_assert_str_eq(a.hex, b.hex);
    unlink(manifest);
    const char *wrong[] = {"base.model=nowhere.gguf"};
    result stopped = run_with("u", wrong, 1, 1, &never, "never");
    cr_assert(stopped.st == SD_ENOTFOUND && newest_step(&stopped) == step, "%s",
              stopped.err.message);
    free(stopped.out);
    result anew = run_with("u", one, 2, 1, &never, "never");
    char *second = sd_sprintf("checkpoints/given-up-%08d.2/theta.f32", (int)step);
    cr_assert_eq(anew.st, SD_OK, "%s", anew.err.message);
    cr_assert(exists(&anew, aside) && exists(&anew, second));
    free(manifest), free(state), free(aside), free(second);
    free(whole.out), free(r.out), free(again.out), free(anew.out);
}

Test(run, what_a_private_source_teaches_only_its_owner_may_read) {
    umask(022);
    cr_assert_eq(chmod(data_path, 0600), 0);
    const char *more[] = {"export=[peft, gguf-lora]"};
    result r = run("private", more, 1);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    const char *names[] = {"",
                           "data/train.h5",
                           "draft/corpus.idx",
                           "checkpoints",
                           "adapter.gguf",
                           "adapter/adapter_model.safetensors",
                           "metrics.csv",
                           "manifest.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct stat sb;
        char *path = sd_path_join(r.out, names[i]);
        cr_assert_eq(stat(path, &sb), 0, "%s", path);
        cr_assert_eq(sb.st_mode & 077, 0, "%s: mode %o", path, (unsigned)sb.st_mode);
        free(path);
    }
    free(r.out);
}

/// A prepared file of version 0.4 with a row of one token, which teaches nothing; its row's number.
static int64_t prepare_with_an_empty_row(const char *path) {
    sd_model *m;
    cr_assert_eq(sd_model_open(&m, model_path, NULL), SD_OK);
    for (int n = 30; n < 60; n++) {
        char text[64];
        for (int i = 0; i < n; i++) text[i] = (char)('a' + i * 7 % 23);
        text[n] = '\0';
        char *source = sd_path_join(dir, "t.txt");
        cr_assert_eq(sd_file_write(source, text, (size_t)n, NULL), SD_OK);
        sd_data_source s = {source, SD_FORMAT_AUTO};
        sd_prepare_options o = {.source = &s, .n_sources = 1, .sequence_len = 8, .version = 1};
        sd_dataset *d;
        cr_assert_eq(sd_dataset_prepare(path, &o, m, NULL, NULL), SD_OK);
        cr_assert_eq(sd_dataset_open(&d, path, NULL), SD_OK);
        sd_dataset_row r;
        int64_t last = sd_dataset_rows(d) - 1;
        cr_assert_eq(sd_dataset_read(d, last, &r, NULL), SD_OK);
        bool empty = r.used == 1;
        sd_dataset_close(d);
        free(source);
        if (!empty) continue;
        sd_model_release(m);
        return last;
    }
    cr_assert(false, "no length leaves a token for itself");
    return -1;
}

Test(run, a_step_without_a_supervised_token_is_counted_and_changes_nothing) {
    char *file = sd_path_join(dir, "p.h5"), *out = sd_path_join(dir, "skip"),
         *model = sd_sprintf("base.model=%s", model_path),
         *prepared = sd_sprintf("data.prepared=%s", file), *csv = sd_path_join(out, "metrics.csv");
    int64_t empty = prepare_with_an_empty_row(file);
    const char *override[] = {model,
                              prepared,
                              "data.sequence_len=8",
                              "data.val_size=0",
                              "data.shuffle=false",
                              "train.batch_tokens=null",
                              "train.batch_rows=1",
                              "checkpoint.every=1",
                              "export_verify.prompts=1"};
    sd_run_options o = {.recipe = recipe_path,
                        .override = override,
                        .n_overrides = sizeof override / sizeof override[0],
                        .out = out,
                        .threads = 1,
                        .stop = &never};
    sd_run_report r;
    sd_error err = {0};
    cr_assert_eq(sd_run_train(&o, &r, &err), SD_OK, "%s", err.message);
    cr_assert_eq(r.state.step, 2 * (empty + 1));
    char *text;
    size_t len;
    int64_t rows = -1; // the header
    cr_assert_eq(sd_file_read(&text, &len, csv, 1 << 20, NULL), SD_OK);
    for (size_t i = 0; i < len; i++) rows += text[i] == '\n';
    cr_assert_eq(rows, r.state.step - 2);
    cr_assert(r.last_loss > 0 && r.last_loss < r.first_loss);
    free(text), free(file), free(out), free(model), free(prepared), free(csv);
}

Test(run, the_recipe_that_init_prints_runs_as_it_stands) {
    sd_buf b = sd_buf_make(1 << 16);
    sd_error err = {0};
    cr_assert_eq(sd_recipe_init(&b, data_path, model_path, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_file_write(recipe_path, b.data, b.len, NULL), SD_OK);
    cr_assert(strstr(b.data, "format: completion"), "%s", b.data);
    sd_run_report report;
    char *out = sd_path_join(dir, "init");
    sd_run_options o = {.recipe = recipe_path, .out = out};
    cr_assert_eq(sd_run_train(&o, &report, &err), SD_OK, "%s", err.message);
    cr_assert_geq(report.state.step, 3);
    free(out);
    sd_buf_free(&b);
}
