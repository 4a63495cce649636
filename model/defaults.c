// Files of specdec's own are believed or refused: a default in the place of one that is damaged would
// be another model. What others write follows conventions that change, so what is not understood
// there is left out with a warning.
#include "model/defaults.h"

#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "model/model_private.h"

#include <math.h>
#include <string.h>

enum { MAX_FILE = 1 << 20 };

typedef struct {
    double least, most;
    bool whole;
} range;

const char *const sd_default_name[SD_DEFAULTS] = {
#define NAME(index, name, least, most, own, whole) name,
    SD_DEFAULT_LIST(NAME)
#undef NAME
};
const char *const sd_decision_name[SD_DECISION_KINDS] = {"yes_no", "choice", "score"};
static const range ranges[SD_DEFAULTS] = {
#define RANGE(index, name, least, most, own, whole) {least, most, whole},
    SD_DEFAULT_LIST(RANGE)
#undef RANGE
};

void sd_defaults_free(sd_defaults *d) {
    free(d->system);
    *d = (sd_defaults){0};
}

bool sd_defaults_any(const sd_defaults *d) {
    for (int i = 0; i < SD_DEFAULTS; i++)
        if (d->from[i] != SD_FROM_NOTHING) return true;
    for (int i = 0; i < SD_DECISION_KINDS; i++)
        if (d->decision_temperature[i] > 0) return true;
    return d->system != NULL;
}

static void set(sd_defaults *d, sd_default i, double value, sd_default_source from) {
    d->value[i] = value;
    d->from[i] = from;
}

static bool in_range(sd_default i, double v) {
    return v >= ranges[i].least && v <= ranges[i].most && (!ranges[i].whole || v == floor(v));
}

void sd_defaults_judged(sd_defaults *d, int max_tokens) {
    set(d, SD_DEFAULT_TEMPERATURE, 0, SD_FROM_RUN);
    set(d, SD_DEFAULT_TOP_P, 1, SD_FROM_RUN);
    set(d, SD_DEFAULT_TOP_K, 0, SD_FROM_RUN);
    set(d, SD_DEFAULT_MIN_P, 0, SD_FROM_RUN);
    set(d, SD_DEFAULT_MAX_TOKENS, max_tokens, SD_FROM_RUN);
}

void sd_defaults_under(sd_defaults *d, const sd_defaults *below) {
    for (int i = 0; i < SD_DEFAULTS; i++)
        if (d->from[i] == SD_FROM_NOTHING) set(d, (sd_default)i, below->value[i], below->from[i]);
}

// ---- specdec's own files

static sd_status read_field(sd_defaults *d, sd_default i, const json_t *sampling, const char *file,
                            sd_error *err) {
    const json_t *v = sd_key(sampling, sd_default_name[i]);
    char want[80];
    if (!v) return SD_OK;
    if (!json_is_number(v) || !in_range(i, json_number_value(v))) {
        snprintf(want, sizeof want, "a %snumber from %.10g to %.10g",
                 ranges[i].whole ? "whole " : "", ranges[i].least, ranges[i].most);
        return sd_key_refuse(v, sd_default_name[i], want, file, err);
    }
    set(d, i, json_number_value(v), SD_FROM_RUN);
    return SD_OK;
}

static sd_status read_decisions(sd_defaults *d, const json_t *serve, const char *file,
                                sd_error *err) {
    sd_status st = SD_OK;
    json_t *decisions, *temperature;
    SD_TRY(sd_key_object(&decisions, serve, "decisions", file, err));
    SD_TRY(sd_key_object(&temperature, decisions, "temperature", file, err));
    for (int i = 0; i < SD_DECISION_KINDS; i++) {
        const json_t *v = sd_key(temperature, sd_decision_name[i]);
        if (!v) continue;
        d->decision_temperature[i] = json_number_value(v);
        if (!(d->decision_temperature[i] >= .01 && d->decision_temperature[i] <= 100))
            return sd_key_refuse(v, sd_decision_name[i], "a number from 0.01 to 100", file, err);
    }
out:
    return st;
}

