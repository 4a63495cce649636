// An architecture is a file in this folder: the names of its tensors in both formats, and what its
// block has that others lack. Readers of models and adapters ask here instead of comparing names.
#pragma once

#include "model/arch/config_keys.h"
#include "model/arch/gguf_keys.h"
#include "model/model.h"

/// What a format calls the vectors of a block, inside the layer and without ".weight"; NULL: the
/// architecture has no such thing.
typedef struct {
    const char *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm, *q_norm, *k_norm;
} sd_norm_names;

struct sd_arch {
    const char *name;             // general.architecture of GGUF
    const char *model_type[3];    // of config.json; NULL: end
    const sd_linear_kind *linear; // [linears] of a layer, in the block's order
    int linears;
    sd_norm_names gguf, folder;
    bool qkv_bias;         // q, k and v have a bias
    bool gguf_interleaved; // GGUF files hold the rows of q and k permuted (model/adapter/basis.h)
    bool norm_adds_one;    // folders hold w where a norm multiplies by 1 + w; GGUF files hold that
    const char *tensor[3]; // of GGUF, which it reads itself; NULL: end

    // config.json, where a key is missing
    int head_dim;       // 0: hidden size / heads
    int ctx_train;      // 0: 2048
    double eps;         // 0: 1e-6
    bool tied;          // the head is the embedding
    bool always_window; // sliding_window holds without use_sliding_window

    /// What it reads beyond what all have: into m->hp and m->layer, which stand, before weights are
    /// bound. NULL: nothing; then the model has one rotation, and a window is refused.
    sd_status (*read_gguf)(sd_model *m, sd_gguf_keys *k, sd_error *err);
    sd_status (*read_config)(sd_model *m, const sd_config_keys *c, sd_error *err);
};

extern const sd_arch sd_arch_llama, sd_arch_qwen2, sd_arch_qwen3, sd_arch_gemma3, sd_arch_phi3;

/// q_proj ... down_proj, one matrix each, as most models have them.
extern const sd_linear_kind sd_plain_linears[SD_PROJ_COUNT];
/// input_layernorm and post_attention_layernorm, attn_norm and ffn_norm.
#define SD_PLAIN_NORMS_GGUF .attn_norm = "attn_norm", .ffn_norm = "ffn_norm"
#define SD_PLAIN_NORMS_FOLDER .attn_norm = "input_layernorm", .ffn_norm = "post_attention_layernorm"

/// By model_type of config.json; NULL: not known.
const sd_arch *sd_arch_of_config(const char *model_type);
/// The names of all, for messages: "llama, qwen2 and qwen3".
const char *sd_arch_names(char *room, size_t size, bool of_config);
