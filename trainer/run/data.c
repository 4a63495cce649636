// The data of a run: prepared once, found again by what it would be made from (sources, options,
// tokenizer, template), so a stale file is never trained on. The held-out part is prepared into a
// file of its own, chosen by the records' hashes: reordering the sources does not move a record
// from one side to the other.
#include "base/clock.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/chat.h"
#include "trainer/run/private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const sd_run_options *o;
    const sd_recipe *recipe;
    const sd_run_base *base;
    const sd_run_folder *folder;
    bool of_0_4;
} inputs;

typedef struct {
    const sd_run_options *o;
    const char *what;
    double started;
} watch;

static void on_progress(void *ctx, int64_t records, int64_t bytes, int64_t total) {
    const watch *w = ctx;
    (void)records;
    if (w->o->progress)
        w->o->progress(w->what, bytes < total ? bytes : total, total, sd_now_s() - w->started);
}

static void fill_options(sd_prepare_options *o, sd_data_source *sources, const inputs *in,
                         const sd_recipe_sources *from) {
    const sd_recipe *e = in->recipe;
    for (int i = 0; i < from->n; i++)
        sources[i] = (sd_data_source){from->item[i].path, from->item[i].format};
    *o = (sd_prepare_options){.source = sources,
                              .n_sources = from->n,
                              .sequence_len = (int)e->data.sequence_len,
                              .loss_on = e->data.loss_on,
                              .train_on_eot = e->data.train_on_eot == SD_EOT_TURN,
                              .overlong = e->data.overlong,
                              .packing = e->data.packing,
                              .version = in->of_0_4 ? 1 : 0,
                              .skip_empty_labels = e->data.on_empty_labels == SD_EMPTY_LABELS_SKIP,
                              .pool = in->base->pool,
                              .progress = on_progress};
}

/// Opens path when it was made from exactly this; *out stays NULL when it must be made: it is not
/// there, is of something else, is damaged, or (unless it was given) is of a version that did not
/// count system texts: made again it has the same bytes. One that cannot be read is an error.
static sd_status open_fresh(sd_dataset **out, sd_path_kind kind, const char *path,
                            const sd_sha256 *key, bool given, sd_error *err) {
    sd_dataset *d = NULL;
    *out = NULL;
    if (kind == SD_PATH_NONE) return SD_OK;
    sd_status st = sd_dataset_open(&d, path, err);
    if (st != SD_OK) return sd_status_is_damage(st) ? SD_OK : st;
    int64_t records;
    sd_dataset_system(d, &records);
    if (sd_sha256_equal(sd_dataset_made_from(d), key) && (records >= 0 || given))
        *out = d;
    else
        sd_dataset_close(d);
    return SD_OK;
}

/// *out NULL and SD_OK: no record falls into the kept part.
static sd_status open_or_prepare(sd_dataset **out, const inputs *in, const char *path,
                                 const char *what, sd_prepare_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 key;
    sd_prepare_report report = {0};
    watch w = {in->o, what, sd_now_s()};
    char *made = NULL;
    sd_path_kind kind;
    o->progress_ctx = &w;
    *out = NULL;
    SD_TRY(sd_dataset_key(&key, o, in->base->model, err));
    SD_TRY(sd_path_look(&kind, path, err));
    SD_TRY(open_fresh(out, kind, path, &key, in->recipe->data.prepared != NULL, err));
    if (*out) return SD_OK;
    SD_CHECK(!in->recipe->data.prepared || kind == SD_PATH_NONE, err, SD_EINVAL,
             "data.prepared: %s was made from other sources or options than this recipe's, or is "
             "damaged; remove it to have it made again, or give another path",
             path);
    if (in->folder->scratch) {
        if (in->recipe->data.prepared) SD_TRY(sd_check_writable_whole(path, err));
        made = sd_path_join(in->folder->scratch, what);
        SD_CHECK_ALLOC(made, err);
        path = made;
    }
    st = sd_dataset_prepare(path, o, in->base->model, &report, err);
    if (st == SD_EFORMAT && report.records == 0 && report.skipped == 0 && report.left_out > 0) {
        st = SD_OK;
        goto out;
    }
    SD_TRY(st);
    sd_run_say(in->o,
               "%s: %lld records, %lld tokens (%lld supervised) in %lld rows, longest %lld%s", what,
               (long long)report.records, (long long)report.tokens, (long long)report.supervised,
               (long long)report.rows, (long long)report.longest,
               report.skipped ? "; some were skipped:" : "");
    if (report.skipped)
        sd_run_say(in->o,
                   "  %lld skipped: %lld longer than %lld tokens, %lld without a learnt token",
                   (long long)report.skipped, (long long)report.overlong,
                   (long long)in->recipe->data.sequence_len, (long long)report.empty);
    SD_TRY(sd_dataset_open(out, path, err));
out:
    free(made);
    return st;
}

/// What turned its records into tokens is what the run's adapter is to be served with.
static sd_status check_template(const inputs *in, const sd_dataset *d, const char *path,
                                sd_error *err) {
    sd_status st = SD_OK;
    const sd_model *m = in->base->model;
    sd_sha256 is = {{0}};
    const char *was = sd_dataset_chat_template(d);
    if (sd_model_template_is_taken(m)) {
        const char *source = sd_template_source(m->chat);
        SD_TRY(sd_sha256_of(&is, source, strlen(source), err));
    }
    SD_CHECK(strcmp(was ? was : "", is.hex) == 0, err, SD_EINVAL,
             "%s: was prepared with %s%.12s, and this run has %s%.12s; make data.chat_template the "
             "one that it was prepared with, or prepare it again",
             path, was ? "the chat template of SHA-256 " : "the model's own chat template",
             was ? was : "", is.hex[0] ? "the one of SHA-256 " : "the model's own", is.hex);
out:
    return st;
}

