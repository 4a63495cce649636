// Whole runs on a tiny model: what they leave behind, that accumulation is exact to the token, and
// what they do with odd data.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "datasets/corpus/corpus_index.h"
#include "datasets/dataset.h"
#include "tests/unit/support/tiny/model.h"
#include "tests/unit/trainer/support_run.h"
#include "trainer/recipe/starter.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(run, .init = run_set_up, .fini = run_tear_down, .timeout = 300);

Test(run, a_finished_folder_holds_all_that_was_asked_for) {
    const char *more[] = {"export=[peft, gguf-lora, merged]"};
    run_result r = run_train("a", more, 1);
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
    for (size_t i = 0; i < 9; i++) cr_expect(run_exists(&r, names[i]), "%s is missing", names[i]);
    static const char *const halves[] = {"adapter.unverified", "adapter.gguf.unverified",
                                         "merged.gguf.unverified"};
    for (size_t i = 0; i < 3; i++) cr_expect(!run_exists(&r, halves[i]), "%s is left", halves[i]);
    cr_assert_eq(r.report.verified.artefacts, 2);
    cr_assert(r.report.verified.worst_kl <= 1e-9 && r.report.verified.worst_top1 == 1);
    cr_assert_float_eq(r.report.verified.trainer_loss, r.report.verified.reloaded_loss, 1e-4);
    cr_assert(r.report.last_loss < r.report.first_loss - 0.3, "%g -> %g: it did not learn",
              r.report.first_loss, r.report.last_loss);
    cr_assert(r.report.state.has_best && r.report.data.eval_records > 3);
    run_result again = run_train("a", more, 1);
    cr_assert(again.st == SD_OK && again.report.done_before);
    const char *other[] = {more[0], "train.learning_rate=1e-3"};
    run_result refused = run_train("a", other, 2);
    cr_assert_eq(refused.st, SD_EINVAL);
    cr_assert(strstr(refused.err.message, "train.learning_rate"), "%s", refused.err.message);
    run_result anew = run_train_with("a", more, 1, 1, &run_never, "never");
    cr_assert_eq(anew.st, SD_EINVAL);
    free(r.out), free(again.out), free(refused.out), free(anew.out);
}

// A change that 16 bits cannot hold: the merge that was written is not the adapter's.
Test(run, an_export_that_does_not_hold_ends_the_run_without_a_file_that_looks_good) {
    const char *more[] = {"adapter.target_modules=[v_proj]", "adapter.alpha=1e6",
                          "train.learning_rate=1", "train.max_steps=2", "export=[merged]"};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.dtype = SD_F16;
    cr_assert_eq(sd_tiny_write_gguf(run_model, &t, NULL), SD_OK);
    run_result r = run_train("unverified", more, 5);
    cr_assert_eq(r.st, SD_EMISMATCH, "%s", r.err.message);
    cr_assert_eq(sd_status_exit_code(r.st), 1);
    cr_assert(strstr(r.err.message, "merged.gguf.unverified") &&
                  strstr(r.err.message, "is not the base's with the adapter in it"),
              "%s", r.err.message);
    cr_assert(run_exists(&r, "merged.gguf.unverified") &&
              run_exists(&r, "adapter/adapter_config.json"));
    cr_assert(!run_exists(&r, "merged.gguf") && !run_exists(&r, "manifest.json"));
    free(r.out);
}

Test(run, the_adapters_bytes_do_not_depend_on_threads) {
    run_result a = run_train("a", NULL, 0), b = run_train_with("b", NULL, 0, 2, &run_never, NULL);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    sd_sha256 x = run_adapter(&a), y = run_adapter(&b);
    cr_assert_str_eq(x.hex, y.hex);
    free(a.out), free(b.out);
}

static double max_relative(const run_result *a, const run_result *b) {
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
    run_result a = run_train("a", whole, 5), b = run_train("b", parts, 5);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    double off = max_relative(&a, &b);
    cr_assert(off < 2e-5, "losses differ by %g", off);
    free(a.out), free(b.out);
}

static void write_longrope(int orig_ctx) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_phi3);
    sd_error err = {0};
    t.longrope = true, t.rope_orig_ctx = orig_ctx;
    cr_assert_eq(sd_tiny_write_gguf(run_model, &t, &err), SD_OK, "%s", err.message);
}

