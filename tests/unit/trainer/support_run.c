// One folder for each test: a tiny model, sixty records and a recipe that learns them in seconds.
#include "tests/unit/trainer/support_run.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny/model.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *run_dir, *run_model, *run_data, *run_recipe;

static const char RECIPE[] = "recipe: 1\nname: t\nbase: {compute_dtype: fp32}\n"
                             "adapter: {r: 4, alpha: 8}\n"
                             "data: {sequence_len: 128, val_size: 0.2, packing: true}\n"
                             "train: {epochs: 2, batch_tokens: 256, learning_rate: 5e-3}\n"
                             "eval: {every: 2/epoch}\ncheckpoint: {every: 3}\n"
                             "log: {sinks: [csv, jsonl, plot]}\nexport_verify: {prompts: 2}\n";

static void must(sd_status st, const sd_error *err) {
    if (st != SD_OK) fprintf(stderr, "%s\n", err->message);
    SD_ASSERT(st == SD_OK);
}

char *run_write_data(const char *name, int records, int salt) {
    char *path = sd_path_join(run_dir, name);
    sd_buf b = sd_buf_make(1 << 20);
    for (int i = 0; i < records; i++)
        sd_buf_printf(&b,
                      "{\"prompt\": \"item %d is \", \"completion\": \"%d and %d, for %.*s\"}\n", i,
                      i * 7919 % 1000 + salt, i % 7, 1 + i * 5 % 23, "abcdefghijklmnopqrstuvwxyz");
    SD_ASSERT(sd_file_write(path, b.data, b.len, NULL) == SD_OK);
    sd_buf_free(&b);
    return path;
}

void run_set_up(void) {
    sd_error err = {0};
    run_dir = sd_tiny_dir();
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    run_model = sd_path_join(run_dir, "tiny.gguf");
    run_recipe = sd_path_join(run_dir, "r.yaml");
    must(sd_tiny_write_gguf(run_model, &t, &err), &err);
    run_data = run_write_data("d.jsonl", 60, 0);
    SD_ASSERT(sd_file_write(run_recipe, RECIPE, sizeof RECIPE - 1, NULL) == SD_OK);
}
void run_tear_down(void) {
    free(run_model), free(run_data), free(run_recipe);
    sd_tiny_remove(run_dir);
}
const volatile int run_never;

run_result run_train_with(const char *name, const char *const *extra, int n_extra, int threads,
                          const volatile int *stop, const char *resume) {
    run_result r = {.out = sd_path_join(run_dir, name)};
    char *model = sd_sprintf("base.model=%s", run_model),
         *data = sd_sprintf("data.train.0.path=%s", run_data);
    const char *override[16] = {data};
    int n = 1;
    bool own_model = false;
    for (int i = 0; i < n_extra; i++) {
        own_model = own_model || strncmp(extra[i], "base.model=", 11) == 0;
        override[n++] = extra[i];
    }
    if (!own_model) override[n++] = model;
    sd_run_options o = {.recipe = run_recipe,
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
run_result run_train(const char *name, const char *const *extra, int n_extra) {
    return run_train_with(name, extra, n_extra, 1, &run_never, NULL);
}

sd_sha256 run_adapter(const run_result *r) {
    sd_sha256 h = {{0}};
    char *path = sd_path_join(r->out, "adapter/adapter_model.safetensors");
    SD_ASSERT(sd_sha256_of_file(&h, path, NULL) == SD_OK);
    free(path);
    return h;
}
bool run_exists(const run_result *r, const char *name) {
    char *path = sd_path_join(r->out, name);
    bool yes = access(path, F_OK) == 0;
    free(path);
    return yes;
}

run_result run_unfinished(const char *name) {
    run_result r = run_train(name, NULL, 0);
    char *manifest = sd_path_join(r.out, "manifest.json");
    must(r.st, &r.err);
    unlink(manifest);
    free(manifest);
    return r;
}
