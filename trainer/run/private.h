// What the parts of a run share. Private to trainer/run*.c.
#pragma once

#include "trainer/loop.h"
#include "trainer/run/run.h"

typedef struct {
    const sd_run_options *o;
    sd_run_report *report;
    sd_recipe recipe;
    bool plan_only;        // nothing may be left behind
    char *dir, *data_path; // the folder; its data/
    char *lock_path;       // its .lock
    char *made_parent;     // "runs" when this process made it, else NULL
    int lock;              // descriptor, -1: none
    bool made;             // the folder was not there before
    char *scratch;         // a plan's folder for data that is not prepared yet
    sd_pool *pool;
    sd_model *model;
    sd_sha256 base_sha256;
    sd_lora_layout layout;
    sd_dataset *train_data, *eval_data; // eval_data NULL: no evaluation
    sd_rows train, eval;
    sd_order order;
    int64_t steps, step_tokens; // of the run; of its largest step
    sd_train_options pass;
    sd_train_plan_report plan;
    char *resume_from;     // a checkpoint's folder; NULL: from step 0
    int other_checkpoints; // that stand beside it
    bool begins_anew;      // and gives up the checkpoints that are there
    bool of_0_4;           // it is of version 0.4, and what that version did otherwise is kept
    sd_buf resolved_text;  // of recipe.resolved.yaml
    sd_checkpoint c;
    sd_metrics *metrics;
    sd_train *trainer;
} sd_run;

// ---- say.c

void sd_run_say(const sd_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *sd_run_path(const sd_run *r, const char *name); // malloc'ed

// ---- folder.c

/// Makes, locks and sweeps the folder; for a plan only asks whether it can be made.
sd_status sd_run_open_folder(sd_run *r, sd_error *err);
/// From here on the folder stays when the program is interrupted.
void sd_run_keep_folder(sd_run *r);
/// Gives up the lock; a folder that was made and is empty goes.
void sd_run_close_folder(sd_run *r);

// ---- data.c

/// Prepares (or finds prepared) and opens the training and held-out data; counts steps.
sd_status sd_run_open_data(sd_run *r, sd_error *err);

// ---- resume.c

/// Which checkpoint to go on from, by --resume and what the folder holds; adopts what it had
/// resolved. *done: the run is finished already.
sd_status sd_run_choose_start(sd_run *r, bool *done, sd_error *err);
/// The parameters the run begins with, by the seed or from adapter.from.
sd_status sd_run_init_parameters(sd_run *r, sd_error *err);
/// The checkpoint's parameters where there is one; refuses another recipe, base or data.
sd_status sd_run_load_start(sd_run *r, sd_error *err);

// ---- finish.c

/// Adapter, exports, draft index, verification, manifest.
sd_status sd_run_finish(sd_run *r, sd_error *err);