// LongRoPE's factors follow data.sequence_len; by the size of micro-batches, the losses of these two
// differ in the third digit.
Test(run, longrope_does_not_depend_on_micro_batches) {
    const char *whole[] = {"data.packing=false", "train.batch_tokens=null", "train.batch_rows=8",
                           "train.micro_batch_tokens=2000", "train.max_steps=8"};
    const char *parts[] = {"data.packing=false", "train.batch_tokens=null", "train.batch_rows=8",
                           "train.micro_batch_tokens=60", "train.max_steps=8"};
    write_longrope(128);
    run_result a = run_train("a", whole, 5), b = run_train("b", parts, 5);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    double off = max_relative(&a, &b);
    cr_assert(off < 2e-5, "losses differ by %g", off);
    cr_assert_float_eq(a.report.verified.trainer_loss, a.report.verified.reloaded_loss, 1e-4);
    free(a.out), free(b.out);
}

// Two rows of some 40 tokens in sequences that may have 128: the trainer's loss and that of the
// adapter loaded again are of one rotation.
Test(run, longrope_beyond_its_border_is_verified_as_it_was_trained) {
    const char *more[] = {"data.packing=false"};
    write_longrope(100);
    run_result r = run_train("a", more, 1);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    cr_assert_float_eq(r.report.verified.trainer_loss, r.report.verified.reloaded_loss, 1e-4);
    free(r.out);
}

static void says_ended_by(const run_result *r, const char *key) {
    char *path = sd_path_join(r->out, "manifest.json"), *text, want[64];
    size_t len;
    cr_assert_eq(sd_file_read(&text, &len, path, 1 << 20, NULL), SD_OK);
    snprintf(want, sizeof want, "\"ended_by\": \"%s\"", key);
    cr_assert(strstr(text, want), "%s is not in %s", want, text);
    cr_assert(len > 2 && memcmp(text + len - 3, "\n}\n", 3) == 0, "%s", text);
    cr_assert_str_eq(r->report.ended_by, key);
    free(path), free(text);
}

Test(run, patience_ends_a_run_and_the_best_adapter_is_kept) {
    const char *wild[] = {"train.learning_rate=0.3", "eval.patience=2", "train.epochs=40",
                          "eval.every=1", "export_verify.prompts=0"};
    run_result r = run_train("p", wild, 5);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    cr_assert(r.report.state.step == r.report.state.best_step + 2, "stopped at %d, best %d",
              (int)r.report.state.step, (int)r.report.state.best_step);
    run_result again = run_train("p", wild, 5);
    cr_assert(again.report.done_before);
    says_ended_by(&r, "eval.patience");
    free(r.out), free(again.out);
}

Test(run, the_manifest_says_what_ended_the_run_and_ends_its_last_line) {
    const char *few[] = {"train.max_steps=2", "export_verify.prompts=0"};
    run_result a = run_train("a", few, 2), b = run_train("b", NULL, 0);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    says_ended_by(&a, "train.max_steps");
    says_ended_by(&b, "train.epochs");
    free(a.out), free(b.out);
}

Test(run, lora_plus_and_patterns_and_continuing_an_adapter_train) {
    const char *more[] = {"adapter.lr_ratio=4",
                          "adapter.rank_pattern={q_proj: 2}",
                          "adapter.alpha_pattern={\"layers.1.*down_proj\": 3}",
                          "adapter.target_modules=[q_proj, v_proj, down_proj]",
                          "adapter.scaling=rslora",
                          "train.max_steps=4"};
    run_result r = run_train("a", more, 6);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    cr_assert(r.report.last_loss < r.report.first_loss);
    run_result plain = run_train("b", NULL, 0);
    char *from = sd_sprintf("adapter.from=%s/b", run_dir);
    const char *on[] = {from};
    run_result next = run_train("c", on, 1);
    cr_assert_eq(next.st, SD_OK, "%s", next.err.message);
    cr_assert(next.report.first_loss < plain.report.first_loss - 0.2,
              "continuing began at %g, not near %g", next.report.first_loss,
              plain.report.last_loss);
    const char *none[] = {"adapter.target_modules=[w_proj]"},
               *idle[] = {"adapter.rank_pattern={lm_head: 2}"};
    run_result bad = run_train("d", none, 1), idle_run = run_train("e", idle, 1);
    cr_assert(bad.st == SD_EFORMAT && strstr(bad.err.message, "w_proj"), "%s", bad.err.message);
    cr_assert(idle_run.st == SD_EFORMAT && strstr(idle_run.err.message, "lm_head"));
    free(from), free(r.out), free(plain.out), free(next.out), free(bad.out), free(idle_run.out);
}

