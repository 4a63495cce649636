// A model from a Hugging Face folder: config.json (flat rope_theta and rope_scaling, or the newer
// rope_parameters), *.safetensors, tokenizer.json, the template, generation_config.json.
//
// A folder is what a trainer wrote, so keys that change the mathematics and that we do not compute
// are refused rather than passed over.
#include "base/files/file.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/arch/rope_keys.h"
#include "model/formats/safetensors.h"
#include "model/load/read.h"

#include <math.h>
#include <string.h>

enum { MAX_CONFIG = 16 << 20 };

static bool find_tensor(const sd_model *m, const char *name, sd_tensor_ref *out) {
    const sd_st_tensor *t = sd_safetensors_find(m->owned->st, name);
    if (!t || t->n_dims < 1 || t->n_dims > 2) return false;
    int64_t rows = t->n_dims == 2 ? t->shape[0] : 1;
    *out = (sd_tensor_ref){t->name, t->dtype, t->dtype_name, rows, t->shape[t->n_dims - 1],
                           t->data, t->bytes};
    return true;
}

static const char *name_at(const sd_model *m, int i) {
    const sd_st_tensor *t = sd_safetensors_at(m->owned->st, i);
    return t ? t->name : NULL;
}

static const sd_tensor_source source = {.find = find_tensor,
                                        .name_at = name_at,
                                        .embedding = "model.embed_tokens.weight",
                                        .out_norm = "model.norm.weight",
                                        .head = "lm_head.weight",
                                        .classifier = "score.weight",
                                        .classifier_bias = "score.bias",
                                        .layer = "model.layers.",
                                        .ignored = {"rotary_emb.inv_freq", NULL}};
// As transformers and sentence-transformers save a model without its head.
static const sd_tensor_source bare = {.find = find_tensor,
                                      .name_at = name_at,
                                      .embedding = "embed_tokens.weight",
                                      .out_norm = "norm.weight",
                                      .head = "lm_head.weight",
                                      .classifier = "score.weight",
                                      .classifier_bias = "score.bias",
                                      .layer = "layers.",
                                      .ignored = {"rotary_emb.inv_freq", NULL}};

// A model that gives vectors or ranks has no head; where its embedding is no head either, it says nothing.
static const sd_tensor_source *choose_source(sd_model *m) {
    sd_tensor_ref t;
    const bool whole = find_tensor(m, source.embedding, &t) || !find_tensor(m, bare.embedding, &t);
    const sd_tensor_source *s = whole ? &source : &bare;
    const bool reads = !whole || find_tensor(m, s->classifier, &t);
    if (reads && !m->hp.tied_head && !find_tensor(m, s->head, &t))
        m->hp.tied_head = m->output.no_head = true;
    return s;
}

// flags: of sd_json_read. tokenizer_config.json is read with integers as reals: transformers writes
// model_max_length as 10^30 where there is none.
static sd_status read_json(json_t **out, const char *folder, const char *name, bool required,
                           size_t flags, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_path_join(folder, name);
    *out = NULL;
    SD_CHECK_ALLOC(path, err);
    sd_path_kind kind;
    if (!required) {
        SD_TRY(sd_path_look(&kind, path, err));
        if (kind == SD_PATH_NONE) goto out;
    }
    SD_TRY(sd_json_read(out, path, MAX_CONFIG, JSON_REJECT_DUPLICATES | flags, NULL, err));
out:
    free(path);
    return st;
}

static sd_status read_rope(sd_hparams *hp, const sd_config_keys *c, sd_error *err) {
    sd_status st = SD_OK;
    sd_config_keys r;
    float theta;
    SD_TRY(sd_config_rope_keys(&r, c, err));
    SD_TRY(sd_config_rope_dim(&hp->rope_dim, c, &r, hp->D, err));
    SD_CHECK(hp->rope_dim == hp->D, err, SD_EFORMAT,
             "%s: a partial_rotary_factor other than 1 is not supported for %s", c->file,
             sd_arch_name(hp->arch));
    SD_TRY(sd_config_float_or(c, "rope_theta", 10000, &theta, err));
    SD_TRY(sd_config_rotation(&hp->rope[0], c, &r, (double)theta, hp->ctx_train, err));
out:
    return st;
}