sd_status sd_defaults_read(sd_defaults *d, const json_t *serve, const char *file, sd_error *err) {
    sd_status st = SD_OK;
    json_t *sampling;
    if (!serve || json_is_null(serve)) return SD_OK;
    if (!json_is_object(serve)) return sd_key_refuse(serve, "serve", "an object", file, err);
    const json_t *text = sd_key(serve, "system");
    SD_TRY(sd_key_object(&sampling, serve, "sampling", file, err));
    for (int i = 0; i < SD_DEFAULTS; i++) SD_TRY(read_field(d, (sd_default)i, sampling, file, err));
    SD_TRY(read_decisions(d, serve, file, err));
    SD_TRY(sd_key_number(&d->system_share, serve, "system_share", 0, file, err));
    if (d->system_share < 0 || d->system_share > 1)
        return sd_key_refuse(sd_key(serve, "system_share"), "system_share", "a number from 0 to 1",
                             file, err);
    if (!text) goto out;
    if (!json_is_string(text)) return sd_key_refuse(text, "system", "a text", file, err);
    SD_CHECK(json_string_length(text) <= SD_MAX_SYSTEM_TEXT, err, SD_ELIMIT,
             "%s: system has %zu bytes and at most %d are taken; shorten it, or start with "
             "--no-run-defaults",
             file, json_string_length(text), SD_MAX_SYSTEM_TEXT);
    d->system = sd_strdup(json_string_value(text));
    SD_CHECK_ALLOC(d->system, err);
out:
    return st;
}

json_t *sd_defaults_json(const sd_defaults *d) {
    json_t *sampling = json_object(), *o = NULL;
    bool ok = sampling != NULL;
    for (int i = 0; ok && i < SD_DEFAULTS; i++) {
        if (d->from[i] == SD_FROM_NOTHING) continue;
        double v = d->value[i];
        json_t *number = v == floor(v) ? json_integer((json_int_t)v) : json_real(v);
        ok = json_object_set_new(sampling, sd_default_name[i], number) == 0;
    }
    if (ok)
        o = json_pack("{s:s?, s:f, s:O}", "system", d->system, "system_share", d->system_share,
                      "sampling", sampling);
    json_decref(sampling);
    json_t *temperature = json_object();
    for (int i = 0; i < SD_DECISION_KINDS; i++)
        if (d->decision_temperature[i] > 0)
            ok &= json_object_set_new(temperature, sd_decision_name[i],
                                      json_real(d->decision_temperature[i])) == 0;
    if (json_object_size(temperature) > 0)
        ok &= json_object_set_new(o, "decisions", json_pack("{s:O}", "temperature", temperature)) ==
              0;
    json_decref(temperature);
    if (!ok) json_decref(o);
    return ok ? o : NULL;
}

sd_status sd_defaults_path(char **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    *out = NULL;
    SD_TRY(sd_path_look(&kind, path, err));
    *out = kind == SD_PATH_FOLDER ? sd_path_join(path, "specdec.json")
                                  : sd_sprintf("%s.specdec.json", path);
    SD_CHECK_ALLOC(*out, err);
out:
    return st;
}

sd_status sd_defaults_read_beside(sd_defaults *d, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *file = NULL;
    json_t *root = NULL;
    sd_path_kind kind;
    SD_TRY(sd_defaults_path(&file, path, err));
    SD_TRY(sd_path_look(&kind, file, err));
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(sd_json_read(&root, file, MAX_FILE, JSON_REJECT_DUPLICATES,
                        "restore it, or start with --no-run-defaults", err));
    SD_TRY(sd_defaults_read(d, json_object_get(root, "serve"), file, err));
out:
    json_decref(root);
    free(file);
    return st;
}

