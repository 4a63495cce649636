// manifest.json: what binds a run's artefacts to the base and the data.
#include "base/files/file.h"
#include "base/json.h"
#include "trainer/run/end.h"

#include <math.h>
#include <string.h>

sd_status sd_run_add_artefact(json_t **entry, sd_run_end *f, const char *name, const char *file,
                              const sd_sha256 *hash, sd_error *err) {
    sd_status st = SD_OK;
    *entry = json_pack("{s:s, s:s}", "file", file, "sha256", hash->hex);
    SD_CHECK_ALLOC(*entry, err);
    SD_CHECK(json_object_set_new(f->artefacts, name, *entry) == 0, err, SD_ENOMEM, "out of memory");
out:
    return st;
}

// ---- the manifest

static bool set_number(json_t *j, const char *name, double v) {
    return json_object_set_new(j, name, isfinite(v) ? json_real(v) : json_null()) == 0;
}

sd_status sd_run_write_manifest(sd_run_end *f, sd_error *err) {
    sd_status st = SD_OK;
    const sd_run *r = f->r;
    const sd_train_state *s = &r->c.state;
    char *path = sd_run_path(r, "manifest.json"), *text = NULL;
    bool best = r->recipe.eval.keep_best && s->has_best;
    sd_sha256 recipe = {{0}};
    SD_TRY(sd_sha256_of(&recipe, r->resolved_text.data, r->resolved_text.len, err));
    json_t *j = json_pack(
        "{s:i, s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s, s:I, s:I, s:I}, s:s, s:I, s:I, s:I, s:I, s:O}",
        "specdec_run", 1, "name", r->recipe.name, "version", SPECDEC_VERSION, "base", "path",
        r->model->path, "sha256", r->base_sha256.hex, "data", "sha256",
        sd_dataset_sha256(r->train_data)->hex, "made_from",
        sd_dataset_made_from(r->train_data)->hex, "records",
        (json_int_t)sd_dataset_records(r->train_data), "tokens", (json_int_t)r->train.total,
        "supervised_tokens", (json_int_t)r->train.labelled, "recipe_sha256", recipe.hex, "steps",
        (json_int_t)s->step, "adapter_of_step", (json_int_t)(best ? s->best_step : s->step),
        "tokens_seen", (json_int_t)s->tokens, "supervised_tokens_seen", (json_int_t)s->supervised,
        "artefacts", f->artefacts);
    SD_CHECK_ALLOC(j, err);
    bool kept = set_number(j, "last_loss", r->report->last_loss) &&
                set_number(j, "best_eval_loss", r->report->best_eval) &&
                set_number(j, "wall_s", s->wall_s) &&
                set_number(j, "trainer_loss_of_verified_text", r->report->trainer_loss) &&
                set_number(j, "reloaded_loss_of_verified_text", r->report->reloaded_loss);
    st = kept ? sd_json_dump(&text, j, JSON_INDENT(2) | JSON_REAL_PRECISION(9), err)
              : sd_fail(err, SD_ENOMEM, "out of memory");
    json_decref(j);
    if (st != SD_OK) goto out;
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_file_write(path, text, strlen(text), err));
out:
    free(text);
    free(path);
    return st;
}
