// The parts of a run. Each takes what the parts before it made and returns its own product; run.c
// holds the products together. Private to trainer/run.
#pragma once

#include "model/defaults.h"
#include "trainer/loop.h"
#include "trainer/run/run.h"

// ---- say.c

/// A line for people, through o->say.
void sd_run_say(const sd_run_options *o, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

// ---- folder.c: made, locked, swept

typedef struct {
    char *dir, *data_path; // the folder; its data/
    char *lock_path;       // its .lock
    char *made_parent;     // "runs" when this process made it, else NULL
    int lock;              // descriptor, -1: none
    bool made;             // the folder was not there before
    char *scratch;         // a plan's folder for data that is not prepared yet; NULL: no plan
} sd_run_folder;

/// given: the path, NULL for runs/<name>. A plan only asks whether the folder can be made. Closed
/// by sd_run_close_folder also after an error.
sd_status sd_run_open_folder(sd_run_folder *out, const char *given, const char *name, bool plan,
                             sd_error *err);
/// From here on the folder stays when the program is interrupted.
void sd_run_keep_folder(const sd_run_folder *f);
/// Gives up the lock; a folder that was made and is empty goes. Harmless with lock -1 and the rest
/// 0.
void sd_run_close_folder(sd_run_folder *f);

// ---- base.c: the base model and which of its maps are adapted

typedef struct {
    sd_pool *pool;
    sd_model *model;
    sd_sha256 sha256; // of the model
    sd_lora_layout layout;
} sd_run_base;

/// threads 0: as the recipe says. Closed by sd_run_close_base also after an error.
sd_status sd_run_open_base(sd_run_base *out, const sd_recipe *recipe, int threads, sd_error *err);
void sd_run_close_base(sd_run_base *b);

// ---- data.c: prepared, or found prepared, and opened

typedef struct {
    sd_dataset *train_set, *eval_set; // eval_set NULL: no evaluation
    sd_rows train, eval;
    sd_order order; // over train: the product stays where it is
    sd_run_counts counts;
} sd_run_data;

/// of_0_4: by the rules for labels of that version. Closed by sd_run_close_data also after an
/// error.
sd_status sd_run_open_data(sd_run_data *out, const sd_run_options *o, const sd_recipe *recipe,
                           const sd_run_base *base, const sd_run_folder *folder, bool of_0_4,
                           sd_error *err);
void sd_run_close_data(sd_run_data *d);

// ---- device.c: where the run trains

/// device.kind of the recipe, where it says auto. resumes: from a checkpoint, whose own value was adopted before. A CUDA device that was asked for and
/// is not there is refused here, before any data is read.
sd_status sd_run_choose_device(sd_recipe *r, bool resumes, sd_error *err);
/// "cpu", "cuda:0", "cuda:0 to cuda:3".
void sd_run_name_device(char *out, size_t cap, const sd_recipe *r);
/// The plan of that device's pass. total is of the process on the CPU, of the device on a CUDA device.
sd_status sd_run_plan_pass(sd_train_plan_report *out, const sd_recipe *r, const sd_run_base *base,
                           const sd_train_options *o, sd_error *err);

/// What learns there. Closed by sd_learner_close.
sd_status sd_run_open_learner(sd_learner *out, const sd_recipe *r, const sd_run_base *base,
                              const sd_train_options *o, sd_error *err);

// ---- resolve.c: what auto becomes

/// micro_batch_tokens, compute_dtype and recompute of the recipe, by the memory plan.
sd_status sd_run_resolve(sd_train_options *pass, sd_train_plan_report *plan, sd_recipe *recipe,
                         const sd_run_base *base, const sd_run_data *data, sd_error *err);

// ---- resume.c: where the run begins

typedef struct {
    char *from;       // a checkpoint's folder; NULL: from step 0
    int others;       // checkpoints that stand beside it
    bool begins_anew; // and gives up the checkpoints that are there
    bool of_0_4;      // version 0.4 began the run, and what that version did otherwise is kept
    bool finished;    // nothing is left to be done
} sd_run_start;

/// Which checkpoint to go on from, by --resume (NULL: by the recipe) and what the folder holds. The
/// recipe adopts what that checkpoint had resolved. `from` is the caller's also after an error.
sd_status sd_run_choose_start(sd_run_start *out, sd_recipe *recipe, const char *dir,
                              const char *resume, sd_error *err);
/// Room for the parameters and their state, the caller's also after an error, and the parameters
/// the run begins with, by the seed or from adapter.from.
sd_status sd_run_init_parameters(sd_checkpoint *c, const sd_recipe *recipe, const sd_run_base *base,
                                 sd_error *err);
/// The checkpoint's parameters and state where there is one; refuses another base or other data,
/// version or, unless checkpoint.kernels says any, kernels.
sd_status sd_run_load_start(sd_checkpoint *c, const sd_run_start *start, const sd_recipe *recipe,
                            const sd_run_base *base, const sd_run_data *data, const char *kernels,
                            sd_error *err);

// ---- manifest.c

/// The key of the recipe that ended the run; NULL: it has not ended.
const char *sd_run_ended_by(const sd_recipe *r, const sd_train_state *s, const sd_run_counts *n);

// ---- judged.c

/// What requests to the run's model are filled with, for manifest and exports. The caller's also after an
/// error.
sd_status sd_run_judged(sd_defaults *out, const sd_run_options *o, const sd_run_data *data,
                        sd_error *err);

// ---- finish.c: adapter, exports, draft index, manifest

/// What the loop leaves.
typedef struct {
    const sd_run_options *o;
    const char *dir;
    const sd_recipe *recipe;
    const sd_run_base *base;
    const sd_run_data *data;
    const sd_checkpoint *c;
    double last_loss; // of the last step
} sd_run_trained;

/// Pieces of records on which exports are compared.
typedef struct {
    int32_t *token; // [n], the caller's also after an error
    int n;
    double loss; // their mean loss in the trainer; NaN: n is 0
    int ctx;     // positions that a sequence of the run may have
} sd_run_text;

/// Collects the text and runs the trainer on it, at most max_tokens tokens of it. The learner has the exported parameters from then on.
sd_status sd_run_collect_text(sd_run_text *out, const sd_run_trained *in, const sd_learner *learner,
                              int max_tokens, sd_error *err);
/// Writes and verifies everything. The trainer's memory is not needed any more.
sd_status sd_run_finish(sd_run_verification *out, const sd_run_trained *in, const sd_run_text *text,
                        sd_error *err);