sd_status sd_defaults_write_beside(const sd_defaults *d, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *file = NULL, *text = NULL, *page = NULL;
    json_t *root = json_pack("{s:i, s:o}", "specdec", 1, "serve", sd_defaults_json(d));
    SD_CHECK_ALLOC(root, err);
    SD_TRY(sd_defaults_path(&file, path, err));
    SD_TRY(sd_json_dump(&text, root, JSON_INDENT(2) | JSON_REAL_PRECISION(9), err));
    page = sd_sprintf("%s\n", text);
    SD_CHECK_ALLOC(page, err);
    SD_TRY(sd_file_write(file, page, strlen(page), err));
out:
    json_decref(root);
    free(text);
    free(page);
    free(file);
    return st;
}

// ---- files of others

static void take(sd_defaults *d, sd_default i, double v, const char *key, const char *file,
                 sd_default_source from) {
    if (d->from[i] != SD_FROM_NOTHING) return;
    if (i == SD_DEFAULT_TOP_K && v == -1) v = 0; // "all" in both conventions
    if (in_range(i, v))
        set(d, i, v, from);
    else
        sd_log(SD_LOG_WARN, "%s: %s is %g, which is no value here; it is left out", file, key, v);
}

static void take_config(sd_defaults *d, const json_t *config, const char *file,
                        sd_default_source from) {
    static const char *const keys[SD_DEFAULTS] = {"temperature", "top_p", "top_k", "min_p",
                                                  "max_new_tokens"};
    if (json_is_false(json_object_get(config, "do_sample")))
        take(d, SD_DEFAULT_TEMPERATURE, 0, "do_sample", file, from);
    for (int i = 0; i < SD_DEFAULTS; i++) {
        const json_t *v = sd_key(config, keys[i]);
        if (json_is_number(v))
            take(d, (sd_default)i, json_number_value(v), keys[i], file, from);
        else if (v)
            sd_log(SD_LOG_WARN, "%s: %s is %s, where a number is needed; it is left out", file,
                   keys[i], sd_json_type_word(v));
    }
}

sd_status sd_defaults_add_config(sd_defaults *d, const char *folder, sd_default_source from,
                                 sd_error *err) {
    sd_status st = SD_OK;
    sd_error why;
    json_t *config = NULL;
    sd_path_kind kind;
    char *file = sd_path_join(folder, "generation_config.json");
    SD_CHECK_ALLOC(file, err);
    SD_TRY(sd_path_look(&kind, file, err));
    if (kind == SD_PATH_NONE) goto out;
    sd_status read = sd_json_read(&config, file, MAX_FILE, 0, NULL, &why);
    SD_CHECK(read != SD_ENOMEM, err, SD_ENOMEM, "%s", why.message);
    if (read == SD_OK)
        take_config(d, config, file, from);
    else
        sd_log(SD_LOG_WARN, "%s; it is left out", why.message);
out:
    json_decref(config);
    free(file);
    return st;
}

static void add_gguf(sd_defaults *d, const sd_gguf *g) {
    static const struct {
        sd_default i;
        const char *key;
    } keys[] = {{SD_DEFAULT_TEMPERATURE, "general.sampling.temp"},
                {SD_DEFAULT_TOP_P, "general.sampling.top_p"},
                {SD_DEFAULT_TOP_K, "general.sampling.top_k"},
                {SD_DEFAULT_MIN_P, "general.sampling.min_p"}};
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        float v;
        bool has;
        sd_error why;
        if (sd_gguf_f32(g, keys[k].key, &v, &has, &why) != SD_OK)
            sd_log(SD_LOG_WARN, "%s; it is left out", why.message);
        else if (has) // as it was written: 0.7 and not 0.699999988
            take(d, keys[k].i, round((double)v * 1e6) / 1e6, keys[k].key, sd_gguf_path(g),
                 SD_FROM_MODEL);
    }
}

sd_status sd_defaults_of_model(sd_defaults *d, const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    if (!m->path) return SD_OK;
    SD_TRY(sd_defaults_read_beside(d, m->path, err));
    if (sd_model_is_gguf(m))
        add_gguf(d, m->owned->gguf);
    else
        SD_TRY(sd_defaults_add_config(d, m->path, SD_FROM_MODEL, err));
out:
    return st;
}
