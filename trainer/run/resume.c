// The start of a run. The rule of `auto`: a finished run is left alone, a run with a checkpoint
// that verifies goes on from the newest, an empty folder begins. Going on is refused unless
// everything that changes the numbers is what it was: each key of the recipe, the base's bytes, the
// data's bytes, the bytes of an adapter that was continued, the version, the device and its
// kernels. Under checkpoint.kernels=any the last may be others: the state goes on, rounded otherwise.
// A run that version 0.4 began keeps that version's learning-rate schedule and labels.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/train/gemm_packed.h"
#include "model/adapter/adapter.h"
#include "trainer/run/private.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static sd_status refuse_difference(const sd_recipe *old, const sd_recipe *now, const char *what,
                                   sd_error *err) {
    sd_buf a = sd_buf_make(1 << 16), b = sd_buf_make(1 << 16);
    const char *key = sd_recipe_difference(old, now, &a, &b);
    sd_status st = SD_OK;
    if (key)
        st = sd_fail(err, SD_EINVAL,
                     "%s: was made with %s: %.120s, the recipe now says %.120s; go back to that "
                     "value, or give another name= to begin anew",
                     what, key, a.data ? a.data : "", b.data ? b.data : "");
    sd_buf_free(&a);
    sd_buf_free(&b);
    return st;
}

/// Compares with the recipe that the run or checkpoint at `what` resolved: keys that say auto now
/// take its values, other differences are refused, but for the device's kind where that may be
/// another.
static sd_status hold_against(sd_recipe *recipe, const char *text, size_t len, const char *what,
                              bool elsewhere, sd_error *err) {
    sd_recipe old;
    sd_status st = sd_recipe_parse(&old, what, text, len, NULL, 0, err);
    if (st == SD_OK) {
        sd_recipe_adopt_auto(recipe, &old);
        if (elsewhere) old.device.kind = recipe->device.kind;
        st = refuse_difference(&old, recipe, what, err);
    }
    sd_recipe_free(&old);
    return st;
}

static sd_status check_finished(sd_recipe *recipe, const char *dir, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_path_join(dir, "recipe.resolved.yaml"), *text = NULL;
    size_t len;
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_file_read(&text, &len, path, SD_YAML_MAX_BYTES, err));
    SD_TRY(hold_against(recipe, text, len, path, false, err));
out:
    free(path);
    free(text);
    return st;
}

/// PATH is a checkpoint, or a run's folder, or its checkpoints folder.
static sd_status find_given(char **from, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *below = sd_path_join(path, "checkpoints");
    sd_path_kind sums, kind;
    SD_CHECK_ALLOC(below, err);
    SD_TRY(sd_path_look_in(&sums, path, "SHA256SUMS", err));
    if (sums != SD_PATH_NONE) {
        *from = sd_strdup(path);
        SD_CHECK_ALLOC(*from, err);
    } else {
        SD_TRY(sd_path_look(&kind, below, err));
        SD_TRY(sd_checkpoint_newest(from, NULL, kind == SD_PATH_FOLDER ? below : path, err));
        SD_CHECK(*from, err, SD_ENOTFOUND,
                 "--resume %s: is no checkpoint and holds none that verifies; give the folder of "
                 "one, or auto",
                 path);
    }
out:
    free(below);
    return st;
}

static sd_status adopt_checkpoint(sd_run_start *s, sd_recipe *recipe, sd_error *err) {
    sd_status st = SD_OK;
    sd_checkpoint c = {0};
    SD_TRY(sd_checkpoint_peek(&c, s->from, err));
    SD_TRY(hold_against(recipe, c.recipe.data ? c.recipe.data : "", c.recipe.len, s->from,
                        recipe->checkpoint.kernels == SD_RESUME_ANY, err));
    s->of_0_4 = !c.state.schedule[0];
out:
    sd_checkpoint_free_recipe(&c);
    return st;
}

