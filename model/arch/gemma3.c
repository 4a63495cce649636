// Gemma 3 (text): norms before and after each half of a block, tanh-GELU in the gate, scaled
// embeddings, normed heads of q and k, and a sliding window on five of six layers, which turn by a
// base of their own.
//
// The window's base stands in few GGUF files; Gemma 3 was trained with 10,000.
#include "model/arch/arch.h"
#include "model/arch/rope_keys.h"

#include <math.h>
#include <string.h>

enum { PERIOD = 6, LAYERS_27B = 62 }; // each PERIOD-th layer sees all positions
enum { GLOBAL, LOCAL };               // rotations
static const double local_base = 10000, global_base = 1000000;

static void common(sd_hparams *hp) {
    hp->act = SD_ACT_GELU_TANH;
    hp->embedding_scale = sqrtf((float)hp->C);
    hp->ropes = 2;
}

static void set_layer(sd_layer *layer, bool local, int window) {
    layer->window = local ? window : 0;
    layer->rope = local ? LOCAL : GLOBAL;
}

// ---- GGUF

// The key may be the period, or say of each layer whether it has a window.
static sd_status gguf_layers(sd_model *m, sd_gguf_keys *k, int window, sd_error *err) {
    static const char leaf[] = "attention.sliding_window_pattern";
    sd_status st = SD_OK;
    int period = PERIOD, L = m->hp.L;
    bool each = sd_gguf_is_array(k->g, sd_gguf_key(k, leaf)), local;
    SD_CHECK(!each || sd_gguf_array_size(k->g, k->key) == (size_t)L, err, SD_EFORMAT,
             "%s: %s has %zu values for %d layers", m->path, k->key,
             sd_gguf_array_size(k->g, k->key), L);
    if (!each) SD_TRY(sd_gguf_int_or(k, leaf, PERIOD, &period, err));
    SD_CHECK(period >= 1, err, SD_EFORMAT, "%s: %s is %d; it is at least 1", m->path, k->key,
             period);
    for (int l = 0; l < L; l++) {
        local = (l + 1) % period != 0;
        SD_CHECK(!each || sd_gguf_array_bool(k->g, k->key, (size_t)l, &local), err, SD_EFORMAT,
                 "%s: element %d of %s is neither true nor false", m->path, l, k->key);
        set_layer(&m->layer[l], local, window);
    }
out:
    return st;
}

static sd_status read_gguf(sd_model *m, sd_gguf_keys *k, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    int window;
    float softcap;
    common(hp);
    SD_TRY(sd_gguf_float_or(k, "final_logit_softcapping", 0, &softcap, err));
    SD_CHECK(softcap == 0, err, SD_EFORMAT, "%s: the key %s is %g; capped logits are not supported",
             m->path, k->key, (double)softcap);
    SD_TRY(sd_gguf_int_or(k, "attention.sliding_window", 0, &window, err));
    SD_TRY(
        sd_gguf_float_or(k, "rope.freq_base_swa", (float)local_base, &hp->rope[LOCAL].base, err));
    if (hp->L == LAYERS_27B) hp->attn_scale = 1 / sqrtf((float)hp->C / (float)hp->H);
    if (window > 0) SD_TRY(gguf_layers(m, k, window, err));
out:
    return st;
}

// ---- config.json

static sd_status config_layers(sd_model *m, const sd_config_keys *c, int window, sd_error *err) {
    sd_status st = SD_OK;
    json_t *types;
    int period;
    SD_TRY(sd_config_int_or(c, "sliding_window_pattern", PERIOD, &period, err));
    SD_CHECK(period >= 1, err, SD_EFORMAT, "%s: sliding_window_pattern is %d; it is at least 1",
             c->file, period);
    SD_TRY(sd_key_array(&types, c->o, "layer_types", c->file, err));
    SD_CHECK(!types || json_array_size(types) == (size_t)m->hp.L, err, SD_EFORMAT,
             "%s: layer_types has %zu names for %d layers", c->file, json_array_size(types),
             m->hp.L);
    for (int l = 0; l < m->hp.L; l++) {
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        bool local = (l + 1) % period != 0;
        if (types) {
            local = type && strcmp(type, "sliding_attention") == 0;
            SD_CHECK(local || (type && strcmp(type, "full_attention") == 0), err, SD_EFORMAT,
                     "%s: layer_types[%d] is '%.32s'; sliding_attention and full_attention are "
                     "supported",
                     c->file, l, type ? type : "no text");
        }
        set_layer(&m->layer[l], local, window);
    }
out:
    return st;
}

