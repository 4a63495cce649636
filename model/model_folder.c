// A model from a Hugging Face folder: config.json (flat rope_theta and rope_scaling, or the newer
// rope_parameters), *.safetensors, tokenizer.json, the template, generation_config.json.
//
// A folder is what a trainer wrote, so keys that change the mathematics and that we do not compute
// are refused rather than passed over.
#include "base/file.h"
#include "base/json.h"
#include "model/model_private.h"
#include "model/safetensors.h"

#include <math.h>
#include <string.h>

enum { MAX_CONFIG = 16 << 20 };

static bool find_tensor(const sd_model *m, const char *name, sd_tensor_ref *out) {
    const sd_st_tensor *t = sd_safetensors_find(m->st, name);
    if (!t || t->n_dims < 1 || t->n_dims > 2) return false;
    int64_t rows = t->n_dims == 2 ? t->shape[0] : 1;
    *out = (sd_tensor_ref){t->name, t->dtype, t->dtype_name, rows, t->shape[t->n_dims - 1],
                           t->data, t->bytes};
    return true;
}

static const char *name_at(const sd_model *m, int i) {
    const sd_st_tensor *t = sd_safetensors_at(m->st, i);
    return t ? t->name : NULL;
}

#define LAYER "model.layers.%d."
static const sd_tensor_source source = {
    .find = find_tensor,
    .name_at = name_at,
    .embedding = "model.embed_tokens.weight",
    .out_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .attn_norm = LAYER "input_layernorm.weight",
    .ffn_norm = LAYER "post_attention_layernorm.weight",
    .bq = LAYER "self_attn.q_proj.bias",
    .bk = LAYER "self_attn.k_proj.bias",
    .bv = LAYER "self_attn.v_proj.bias",
    .q_norm = LAYER "self_attn.q_norm.weight",
    .k_norm = LAYER "self_attn.k_norm.weight",
    .w = {LAYER "self_attn.q_proj.weight", LAYER "self_attn.k_proj.weight",
          LAYER "self_attn.v_proj.weight", LAYER "self_attn.o_proj.weight",
          LAYER "mlp.gate_proj.weight", LAYER "mlp.up_proj.weight", LAYER "mlp.down_proj.weight"},
    .ignored = {"rotary_emb.inv_freq", NULL}};

// flags: of sd_json_load. tokenizer_config.json is read with integers as reals: transformers writes
// model_max_length as 10^30 where there is none.
static sd_status read_json(json_t **out, const char *folder, const char *name, bool required,
                           size_t flags, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL, *path = sd_path_join(folder, name);
    size_t len;
    *out = NULL;
    SD_CHECK_ALLOC(path, err);
    sd_path_kind kind;
    if (!required) {
        SD_TRY(sd_path_look(&kind, path, err));
        if (kind == SD_PATH_NONE) goto out;
    }
    SD_TRY(sd_file_read(&text, &len, path, MAX_CONFIG, err));
    json_error_t je;
    SD_TRY(sd_json_load(out, text, len, JSON_REJECT_DUPLICATES | flags, &je, err));
    SD_CHECK(*out, err, SD_EFORMAT, "%s: byte %d: is not JSON: %s", path, je.position, je.text);
    SD_CHECK(json_is_object(*out), err, SD_EFORMAT, "%s: byte 0: is not a JSON object", path);
out:
    free(text);
    free(path);
    return st;
}

static json_t *get(const json_t *o, const char *name) {
    json_t *v = json_object_get(o, name);
    return json_is_null(v) ? NULL : v;
}

// The value, or def when it is absent or null; another type or a number that no int holds is an
// error.
static sd_status int_or(const sd_model *m, const json_t *c, const char *name, int def, int *out,
                        sd_error *err) {
    json_t *v = get(c, name);
    json_int_t i = json_integer_value(v);
    *out = def;
    if (!v) return SD_OK;
    if (!json_is_integer(v) || i < 0 || i > INT32_MAX)
        return sd_fail(err, SD_EFORMAT, "%s/config.json: %s is not a whole number in range",
                       m->path, name);
    *out = (int)i;
    return SD_OK;
}

static sd_status need_int(const sd_model *m, const json_t *c, const char *name, int *out,
                          sd_error *err) {
    if (!get(c, name))
        return sd_fail(err, SD_EFORMAT, "%s/config.json: %s is missing", m->path, name);
    return int_or(m, c, name, 0, out, err);
}

