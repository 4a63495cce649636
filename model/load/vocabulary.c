#include "model/load/vocabulary.h"

#include "base/files/json_file.h"
#include "base/files/path.h"
#include "model/load/read.h"
#include "model/load/tokenizer_gguf.h"

// A tokenizer that is not understood is no reason to refuse a model: it runs on ids.
static sd_status keep_reason(sd_status st, char **why_not, const sd_error *why, sd_error *err) {
    if (st == SD_EFORMAT) {
        *why_not = sd_strdup(why->message);
        return *why_not ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
    }
    if (st != SD_OK && err) *err = *why;
    return st;
}

sd_status sd_read_gguf_tokenizer(sd_tokenizer **t, char **why_not, const sd_gguf *g,
                                 sd_error *err) {
    sd_error why = {0};
    *t = NULL;
    if (!sd_gguf_has_key(g, "tokenizer.ggml.model")) return SD_OK;
    return keep_reason(sd_tokenizer_from_gguf(t, g, &why), why_not, &why, err);
}

sd_status sd_read_folder_tokenizer(sd_tokenizer **t, char **why_not, const char *folder,
                                   sd_error *err) {
    sd_status st = SD_OK;
    sd_error why = {0};
    sd_path_kind kind;
    *t = NULL;
    SD_TRY(sd_path_look_in(&kind, folder, "tokenizer.json", err));
    if (kind != SD_PATH_NONE)
        return keep_reason(sd_tokenizer_from_folder(t, folder, &why), why_not, &why, err);
    SD_TRY(sd_path_look_in(&kind, folder, "tokenizer.model", err));
    if (kind == SD_PATH_NONE) goto out;
    st = sd_fail(&why, SD_EFORMAT,
                 "%s: SentencePiece's tokenizer.model alone is not read; write tokenizer.json "
                 "beside it: transformers' AutoTokenizer.from_pretrained(FOLDER) and its "
                 "save_pretrained(FOLDER) do",
                 folder);
    st = keep_reason(st, why_not, &why, err);
out:
    return st;
}

// ---- the vocabulary alone

static sd_status read_gguf(sd_vocabulary *v, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_gguf_open_whole(&v->gguf, v->path, err));
    SD_CHECK(!sd_gguf_str_is(v->gguf, "general.type", "adapter"), err, SD_EINVAL,
             "%s: is a LoRA adapter, not a model; give its base", v->path);
    SD_TRY(sd_read_gguf_tokenizer(&v->tokenizer, &v->tokenizer_error, v->gguf, err));
    const sd_gguf_tensor *e = sd_gguf_tensor_find(v->gguf, "token_embd.weight");
    if (e && e->n_dims == 2 && e->ne[1] <= INT32_MAX) v->V = (int)e->ne[1];
out:
    return st;
}

static sd_status read_folder(sd_vocabulary *v, sd_error *err) {
    enum { MAX_CONFIG = 16 << 20 };
    sd_status st = SD_OK;
    json_t *config = NULL;
    char *file = sd_path_join(v->path, "config.json");
    sd_path_kind kind;
    bool alone;
    SD_CHECK_ALLOC(file, err);
    SD_TRY(sd_path_look(&kind, file, err));
    SD_TRY(sd_folder_is_vocabulary(&alone, v->path, err));
    if (!alone) SD_TRY(sd_model_check_folder(v->path, err));
    SD_TRY(sd_read_folder_tokenizer(&v->tokenizer, &v->tokenizer_error, v->path, err));
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(sd_json_read(&config, file, MAX_CONFIG, 0, NULL, err));
    json_int_t V = json_integer_value(json_object_get(config, "vocab_size"));
    if (V > 0 && V <= INT32_MAX) v->V = (int)V;
out:
    json_decref(config);
    free(file);
    return st;
}

sd_status sd_vocabulary_open(sd_vocabulary **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    *out = NULL;
    sd_vocabulary *v = sd_alloc(1, sizeof *v);
    SD_CHECK_ALLOC(v, err);
    v->path = sd_strdup(path);
    SD_CHECK_ALLOC(v->path, err);
    SD_TRY(sd_path_look(&kind, path, err));
    SD_TRY(kind == SD_PATH_FOLDER ? read_folder(v, err) : read_gguf(v, err));
    if (v->tokenizer && sd_tokenizer_size(v->tokenizer) > v->V)
        v->V = sd_tokenizer_size(v->tokenizer);
    SD_CHECK(!sd_memory_lost(), err, SD_ENOMEM, "%s: out of memory", path);
    *out = v, v = NULL;
out:
    sd_vocabulary_close(v);
    return st;
}

void sd_vocabulary_close(sd_vocabulary *v) {
    if (!v) return;
    sd_tokenizer_close(v->tokenizer);
    sd_gguf_close(v->gguf);
    free(v->tokenizer_error);
    free(v->path);
    free(v);
}

bool sd_gguf_is_vocabulary(const sd_gguf *g) {
    return sd_gguf_tensor_count(g) == 0 && sd_gguf_has_key(g, "tokenizer.ggml.model");
}

static sd_status folder_has(bool *has, const char *folder, const char *const *names,
                            sd_error *err) {
    sd_status st = SD_OK;
    *has = false;
    for (; *names && !*has; names++) {
        sd_path_kind kind;
        SD_TRY(sd_path_look_in(&kind, folder, *names, err));
        *has = kind != SD_PATH_NONE;
    }
out:
    return st;
}

sd_status sd_folder_is_vocabulary(bool *alone, const char *folder, sd_error *err) {
    static const char *const tokenizers[] = {"tokenizer.json", "tokenizer.model", NULL},
                             *const others[] = {"config.json", "adapter_config.json",
                                                "manifest.json", "recipe.resolved.yaml", NULL};
    sd_status st = SD_OK;
    bool tokenizer, other;
    SD_TRY(folder_has(&tokenizer, folder, tokenizers, err));
    SD_TRY(folder_has(&other, folder, others, err));
    *alone = tokenizer && !other;
out:
    return st;
}

sd_status sd_vocabulary_is(bool *alone, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    sd_path_kind kind;
    *alone = false;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind == SD_PATH_FOLDER) {
        SD_TRY(sd_folder_is_vocabulary(alone, path, err));
    } else {
        SD_TRY(sd_gguf_open_whole(&g, path, err)); // a first part may have no tensors
        *alone = sd_gguf_is_vocabulary(g);
    }
out:
    sd_gguf_close(g);
    return st;
}

sd_status sd_refuse_vocabulary(const char *path, sd_error *err) {
    return sd_fail(
        err, SD_EINVAL,
        "%s: is a vocabulary without weights; it serves tokenize, detokenize and inspect, "
        "all else needs the model itself",
        path);
}