// Qwen's configurations name a window that use_sliding_window switches on; Mistral's has no switch.
static sd_status refuse_window(const sd_hparams *hp, const sd_config_keys *c, sd_error *err) {
    sd_status st = SD_OK;
    bool used;
    int window;
    SD_TRY(sd_key_bool(&used, c->o, "use_sliding_window", hp->arch->always_window, c->file, err));
    SD_TRY(sd_config_int_or(c, "sliding_window", INT32_MAX, &window, err));
    SD_CHECK(!used || window >= hp->ctx_train, err, SD_EFORMAT,
             "%s: attention with a sliding window of %d is not supported", c->file, window);
out:
    return st;
}

static sd_status refuse_others(const sd_hparams *hp, const sd_config_keys *c, sd_error *err) {
    static const char *const biases[] = {"attention_bias", "mlp_bias"};
    sd_status st = SD_OK;
    SD_TRY(sd_config_activation(hp->act, c, err));
    for (int i = 0; i < 2; i++) {
        bool on;
        SD_TRY(sd_key_bool(&on, c->o, biases[i], false, c->file, err));
        SD_CHECK(!on, err, SD_EFORMAT, "%s: %s is not supported for %s", c->file, biases[i],
                 sd_arch_name(hp->arch));
    }
    if (!hp->arch->read_config) SD_TRY(refuse_window(hp, c, err));
    SD_CHECK(!sd_key(c->o, "quantization_config"), err, SD_EFORMAT,
             "%s: quantised safetensors are not supported; use a GGUF file or the original weights",
             c->file);
out:
    return st;
}

static sd_status read_config(sd_model *m, const sd_config_keys *c, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    char known[128];
    const char *type;
    SD_TRY(sd_key_str(&type, c->o, "model_type", NULL, c->file, err));
    SD_CHECK(type, err, SD_EFORMAT, "%s: model_type is missing", c->file);
    hp->arch = sd_arch_of_config(type);
    SD_CHECK(hp->arch, err, SD_EFORMAT, "%s: model_type '%.32s' is not supported; %s are", c->file,
             type, sd_arch_names(known, sizeof known, true));
    const sd_arch *arch = hp->arch;
    SD_TRY(sd_config_need_int(c, "num_hidden_layers", &hp->L, err));
    SD_TRY(sd_config_need_int(c, "hidden_size", &hp->C, err));
    SD_TRY(sd_config_need_int(c, "intermediate_size", &hp->F, err));
    SD_TRY(sd_config_need_int(c, "num_attention_heads", &hp->H, err));
    SD_TRY(sd_config_need_int(c, "vocab_size", &hp->V, err));
    SD_CHECK(hp->H > 0, err, SD_EFORMAT, "%s: num_attention_heads is 0", c->file);
    SD_TRY(sd_config_int_or(c, "num_key_value_heads", hp->H, &hp->G, err));
    SD_TRY(sd_config_int_or(c, "head_dim", arch->head_dim ? arch->head_dim : hp->C / hp->H, &hp->D,
                            err));
    SD_TRY(sd_config_int_or(c, "max_position_embeddings", arch->ctx_train ? arch->ctx_train : 2048,
                            &hp->ctx_train, err));
    SD_TRY(sd_config_float_or(c, "rms_norm_eps", arch->eps > 0 ? arch->eps : 1e-6, &hp->eps, err));
    hp->ropes = 1;
    SD_TRY(sd_model_make_layers(m, err));
    if (arch->read_config)
        SD_TRY(arch->read_config(m, c, err));
    else
        SD_TRY(read_rope(hp, c, err));
    hp->qkv_bias = arch->qkv_bias;
    hp->qk_norm = arch->folder.q_norm != NULL;
    hp->rope_interleaved = false;
    SD_TRY(sd_key_bool(&hp->tied_head, c->o, "tie_word_embeddings", arch->tied, c->file, err));
    SD_TRY(refuse_others(hp, c, err));
    SD_TRY(sd_model_check_hparams(m, err));
out:
    return st;
}

