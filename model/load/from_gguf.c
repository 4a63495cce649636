// A model from a GGUF file: the keys "<arch>.*" become hyperparameters, "tokenizer.*" the tokenizer
// and the template.
//
// In files of architecture llama the rows of q and k are stored permuted, so that rotation pairs
// stand side by side; rope_interleaved says so and nothing is permuted back.
#include "base/files/path.h"
#include "base/log.h"
#include "model/arch/rope_keys.h"
#include "model/formats/gguf.h"
#include "model/load/read.h"
#include "model/load/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>

static bool find_tensor(const sd_model *m, const char *name, sd_tensor_ref *out) {
    const sd_gguf_tensor *t = sd_gguf_tensor_find(m->owned->gguf, name);
    if (!t) return false;
    int64_t rows = t->ne[1] * t->ne[2] * t->ne[3];
    *out = (sd_tensor_ref){t->name, t->dtype, sd_dtype_name(t->dtype), rows, t->ne[0],
                           t->data, t->bytes};
    return true;
}

static const char *name_at(const sd_model *m, int i) {
    const sd_gguf_tensor *t = sd_gguf_tensor_at(m->owned->gguf, i);
    return t ? t->name : NULL;
}

static const sd_tensor_source source = {.find = find_tensor,
                                        .name_at = name_at,
                                        .embedding = "token_embd.weight",
                                        .out_norm = "output_norm.weight",
                                        .head = "output.weight",
                                        .classifier = "cls.output.weight",
                                        .classifier_bias = "cls.output.bias",
                                        .layer = "blk.",
                                        .gguf = true,
                                        .ignored = {"rope_freqs.weight", "attn_rot_embd", NULL}};

static sd_status refuse_others(sd_gguf_keys *k, const sd_hparams *hp, sd_error *err) {
    sd_status st = SD_OK;
    int experts, window, value;
    SD_TRY(sd_gguf_int_or(k, "expert_count", 0, &experts, err));
    SD_TRY(sd_gguf_int_or(k, "attention.sliding_window", 0, &window, err));
    SD_TRY(sd_gguf_int_or(k, "attention.value_length", hp->D, &value, err));
    SD_CHECK(experts == 0, err, SD_EFORMAT,
             "%s: mixtures of experts are not supported; use a dense model", k->path);
    SD_CHECK(hp->arch->read_gguf || window == 0 || window >= hp->ctx_train, err, SD_EFORMAT,
             "%s: attention with a sliding window of %d is not supported", k->path, window);
    SD_CHECK(value == hp->D, err, SD_EFORMAT,
             "%s: keys of %d and values of %d per head differ, which is not supported", k->path,
             hp->D, value);
out:
    return st;
}

static sd_status read_hparams(sd_model *m, sd_gguf_keys *k, sd_error *err) {
    sd_status st = SD_OK;
    sd_hparams *hp = &m->hp;
    SD_TRY(sd_gguf_need_int(k, "block_count", &hp->L, err));
    SD_TRY(sd_gguf_need_int(k, "embedding_length", &hp->C, err));
    SD_TRY(sd_gguf_need_int(k, "context_length", &hp->ctx_train, err));
    SD_TRY(sd_gguf_int_all_layers(k, "feed_forward_length", 0, &hp->F, err));
    SD_TRY(sd_gguf_int_all_layers(k, "attention.head_count", 0, &hp->H, err));
    SD_CHECK(hp->H > 0, err, SD_EFORMAT, "%s: the key %s.attention.head_count is missing or 0",
             m->path, k->arch);
    SD_TRY(sd_gguf_int_all_layers(k, "attention.head_count_kv", hp->H, &hp->G, err));
    SD_TRY(sd_gguf_int_or(k, "attention.key_length", hp->C / hp->H, &hp->D, err));
    SD_TRY(sd_gguf_int_or(k, "rope.dimension_count", hp->D, &hp->rope_dim, err));
    SD_CHECK(sd_gguf_keys_have(k, "attention.layer_norm_rms_epsilon"), err, SD_EFORMAT,
             "%s: the key %s is missing; the file is not a whole model", m->path, k->key);
    SD_TRY(sd_gguf_float_or(k, "attention.layer_norm_rms_epsilon", 0, &hp->eps, err));
    SD_TRY(refuse_others(k, hp, err));
    const sd_gguf_tensor *e = sd_gguf_tensor_find(m->owned->gguf, source.embedding);
    SD_CHECK(e, err, SD_EFORMAT, "%s: the tensor %s is missing", m->path, source.embedding);
    hp->V = (int)e->ne[1];
    hp->ropes = 1;
    hp->qkv_bias = hp->arch->qkv_bias;
    hp->qk_norm = hp->arch->gguf.q_norm != NULL;
    hp->rope_interleaved = hp->arch->gguf_interleaved;
    hp->tied_head = !sd_gguf_tensor_find(m->owned->gguf, source.head);
out:
    return st;
}

