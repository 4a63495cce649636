// The hyperparameters of tiny models: keys of GGUF files as llama.cpp's converter writes them, and
// config.json in its newer and older spelling.
#include "tests/unit/support/tiny/parts.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool sd_tiny_is(const sd_tiny_model *t, const char *arch) {
    return strcmp(sd_arch_name(t->arch), arch) == 0;
}

// ---- GGUF

static sd_status put_u32(sd_gguf_writer *w, const char *arch, const char *leaf, int v,
                         sd_error *err) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, leaf);
    return sd_gguf_put_u32(w, key, (uint32_t)v, err);
}
static sd_status put_f32(sd_gguf_writer *w, const char *arch, const char *leaf, float v,
                         sd_error *err) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, leaf);
    return sd_gguf_put_f32(w, key, v, err);
}

static sd_status put_scaling(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    const char *arch = sd_arch_name(t->arch);
    char key[96];
    if (t->scaling != SD_ROPE_LINEAR && t->scaling != SD_ROPE_YARN) goto out;
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    SD_TRY(sd_gguf_put_str(w, key, t->scaling == SD_ROPE_LINEAR ? "linear" : "yarn", err));
    SD_TRY(put_f32(w, arch, "rope.scaling.factor", t->rope_factor, err));
    SD_TRY(put_u32(w, arch, "rope.scaling.original_context_length", t->rope_orig_ctx, err));
    SD_TRY(put_f32(w, arch, "rope.scaling.yarn_beta_fast", t->rope_beta_fast, err));
    SD_TRY(put_f32(w, arch, "rope.scaling.yarn_beta_slow", t->rope_beta_slow, err));
out:
    return st;
}

static float longrope_scale(const sd_tiny_model *t) {
    return sqrtf(1 + logf((float)t->ctx / (float)t->rope_orig_ctx) / logf((float)t->rope_orig_ctx));
}

// Phi 3's files have no size of heads, and always an original context.
static sd_status put_phi3(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(put_u32(w, "phi3", "attention.sliding_window", t->window, err));
    SD_TRY(put_u32(w, "phi3", "rope.scaling.original_context_length",
                   t->longrope ? t->rope_orig_ctx : t->ctx, err));
    if (t->longrope) SD_TRY(put_f32(w, "phi3", "rope.scaling.attn_factor", longrope_scale(t), err));
out:
    return st;
}

static sd_status put_gemma3(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    if (t->window) SD_TRY(put_u32(w, "gemma3", "attention.sliding_window", t->window, err));
    // 6 is what a file without the key means.
    if (t->pattern != 6)
        SD_TRY(put_u32(w, "gemma3", "attention.sliding_window_pattern", t->pattern, err));
    if (t->local_base != 10000)
        SD_TRY(put_f32(w, "gemma3", "rope.freq_base_swa", t->local_base, err));
out:
    return st;
}

// Of the first, "yes", and of the second.
static sd_status put_labels(sd_gguf_writer *w, const char *arch, sd_error *err) {
    static const uint32_t type = SD_GGUF_STRING;
    static const uint64_t n = 2, lengths[] = {3, 2};
    sd_buf b = sd_buf_make(256);
    char key[96];
    snprintf(key, sizeof key, "%s.classifier.output_labels", arch);
    bool ok = sd_buf_add(&b, (const char *)&type, 4) && sd_buf_add(&b, (const char *)&n, 8) &&
              sd_buf_add(&b, (const char *)&lengths[0], 8) && sd_buf_adds(&b, "yes") &&
              sd_buf_add(&b, (const char *)&lengths[1], 8) && sd_buf_adds(&b, "no");
    sd_status st = ok ? sd_gguf_put_raw(w, key, SD_GGUF_ARRAY, b.data, b.len, err)
                      : sd_fail(err, SD_ENOMEM, "out of memory");
    sd_buf_free(&b);
    return st;
}

