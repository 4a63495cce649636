// Rotations in config.json: flat rope_theta and rope_scaling, or the newer rope_parameters.
#include "model/arch/rope_keys.h"

#include <math.h>
#include <string.h>

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static sd_status read_yarn(sd_rotation *rope, const sd_config_keys *r, sd_error *err) {
    sd_status st = SD_OK;
    float mscale, all;
    bool truncate;
    rope->scaling = SD_ROPE_YARN;
    SD_TRY(sd_config_float_or(r, "beta_fast", 32, &rope->beta_fast, err));
    SD_TRY(sd_config_float_or(r, "beta_slow", 1, &rope->beta_slow, err));
    SD_TRY(sd_config_float_or(r, "attention_factor", 0, &rope->attn_factor, err));
    SD_TRY(sd_config_float_or(r, "mscale", 0, &mscale, err));
    SD_TRY(sd_config_float_or(r, "mscale_all_dim", 0, &all, err));
    double f = (double)rope->factor;
    if (rope->attn_factor == 0 && mscale != 0 && all != 0)
        rope->attn_factor = (float)(yarn_mscale(f, (double)mscale) / yarn_mscale(f, (double)all));
    SD_TRY(sd_key_bool(&truncate, r->o, "truncate", true, r->file, err));
    SD_CHECK(truncate, err, SD_EFORMAT, "%s: YaRN with truncate false is not supported", r->file);
out:
    return st;
}

sd_status sd_config_rope_keys(sd_config_keys *out, const sd_config_keys *c, sd_error *err) {
    sd_status st = SD_OK;
    json_t *scaling, *parameters;
    SD_TRY(sd_key_object(&scaling, c->o, "rope_scaling", c->file, err));
    SD_TRY(sd_key_object(&parameters, c->o, "rope_parameters", c->file, err));
    *out = (sd_config_keys){scaling ? scaling : parameters, c->file};
out:
    return st;
}

sd_status sd_config_rope_type(const char **out, const sd_config_keys *r, sd_error *err) {
    sd_status st = SD_OK;
    const char *old, *name;
    json_t *value;
    SD_TRY(sd_key_str(&old, r->o, "type", "default", r->file, err));
    SD_TRY(sd_key_str(out, r->o, "rope_type", old, r->file, err));
    if (strcmp(*out, "default") != 0) goto out;
    // An object of objects would be one rotation per kind of layer.
    json_object_foreach((json_t *)(uintptr_t)r->o, name, value) {
        SD_CHECK(!json_is_object(value), err, SD_EFORMAT,
                 "%s: rotary parameters per layer type (%s) are not supported", r->file, name);
    }
out:
    return st;
}

sd_status sd_config_rope_dim(int *dim, const sd_config_keys *c, const sd_config_keys *r, int D,
                             sd_error *err) {
    sd_status st = SD_OK;
    double partial; // in fp32 0.9 of 20 dimensions would be 17
    SD_TRY(sd_key_number(&partial, c->o, "partial_rotary_factor", 1, c->file, err));
    SD_TRY(sd_key_number(&partial, r->o, "partial_rotary_factor", partial, r->file, err));
    SD_CHECK(partial > 0 && partial <= 1, err, SD_EFORMAT,
             "%s: partial_rotary_factor %g is out of range; it is more than 0 and at most 1",
             c->file, partial);
    *dim = (int)(D * partial);
out:
    return st;
}

sd_status sd_config_rotation(sd_rotation *out, const sd_config_keys *c, const sd_config_keys *r,
                             double theta, int ctx_train, sd_error *err) {
    sd_status st = SD_OK;
    const char *type;
    SD_TRY(sd_config_float_or(r, "rope_theta", theta, &out->base, err));
    SD_TRY(sd_config_rope_type(&type, r, err));
    if (strcmp(type, "default") == 0) goto out;
    SD_TRY(sd_config_float_or(r, "factor", 0, &out->factor, err));
    SD_TRY(sd_config_int_or(r, "original_max_position_embeddings", ctx_train, &out->orig_ctx, err));
    SD_TRY(sd_config_int_or(c, "original_max_position_embeddings", out->orig_ctx, &out->orig_ctx,
                            err));
    if (strcmp(type, "linear") == 0) {
        out->scaling = SD_ROPE_LINEAR;
    } else if (strcmp(type, "llama3") == 0) {
        out->scaling = SD_ROPE_LLAMA3;
        SD_TRY(sd_config_float_or(r, "low_freq_factor", 0, &out->low, err));
        SD_TRY(sd_config_float_or(r, "high_freq_factor", 0, &out->high, err));
    } else if (strcmp(type, "yarn") == 0) {
        SD_TRY(read_yarn(out, r, err));
    } else {
        SD_CHECK(false, err, SD_EFORMAT,
                 "%s: rotary scaling '%.32s' is not supported; default, linear, llama3 and yarn "
                 "are",
                 c->file, type);
    }
out:
    return st;
}