static sd_status read_tokens(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_string s;
    bool has;
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int32_t id;
        SD_TRY(sd_gguf_token(m->owned->gguf, ends[i], &id, err));
        SD_CHECK(id < m->hp.V, err, SD_EFORMAT,
                 "%s: the key %s is %d, but the model has %d tokens; convert the model again",
                 m->path, ends[i], id, m->hp.V);
        sd_model_add_end(m, id);
    }
    SD_TRY(sd_read_gguf_tokenizer(&m->tokenizer, &m->tokenizer_error, m->owned->gguf, err));
    SD_TRY(sd_gguf_str(m->owned->gguf, "tokenizer.chat_template", &s, &has, err));
    if (has) SD_TRY(sd_model_set_template(m, s.data, s.len, err));
out:
    return st;
}

static sd_status set_name(sd_model *m, sd_error *err) {
    sd_gguf_string s = {0};
    sd_status st = sd_gguf_str(m->owned->gguf, "general.name", &s, NULL, err);
    if (st != SD_OK) return st;
    if (s.len > 0 && s.len < 256)
        m->name = sd_strndup(s.data, s.len);
    else
        m->name = sd_strdup(sd_path_name(m->path));
    return m->name ? SD_OK : sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
}

sd_status sd_model_read_gguf(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_string s;
    bool has;
    char arch[64] = "", known[128];
    SD_TRY(sd_gguf_open_whole(&m->owned->gguf, m->path, err));
    SD_CHECK(!sd_gguf_str_is(m->owned->gguf, "general.type", "adapter"), err, SD_EFORMAT,
             "%s: is a LoRA adapter, not a model; give it with -a", m->path);
    if (sd_gguf_is_vocabulary(m->owned->gguf)) return sd_refuse_vocabulary(m->path, err);
    SD_TRY(sd_gguf_str(m->owned->gguf, "general.architecture", &s, &has, err));
    SD_CHECK(has, err, SD_EFORMAT,
             "%s: the key general.architecture is missing; the file is not a model", m->path);
    snprintf(arch, sizeof arch, "%.*s", (int)(s.len < 63 ? s.len : 63), s.data);
    m->hp.arch = sd_arch_find(arch);
    SD_CHECK(m->hp.arch, err, SD_EFORMAT, "%s: architecture '%s' is not supported; %s are", m->path,
             arch, sd_arch_names(known, sizeof known, false));
    sd_gguf_keys k = {.g = m->owned->gguf, .arch = arch, .path = m->path};
    SD_TRY(read_hparams(m, &k, err));
    SD_TRY(sd_model_make_layers(m, err));
    SD_TRY(sd_model_check_sizes(m, err));
    SD_TRY(sd_gguf_rotation(&m->hp.rope[0], m, &k, err));
    if (m->hp.arch->read_gguf) SD_TRY(m->hp.arch->read_gguf(m, &k, err));
    SD_TRY(sd_model_check_hparams(m, err));
    SD_TRY(sd_model_bind(m, &source, err));
    SD_TRY(sd_pooling_of_gguf(m, &k, err));
    SD_TRY(set_name(m, err));
    SD_TRY(read_tokens(m, err));
out:
    return st;
}
