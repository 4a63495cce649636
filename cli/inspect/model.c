// inspect: models.
#include "model/model.h"
#include "base/files/hash.h"
#include "cli/inspect/parts.h"
#include "model/load/source.h"
#include "model/load/vocabulary.h"

#include <string.h>

static void set_hash(json_t *o, const char *key, const char *source, size_t len) {
    sd_sha256 h;
    if (sd_sha256_of(&h, source, len, NULL) == SD_OK)
        json_object_set_new(o, key, json_string(h.hex));
}

static json_t *rope_json(const sd_hparams *hp, const sd_rotation *rope) {
    static const char *const names[] = {"none", "linear", "llama3", "yarn", "longrope"};
    json_t *r = json_pack("{s:f, s:i, s:b, s:s}", "base", (double)rope->base, "dimensions",
                          hp->rope_dim, "interleaved", (int)hp->rope_interleaved, "scaling",
                          rope->factors && rope->scaling == SD_ROPE_NONE ? "frequency factors"
                                                                         : names[rope->scaling]);
    if (rope->scaling != SD_ROPE_NONE)
        json_object_set_new(r, "factor", json_real((double)rope->factor));
    if (rope->scaling != SD_ROPE_NONE && rope->orig_ctx > 0)
        json_object_set_new(r, "original_context", json_integer(rope->orig_ctx));
    return r;
}

// The window of those layers that have one, and their number; NULL: none has.
static json_t *window_json(const sd_model *m) {
    int n = 0, window = 0;
    for (int l = 0; l < m->hp.L; l++) {
        if (m->layer[l].window == 0) continue;
        window = m->layer[l].window;
        n++;
    }
    return n ? json_pack("{s:i, s:i}", "positions", window, "layers", n) : NULL;
}

static json_t *token_json(const sd_tokenizer *t, int32_t id) {
    size_t len = 0;
    if (!t || id < 0) return json_integer(id);
    const char *s = sd_tokenizer_bytes(t, id, &len);
    return json_pack("{s:i, s:o}", "id", (int)id, "text", sd_json_text(s, len));
}

static void add_tokenizer(json_t *o, const sd_tokenizer *t, const char *why_not) {
    if (!t) {
        json_object_set_new(o, "tokenizer",
                            why_not ? sd_inspect_text(why_not) : json_string("none"));
        return;
    }
    json_t *j = json_pack("{s:i, s:s}", "tokens", sd_tokenizer_size(t), "fingerprint",
                          sd_tokenizer_fingerprint(t));
    int32_t bos = sd_tokenizer_bos(t), eos = sd_tokenizer_eos(t);
    if (bos >= 0) json_object_set_new(j, "bos", token_json(t, bos));
    if (eos >= 0) json_object_set_new(j, "eos", token_json(t, eos));
    json_object_set_new(o, "tokenizer", j);
}

static void add_template(json_t *o, const char *source, size_t len) {
    set_hash(o, "template_sha256", source, len);
    json_object_set_new(o, "template", sd_json_text(source, len));
}

static void add_tokens(json_t *o, const sd_model *m) {
    add_tokenizer(o, m->tokenizer, m->tokenizer_error);
    json_t *ends = json_array();
    for (int i = 0; i < m->n_end_tokens; i++)
        json_array_append_new(ends, token_json(m->tokenizer, m->end_token[i]));
    json_object_set_new(o, "end_tokens", ends);
    if (m->chat) {
        const char *s = sd_template_source(m->chat);
        add_template(o, s, strlen(s));
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
                {"rope_in_window", hp->ropes > 1 ? rope_json(hp, &hp->rope[1]) : NULL},
                {"window", window_json(m)},
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

// Adds what a GGUF file says of itself beside its tokenizer.
static sd_status add_gguf_texts(json_t *o, const sd_gguf *g, sd_error *err) {
    static const char *const keys[][2] = {{"name", "general.name"},
                                          {"architecture", "general.architecture"}};
    sd_status st = SD_OK;
    sd_gguf_string s;
    bool has;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        SD_TRY(sd_gguf_str(g, keys[i][1], &s, &has, err));
        if (has) json_object_set_new(o, keys[i][0], sd_json_text(s.data, s.len));
    }
    SD_TRY(sd_gguf_str(g, "tokenizer.chat_template", &s, &has, err));
    if (has) add_template(o, s.data, s.len);
out:
    return st;
}

sd_status sd_inspect_vocabulary(json_t **out, const char *path, const sd_inspect_options *options,
                                sd_error *err) {
    sd_status st = SD_OK;
    sd_vocabulary *v = NULL;
    sd_sha256 hash;
    json_t *o = json_object();
    SD_TRY(sd_vocabulary_open(&v, path, err));
    json_object_set_new(o, "kind", json_string("vocabulary without weights"));
    json_object_set_new(o, "format", json_string(v->gguf ? "GGUF" : "Hugging Face folder"));
    json_object_set_new(o, "path", sd_inspect_text(path));
    if (v->gguf) {
        SD_TRY(sd_sha256_of_file(&hash, path, err));
        json_object_set_new(o, "sha256", json_string(hash.hex));
    }
    add_tokenizer(o, v->tokenizer, v->tokenizer_error);
    if (v->gguf) {
        SD_TRY(add_gguf_texts(o, v->gguf, err));
        if (options->metadata) sd_inspect_add_metadata(o, v->gguf);
    }
    *out = json_incref(o);
out:
    json_decref(o);
    sd_vocabulary_close(v);
    return st;
}
