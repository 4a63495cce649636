// The recipe of a run: a YAML page, schema 1. One table (table.c) gives every key its
// default, type, range and help; an unknown key, a wrong type or a value out of range is refused
// with file:line:column and the nearest known key.
//
//     sd_recipe r;
//     SD_TRY(sd_recipe_load(&r, "recipe.yaml", overrides, n_overrides, err));
//     ... resolve what says auto ...
//     SD_TRY(sd_recipe_text(&r, &buf, err)); // loads again to the same
//     sd_recipe_free(&r);
//
// A key that may be null or auto holds 0 (numbers) or NULL (texts) then; its range excludes 0.
#pragma once

#include "base/files/yaml.h"
#include "base/memory.h"
#include "base/option.h"
#include "datasets/build/prepare.h"
#include "trainer/optim/schedule.h"
#include "trainer/pass/plan.h"

enum { SD_RECIPE_MAX_SOURCES = 64, SD_RECIPE_MAX_PATTERN = 64, SD_RECIPE_MAX_KEYS = 96 };

typedef struct {
    const char *path;
    sd_data_format format;
    double weight;
} sd_recipe_source;
typedef struct {
    sd_recipe_source item[SD_RECIPE_MAX_SOURCES];
    int n;
} sd_recipe_sources;

/// PEFT's rank_pattern and alpha_pattern: the first key that matches a module's path counts.
typedef struct {
    const char *key[SD_RECIPE_MAX_PATTERN]; // a regular expression for the end of the path
    double value[SD_RECIPE_MAX_PATTERN];
    int n;
} sd_recipe_pattern;

// Words of keys, in the table's order.
typedef enum { SD_SCALING_STANDARD, SD_SCALING_RSLORA } sd_lora_scaling;
typedef enum { SD_EOT_TURN, SD_EOT_NONE } sd_eot_label;
typedef enum { SD_TRAIN_DEVICE_AUTO, SD_TRAIN_DEVICE_CPU, SD_TRAIN_DEVICE_CUDA } sd_train_device;
#define SD_TRAIN_DEVICES "auto|cpu|cuda"
typedef enum { SD_RESUME_SAME, SD_RESUME_ANY } sd_resume_kernels;
typedef enum { SD_EMPTY_LABELS_ERROR, SD_EMPTY_LABELS_SKIP } sd_empty_labels;

typedef struct {
    int64_t n;
    bool per_epoch; // n times an epoch, else every n steps
} sd_recipe_every;

typedef struct {
    int64_t schema;
    const char *name;
    int64_t seed;
    bool deterministic;
    struct {
        const char *model, *sha256;
        sd_train_compute compute_dtype;
    } base;
    struct {
        int type; // one word of it is built, as of init and optimizer
        int64_t r;
        double alpha, dropout;
        sd_strings target_modules; // "all-linear", or ends of module paths
        sd_recipe_pattern rank_pattern, alpha_pattern;
        sd_lora_scaling scaling;
        int init;
        double lr_ratio; // LoRA+: the learning rate of B over that of A
        const char *from;
    } adapter;
    struct {
        sd_recipe_sources train, eval;
        double val_size;
        const char *chat_template; // a file; NULL: that of adapter.from, else the model's own
        sd_loss_on loss_on;
        sd_eot_label train_on_eot;
        int64_t sequence_len;
        sd_overlong overlong;
        bool packing, shuffle;
        const char *prepared;
        sd_empty_labels on_empty_labels;
        int64_t max_records;
    } data;
    struct {
        int64_t epochs, max_steps, batch_tokens, batch_rows, micro_batch_tokens;
        int optimizer;
        double learning_rate, weight_decay, beta1, beta2, epsilon;
        sd_schedule_kind lr_scheduler;
        double warmup_ratio;
        int64_t warmup_steps;
        double min_lr_ratio, max_grad_norm;
        sd_recompute recompute;
        double neftune_alpha;
    } train;
    struct {
        sd_recipe_every every;
        int64_t patience;
        bool keep_best;
    } eval;
    struct {
        int64_t every, keep;
        const char *resume;
        sd_resume_kernels kernels;
    } checkpoint;
    struct {
        int64_t every;
        sd_strings sinks;
    } log;
    struct {
        bool index;
        const char *model;
    } draft;
    sd_strings exports;
    struct {
        int64_t prompts;
        double max_kl, top1;
    } verify;
    struct {
        sd_train_device kind;
        int64_t index, count;          // of CUDA devices: the first, how many
        int64_t threads, memory_limit; // bytes
    } device;

    sd_yaml_mark file;                     // its name alone, for what no line says
    sd_yaml_mark mark[SD_RECIPE_MAX_KEYS]; // where each key was given; origin NULL: a default
    sd_arena arena;                        // every text
} sd_recipe;

/// overrides: "train.learning_rate=1e-4", applied in order. The recipe is freed by the caller also
/// after an error. SD_EFORMAT (exit code 2) for every mistake in it.
sd_status sd_recipe_load(sd_recipe *r, const char *path, const char *const *override,
                         int n_overrides, sd_error *err);
/// The same from memory; origin is the name that messages use.
sd_status sd_recipe_parse(sd_recipe *r, const char *origin, const char *text, size_t len,
                          const char *const *override, int n_overrides, sd_error *err);
void sd_recipe_free(sd_recipe *r); // harmless on a zeroed recipe

/// Appends the recipe as YAML that loads again to the same values.
sd_status sd_recipe_text(const sd_recipe *r, sd_buf *out, sd_error *err);

/// Prints every key with default, range and help.
void sd_recipe_help(FILE *f);

/// For a resume: what says auto in `r` takes the value that was resolved in `old`.
void sd_recipe_adopt_auto(sd_recipe *r, const sd_recipe *old);
/// The first key whose value changes the numbers of a run and differs; NULL when the two recipes
/// train the same. old_value and new_value get both as text.
const char *sd_recipe_difference(const sd_recipe *old, const sd_recipe *r, sd_buf *old_value,
                                 sd_buf *new_value);
/// "file:line:column: key: " + message, for checks that need more than the recipe.
sd_status sd_recipe_fail(const sd_recipe *r, const char *key, sd_error *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