sd_status sd_run_choose_start(sd_run_start *out, sd_recipe *recipe, const char *dir,
                              const char *resume, sd_error *err) {
    sd_status st = SD_OK;
    const char *how = resume ? resume : recipe->checkpoint.resume;
    char *checkpoints = sd_path_join(dir, "checkpoints");
    sd_path_kind manifest;
    *out = (sd_run_start){0};
    SD_CHECK_ALLOC(checkpoints, err);
    SD_TRY(sd_path_look_in(&manifest, dir, "manifest.json", err));
    bool finished = manifest != SD_PATH_NONE;
    if (strcmp(how, "never") == 0) {
        SD_CHECK(!finished, err, SD_EINVAL,
                 "%s: holds a finished run; remove the folder, or give another name=", dir);
        out->begins_anew = true; // when all else is known to be good
    } else if (strcmp(how, "auto") == 0) {
        if (finished) {
            SD_TRY(check_finished(recipe, dir, err));
            out->finished = true;
            goto out;
        }
        SD_TRY(sd_checkpoint_newest(&out->from, &out->others, checkpoints, err));
    } else {
        SD_CHECK(!finished, err, SD_EINVAL,
                 "%s: holds a finished run; give another name= to go on from a checkpoint", dir);
        SD_TRY(find_given(&out->from, how, err));
    }
    if (out->from) SD_TRY(adopt_checkpoint(out, recipe, err));
out:
    free(checkpoints);
    return st;
}

// ---- the parameters at the start

/// Copies an adapter's factors into theta. Where its scale differs from the slot's, B takes the
/// ratio.
static sd_status copy_factors(float *theta, const sd_lora_layout *lay, const sd_adapter *a,
                              const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < lay->n_linears; i++) {
        const sd_lora_slot *s = &lay->slot[i];
        const sd_lora *l = &a->lora[i];
        SD_CHECK(l->r == s->r, err, SD_EINVAL,
                 "adapter.from: layer %d, %s: rank %d there, %d in this recipe; make them equal",
                 m->linear[i].layer, m->linear[i].kind->leaf, l->r, s->r);
        if (!s->r) continue;
        size_t na = (size_t)s->r * (size_t)s->in, nb = (size_t)s->r * (size_t)s->out;
        double factor = l->scale == (float)s->scale ? 1 : (double)l->scale / s->scale;
        memcpy(theta + s->a, l->A, na * sizeof *theta);
        for (size_t k = 0; k < nb; k++) theta[s->b + k] = (float)((double)l->B[k] * factor);
    }
out:
    return st;
}

sd_status sd_run_init_parameters(sd_checkpoint *c, const sd_recipe *recipe, const sd_run_base *base,
                                 sd_error *err) {
    sd_status st = SD_OK;
    sd_adapter *a = NULL;
    c->n = base->layout.n_params;
    c->theta = sd_alloc(c->n, sizeof(float));
    c->m = sd_alloc(c->n, sizeof(float));
    c->v = sd_alloc(c->n, sizeof(float));
    c->best = sd_alloc(c->n, sizeof(float));
    SD_CHECK(c->theta && c->m && c->v && c->best, err, SD_ENOMEM,
             "out of memory for %zu parameters and their state; lower adapter.r", c->n);
    sd_lora_init(c->theta, &base->layout, (uint64_t)recipe->seed);
    if (recipe->adapter.from) {
        SD_TRY(sd_adapter_open(&a, recipe->adapter.from, base->model, false, err));
        SD_TRY(copy_factors(c->theta, &base->layout, a, base->model, err));
    }
    SD_TRY(sd_sha256_of(&c->state.init, c->theta, c->n * sizeof(float), err));
out:
    sd_adapter_release(a);
    return st;
}

static sd_status refuse_hash(const char *what, const char *from, const sd_sha256 *was,
                             const sd_sha256 *is, sd_error *err) {
    if (strcmp(was->hex, is->hex) == 0) return SD_OK;
    return sd_fail(err, SD_EINVAL,
                   "%s: %s has changed since (SHA-256 %.12s..., now %.12s...); bring the old one "
                   "back, or give another name= to begin anew",
                   from, what, was->hex[0] ? was->hex : "none", is->hex[0] ? is->hex : "none");
}