static sd_status check_fits(const inputs *in, sd_dataset *d, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_dataset_expect(d, in->base->model->tokenizer, err));
    SD_CHECK(sd_dataset_sequence_len(d) == in->recipe->data.sequence_len, err, SD_EINVAL,
             "%s: has rows of %d tokens, data.sequence_len is %lld; make them equal", path,
             sd_dataset_sequence_len(d), (long long)in->recipe->data.sequence_len);
    SD_TRY(check_template(in, d, path, err));
out:
    return st;
}

static sd_status open_train(sd_run_data *out, const inputs *in, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    const sd_recipe *e = in->recipe;
    sd_data_source sources[SD_RECIPE_MAX_SOURCES];
    sd_prepare_options o;
    fill_options(&o, sources, in, &e->data.train);
    o.max_records = e->data.max_records;
    if (e->data.val_size > 0) o.keep_from = e->data.val_size, o.keep_to = 1;
    if (e->data.train.n == 0) {
        if (!e->data.prepared)
            return sd_recipe_fail(e, "data.train", err,
                                  "no file is given; add e.g. data.train.0.path=FILE");
        if (e->data.val_size > 0)
            return sd_recipe_fail(e, "data.val_size", err,
                                  "a prepared file cannot be split; give 0 and data.eval, or "
                                  "data.train");
        SD_TRY(sd_dataset_open(&out->train_set, path, err));
    } else {
        SD_TRY(open_or_prepare(&out->train_set, in, path, "training data", &o, err));
        SD_CHECK(out->train_set, err, SD_EFORMAT,
                 "data.val_size %g leaves no record for training; lower it", e->data.val_size);
    }
    SD_TRY(check_fits(in, out->train_set, path, err));
    SD_TRY(sd_rows_open(&out->train, out->train_set, err));
    SD_CHECK(out->train.labelled > 0, err, SD_EFORMAT,
             "%s: no row has a supervised token; check data.loss_on and prepare the data again",
             path);
out:
    return st;
}

static sd_status open_eval(sd_run_data *out, const inputs *in, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    const sd_recipe *e = in->recipe;
    sd_data_source sources[SD_RECIPE_MAX_SOURCES];
    sd_prepare_options o;
    bool split = e->data.eval.n == 0;
    if (split && e->data.val_size <= 0) return SD_OK;
    fill_options(&o, sources, in, split ? &e->data.train : &e->data.eval);
    if (split) {
        o.keep_to = e->data.val_size;
        double share = e->data.val_size / (1 - e->data.val_size);
        o.max_records = (int64_t)ceil((double)e->data.max_records * share);
    }
    SD_TRY(open_or_prepare(&out->eval_set, in, path, "held-out data", &o, err));
    if (!out->eval_set) {
        sd_run_say(in->o,
                   "held-out data: data.val_size %g of so few records is none; no evaluation",
                   e->data.val_size);
        return SD_OK;
    }
    SD_TRY(check_fits(in, out->eval_set, path, err));
    SD_TRY(sd_rows_open(&out->eval, out->eval_set, err));
out:
    return st;
}

static void count(sd_run_data *d, const sd_recipe *e) {
    sd_run_counts *c = &d->counts;
    d->order = (sd_order){.rows = &d->train,
                          .seed = (uint64_t)e->seed,
                          .shuffle = e->data.shuffle,
                          .batch_rows = e->train.batch_rows,
                          .batch_tokens = e->train.batch_tokens};
    c->epoch_steps = sd_order_steps(&d->order, 1, NULL);
    c->steps = sd_order_steps(&d->order, e->train.max_steps ? 1 : e->train.epochs, &c->step_tokens);
    if (e->train.max_steps) c->steps = e->train.max_steps;
    c->rows = d->train.n;
    c->records = sd_dataset_records(d->train_set);
    c->tokens = d->train.total;
    c->supervised = d->train.labelled;
    c->eval_records = d->eval_set ? sd_dataset_records(d->eval_set) : 0;
}

sd_status sd_run_open_data(sd_run_data *out, const sd_run_options *o, const sd_recipe *recipe,
                           const sd_run_base *base, const sd_run_folder *folder, bool of_0_4,
                           sd_error *err) {
    sd_status st = SD_OK;
    const inputs in = {o, recipe, base, folder, of_0_4};
    const sd_model *m = base->model;
    const char *given = recipe->data.prepared;
    char *train = NULL, *eval = NULL;
    *out = (sd_run_data){0};
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: has no tokenizer (%s); give a model with one",
             m->path, m->tokenizer_error ? m->tokenizer_error : "none inside");
    train = given ? sd_strdup(given) : sd_path_join(folder->data_path, "train.h5");
    eval = given ? sd_sprintf("%s.eval.h5", given) : sd_path_join(folder->data_path, "eval.h5");
    SD_CHECK_ALLOC(train, err);
    SD_CHECK_ALLOC(eval, err);
    if (!given && !folder->scratch) SD_TRY(sd_mkdirs(folder->data_path, err));
    SD_TRY(open_train(out, &in, train, err));
    SD_TRY(open_eval(out, &in, eval, err));
    count(out, recipe);
out:
    free(train);
    free(eval);
    return st;
}

void sd_run_close_data(sd_run_data *d) {
    sd_rows_close(&d->train);
    sd_rows_close(&d->eval);
    sd_dataset_close(d->train_set);
    sd_dataset_close(d->eval_set);
    *d = (sd_run_data){0};
}
