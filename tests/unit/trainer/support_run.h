// Whole runs on a tiny model.
#pragma once

#include "base/files/hash.h"
#include "trainer/run/run.h"

/// The folder of the test and what stands in it: model, data (60 records), recipe.
extern char *run_dir, *run_model, *run_data, *run_recipe;
void run_set_up(void);
void run_tear_down(void);
/// Writes records into the folder; salt changes their completions. The path is the caller's.
char *run_write_data(const char *name, int records, int salt);

typedef struct {
    char *out; // the run's folder; the caller's
    sd_run_report report;
    sd_error err;
    sd_status st;
} run_result;

extern const volatile int run_never; // no stop

/// Trains by the recipe and these overrides into the folder `name`.
run_result run_train_with(const char *name, const char *const *extra, int n_extra, int threads,
                          const volatile int *stop, const char *resume);
run_result run_train(const char *name, const char *const *extra, int n_extra);
/// A run whose exports were not reached.
run_result run_unfinished(const char *name);

sd_sha256 run_adapter(const run_result *r); // of its weights
bool run_exists(const run_result *r, const char *name);
