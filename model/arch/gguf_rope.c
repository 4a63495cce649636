// Rotations in GGUF files.
#include "model/arch/rope_keys.h"

#include "base/log.h"
#include "model/model_private.h"

#include <string.h>

static sd_status read_yarn(sd_gguf_keys *k, sd_rotation *r, int dim, sd_error *err) {
    sd_status st = SD_OK;
    double inv[256], scale;
    float extra;
    r->scaling = SD_ROPE_YARN;
    r->attn_factor = 0;
    SD_TRY(sd_gguf_float_or(k, "rope.scaling.attn_factor", 1, &extra, err));
    if (extra != 1 && dim >= 2 && dim <= 512 && r->orig_ctx > 0) {
        sd_rope_frequencies(r, dim, 0, inv, &scale);
        r->attn_factor = (float)(scale * (double)extra);
    }
out:
    return st;
}

static sd_status read_scaling(sd_gguf_keys *k, sd_rotation *r, const sd_hparams *hp,
                              sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_string type = {"linear", 6};
    float linear;
    SD_TRY(sd_gguf_str(k->g, sd_gguf_key(k, "rope.scaling.type"), &type, NULL, err));
    SD_TRY(sd_gguf_float_or(k, "rope.scale_linear", 1, &linear, err));
    SD_TRY(sd_gguf_float_or(k, "rope.scaling.factor", linear, &r->factor, err));
    SD_TRY(sd_gguf_int_or(k, "rope.scaling.original_context_length", hp->ctx_train, &r->orig_ctx,
                          err));
    SD_TRY(sd_gguf_float_or(k, "rope.scaling.yarn_beta_fast", 32, &r->beta_fast, err));
    SD_TRY(sd_gguf_float_or(k, "rope.scaling.yarn_beta_slow", 1, &r->beta_slow, err));
    if (type.len == 4 && memcmp(type.data, "none", 4) == 0) {
        r->scaling = SD_ROPE_NONE;
    } else if (type.len == 6 && memcmp(type.data, "linear", 6) == 0) {
        r->scaling = r->factor == 1 || r->factor == 0 ? SD_ROPE_NONE : SD_ROPE_LINEAR;
    } else if (type.len == 4 && memcmp(type.data, "yarn", 4) == 0) {
        SD_TRY(read_yarn(k, r, hp->rope_dim, err));
    } else {
        SD_CHECK(false, err, SD_EFORMAT,
                 "%s: rotary scaling of type '%.*s' is not supported; none, linear and yarn are",
                 k->path, (int)(type.len < 32 ? type.len : 32), type.data);
    }
out:
    return st;
}

sd_status sd_gguf_divisors(const float **out, sd_model *m, const sd_gguf *g, const char *name,
                           sd_error *err) {
    sd_status st = SD_OK;
    const int n = m->hp.rope_dim / 2;
    const sd_gguf_tensor *t = sd_gguf_tensor_find(g, name);
    float *v;
    *out = NULL;
    if (!t) goto out;
    SD_CHECK(t->dtype == SD_F32 && t->ne[0] == n && t->bytes == (size_t)n * sizeof *v, err,
             SD_EFORMAT, "%s: %s is no vector of %d F32 values; convert the model again", m->path,
             name, n);
    v = sd_arena_alloc(&m->owned->arena, (size_t)n, sizeof *v);
    SD_CHECK_ALLOC(v, err);
    memcpy(v, t->data, t->bytes);
    for (int i = 0; i < n; i++)
        SD_CHECK(v[i] > 0 && v[i] < 1e6f, err, SD_EFORMAT,
                 "%s: %s[%d] is %g, which divides a frequency", m->path, name, i, (double)v[i]);
    *out = v;
out:
    return st;
}

sd_status sd_gguf_rotation(sd_rotation *out, sd_model *m, sd_gguf_keys *k, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_gguf_float_or(k, "rope.freq_base", 10000, &out->base, err));
    if (!sd_gguf_keys_have(k, "rope.freq_base"))
        sd_log(SD_LOG_WARN, "%s: the key %s is missing; 10000 is taken, as llama.cpp does", m->path,
               k->key);
    SD_TRY(read_scaling(k, out, &m->hp, err));
    SD_TRY(sd_gguf_divisors(&out->factors, m, k->g, "rope_freqs.weight", err));
out:
    return st;
}
