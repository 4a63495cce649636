// What a model makes of its rows beside answers: one vector, or the relevance of a pair.
//
//   GGUF     <arch>.pooling_type              0 none, 1 mean, 2 first row, 3 last row, 4 rank: a classifier over the last
//            <arch>.classifier.output_labels  of "yes" and "no", where the classifier has two rows
//            <arch>.attention.causal          must be true
//            tokenizer.chat_template.rerank   a pair, with {query} and {document}
//   folder   config.json: architectures       ...ForSequenceClassification: a classifier over the last row
//            modules.json                     sentence-transformers': Transformer, Pooling, Normalize
//            1_Pooling/config.json            pooling_mode, or one of pooling_mode_... that is true
#include "base/files/file.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "model/load/read.h"

#include <stdio.h>
#include <string.h>

enum { MAX_JSON = 1 << 20, MAX_PAIR = 64 << 10 };

// One label is the relevance; of two it is "yes" against "no".
static void rank_by_labels(sd_model *m, int yes, int no) {
    if (m->output.labels == 1) sd_model_rank_by(m, 0, -1);
    if (m->output.labels == 2 && yes >= 0 && no >= 0) sd_model_rank_by(m, yes, no);
}

// ---- GGUF

sd_status sd_pooling_of_gguf(sd_model *m, sd_gguf_keys *k, sd_error *err) {
    static const sd_pooling kinds[] = {SD_POOL_NONE, SD_POOL_MEAN, SD_POOL_OTHER, SD_POOL_LAST,
                                       SD_POOL_LAST};
    sd_status st = SD_OK;
    sd_gguf_string s;
    bool has, causal = true;
    int type, yes = -1, no = -1;
    size_t n;
    char key[128];
    SD_TRY(sd_gguf_int_or(k, "pooling_type", 0, &type, err));
    snprintf(key, sizeof key, "%s.attention.causal", k->arch);
    SD_TRY(sd_gguf_bool(k->g, key, &causal, NULL, err));
    SD_CHECK(causal, err, SD_EFORMAT,
             "%s: %s is false, and attention to rows behind is not supported", m->path, key);
    m->output.pooling = type >= 0 && type <= 4 ? kinds[type] : SD_POOL_OTHER;
    m->output.unit = true; // as llama-server does with all of them
    snprintf(key, sizeof key, "%s.classifier.output_labels", k->arch);
    SD_TRY(sd_gguf_strings(k->g, key, &n, err));
    for (int i = 0; i < (int)n && i < SD_MAX_LABELS; i++) {
        if (!sd_gguf_array_str(k->g, key, (size_t)i, &s)) continue;
        if (s.len == 3 && memcmp(s.data, "yes", 3) == 0) yes = i;
        if (s.len == 2 && memcmp(s.data, "no", 2) == 0) no = i;
    }
    if (yes < m->output.labels && no < m->output.labels) rank_by_labels(m, yes, no);
    SD_TRY(sd_gguf_str(k->g, "tokenizer.chat_template.rerank", &s, &has, err));
    if (!has || s.len > MAX_PAIR || memchr(s.data, 0, s.len)) goto out;
    m->output.pair = sd_strndup(s.data, s.len);
    SD_CHECK_ALLOC(m->output.pair, err);
out:
    return st;
}

// ---- folders

// The last word of "sentence_transformers.models.Pooling".
static bool is_module(const json_t *module, const char *word) {
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *dot = type ? strrchr(type, '.') : NULL;
    return type && strcmp(dot ? dot + 1 : type, word) == 0;
}

static sd_pooling pooling_of(const json_t *config) {
    const char *mode = json_string_value(json_object_get(config, "pooling_mode")), *key;
    json_t *v;
    sd_pooling out = SD_POOL_NONE;
    if (mode)
        return strcmp(mode, "mean") == 0        ? SD_POOL_MEAN
               : strcmp(mode, "lasttoken") == 0 ? SD_POOL_LAST
                                                : SD_POOL_OTHER;
    json_object_foreach((json_t *)(uintptr_t)config, key, v) {
        if (strncmp(key, "pooling_mode_", 13) != 0 || !json_is_true(v)) continue;
        const sd_pooling kind = strcmp(key, "pooling_mode_mean_tokens") == 0 ? SD_POOL_MEAN
                                : strcmp(key, "pooling_mode_lasttoken") == 0 ? SD_POOL_LAST
                                                                             : SD_POOL_OTHER;
        out = out == SD_POOL_NONE ? kind : SD_POOL_OTHER; // several are put one behind another
    }
    return out;
}

static sd_status read_pooling(sd_model *m, const json_t *module, sd_error *err) {
    sd_status st = SD_OK;
    const char *at = json_string_value(json_object_get(module, "path"));
    char *folder = NULL, *path = NULL;
    json_t *config = NULL;
    m->output.pooling = SD_POOL_OTHER;
    if (!at || strchr(at, '/') || strcmp(at, "..") == 0)
        goto out; // it stands in the model's folder
    folder = sd_path_join(m->path, at);
    SD_CHECK_ALLOC(folder, err);
    SD_TRY(sd_json_read_in(&config, &path, folder, "config.json", MAX_JSON, NULL, err));
    if (config) m->output.pooling = pooling_of(config);
out:
    json_decref(config);
    free(path);
    free(folder);
    return st;
}

// modules.json is an array.
static sd_status read_modules(sd_model *m, const json_t *list, sd_error *err) {
    sd_status st = SD_OK;
    size_t i;
    json_t *module;
    json_array_foreach(list, i, module) {
        if (is_module(module, "Transformer")) continue;
        if (is_module(module, "Pooling"))
            SD_TRY(read_pooling(m, module, err));
        else if (is_module(module, "Normalize"))
            m->output.unit = true;
        else
            m->output.pooling = SD_POOL_OTHER;
    }
out:
    return st;
}

sd_status sd_pooling_of_folder(sd_model *m, const json_t *config, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list = NULL;
    char *text = NULL, *path = sd_path_join(m->path, "modules.json");
    size_t len;
    sd_path_kind kind;
    SD_CHECK_ALLOC(path, err);
    const char *first =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *classifies = first ? strstr(first, "ForSequenceClassification") : NULL;
    if (classifies && m->output.labels > 0) {
        m->output.pooling = SD_POOL_LAST;
        rank_by_labels(m, -1, -1);
    }
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(sd_file_read(&text, &len, path, MAX_JSON, err));
    SD_TRY(sd_json_load(&list, text, len, JSON_REJECT_DUPLICATES, NULL, err));
    SD_CHECK(json_is_array(list), err, SD_EFORMAT,
             "%s: is no list of modules; correct it, or take it away", path);
    SD_TRY(read_modules(m, list, err));
out:
    json_decref(list);
    free(text);
    free(path);
    return st;
}