static sd_status float_or(const sd_model *m, const json_t *c, const char *name, double def,
                          float *out, sd_error *err) {
    json_t *v = get(c, name);
    *out = (float)def;
    if (!v) return SD_OK;
    double f = json_number_value(v);
    if (!json_is_number(v) || !isfinite(f) || fabs(f) > 1e30)
        return sd_fail(err, SD_EFORMAT, "%s/config.json: %s is not a number in range", m->path,
                       name);
    *out = (float)f;
    return SD_OK;
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static sd_status read_yarn(sd_model *m, const json_t *r, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    float mscale, all;
    hp->scaling = SD_ROPE_YARN;
    SD_TRY(float_or(m, r, "beta_fast", 32, &hp->rope_beta_fast, err));
    SD_TRY(float_or(m, r, "beta_slow", 1, &hp->rope_beta_slow, err));
    SD_TRY(float_or(m, r, "attention_factor", 0, &hp->rope_attn_factor, err));
    SD_TRY(float_or(m, r, "mscale", 0, &mscale, err));
    SD_TRY(float_or(m, r, "mscale_all_dim", 0, &all, err));
    double f = (double)hp->rope_factor;
    if (hp->rope_attn_factor == 0 && mscale != 0 && all != 0)
        hp->rope_attn_factor =
            (float)(yarn_mscale(f, (double)mscale) / yarn_mscale(f, (double)all));
    SD_CHECK(!json_is_false(get(r, "truncate")), err, SD_EFORMAT,
             "%s/config.json: YaRN with truncate false is not supported", m->path);
out:
    return st;
}

// rope_parameters (theta and scaling in one object) or rope_scaling beside rope_theta.
static sd_status read_rope(sd_model *m, const json_t *c, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    json_t *r = get(c, "rope_scaling");
    float partial;
    if (!r) r = get(c, "rope_parameters");
    SD_CHECK(!r || json_is_object(r), err, SD_EFORMAT,
             "%s/config.json: rope_parameters is not an object", m->path);
    SD_TRY(float_or(m, c, "rope_theta", 10000, &hp->rope_base, err));
    SD_TRY(float_or(m, r, "rope_theta", (double)hp->rope_base, &hp->rope_base, err));
    SD_TRY(float_or(m, c, "partial_rotary_factor", 1, &partial, err));
    SD_TRY(float_or(m, r, "partial_rotary_factor", (double)partial, &partial, err));
    SD_CHECK(partial == 1, err, SD_EFORMAT,
             "%s/config.json: partial_rotary_factor %g is not supported; 1 is", m->path,
             (double)partial);
    hp->rope_dim = hp->D;
    const char *type = json_string_value(get(r, "rope_type"));
    if (!type) type = json_string_value(get(r, "type"));
    if (!type || strcmp(type, "default") == 0) {
        // An object of objects would be one rotation per kind of layer.
        const char *name;
        json_t *value;
        json_object_foreach(r, name, value) {
            SD_CHECK(!json_is_object(value), err, SD_EFORMAT,
                     "%s/config.json: rotary parameters per layer type (%s) are not supported",
                     m->path, name);
        }
        goto out;
    }
    SD_TRY(float_or(m, r, "factor", 0, &hp->rope_factor, err));
    SD_TRY(
        int_or(m, r, "original_max_position_embeddings", hp->ctx_train, &hp->rope_orig_ctx, err));
    SD_TRY(int_or(m, c, "original_max_position_embeddings", hp->rope_orig_ctx, &hp->rope_orig_ctx,
                  err));
    if (strcmp(type, "linear") == 0) {
        hp->scaling = SD_ROPE_LINEAR;
    } else if (strcmp(type, "llama3") == 0) {
        hp->scaling = SD_ROPE_LLAMA3;
        SD_TRY(float_or(m, r, "low_freq_factor", 0, &hp->rope_low, err));
        SD_TRY(float_or(m, r, "high_freq_factor", 0, &hp->rope_high, err));
    } else if (strcmp(type, "yarn") == 0) {
        SD_TRY(read_yarn(m, r, err));
    } else {
        SD_CHECK(false, err, SD_EFORMAT,
                 "%s/config.json: rotary scaling '%.32s' is not supported; default, linear, llama3 "
                 "and yarn are",
                 m->path, type);
    }
out:
    return st;
}

static sd_status refuse_others(const sd_model *m, const json_t *c, sd_error *err) {
    const sd_hparams *hp = &m->hp;
    const char *act = json_string_value(get(c, "hidden_act"));
    if (act && strcmp(act, "silu") != 0)
        return sd_fail(err, SD_EFORMAT,
                       "%s/config.json: hidden_act '%.32s' is not supported; silu "
                       "is",
                       m->path, act);
    static const char *const biases[] = {"attention_bias", "mlp_bias"};
    for (int i = 0; i < 2; i++)
        if (json_is_true(get(c, biases[i])))
            return sd_fail(err, SD_EFORMAT, "%s/config.json: %s is not supported for %s", m->path,
                           biases[i], sd_arch_name(hp->arch));
    // Qwen's configurations name a window that use_sliding_window switches on; Mistral's has no
    // switch.
    json_t *sw = get(c, "use_sliding_window");
    json_t *window = get(c, "sliding_window");
    bool used = json_is_true(sw) || (!sw && hp->arch == SD_ARCH_LLAMA);
    if (used && json_is_integer(window) && json_integer_value(window) < hp->ctx_train)
        return sd_fail(err, SD_EFORMAT,
                       "%s/config.json: attention with a sliding window of %lld "
                       "is not supported",
                       m->path, (long long)json_integer_value(window));
    if (get(c, "quantization_config"))
        return sd_fail(err, SD_EFORMAT,
                       "%s/config.json: quantised safetensors are not supported; "
                       "use a GGUF file or the original weights",
                       m->path);
    return SD_OK;
}

static sd_status read_config(sd_model *m, const json_t *c, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    const char *type = json_string_value(get(c, "model_type"));
    SD_CHECK(type, err, SD_EFORMAT, "%s/config.json: model_type is missing", m->path);
    // Mistral's blocks are llama's.
    SD_CHECK(sd_arch_from_name(strcmp(type, "mistral") == 0 ? "llama" : type, &hp->arch), err,
             SD_EFORMAT,
             "%s/config.json: model_type '%.32s' is not supported; llama, mistral, qwen2 and qwen3 "
             "are",
             m->path, type);
    SD_TRY(need_int(m, c, "num_hidden_layers", &hp->L, err));
    SD_TRY(need_int(m, c, "hidden_size", &hp->C, err));
    SD_TRY(need_int(m, c, "intermediate_size", &hp->F, err));
    SD_TRY(need_int(m, c, "num_attention_heads", &hp->H, err));
    SD_TRY(need_int(m, c, "vocab_size", &hp->V, err));
    SD_CHECK(hp->H > 0, err, SD_EFORMAT, "%s/config.json: num_attention_heads is 0", m->path);
    SD_TRY(int_or(m, c, "num_key_value_heads", hp->H, &hp->G, err));
    SD_TRY(int_or(m, c, "head_dim", hp->arch == SD_ARCH_QWEN3 ? 128 : hp->C / hp->H, &hp->D, err));
    SD_TRY(int_or(m, c, "max_position_embeddings", 2048, &hp->ctx_train, err));
    SD_TRY(float_or(m, c, "rms_norm_eps", 1e-6, &hp->eps, err));
    SD_TRY(read_rope(m, c, err));
    hp->qkv_bias = hp->arch == SD_ARCH_QWEN2;
    hp->qk_norm = hp->arch == SD_ARCH_QWEN3;
    hp->rope_interleaved = false;
    hp->tied_head = json_is_true(get(c, "tie_word_embeddings"));
    SD_TRY(refuse_others(m, c, err));
    SD_TRY(sd_model_check_hparams(m, err));
out:
    return st;
}

static void add_ends(sd_model *m, const json_t *o) {
    json_t *v = get(o, "eos_token_id");
    if (json_is_integer(v)) sd_model_add_end(m, json_integer_value(v));
    for (size_t i = 0; i < json_array_size(v); i++)
        if (json_is_integer(json_array_get(v, i)))
            sd_model_add_end(m, json_integer_value(json_array_get(v, i)));
}

static sd_status read_tokenizer(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_error why = {0};
    sd_path_kind kind;
    SD_TRY(sd_path_look_in(&kind, m->path, "tokenizer.json", err));
    if (kind == SD_PATH_NONE) goto out;
    st = sd_tokenizer_from_folder(&m->tokenizer, m->path, &why);
    if (st == SD_EFORMAT) {
        m->tokenizer = NULL;
        m->tokenizer_error = sd_strdup(why.message);
        st = SD_OK;
        SD_CHECK_ALLOC(m->tokenizer_error, err);
    } else if (st != SD_OK && err) {
        *err = why;
    }
out:
    return st;
}

// chat_template.jinja, else chat_template of tokenizer_config.json: a string, or a list of named
// templates of which "default" is taken.
static sd_status read_template(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    json_t *config = NULL;
    char *text = NULL, *path = sd_path_join(m->path, "chat_template.jinja");
    size_t len;
    SD_CHECK_ALLOC(path, err);
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, path, err));
    if (kind != SD_PATH_NONE) {
        SD_TRY(sd_file_read(&text, &len, path, MAX_CONFIG, err));
        SD_TRY(sd_model_set_template(m, text, len, err));
        goto out;
    }
    SD_TRY(
        read_json(&config, m->path, "tokenizer_config.json", false, JSON_DECODE_INT_AS_REAL, err));
    json_t *t = get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(t); i++) {
        json_t *one = json_array_get(t, i);
        const char *name = json_string_value(get(one, "name"));
        if (!name || strcmp(name, "default") != 0) continue;
        t = get(one, "template");
        break;
    }
    if (json_is_string(t))
        SD_TRY(sd_model_set_template(m, json_string_value(t), json_string_length(t), err));
out:
    json_decref(config);
    free(text);
    free(path);
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
    SD_TRY(read_json(&config, m->path, "config.json", true, 0, err));
    SD_TRY(read_json(&generation, m->path, "generation_config.json", false, 0, err));
    SD_TRY(read_config(m, config, err));
    SD_TRY(sd_safetensors_open_folder(&m->st, m->path, err));
    SD_TRY(sd_model_bind(m, &source, err));
    SD_TRY(set_name(m, err));
    add_ends(m, generation);
    add_ends(m, config);
    SD_TRY(read_tokenizer(m, err));
    SD_TRY(read_template(m, err));
out:
    json_decref(config);
    json_decref(generation);
    return st;
}