static int64_t index_tokens(const run_result *r) {
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
    run_result whole = run_train("whole", NULL, 0), early = run_train("early", few, 1),
               more = run_train("more", all, 2);
    cr_assert(whole.st == SD_OK && early.st == SD_OK && more.st == SD_OK);
    cr_assert_eq(early.report.state.step, 1);
    cr_assert_eq(index_tokens(&early), index_tokens(&whole));
    cr_assert_gt(index_tokens(&more), index_tokens(&whole), "held-out records are in it");
    free(whole.out), free(early.out), free(more.out);
}

Test(run, a_prepared_file_is_shared_by_runs_and_never_overwritten_when_it_is_another) {
    char *prepared = sd_sprintf("data.prepared=%s/shared.h5", run_dir);
    const char *more[] = {prepared, "train.max_steps=2"},
               *other[] = {prepared, more[1], "data.sequence_len=96"};
    run_result a = run_train("a", more, 2), b = run_train("b", more, 2),
               c = run_train("c", other, 3);
    cr_assert(a.st == SD_OK && b.st == SD_OK, "%s %s", a.err.message, b.err.message);
    cr_assert_not(run_exists(&b, "data/train.h5"));
    sd_sha256 x = run_adapter(&a), y = run_adapter(&b);
    cr_assert_str_eq(x.hex, y.hex);
    cr_assert(c.st == SD_EINVAL && strstr(c.err.message, "shared.h5"), "%s", c.err.message);
    free(prepared), free(a.out), free(b.out), free(c.out);
}

