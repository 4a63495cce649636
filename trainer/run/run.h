// A run: a folder that holds everything to continue it bit for bit, and at the end the adapter, its
// draft index and the manifest that binds them to the base and the data.
//
//     <run>/recipe.resolved.yaml  metrics.csv  loss.svg  checkpoints/  data/  adapter/  draft/
//           adapter.gguf  merged/ or merged.gguf (when exported)  manifest.json (last)
//
// A run is finished when manifest.json is there. It is written last, so a kill during the exports
// resumes from the last step's checkpoint and writes them again.
#pragma once

#include "trainer/checkpoint.h"
#include "trainer/pass/plan.h"
#include "trainer/recipe/recipe.h"

typedef struct {
    const char *recipe; // path
    const char *const *override;
    int n_overrides;
    const char *out;    // the run's folder; NULL: runs/<name>
    const char *resume; // auto, never or a checkpoint's path; NULL: as the recipe says
    int threads;        // 0: as the recipe says
    // The first step is next: from here on *stop, which a signal handler sets, is obeyed and the
    // state saved. Before, there is nothing to save: a handler may call sd_cleanup_run and
    // end the process. May be NULL.
    void (*begins)(void);
    const volatile int *stop;
    const char *resume_hint;   // what to type after an interruption
    void (*say)(const char *); // a line for people, e.g. where a resume begins; may be NULL
    void (*progress)(const char *what, int64_t done, int64_t total, double seconds); // may be NULL
} sd_run_options;

/// Counts of the data, and the steps that follow from it.
typedef struct {
    int64_t steps, epoch_steps;                // of the run, of one epoch
    int64_t step_tokens;                       // of the largest step
    int64_t records, rows, tokens, supervised; // of training, one epoch
    int64_t eval_records;
} sd_run_counts;

/// The exports compared with the trained parameters.
typedef struct {
    int artefacts; // that were loaded again and compared
    double worst_kl, worst_top1;
    double trainer_loss, reloaded_loss; // of the same text; NaN: not compared
} sd_run_verification;

enum { SD_RUN_MAX_PATH = 1024 };
typedef struct {
    char dir[SD_RUN_MAX_PATH], base[SD_RUN_MAX_PATH]; // folder; base model's path
    bool done_before; // the run is finished already: nothing was (a plan: would be) done
    char device[32];  // "cpu", "cuda:0", "cuda:0 to cuda:3"
    int64_t parameters;
    sd_run_counts data;
    int64_t micro_batch_tokens;
    sd_train_plan_report plan;
    int64_t started_at;           // step that this process began after
    sd_train_state state;         // after the last step; a plan's: at the start
    double first_loss, last_loss; // NaN: none
    const char *ended_by; // the recipe's key that ended the run; NULL: it has not ended here
    double peak_mb;
    sd_run_verification verified;
} sd_run_report;

/// Trains. SD_EINTERRUPTED: saved, err says how to go on. SD_EMISMATCH: the run in that folder is
/// of another recipe, base or data, or an export does not verify.
sd_status sd_run_train(const sd_run_options *o, sd_run_report *report, sd_error *err);

/// Memory by part, steps, tokens; refuses what sd_run_train would refuse before its first step.
/// Trains nothing and leaves nothing behind: data that is not prepared yet is, in a scratch folder.
sd_status sd_run_plan(const sd_run_options *o, sd_run_report *report, sd_error *err);