// eos_token_id: a token or a list of them; -1 is none.
static sd_status add_ends(sd_model *m, const sd_config_keys *c, sd_error *err) {
    const json_t *v = sd_key(c->o, "eos_token_id");
    size_t n = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        int64_t id = -2;
        if (!sd_json_whole(json_is_array(v) ? json_array_get(v, i) : v, &id) || id < -1 ||
            id >= m->hp.V)
            return sd_key_refuse(v, "eos_token_id", "a token's id, or a list of them", c->file,
                                 err);
        sd_model_add_end(m, id);
    }
    return SD_OK;
}

// The text of tokenizer_config.json's chat_template: a string, or a list of named templates of which
// "default" is taken. NULL: none.
static sd_status configured_template(json_t **out, const json_t *config, const char *file,
                                     sd_error *err) {
    sd_status st = SD_OK;
    json_t *t = sd_key(config, "chat_template");
    *out = t;
    if (!t || json_is_string(t)) return SD_OK;
    if (!json_is_array(t)) return sd_key_refuse(t, "chat_template", "a text", file, err);
    *out = NULL;
    for (size_t i = 0; i < json_array_size(t); i++) {
        json_t *one = json_array_get(t, i);
        const char *name, *text;
        if (!json_is_object(one))
            return sd_key_refuse(one, "a part of chat_template", "an object", file, err);
        SD_TRY(sd_key_str(&name, one, "name", "", file, err));
        SD_TRY(sd_key_str(&text, one, "template", NULL, file, err));
        if (strcmp(name, "default") == 0) *out = sd_key(one, "template");
    }
    SD_CHECK(*out || json_array_size(t) == 0, err, SD_EFORMAT,
             "%s: chat_template is a list of named templates without \"default\"; name the one to "
             "take so",
             file);
out:
    return st;
}

// chat_template.jinja goes before tokenizer_config.json.
static sd_status read_template(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    json_t *config = NULL, *t;
    char *text = NULL, *path = sd_path_join(m->path, "chat_template.jinja"),
         *file = sd_path_join(m->path, "tokenizer_config.json");
    size_t len;
    sd_path_kind kind;
    SD_CHECK_ALLOC(path, err);
    SD_CHECK_ALLOC(file, err);
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind != SD_PATH_NONE) {
        SD_TRY(sd_file_read(&text, &len, path, MAX_CONFIG, err));
        SD_TRY(sd_model_set_template(m, text, len, err));
        goto out;
    }
    SD_TRY(
        read_json(&config, m->path, "tokenizer_config.json", false, JSON_DECODE_INT_AS_REAL, err));
    SD_TRY(configured_template(&t, config, file, err));
    if (t) SD_TRY(sd_model_set_template(m, json_string_value(t), json_string_length(t), err));
out:
    json_decref(config);
    free(text);
    free(path);
    free(file);
    return st;
}

static sd_status set_name(sd_model *m, sd_error *err) {
    size_t n = strlen(m->path);
    while (n > 1 && m->path[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && m->path[from - 1] != '/') from--;
    m->name = sd_strndup(m->path + from, n - from);
    return m->name ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
}

sd_status sd_model_read_folder(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    json_t *config = NULL, *generation = NULL;
    char *file = sd_path_join(m->path, "config.json"),
         *generation_file = sd_path_join(m->path, "generation_config.json");
    SD_CHECK_ALLOC(file, err);
    SD_CHECK_ALLOC(generation_file, err);
    SD_TRY(read_json(&config, m->path, "config.json", true, 0, err));
    SD_TRY(read_json(&generation, m->path, "generation_config.json", false, 0, err));
    const sd_config_keys c = {config, file}, g = {generation, generation_file};
    SD_TRY(read_config(m, &c, err));
    SD_TRY(sd_safetensors_open_folder(&m->owned->st, m->path, err));
    SD_TRY(sd_model_bind(m, choose_source(m), err));
    SD_TRY(sd_pooling_of_folder(m, config, err));
    SD_TRY(set_name(m, err));
    SD_TRY(add_ends(m, &g, err));
    SD_TRY(add_ends(m, &c, err));
    SD_TRY(sd_read_folder_tokenizer(&m->tokenizer, &m->tokenizer_error, m->path, err));
    SD_TRY(read_template(m, err));
out:
    json_decref(config);
    json_decref(generation);
    free(file);
    free(generation_file);
    return st;
}
