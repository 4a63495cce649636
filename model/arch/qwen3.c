// Qwen 3: each head of q and k is normed.
#include "model/arch/arch.h"

const sd_arch sd_arch_qwen3 = {
    .name = "qwen3",
    .model_type = {"qwen3"},
    .linear = sd_plain_linears,
    .linears = SD_PROJ_COUNT,
    .gguf = {SD_PLAIN_NORMS_GGUF, .q_norm = "attn_q_norm", .k_norm = "attn_k_norm"},
    .folder = {SD_PLAIN_NORMS_FOLDER, .q_norm = "self_attn.q_norm", .k_norm = "self_attn.k_norm"},
    .head_dim = 128};