// Older files have one rope_theta, rope_local_base_freq and a scaling of the global rotation; newer
// ones an object of parameters for each kind of layer.
static sd_status config_rotations(sd_hparams *hp, const sd_config_keys *c, sd_error *err) {
    sd_status st = SD_OK;
    json_t *scaling, *parameters, *full = NULL, *sliding = NULL;
    float theta, local_theta;
    SD_TRY(sd_config_float_or(c, "rope_theta", global_base, &theta, err));
    SD_TRY(sd_config_float_or(c, "rope_local_base_freq", local_base, &local_theta, err));
    SD_TRY(sd_key_object(&scaling, c->o, "rope_scaling", c->file, err));
    SD_TRY(sd_key_object(&parameters, c->o, "rope_parameters", c->file, err));
    if (parameters) {
        SD_TRY(sd_key_object(&full, parameters, "full_attention", c->file, err));
        SD_TRY(sd_key_object(&sliding, parameters, "sliding_attention", c->file, err));
    }
    const sd_config_keys global = {scaling ? scaling : full, c->file}, local = {sliding, c->file};
    SD_TRY(sd_config_rotation(&hp->rope[GLOBAL], c, &global, (double)theta, hp->ctx_train, err));
    SD_TRY(
        sd_config_rotation(&hp->rope[LOCAL], c, &local, (double)local_theta, hp->ctx_train, err));
    hp->rope_dim = hp->D;
out:
    return st;
}

static sd_status read_config(sd_model *m, const sd_config_keys *c, sd_error *err) {
    static const char *const caps[] = {"final_logit_softcapping", "attn_logit_softcapping"};
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    int window;
    float scalar;
    bool both_ways;
    common(hp);
    for (int i = 0; i < 2; i++)
        SD_CHECK(!sd_key(c->o, caps[i]), err, SD_EFORMAT, "%s: %s is not supported", c->file,
                 caps[i]);
    SD_TRY(sd_key_bool(&both_ways, c->o, "use_bidirectional_attention", false, c->file, err));
    SD_CHECK(!both_ways, err, SD_EFORMAT, "%s: use_bidirectional_attention is not supported",
             c->file);
    SD_TRY(sd_config_int_or(c, "sliding_window", sd_key(c->o, "layer_types") ? 0 : 4096, &window,
                            err));
    SD_TRY(sd_config_float_or(c, "query_pre_attn_scalar", 256, &scalar, err));
    SD_CHECK(scalar > 0, err, SD_EFORMAT, "%s: query_pre_attn_scalar is %g; it is more than 0",
             c->file, (double)scalar);
    hp->attn_scale = (float)(1 / sqrt((double)scalar));
    SD_TRY(config_rotations(hp, c, err));
    SD_TRY(config_layers(m, c, window, err));
out:
    return st;
}

const sd_arch sd_arch_gemma3 = {.name = "gemma3",
                                .model_type = {"gemma3_text"},
                                .linear = sd_plain_linears,
                                .linears = SD_PROJ_COUNT,
                                .gguf = {.attn_norm = "attn_norm",
                                         .post_attn_norm = "post_attention_norm",
                                         .ffn_norm = "ffn_norm",
                                         .post_ffn_norm = "post_ffw_norm",
                                         .q_norm = "attn_q_norm",
                                         .k_norm = "attn_k_norm"},
                                .folder = {.attn_norm = "input_layernorm",
                                           .post_attn_norm = "post_attention_layernorm",
                                           .ffn_norm = "pre_feedforward_layernorm",
                                           .post_ffn_norm = "post_feedforward_layernorm",
                                           .q_norm = "self_attn.q_norm",
                                           .k_norm = "self_attn.k_norm"},
                                .norm_adds_one = true,
                                .head_dim = 256,
                                .ctx_train = 131072,
                                .tied = true,
                                .read_gguf = read_gguf,
                                .read_config = read_config};