sd_status sd_tiny_put_keys(sd_gguf_writer *w, const sd_tiny_model *t, sd_error *err) {
    sd_status st = SD_OK;
    const char *arch = sd_arch_name(t->arch);
    SD_TRY(sd_gguf_put_str(w, "general.architecture", arch, err));
    SD_TRY(sd_gguf_put_str(w, "general.name", "tiny", err));
    SD_TRY(put_u32(w, arch, "block_count", t->L, err));
    SD_TRY(put_u32(w, arch, "context_length", t->ctx, err));
    if (t->pooling) SD_TRY(put_u32(w, arch, "pooling_type", t->pooling, err));
    if (t->pooling && t->tokenizer)
        SD_TRY(sd_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", true, err));
    if (t->labels) {
        SD_TRY(put_labels(w, arch, err));
    }
    if (t->pair) SD_TRY(sd_gguf_put_str(w, "tokenizer.chat_template.rerank", t->pair, err));
    SD_TRY(put_u32(w, arch, "embedding_length", t->C, err));
    SD_TRY(put_u32(w, arch, "feed_forward_length", t->F, err));
    SD_TRY(put_u32(w, arch, "attention.head_count", t->H, err));
    SD_TRY(put_u32(w, arch, "attention.head_count_kv", t->G, err));
    if (!sd_tiny_is(t, "phi3")) {
        SD_TRY(put_u32(w, arch, "attention.key_length", t->D, err));
        SD_TRY(put_u32(w, arch, "attention.value_length", t->D, err));
    }
    SD_TRY(put_u32(w, arch, "rope.dimension_count", t->rope_dim ? t->rope_dim : t->D, err));
    SD_TRY(put_f32(w, arch, "rope.freq_base", t->rope_base, err));
    SD_TRY(put_f32(w, arch, "attention.layer_norm_rms_epsilon", 1e-6f, err));
    SD_TRY(put_scaling(w, t, err));
    if (sd_tiny_is(t, "phi3")) SD_TRY(put_phi3(w, t, err));
    if (sd_tiny_is(t, "gemma3")) SD_TRY(put_gemma3(w, t, err));
    if (t->tokenizer) SD_TRY(sd_tiny_put_tokenizer(w, t, err));
    if (sd_tiny_template(t))
        SD_TRY(sd_gguf_put_str(w, "tokenizer.chat_template", sd_tiny_template(t), err));
out:
    return st;
}

// Llama 3's rule as converters store it: a divisor per frequency.
static void llama3_divisors(float *out, const sd_tiny_model *t) {
    sd_rotation r = {.base = t->rope_base,
                     .scaling = SD_ROPE_LLAMA3,
                     .factor = t->rope_factor,
                     .low = t->rope_low,
                     .high = t->rope_high,
                     .orig_ctx = t->rope_orig_ctx};
    double scaled[256], plain[256], one;
    sd_rope_frequencies(&r, t->D, 0, scaled, &one);
    r.scaling = SD_ROPE_NONE;
    sd_rope_frequencies(&r, t->D, 0, plain, &one);
    for (int i = 0; i < t->D / 2; i++) out[i] = (float)(plain[i] / scaled[i]);
}

int sd_tiny_rope_tensors(sd_tiny_rope_tensor out[2], const sd_tiny_model *t) {
    if (t->scaling == SD_ROPE_LLAMA3) {
        out[0].name = "rope_freqs.weight";
        out[0].n = t->D / 2;
        llama3_divisors(out[0].v, t);
        return 1;
    }
    if (!t->longrope) return 0;
    for (int k = 0; k < 2; k++) {
        out[k].name = k ? "rope_factors_short.weight" : "rope_factors_long.weight";
        out[k].n = t->rope_dim / 2;
        for (int i = 0; i < out[k].n; i++) out[k].v[i] = sd_tiny_longrope(t, k == 0, i);
    }
    return 2;
}

float sd_tiny_longrope(const sd_tiny_model *t, bool longer, int i) {
    float at = (float)i / (float)(t->rope_dim / 2);
    return longer ? 1.5f + 5 * at : 1 + 0.25f * at;
}

// ---- folder

static json_t *longrope_json(const sd_tiny_model *t, bool longer) {
    json_t *a = json_array();
    for (int i = 0; i < t->rope_dim / 2; i++)
        json_array_append_new(a, json_real((double)sd_tiny_longrope(t, longer, i)));
    return a;
}

static json_t *rope_json(const sd_tiny_model *t) {
    static const char *const types[] = {"default", "linear", "llama3", "yarn"};
    json_t *r = json_pack("{s:s}", "rope_type", t->longrope ? "longrope" : types[t->scaling]);
    if (t->longrope) {
        json_object_set_new(r, "short_factor", longrope_json(t, false));
        json_object_set_new(r, "long_factor", longrope_json(t, true));
        return r;
    }
    if (t->scaling != SD_ROPE_NONE) json_object_set_new(r, "factor", json_real(t->rope_factor));
    if (t->scaling == SD_ROPE_LLAMA3 || t->scaling == SD_ROPE_YARN)
        json_object_set_new(r, "original_max_position_embeddings", json_integer(t->rope_orig_ctx));
    if (t->scaling == SD_ROPE_LLAMA3) {
        json_object_set_new(r, "low_freq_factor", json_real(t->rope_low));
        json_object_set_new(r, "high_freq_factor", json_real(t->rope_high));
    }
    if (t->scaling == SD_ROPE_YARN) {
        json_object_set_new(r, "beta_fast", json_real(t->rope_beta_fast));
        json_object_set_new(r, "beta_slow", json_real(t->rope_beta_slow));
    }
    return r;
}

static void set_gemma3(json_t *c, const sd_tiny_model *t) {
    json_object_set_new(c, "model_type", json_string("gemma3_text"));
    json_object_del(c, "hidden_act");
    json_object_set_new(c, "hidden_activation", json_string("gelu_pytorch_tanh"));
    json_object_set_new(c, "query_pre_attn_scalar",
                        json_real(t->query_scalar > 0 ? (double)t->query_scalar : t->D));
    json_object_set_new(c, "sliding_window", t->window ? json_integer(t->window) : json_null());
    if (t->old_config) {
        json_object_set_new(c, "sliding_window_pattern", json_integer(t->pattern));
        json_object_set_new(c, "rope_local_base_freq", json_real(t->local_base));
        return;
    }
    json_t *types = json_array(),
           *r = json_pack("{s:O}", "full_attention", json_object_get(c, "rope_parameters"));
    for (int l = 0; l < t->L; l++)
        json_array_append_new(
            types, json_string(sd_tiny_window(t, l) ? "sliding_attention" : "full_attention"));
    json_object_set_new(
        r, "sliding_attention",
        json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", (double)t->local_base));
    json_object_set_new(c, "layer_types", types);
    json_object_set_new(c, "rope_parameters", r);
}

static void set_phi3(json_t *c, const sd_tiny_model *t) {
    json_t *r = json_object_get(c, "rope_parameters");
    json_object_set_new(c, "sliding_window", t->window ? json_integer(t->window) : json_null());
    if (t->longrope)
        json_object_set_new(c, "original_max_position_embeddings", json_integer(t->rope_orig_ctx));
    json_object_set_new(r ? r : c, "partial_rotary_factor",
                        json_real((double)t->rope_dim / (double)t->D));
}

json_t *sd_tiny_config_json(const sd_tiny_model *t) {
    char class[64];
    snprintf(class, sizeof class, "%c%sForCausalLM", t->arch->name[0] - 'a' + 'A',
             t->arch->name + 1);
    json_t *c =
        json_pack("{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:s, s:b}",
                  "model_type", sd_arch_name(t->arch), "architectures", class, "num_hidden_layers",
                  t->L, "hidden_size", t->C, "intermediate_size", t->F, "num_attention_heads", t->H,
                  "num_key_value_heads", t->G, "head_dim", t->D, "vocab_size", t->V,
                  "max_position_embeddings", t->ctx, "hidden_act", "silu", "rms_norm_eps", 1e-6,
                  "tie_word_embeddings", t->tied && !t->bare, "torch_dtype",
                  t->dtype == SD_F32   ? "float32"
                  : t->dtype == SD_F16 ? "float16"
                                       : "bfloat16",
                  "attention_bias", 0);
    json_t *r = rope_json(t);
    bool scaled = t->scaling != SD_ROPE_NONE || t->longrope;
    json_object_set_new(t->old_config ? c : r, "rope_theta", json_real(t->rope_base));
    if (!t->old_config || scaled)
        json_object_set_new(c, t->old_config ? "rope_scaling" : "rope_parameters", r);
    else
        json_decref(r);
    if (sd_tiny_is(t, "gemma3")) set_gemma3(c, t);
    if (sd_tiny_is(t, "phi3")) set_phi3(c, t);
    return c;
}