Test(run, what_a_private_source_teaches_only_its_owner_may_read) {
    umask(022);
    cr_assert_eq(chmod(run_data, 0600), 0);
    const char *more[] = {"export=[peft, gguf-lora]"};
    run_result r = run_train("private", more, 1);
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
    cr_assert_eq(sd_model_open(&m, run_model, NULL), SD_OK);
    for (int n = 30; n < 60; n++) {
        char text[64];
        for (int i = 0; i < n; i++) text[i] = (char)('a' + i * 7 % 23);
        text[n] = '\0';
        char *source = sd_path_join(run_dir, "t.txt");
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
    char *file = sd_path_join(run_dir, "p.h5"), *out = sd_path_join(run_dir, "skip"),
         *model = sd_sprintf("base.model=%s", run_model),
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
    sd_run_options o = {.recipe = run_recipe,
                        .override = override,
                        .n_overrides = sizeof override / sizeof override[0],
                        .out = out,
                        .threads = 1,
                        .stop = &run_never};
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
    cr_assert_eq(sd_recipe_init(&b, run_data, run_model, NULL, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_file_write(run_recipe, b.data, b.len, NULL), SD_OK);
    cr_assert(strstr(b.data, "format: completion"), "%s", b.data);
    sd_run_report report;
    char *out = sd_path_join(run_dir, "init");
    sd_run_options o = {.recipe = run_recipe, .out = out};
    cr_assert_eq(sd_run_train(&o, &report, &err), SD_OK, "%s", err.message);
    cr_assert_geq(report.state.step, 3);
    free(out);
    sd_buf_free(&b);
}

// ---- what a tuned model is asked with

static json_t *read_json(const run_result *r, const char *name) {
    char *path = sd_path_join(r->out, name);
    json_t *j = json_load_file(path, 0, NULL);
    cr_assert(j, "%s", path);
    free(path);
    return j;
}
static json_t *serve_of(const run_result *r, const char *name) {
    json_t *j = read_json(r, name), *serve = json_incref(json_object_get(j, "serve"));
    json_decref(j);
    cr_assert(serve, "%s has no serve", name);
    return serve;
}

static void write_talks(int n, int with_system, int words) {
    sd_buf b = sd_buf_make(4 << 20);
    for (int i = 0; i < n; i++) {
        sd_buf_printf(&b, "{\"messages\": [");
        if (i < with_system)
            sd_buf_printf(&b, "{\"role\": \"system\", \"content\": \"Answer \\\"short\\\".\"}, ");
        sd_buf_printf(&b,
                      "{\"role\": \"user\", \"content\": \"item %d\"}, {\"role\": \"assistant\", "
                      "\"content\": \"",
                      i);
        for (int k = 0; k < words; k++) sd_buf_printf(&b, "%d ", (i + k) % 10);
        sd_buf_printf(&b, "\"}]}\n");
    }
    SD_ASSERT(sd_file_write(run_data, b.data, b.len, NULL) == SD_OK);
    sd_buf_free(&b);
}

Test(run, manifest_and_exports_say_how_the_model_was_judged) {
    const char *more[] = {"export=[peft, gguf-lora, merged]", "train.max_steps=2",
                          "data.val_size=0"};
    write_talks(40, 30, 3);
    run_result r = run_train("a", more, 3);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    json_t *want = json_pack("{s:s, s:f, s:{s:i, s:i, s:i, s:i, s:i}}", "system",
                             "Answer \"short\".", "system_share", 0.75, "sampling", "temperature",
                             0, "top_p", 1, "top_k", 0, "min_p", 0, "max_tokens", 512);
    static const char *const names[] = {"manifest.json", "adapter/specdec.json",
                                        "adapter.gguf.specdec.json", "merged.gguf.specdec.json"};
    for (int i = 0; i < 4; i++) {
        json_t *serve = serve_of(&r, names[i]);
        char *text = json_dumps(serve, 0);
        cr_assert(json_equal(serve, want), "%s: %s", names[i], text);
        free(text);
        json_decref(serve);
    }
    json_decref(want);
    free(r.out);
}

// An answer that was learnt is not to be cut: the limit goes up to where it holds it.
Test(run, the_limit_of_an_answer_holds_the_longest_that_was_learnt) {
    const char *more[] = {"train.max_steps=1", "data.val_size=0", "data.sequence_len=2048",
                          "train.batch_tokens=2048"};
    write_talks(6, 0, 300); // 600 tokens and more
    run_result r = run_train("a", more, 4);
    cr_assert_eq(r.st, SD_OK, "%s", r.err.message);
    json_t *serve = serve_of(&r, "manifest.json");
    cr_assert_eq(
        json_integer_value(json_object_get(json_object_get(serve, "sampling"), "max_tokens")),
        1024);
    cr_assert(json_is_null(json_object_get(serve, "system")));
    json_decref(serve);
    free(r.out);
}

// Data that an older version prepared says nothing of system texts: it is made again, to the same bytes,
// and the run that was begun with it goes on.
Test(run, data_of_a_version_that_did_not_count_is_counted_when_the_run_goes_on) {
    write_talks(60, 60, 3);
    run_result r = run_unfinished("a");
    char *path = sd_path_join(r.out, "data/train.h5.manifest.json"),
         *data = sd_path_join(r.out, "data/train.h5");
    sd_sha256 before, after;
    cr_assert_eq(sd_sha256_of_file(&before, data, NULL), SD_OK);
    json_t *j = json_load_file(path, 0, NULL);
    cr_assert_eq(json_object_del(j, "system"), 0);
    cr_assert_eq(json_dump_file(j, path, 0), 0);
    json_decref(j);
    run_result again = run_train("a", NULL, 0);
    cr_assert_eq(again.st, SD_OK, "%s", again.err.message);
    cr_assert(!again.report.done_before && again.report.started_at == again.report.state.step);
    cr_assert_eq(sd_sha256_of_file(&after, data, NULL), SD_OK);
    cr_assert(sd_sha256_equal(&before, &after));
    json_t *serve = serve_of(&again, "manifest.json");
    cr_assert_eq(json_real_value(json_object_get(serve, "system_share")), 1);
    json_decref(serve);
    free(path), free(data), free(r.out), free(again.out);
}
