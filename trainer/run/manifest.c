// manifest.json: what binds a run's artefacts to the base and the data.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/memory.h"
#include "trainer/run/end.h"

#include <math.h>
#include <string.h>

sd_status sd_run_add_artefact(json_t **entry, sd_run_end *e, const char *name, const char *file,
                              const sd_sha256 *hash, sd_error *err) {
    sd_status st = SD_OK;
    *entry = json_pack("{s:s, s:s}", "file", file, "sha256", hash->hex);
    SD_CHECK_ALLOC(*entry, err);
    SD_CHECK(json_object_set_new(e->artefacts, name, *entry) == 0, err, SD_ENOMEM, "out of memory");
out:
    return st;
}

const char *sd_run_ended_by(const sd_recipe *r, const sd_train_state *s, const sd_run_counts *n) {
    if (s->step < n->steps) return s->stopped ? "eval.patience" : NULL;
    return r->train.max_steps ? "train.max_steps" : "train.epochs";
}

static bool set_number(json_t *j, const char *name, double v) {
    return json_object_set_new(j, name, isfinite(v) ? json_real(v) : json_null()) == 0;
}

sd_status sd_run_write_manifest(const sd_run_end *e, int64_t step, sd_error *err) {
    sd_status st = SD_OK;
    const sd_run_trained *in = e->in;
    const sd_train_state *s = &in->c->state;
    const sd_run_counts *n = &in->data->counts;
    const sd_dataset *d = in->data->train_set;
    char *path = sd_path_join(in->dir, "manifest.json"), *text = NULL, *page = NULL;
    sd_sha256 recipe = {{0}};
    SD_TRY(sd_sha256_of(&recipe, in->c->recipe.data, in->c->recipe.len, err));
    json_t *j = json_pack(
        "{s:i, s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s, s:I, s:I, s:I}, s:s, s:I, s:s, s:I, s:I, s:I, "
        "s:o, s:O}",
        "specdec_run", 1, "name", in->recipe->name, "version", SPECDEC_VERSION, "base", "path",
        in->base->model->path, "sha256", in->base->sha256.hex, "data", "sha256",
        sd_dataset_sha256(d)->hex, "made_from", sd_dataset_made_from(d)->hex, "records",
        (json_int_t)n->records, "tokens", (json_int_t)n->tokens, "supervised_tokens",
        (json_int_t)n->supervised, "recipe_sha256", recipe.hex, "steps", (json_int_t)s->step,
        "ended_by", sd_run_ended_by(in->recipe, s, n), "adapter_of_step", (json_int_t)step,
        "tokens_seen", (json_int_t)s->tokens, "supervised_tokens_seen", (json_int_t)s->supervised,
        "serve", sd_defaults_json(&e->defaults), "artefacts", e->artefacts);
    SD_CHECK_ALLOC(j, err);
    bool kept = set_number(j, "last_loss", in->last_loss) &&
                set_number(j, "best_eval_loss", s->has_best ? s->best_loss : NAN) &&
                set_number(j, "wall_s", s->wall_s) &&
                set_number(j, "trainer_loss_of_verified_text", e->verified->trainer_loss) &&
                set_number(j, "reloaded_loss_of_verified_text", e->verified->reloaded_loss);
    st = kept ? sd_json_dump(&text, j, JSON_INDENT(2) | JSON_REAL_PRECISION(9), err)
              : sd_fail(err, SD_ENOMEM, "out of memory");
    json_decref(j);
    if (st != SD_OK) goto out;
    page = sd_sprintf("%s\n", text);
    SD_CHECK(path && page, err, SD_ENOMEM, "out of memory");
    SD_TRY(sd_file_write(path, page, strlen(page), err));
out:
    free(text);
    free(page);
    free(path);
    return st;
}
