#include "cli/decoding.h"
#include "base/files/file.h"
#include "base/log.h"
#include "cli/open_model.h"

#include <string.h>

static sd_status is_index(bool *yes, const char *path, sd_error *err) {
    char magic[8] = {0};
    size_t got;
    sd_path_kind kind, in, below;
    sd_status st = SD_OK;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_FOLDER) {
        SD_TRY(sd_path_look_in(&in, path, "corpus.idx", err));
        SD_TRY(sd_path_look_in(&below, path, "draft/corpus.idx", err));
        *yes = in != SD_PATH_NONE || below != SD_PATH_NONE;
    } else {
        SD_TRY(sd_file_head(magic, sizeof magic, &got, path, err));
        *yes = memcmp(magic, "SDCORPUS", 8) == 0;
    }
out:
    return st;
}

// An adapter given as a run's folder brings the index of its training completions along, unless
// another one is given with -d.
static sd_status open_index(sd_decoding *d, const sd_decoding_args *a, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_path_join(a->adapter, "draft/corpus.idx");
    SD_CHECK_ALLOC(path, err);
    bool given = false;
    sd_path_kind kind;
    if (a->draft) SD_TRY(is_index(&given, a->draft, err));
    if (given || a->spec == SD_SPEC_OFF) goto out;
    SD_TRY(sd_path_look(&kind, path, err)); // below an adapter that is a file there is none
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(sd_corpus_open(&d->corpus, path, err));
    const char *want = d->model->tokenizer ? sd_tokenizer_fingerprint(d->model->tokenizer) : "";
    SD_CHECK(strcmp(want, sd_corpus_tokenizer(d->corpus)) == 0, err, SD_EINVAL,
             "%s: this index was made with another tokenizer than the model's; make it again or "
             "run with --spec off",
             path);
    const sd_sha256 *made_for = sd_corpus_adapter(d->corpus);
    if (made_for && made_for->hex[0] && !sd_sha256_equal(made_for, &d->adapter->sha256))
        sd_log(SD_LOG_WARN, "%s: made for adapter %.12s, this one is %.12s; drafts may fit less",
               path, made_for->hex, d->adapter->sha256.hex);
out:
    free(path);
    return st;
}

sd_status sd_decoding_load(sd_decoding *d, const sd_model_args *m, const sd_decoding_args *a,
                           sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_open_model(&d->model, m, err));
    if (a->adapter) {
        SD_TRY(sd_adapter_open(&d->adapter, a->adapter, d->model, err));
        SD_TRY(open_index(d, a, err));
    }
out:
    return st;
}

sd_status sd_decoding_start(sd_decoding *d, const sd_model_args *m, const sd_decoding_args *a,
                            int slots, int64_t need, sd_error *err) {
    sd_status st = SD_OK;
    int64_t ctx = a->ctx, train = d->model->hp.ctx_train;
    if (ctx == 0 && need > 4096) ctx = train > 0 && need > train ? train : need;
    sd_spec_mode spec = (sd_spec_mode)a->spec;
    SD_CHECK(spec != SD_SPEC_INDEX || a->draft || d->corpus, err, SD_EINVAL,
             "--spec index needs a corpus index; give one with -d, or a run's folder with -a");
    SD_TRY(sd_engine_open(&d->engine, d->model,
                          &(sd_engine_options){.ctx = (int)ctx,
                                               .slots = slots,
                                               .prefill_chunk = (int)m->prefill_chunk,
                                               .threads = (int)m->threads,
                                               .compute = (sd_compute)m->compute,
                                               .kv = (sd_kv_type)m->kv,
                                               .spec = spec,
                                               .spec_length = (int)a->spec_length,
                                               .draft = a->draft},
                          err));
out:
    return st;
}

void sd_decoding_close(sd_decoding *d) {
    sd_engine_close(d->engine);
    sd_corpus_close(d->corpus);
    sd_adapter_release(d->adapter);
    sd_model_release(d->model);
    *d = (sd_decoding){0};
}

sd_sampling sd_decoding_sampling(const sd_decoding_args *a) {
    return (sd_sampling){.temperature = (float)a->temperature,
                         .top_k = (int)a->top_k,
                         .top_p = (float)a->top_p,
                         .min_p = (float)a->min_p,
                         .seed = (uint64_t)a->seed};
}

void sd_decoding_announce(const sd_decoding *d) {
    sd_engine_stats s;
    sd_engine_get_stats(d->engine, &s);
    sd_log(SD_LOG_INFO, "context %d tokens, %.1f MiB for keys and values", s.ctx,
           (double)s.kv_bytes / (1 << 20));
}

json_t *sd_spec_json(const sd_spec_stats *s) {
    json_t *by = json_object();
    for (int i = 0; i < SD_SOURCE_COUNT; i++)
        if (s->drafted_by[i] > 0)
            json_object_set_new(by, sd_source_name((sd_source)i),
                                json_pack("{s:I, s:I}", "drafted", (json_int_t)s->drafted_by[i],
                                          "accepted", (json_int_t)s->accepted_by[i]));
    double mean = s->rounds > 0 ? (double)s->accepted / (double)s->rounds : 0;
    return json_pack("{s:f, s:I, s:I, s:I, s:o}", "mean_accepted", mean, "rounds",
                     (json_int_t)s->rounds, "drafted", (json_int_t)s->drafted, "accepted",
                     (json_int_t)s->accepted, "by_source", by);
}

double sd_decode_speed(const sd_request_stats *s) {
    return s->generated > 1 && s->decode_ms > 0 ? (s->generated - 1) / s->decode_ms * 1e3 : 0;
}
