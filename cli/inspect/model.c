// inspect: models.
#include "model/model.h"
#include "base/files/hash.h"
#include "cli/inspect/parts.h"
#include "model/load/source.h"

#include <string.h>

static void set_hash(json_t *o, const char *key, const char *source, size_t len) {
    sd_sha256 h;
    if (sd_sha256_of(&h, source, len, NULL) == SD_OK)
        json_object_set_new(o, key, json_string(h.hex));
}

static json_t *rope_json(const sd_hparams *hp, const sd_rotation *rope) {
    static const char *const names[] = {"none", "linear", "llama3", "yarn"};
    json_t *r = json_pack("{s:f, s:i, s:b, s:s}", "base", (double)rope->base, "dimensions",
                          hp->rope_dim, "interleaved", (int)hp->rope_interleaved, "scaling",
                          rope->factors ? "frequency factors" : names[rope->scaling]);
    if (rope->scaling != SD_ROPE_NONE)
        json_object_set_new(r, "factor", json_real((double)rope->factor));
    if (rope->scaling == SD_ROPE_YARN || rope->scaling == SD_ROPE_LLAMA3)
        json_object_set_new(r, "original_context", json_integer(rope->orig_ctx));
    return r;
}

static json_t *token_json(const sd_model *m, int32_t id) {
    size_t len = 0;
    if (!m->tokenizer || id < 0) return json_integer(id);
    const char *s = sd_tokenizer_bytes(m->tokenizer, id, &len);
    return json_pack("{s:i, s:o}", "id", (int)id, "text", sd_json_text(s, len));
}

static json_t *tokenizer_json(const sd_model *m) {
    json_t *t = json_pack("{s:i, s:s}", "tokens", sd_tokenizer_size(m->tokenizer), "fingerprint",
                          sd_tokenizer_fingerprint(m->tokenizer));
    int32_t bos = sd_tokenizer_bos(m->tokenizer), eos = sd_tokenizer_eos(m->tokenizer);
    if (bos >= 0) json_object_set_new(t, "bos", token_json(m, bos));
    if (eos >= 0) json_object_set_new(t, "eos", token_json(m, eos));
    return t;
}

static void add_tokens(json_t *o, const sd_model *m) {
    if (m->tokenizer)
        json_object_set_new(o, "tokenizer", tokenizer_json(m));
    else
        json_object_set_new(o, "tokenizer",
                            m->tokenizer_error ? sd_inspect_text(m->tokenizer_error)
                                               : json_string("none"));
    json_t *ends = json_array();
    for (int i = 0; i < m->n_end_tokens; i++)
        json_array_append_new(ends, token_json(m, m->end_token[i]));
    json_object_set_new(o, "end_tokens", ends);
    if (m->chat) {
        const char *s = sd_template_source(m->chat);
        set_hash(o, "template_sha256", s, strlen(s));
        json_object_set_new(o, "template", sd_inspect_text(s));
    } else if (m->chat_error) {
        json_object_set_new(o, "template_error", sd_inspect_text(m->chat_error));
    }
}

sd_status sd_inspect_model(json_t **out, const char *path, const sd_inspect_options *options,
                           sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = NULL;
    sd_sha256 hash;
    json_t *o = json_object();
    SD_TRY(sd_model_open(&m, path, err));
    SD_TRY(sd_model_sha256(m, &hash, err));
    const sd_hparams *hp = &m->hp;
    const struct {
        const char *name;
        json_t *value;
    } rows[] = {{"kind", json_string("model")},
                {"format", json_string(sd_model_is_gguf(m) ? "GGUF" : "Hugging Face folder")},
                {"path", sd_inspect_text(path)},
                {"name", sd_inspect_text(m->name)},
                {"architecture", json_string(sd_arch_name(hp->arch))},
                {"parameters", json_integer(m->n_params)},
                {"weight_bytes", json_integer((json_int_t)m->weight_bytes)},
                {"layers", json_integer(hp->L)},
                {"hidden_size", json_integer(hp->C)},
                {"heads", json_integer(hp->H)},
                {"kv_heads", json_integer(hp->G)},
                {"head_size", json_integer(hp->D)},
                {"ffn_size", json_integer(hp->F)},
                {"vocabulary", json_integer(hp->V)},
                {"context", json_integer(hp->ctx_train)},
                {"norm_epsilon", json_real((double)hp->eps)},
                {"rope", rope_json(hp, &hp->rope[0])},
                {"qkv_bias", json_boolean(hp->qkv_bias)},
                {"qk_norm", json_boolean(hp->qk_norm)},
                {"tied_head", json_boolean(hp->tied_head)},
                {"sha256", json_string(hash.hex)}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        json_object_set_new(o, rows[i].name, rows[i].value);
    sd_inspect_add_tensors(o, sd_model_gguf(m), sd_model_safetensors(m), options->tensors);
    add_tokens(o, m);
    if (options->metadata && sd_model_is_gguf(m)) sd_inspect_add_metadata(o, sd_model_gguf(m));
    *out = json_incref(o);
out:
    json_decref(o);
    sd_model_release(m);
    return st;
}
