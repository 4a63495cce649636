#include "cli/decoding.h"
#include "base/files/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/open_model.h"
#include "decode/draft/open.h"
#include "model/adapter/chat_template.h"
#include "model/adapter/defaults.h"
#include "model/chat.h"
#include "model/infer/weight_cache/cache.h"

#include <string.h>

// An adapter given as a run's folder brings the index of its training completions along, unless
// another one is given with -d.
static sd_status open_index(sd_decoding *d, const sd_decoding_args *a, sd_error *err) {
    sd_status st = SD_OK;
    sd_draft_kind given = SD_DRAFT_NONE;
    if (a->draft) SD_TRY(sd_draft_look(&given, NULL, a->draft, err));
    if (given != SD_DRAFT_CORPUS && a->spec != SD_SPEC_OFF)
        SD_TRY(sd_draft_of_run(&d->corpus, a->adapter, a->adapter, d->adapter, d->model, err));
out:
    return st;
}

// The user's, else that of the adapter, else the model's own.
static sd_status choose_template(sd_model *m, const sd_decoding_args *a, sd_error *err) {
    sd_template *t;
    if (!a->chat_template)
        return a->adapter ? sd_adapter_bring_template(m, a->adapter, err) : SD_OK;
    sd_status st = sd_chat_template_read(&t, a->chat_template, err);
    return st == SD_OK ? sd_model_take_template(m, t, err) : st;
}

sd_status sd_decoding_load(sd_decoding *d, const sd_model_args *m, const sd_decoding_args *a,
                           sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_open_model(&d->model, &d->cache_dir, m, err));
    if (a->adapter) {
        SD_TRY(sd_adapter_open(&d->adapter, a->adapter, d->model, m->other_base, err));
        SD_TRY(open_index(d, a, err));
    }
    SD_TRY(choose_template(d->model, a, err));
out:
    return st;
}

sd_status sd_decoding_start(sd_decoding *d, const sd_model_args *m, const sd_decoding_args *a,
                            int slots, int64_t need, sd_error *err) {
    sd_status st = SD_OK;
    int64_t ctx = a->ctx, train = d->model->hp.ctx_train;
    const sd_backend *backend;
    int device;
    SD_TRY(sd_device_choose(&backend, &device, m->device, err));
    if (ctx == 0 && need > 4096) ctx = train > 0 && need > train ? train : need;
    sd_spec_mode spec = (sd_spec_mode)a->spec;
    SD_CHECK(spec != SD_SPEC_CORPUS || a->draft || d->corpus, err, SD_EINVAL,
             "--spec index needs a corpus index; give one with -d, or a run's folder with -a");
    SD_TRY(sd_engine_open(&d->engine, d->model,
                          &(sd_engine_options){.ctx = (int)ctx,
                                               .slots = slots,
                                               .prefill_chunk = (int)m->prefill_chunk,
                                               .threads = (int)m->threads,
                                               .compute = (sd_compute)m->compute,
                                               .kv = (sd_kv_type)m->kv,
                                               .kv_memory = (size_t)a->kv_memory << 20,
                                               .no_prefix_cache = a->prefix_cache != 0,
                                               .backend = backend,
                                               .device = device,
                                               .spec = spec,
                                               .spec_length = (int)a->spec_length,
                                               .draft = a->draft,
                                               .draft_adapter = a->draft_adapter,
                                               .draft_kv = a->draft_kv,
                                               .trace = d->trace,
                                               .cache = {d->cache_dir, SD_WEIGHT_CACHE_LEAST}},
                          err));
out:
    return st;
}

void sd_decoding_close(sd_decoding *d) {
    sd_engine_close(d->engine);
    sd_corpus_close(d->corpus);
    sd_adapter_release(d->adapter);
    sd_model_release(d->model);
    free(d->cache_dir);
    sd_defaults_free(&d->defaults);
    *d = (sd_decoding){0};
}

sd_sampling sd_decoding_sampling(const sd_decoding_args *a) {
    return (sd_sampling){.temperature = (float)a->temperature,
                         .top_k = (int)a->top_k,
                         .top_p = (float)a->top_p,
                         .min_p = (float)a->min_p,
                         .seed = (uint64_t)a->seed};
}

const char *sd_default_source_name(sd_default_source s) {
    static const char *const names[] = {"the options", "the model's generation_config",
                                        "the adapter's generation_config", "its run"};
    return names[s];
}

