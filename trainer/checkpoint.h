// Checkpoints: a folder of plain files for each, complete or absent.
//
//     <dir>/step-00000100/
//         theta.f32  adam_m.f32  adam_v.f32   the adapter's parameters and AdamW's state
//         best.f32                            the best parameters so far, when there are any
//         state.json                          cursor, totals, hashes of base, data and init
//         recipe.resolved.yaml
//         SHA256SUMS                          of all the others, as sha256sum writes it
//
// Written into <dir>/.tmp-*, each file fsync'ed, then SHA256SUMS, then the folder; renamed without
// replacing; then the parent is fsync'ed. So a kill at any moment leaves whole checkpoints and at
// worst a .tmp-* folder, which the next save removes. A failed fsync is not retried.
//
// A process removes only checkpoints that it made or went on from. Others that it cannot use
// (damaged, or later than the one that was resumed) are renamed to given-up-N, which no reader
// takes for a checkpoint; to go on from one, give it its old name.
#pragma once

#include "base/files/hash.h"
#include "base/memory.h"

typedef struct {
    int64_t step;         // steps done
    int64_t epoch, index; // cursor: next item of the epoch's order
    int64_t tokens, supervised;
    double wall_s;
    bool has_best;
    double best_loss, last_eval;
    int64_t best_step, evals_without_gain;
    bool stopped;  // patience has run out
    bool eval_due; // interrupted before the evaluation that follows this step; the step's numbers:
    double loss, lr, grad_norm;
    int64_t step_tokens, step_supervised;
    sd_sha256 base, data, eval_data;
    sd_sha256 init; // of the parameters the run began with: adapter.from's bytes, or the seed's
    // "after-warmup"; empty: of version 0.4 or before, whose schedule decayed from step 0 on
    char schedule[32];
    int64_t skipped;  // steps without a supervised token, whose update was left out
    char version[32]; // of specdec, and the kernels: both may round otherwise than another
    char kernels[32]; // "plain", "avx2", "avx512", "avx512-bf16", "amx-bf16"
} sd_train_state;

typedef struct {
    sd_train_state state;
    size_t n;             // parameters
    float *theta, *m, *v; // [n]
    float *best;          // [n]; read and written when state.has_best
    sd_buf recipe;        // text of the resolved recipe
} sd_checkpoint;

/// A folder of checkpoints and the steps in it that this process may remove.
typedef struct {
    const char *dir; // the caller's
    int keep;        // how many of its own stay
    int64_t *own;    // [n]
    int n, cap;
} sd_checkpoints;

/// The checkpoint in folder `path` becomes this process's own if it stands in all->dir.
sd_status sd_checkpoints_own(sd_checkpoints *all, int64_t step, const char *path, sd_error *err);
/// Renames every checkpoint in dir to given-up-N: the run begins anew. *n: how many; none is fine.
sd_status sd_checkpoints_give_up(int *n, const char *dir, sd_error *err);
/// Removes what a killed save left half-written or half-removed; nothing there is fine.
sd_status sd_checkpoints_sweep(const char *dir, sd_error *err);
void sd_checkpoints_free(sd_checkpoints *all);

/// Saves under all->dir (made when missing), then removes this process's own but the newest `keep`
/// and gives up those of a later step. *path (may be NULL) gets the folder's name, malloc'ed.
/// SD_EIO leaves the earlier checkpoints as they were.
sd_status sd_checkpoint_save(sd_checkpoints *all, const sd_checkpoint *c, char **path,
                             sd_error *err);

/// Verifies and reads the checkpoint in folder `path`. c->n says how many parameters are wanted;
/// another number is SD_EMISMATCH. theta, m, v, best are the caller's, [n] each.
sd_status sd_checkpoint_load(sd_checkpoint *c, const char *path, sd_error *err);

/// Verifies and reads state and recipe only.
sd_status sd_checkpoint_peek(sd_checkpoint *c, const char *path, sd_error *err);

/// The newest checkpoint under dir that verifies, malloc'ed into *path; NULL when there is none.
/// Each one that is damaged or foreign is reported by sd_log and passed over; one that cannot be
/// read is an error. *others (may be NULL): how many stand beside it.
sd_status sd_checkpoint_newest(char **path, int *others, const char *dir, sd_error *err);

void sd_checkpoint_free_recipe(sd_checkpoint *c);