/// Kernels for other instructions add in another order, so a resume on them would give the bytes of
/// neither run.
static sd_status refuse_kernels(const char *from, const char *was, const char *is, sd_error *err) {
    if (strcmp(was, is) == 0) return SD_OK;
    if (!was[0])
        return sd_fail(err, SD_EINVAL,
                       "%s: does not say which instruction set it was made with; resume with the "
                       "version that made it, or begin anew with --resume never",
                       from);
    return sd_fail(
        err, SD_EINVAL,
        "%s: was made with the %s kernels, this process uses %s, whose rounding differs; "
        "%s%s, or go on all the same with checkpoint.kernels=any, or begin anew with --resume "
        "never",
        from, was, is,
        sd_gemm_packed_named(was)       ? "set SPECDEC_ISA="
        : strncmp(was, "cuda-", 5) == 0 ? "resume on a CUDA device and cuBLASLt of "
                                        : "resume on a processor that has ",
        was);
}

/// Versions whose trainer adds in the same order as this one's.
static bool rounds_alike(const char *version) {
    static const char *const names[] = {SPECDEC_VERSION, "0.5.0", "0.4.0"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(version, names[i]) == 0) return true;
    return false;
}

/// The kernels of the state from here on.
static sd_status settle_kernels(sd_train_state *s, const char *from, const char *kernels,
                                sd_resume_kernels may, sd_error *err) {
    if (may != SD_RESUME_ANY || strcmp(s->kernels, kernels) == 0)
        return refuse_kernels(from, s->kernels, kernels, err);
    sd_log(SD_LOG_WARN,
           "%s: was made with the %s kernels; from step %lld on it is the %s kernels, whose "
           "rounding differs",
           from, s->kernels[0] ? s->kernels : "unnamed", (long long)s->step + 1, kernels);
    snprintf(s->kernels, sizeof s->kernels, "%s", kernels);
    return SD_OK;
}

sd_status sd_run_load_start(sd_checkpoint *c, const sd_run_start *start, const sd_recipe *recipe,
                            const sd_run_base *base, const sd_run_data *data, const char *kernels,
                            sd_error *err) {
    sd_status st = SD_OK;
    const char *from = start->from;
    // The data is identified by what it was made from: the container may hold more than the rows.
    sd_train_state now = {.base = base->sha256,
                          .data = *sd_dataset_made_from(data->train_set),
                          .init = c->state.init};
    if (data->eval_set) now.eval_data = *sd_dataset_made_from(data->eval_set);
    if (from) {
        SD_TRY(sd_checkpoint_load(c, from, err));
        sd_checkpoint_free_recipe(c);
        const sd_train_state *was = &c->state;
        SD_TRY(refuse_hash("the base model", from, &was->base, &now.base, err));
        SD_TRY(refuse_hash("the training data", from, &was->data, &now.data, err));
        SD_TRY(refuse_hash("the held-out data", from, &was->eval_data, &now.eval_data, err));
        SD_TRY(refuse_hash("the adapter of adapter.from", from, &was->init, &now.init, err));
        SD_CHECK(rounds_alike(was->version), err, SD_EINVAL,
                 "%s: was made by version %s of specdec, this is %s, whose rounding may differ; "
                 "resume with that version, or begin anew",
                 from, was->version, SPECDEC_VERSION);
        SD_TRY(settle_kernels(&c->state, from, kernels, recipe->checkpoint.kernels, err));
    } else {
        c->state = now;
        snprintf(c->state.kernels, sizeof c->state.kernels, "%s", kernels);
        snprintf(c->state.version, sizeof c->state.version, "%s", SPECDEC_VERSION);
        snprintf(c->state.schedule, sizeof c->state.schedule, "%s", SD_SCHEDULE_NAME);
    }
out:
    return st;
}
