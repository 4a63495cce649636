// Phi 3 and 4: q, k and v are one linear map, so are gate and up; a part of each head turns; LongRoPE.
#include "model/arch/arch.h"
#include "model/arch/rope_keys.h"
#include "model/model_private.h"

#include <math.h>
#include <string.h>

static const sd_linear_kind linears[] = {
    {"qkv_proj", "self_attn.qkv_proj", "attn_qkv", SD_WQ, 3},
    {"o_proj", "self_attn.o_proj", "attn_output", SD_WO, 1},
    {"gate_up_proj", "mlp.gate_up_proj", "ffn_up", SD_WGATE, 2},
    {"down_proj", "mlp.down_proj", "ffn_down", SD_WDOWN, 1},
};

static void set_window(sd_model *m, int window) {
    for (int l = 0; l < m->hp.L; l++) m->layer[l].window = window;
}

// ---- GGUF

#define LONG_TENSOR "rope_factors_long.weight"
#define SHORT_TENSOR "rope_factors_short.weight"

static sd_status read_gguf(sd_model *m, sd_gguf_keys *k, sd_error *err) {
    sd_status st = SD_OK;
    sd_rotation *r = &m->hp.rope[0];
    const float *brief, *beyond;
    int window;
    SD_TRY(sd_gguf_int_or(k, "attention.sliding_window", 0, &window, err));
    set_window(m, window);
    SD_TRY(sd_gguf_divisors(&brief, m, k->g, SHORT_TENSOR, err));
    SD_TRY(sd_gguf_divisors(&beyond, m, k->g, LONG_TENSOR, err));
    if (!brief && !beyond) goto out;
    SD_CHECK(brief && beyond, err, SD_EFORMAT,
             "%s: one of %s and %s is missing; convert the model again", m->path, SHORT_TENSOR,
             LONG_TENSOR);
    r->scaling = SD_ROPE_LONG;
    r->factor = 1;
    r->factors = brief;
    r->long_factors = beyond;
    SD_TRY(sd_gguf_float_or(k, "rope.scaling.attn_factor", 1, &r->attn_factor, err));
out:
    return st;
}

// ---- config.json

static sd_status read_factors(const float **out, sd_model *m, const sd_config_keys *r,
                              const char *name, sd_error *err) {
    sd_status st = SD_OK;
    const size_t n = (size_t)m->hp.rope_dim / 2;
    json_t *list;
    float *v;
    SD_TRY(sd_key_array(&list, r->o, name, r->file, err));
    SD_CHECK(json_array_size(list) == n, err, SD_EFORMAT,
             "%s: %s has %zu numbers for %zu frequencies", r->file, name, json_array_size(list), n);
    v = sd_arena_alloc(&m->owned->arena, n, sizeof *v);
    SD_CHECK_ALLOC(v, err);
    for (size_t i = 0; i < n; i++) {
        double x = json_number_value(json_array_get(list, i));
        SD_CHECK(x > 0 && x < 1e6, err, SD_EFORMAT, "%s: %s[%zu] is %g, which divides a frequency",
                 r->file, name, i, x);
        v[i] = (float)x;
    }
    *out = v;
out:
    return st;
}

// The attention's factor follows from how far the context was stretched (arXiv:2402.13753).
static sd_status read_long(sd_model *m, const sd_config_keys *c, const sd_config_keys *r,
                           sd_error *err) {
    sd_status st = SD_OK;
    sd_rotation *rope = &m->hp.rope[0];
    float stretch;
    rope->scaling = SD_ROPE_LONG;
    SD_TRY(sd_config_int_or(c, "original_max_position_embeddings", 4096, &rope->orig_ctx, err));
    SD_CHECK(rope->orig_ctx > 1, err, SD_EFORMAT,
             "%s: original_max_position_embeddings is %d; it is at least 2", c->file,
             rope->orig_ctx);
    SD_TRY(read_factors(&rope->factors, m, r, "short_factor", err));
    SD_TRY(read_factors(&rope->long_factors, m, r, "long_factor", err));
    double factor = (double)m->hp.ctx_train / rope->orig_ctx;
    SD_TRY(sd_config_float_or(r, "factor", factor, &stretch, err));
    factor = (double)stretch;
    rope->factor = stretch;
    SD_TRY(sd_config_float_or(r, "attention_factor",
                              factor <= 1 ? 1 : sqrt(1 + log(factor) / log((double)rope->orig_ctx)),
                              &rope->attn_factor, err));
out:
    return st;
}

static sd_status read_config(sd_model *m, const sd_config_keys *c, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    sd_config_keys r;
    const char *type;
    float theta;
    int window;
    SD_TRY(sd_config_int_or(c, "sliding_window", 0, &window, err));
    set_window(m, window);
    SD_TRY(sd_config_rope_keys(&r, c, err));
    SD_TRY(sd_config_rope_dim(&hp->rope_dim, c, &r, hp->D, err));
    SD_TRY(sd_config_float_or(c, "rope_theta", 10000, &theta, err));
    SD_TRY(sd_config_float_or(&r, "rope_theta", (double)theta, &hp->rope[0].base, err));
    SD_TRY(sd_config_rope_type(&type, &r, err));
    if (strcmp(type, "default") == 0) goto out;
    // Two older names of the same.
    bool stretched =
        strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0 || strcmp(type, "yarn") == 0;
    SD_CHECK(stretched, err, SD_EFORMAT,
             "%s: rotary scaling '%.32s' is not supported for phi3; default and longrope are",
             c->file, type);
    SD_TRY(read_long(m, c, &r, err));
out:
    return st;
}

const sd_arch sd_arch_phi3 = {.name = "phi3",
                              .model_type = {"phi3"},
                              .linear = linears,
                              .linears = sizeof linears / sizeof linears[0],
                              .gguf = {SD_PLAIN_NORMS_GGUF},
                              .folder = {SD_PLAIN_NORMS_FOLDER},
                              .tensor = {LONG_TENSOR, SHORT_TENSOR},
                              .ctx_train = 4096,
                              .eps = 1e-5,
                              .read_gguf = read_gguf,
                              .read_config = read_config};