// "temperature 0 (its run), max_tokens 512 (its run)"
static void say_changes(const sd_asked *asked, const sd_defaults *d) {
    sd_buf b = sd_buf_make(1024);
    bool ok = true;
    for (int i = 0; ok && i < SD_DEFAULTS; i++)
        if (!asked->given[i] && d->from[i] != SD_FROM_NOTHING && d->value[i] != asked->value[i])
            ok = sd_buf_printf(&b, "%s%s %.10g (%s)", b.len ? ", " : "", sd_default_name[i],
                               d->value[i], sd_default_source_name(d->from[i]));
    if (ok && b.len) sd_log(SD_LOG_INFO, "asked with %s; --no-run-defaults goes without", b.data);
    sd_buf_free(&b);
}

sd_status sd_decoding_defaults(sd_decoding *d, sd_decoding_args *a, int64_t *max_tokens, bool model,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_defaults below = {0};
    if (a->no_run_defaults) return SD_OK;
    if (a->adapter) SD_TRY(sd_adapter_defaults(&d->defaults, a->adapter, err));
    // A merged export is a tuned model too: what a run wrote beside it counts for every verb.
    SD_TRY(sd_defaults_of_model(&below, d->model, err));
    for (int i = 0; i < SD_DEFAULTS && !model; i++)
        if (below.from[i] != SD_FROM_RUN) below.from[i] = SD_FROM_NOTHING;
    sd_defaults_under(&d->defaults, &below);
    if (!a->adapter) {
        d->defaults.system = below.system, below.system = NULL;
        d->defaults.system_share = below.system_share;
    }
    sd_asked asked = {
        .value = {a->temperature, a->top_p, (double)a->top_k, a->min_p, (double)*max_tokens}};
    memcpy(asked.given, a->given, sizeof asked.given);
    say_changes(&asked, &d->defaults);
    sd_defaults_fill(&asked, &d->defaults);
    a->temperature = asked.value[SD_DEFAULT_TEMPERATURE];
    a->top_p = asked.value[SD_DEFAULT_TOP_P];
    a->top_k = (int64_t)asked.value[SD_DEFAULT_TOP_K];
    a->min_p = asked.value[SD_DEFAULT_MIN_P];
    *max_tokens = (int64_t)asked.value[SD_DEFAULT_MAX_TOKENS];
out:
    sd_defaults_free(&below);
    return st;
}

sd_status sd_system_text(char **out, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    size_t len;
    *out = NULL;
    if (text[0] == '@') {
        SD_TRY(sd_stream_read(out, &len, text + 1, (size_t)1 << 20, err));
        SD_CHECK(strlen(*out) == len, err, SD_EFORMAT,
                 "%s: has a NUL character; give a file of text", text + 1);
        while (len > 0 && (*out)[len - 1] == '\n') (*out)[--len] = '\0';
    } else {
        *out = sd_strdup(text);
        SD_CHECK_ALLOC(*out, err);
    }
out:
    return st;
}

void sd_decoding_announce(const sd_decoding *d) {
    sd_engine_stats s;
    sd_engine_get_stats(d->engine, &s);
    sd_log(SD_LOG_INFO, "context %d tokens, %.1f MiB for keys and values", s.ctx,
           (double)s.kv_bytes / (1 << 20));
    if (s.draft_kv_bytes > 0)
        sd_log(SD_LOG_INFO, "%.1f MiB at most for those of the draft model",
               (double)s.draft_kv_bytes / (1 << 20));
}

json_t *sd_spec_json(const sd_spec_stats *s) {
    json_t *by = json_object();
    for (int i = 0; i < SD_MAX_DRAFTERS && s->by[i].name[0]; i++)
        if (s->by[i].drafted > 0)
            json_object_set_new(by, s->by[i].name,
                                json_pack("{s:I, s:I}", "drafted", (json_int_t)s->by[i].drafted,
                                          "accepted", (json_int_t)s->by[i].accepted));
    double mean = s->rounds > 0 ? (double)s->accepted / (double)s->rounds : 0;
    return json_pack("{s:f, s:I, s:I, s:I, s:o}", "mean_accepted", mean, "rounds",
                     (json_int_t)s->rounds, "drafted", (json_int_t)s->drafted, "accepted",
                     (json_int_t)s->accepted, "by_source", by);
}

double sd_decode_speed(const sd_request_stats *s) {
    return s->generated > 1 && s->decode_ms > 0 ? (s->generated - 1) / s->decode_ms * 1e3 : 0;
}
