// What the parts of a run share. Private to trainer/run*.c.
#pragma once

#include "trainer/loop.h"
#include "trainer/run.h"

typedef struct {
    const sd_run_options *o;
    sd_run_report *report;
    sd_recipe recipe;
    char *dir;
    int lock;  // descriptor, -1: none
    bool made; // the folder was not there before
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
    char *resume_from;    // a checkpoint's folder; NULL: from step 0
    sd_buf resolved_text; // of recipe.resolved.yaml
    sd_checkpoint c;
    sd_metrics *metrics;
    sd_train *trainer;
} sd_run;

void sd_run_say(const sd_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *sd_run_path(const sd_run *r, const char *name); // malloc'ed

/// run_data.c: prepares (or finds prepared) and opens the training and held-out data; counts steps.
sd_status sd_run_open_data(sd_run *r, sd_error *err);
/// run_resume.c: which checkpoint to go on from, by --resume and what the folder holds; adopts what
/// it had resolved. *done: the run is finished already.
sd_status sd_run_choose_start(sd_run *r, bool *done, sd_error *err);
/// run_resume.c: initial parameters, or the checkpoint's; refuses another recipe, base or data.
sd_status sd_run_load_start(sd_run *r, sd_error *err);
/// run_finish.c: adapter, exports, draft index, verification, manifest.
sd_status sd_run_finish(sd_run *r, sd_error *err);
