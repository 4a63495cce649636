// inspect: models and adapters.
#include "model/model.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/inspect/inspect.h"
#include "model/load/source.h"

#include <string.h>

json_t *sd_json_text(const char *bytes, size_t len) {
    sd_buf b = sd_buf_make(SIZE_MAX / 4);
    sd_utf8_stream s = {0};
    json_t *v = NULL;
    if (sd_utf8_stream_add(&s, bytes, len, &b) && sd_utf8_stream_add(&s, NULL, 0, &b) &&
        sd_buf_adds(&b, ""))
        v = json_stringn(b.data, b.len);
    sd_buf_free(&b);
    return v ? v : json_null();
}

static json_t *text(const char *s) {
    return sd_json_text(s, strlen(s));
}

static void set_hash(json_t *o, const char *key, const char *source, size_t len) {
    sd_sha256 h;
    if (sd_sha256_of(&h, source, len, NULL) == SD_OK)
        json_object_set_new(o, key, json_string(h.hex));
}

// ---- tensors: how many of each type, and their bytes

typedef struct {
    const char *name;
    int64_t tensors, bytes;
} type_row;

static void count_type(type_row *rows, int *n, int cap, const char *name, size_t bytes) {
    int i = 0;
    while (i < *n && strcmp(rows[i].name, name) != 0) i++;
    if (i == *n) {
        if (*n == cap) return;
        rows[(*n)++] = (type_row){.name = name};
    }
    rows[i].tensors++;
    rows[i].bytes += (int64_t)bytes;
}

static json_t *shape_json(const int64_t *ne, int n, bool reversed) {
    json_t *a = json_array();
    for (int d = 0; d < n; d++)
        json_array_append_new(a, json_integer(ne[reversed ? n - 1 - d : d]));
    return a;
}

// Adds "types" (and "tensors") of a GGUF file or of safetensors; shapes are row-major in both.
static void add_tensors(json_t *o, const sd_gguf *g, const sd_safetensors *s, bool list) {
    enum { CAP = 32 };
    type_row rows[CAP];
    int n_rows = 0, n = g ? sd_gguf_tensor_count(g) : sd_safetensors_count(s);
    json_t *tensors = json_array(), *types = json_array();
    for (int i = 0; i < n; i++) {
        const sd_gguf_tensor *t = g ? sd_gguf_tensor_at(g, i) : NULL;
        const sd_st_tensor *u = g ? NULL : sd_safetensors_at(s, i);
        const char *type = t ? sd_dtype_name(t->dtype) : u->dtype_name;
        size_t bytes = t ? t->bytes : u->bytes;
        count_type(rows, &n_rows, CAP, type, bytes);
        if (!list) continue;
        json_array_append_new(tensors, json_pack("{s:o, s:s, s:o, s:I}", "name",
                                                 text(t ? t->name : u->name), "type", type, "shape",
                                                 t ? shape_json(t->ne, t->n_dims, true)
                                                   : shape_json(u->shape, u->n_dims, false),
                                                 "bytes", (json_int_t)bytes));
    }
    for (int i = 0; i < n_rows; i++)
        json_array_append_new(types, json_pack("{s:s, s:I, s:I}", "type", rows[i].name, "tensors",
                                               (json_int_t)rows[i].tensors, "bytes",
                                               (json_int_t)rows[i].bytes));
    json_object_set_new(o, "types", types);
    if (list) json_object_set(o, "tensors", tensors);
    json_decref(tensors);
}

static void add_metadata(json_t *o, const sd_gguf *g) {
    json_t *m = json_object();
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_buf b = sd_buf_make(1 << 20);
        if (sd_gguf_describe(g, i, &b))
            json_object_set_new(m, sd_gguf_key_at(g, i, NULL), sd_json_text(b.data, b.len));
        sd_buf_free(&b);
    }
    json_object_set_new(o, "metadata", m);
}

// ---- models

static json_t *rope_json(const sd_hparams *hp) {
    static const char *const names[] = {"none", "linear", "llama3", "yarn"};
    json_t *r = json_pack("{s:f, s:i, s:b, s:s}", "base", (double)hp->rope_base, "dimensions",
                          hp->rope_dim, "interleaved", (int)hp->rope_interleaved, "scaling",
                          hp->rope_factors ? "frequency factors" : names[hp->scaling]);
    if (hp->scaling != SD_ROPE_NONE)
        json_object_set_new(r, "factor", json_real((double)hp->rope_factor));
    if (hp->scaling == SD_ROPE_YARN || hp->scaling == SD_ROPE_LLAMA3)
        json_object_set_new(r, "original_context", json_integer(hp->rope_orig_ctx));
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
                            m->tokenizer_error ? text(m->tokenizer_error) : json_string("none"));
    json_t *ends = json_array();
    for (int i = 0; i < m->n_end_tokens; i++)
        json_array_append_new(ends, token_json(m, m->end_token[i]));
    json_object_set_new(o, "end_tokens", ends);
    if (m->chat) {
        const char *s = sd_template_source(m->chat);
        set_hash(o, "template_sha256", s, strlen(s));
        json_object_set_new(o, "template", text(s));
    } else if (m->chat_error) {
        json_object_set_new(o, "template_error", text(m->chat_error));
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
                {"path", text(path)},
                {"name", text(m->name)},
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
                {"rope", rope_json(hp)},
                {"qkv_bias", json_boolean(hp->qkv_bias)},
                {"qk_norm", json_boolean(hp->qk_norm)},
                {"tied_head", json_boolean(hp->tied_head)},
                {"sha256", json_string(hash.hex)}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        json_object_set_new(o, rows[i].name, rows[i].value);
    add_tensors(o, sd_model_gguf(m), sd_model_safetensors(m), options->tensors);
    add_tokens(o, m);
    if (options->metadata && sd_model_is_gguf(m)) add_metadata(o, sd_model_gguf(m));
    *out = json_incref(o);
out:
    json_decref(o);
    sd_model_release(m);
    return st;
}

// ---- adapters

static void set_gguf_str(json_t *o, const char *name, const sd_gguf *g, const char *key) {
    sd_gguf_string s;
    bool has;
    if (sd_gguf_str(g, key, &s, &has, NULL) == SD_OK && has)
        json_object_set_new(o, name, sd_json_text(s.data, s.len));
}

static sd_status set_file_hash(json_t *o, const char *path, sd_error *err) {
    sd_sha256 h;
    sd_status st = sd_sha256_of_file(&h, path, err);
    if (st == SD_OK) json_object_set_new(o, "sha256", json_string(h.hex));
    return st;
}

sd_status sd_inspect_gguf_adapter(json_t **out, const char *path, const sd_inspect_options *options,
                                  sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *g = NULL;
    float alpha = 0;
    bool has;
    json_t *o = json_object();
    SD_TRY(sd_gguf_open(&g, path, err));
    json_object_set_new(o, "kind", json_string("adapter"));
    json_object_set_new(o, "format", json_string("GGUF-LoRA"));
    json_object_set_new(o, "path", text(path));
    set_gguf_str(o, "name", g, "general.name");
    set_gguf_str(o, "architecture", g, "general.architecture");
    set_gguf_str(o, "type", g, "adapter.type");
    SD_TRY(sd_gguf_f32(g, "adapter.lora.alpha", &alpha, &has, err));
    if (has) json_object_set_new(o, "alpha", json_real((double)alpha));
    int64_t params = 0, rank = 0;
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        size_t n = strlen(t->name);
        params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        if (n > 7 && strcmp(t->name + n - 7, ".lora_a") == 0 && t->ne[1] > rank) rank = t->ne[1];
    }
    json_object_set_new(o, "rank", json_integer(rank));
    json_object_set_new(o, "parameters", json_integer(params));
    SD_TRY(set_file_hash(o, path, err));
    add_tensors(o, g, NULL, options->tensors);
    if (options->metadata) add_metadata(o, g);
    *out = json_incref(o);
out:
    json_decref(o);
    sd_gguf_close(g);
    return st;
}

static int64_t parameters_of(const sd_safetensors *s) {
    int64_t n = 0;
    for (int i = 0; i < sd_safetensors_count(s); i++) {
        const sd_st_tensor *t = sd_safetensors_at(s, i);
        int64_t k = t->bytes > 0; // dimensions beside a 0 may be of any size
        for (int d = 0; d < t->n_dims && k; d++) k *= t->shape[d];
        n += k;
    }
    return n;
}

sd_status sd_inspect_safetensors(json_t **out, const char *path, const sd_inspect_options *options,
                                 sd_error *err) {
    sd_status st = SD_OK;
    sd_safetensors *s = NULL;
    json_t *o = json_pack("{s:s, s:s, s:o}", "kind", "tensors", "format", "safetensors", "path",
                          text(path));
    SD_TRY(sd_safetensors_open(&s, path, err));
    json_object_set_new(o, "parameters", json_integer(parameters_of(s)));
    SD_TRY(set_file_hash(o, path, err));
    add_tensors(o, NULL, s, options->tensors);
    *out = json_incref(o);
out:
    json_decref(o);
    sd_safetensors_close(s);
    return st;
}

sd_status sd_inspect_peft(json_t **out, const char *folder, const sd_inspect_options *options,
                          sd_error *err) {
    enum { MAX_CONFIG = 16 << 20 };
    static const char *const keys[] = {"peft_type",
                                       "task_type",
                                       "r",
                                       "lora_alpha",
                                       "use_rslora",
                                       "use_dora",
                                       "target_modules",
                                       "rank_pattern",
                                       "alpha_pattern",
                                       "bias",
                                       "base_model_name_or_path"};
    sd_status st = SD_OK;
    json_t *config = NULL, *o = json_object();
    sd_safetensors *s = NULL;
    char *path = sd_path_join(folder, "adapter_config.json"),
         *weights = sd_path_join(folder, "adapter_model.safetensors");
    SD_CHECK_ALLOC(path && weights, err);
    SD_TRY(sd_json_read(&config, path, MAX_CONFIG, JSON_REJECT_DUPLICATES, NULL, err));
    json_object_set_new(o, "kind", json_string("adapter"));
    json_object_set_new(o, "format", json_string("PEFT folder"));
    json_object_set_new(o, "path", text(folder));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_object_get(config, keys[i]))
            json_object_set(o, keys[i], json_object_get(config, keys[i]));
    SD_TRY(sd_safetensors_open(&s, weights, err));
    json_object_set_new(o, "parameters", json_integer(parameters_of(s)));
    SD_TRY(set_file_hash(o, weights, err));
    add_tensors(o, NULL, s, options->tensors);
    *out = json_incref(o);
out:
    json_decref(o);
    json_decref(config);
    sd_safetensors_close(s);
    free(path);
    free(weights);
    return st;
}
