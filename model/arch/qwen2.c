// Qwen 2 and 2.5: a bias on q, k and v.
#include "model/arch/arch.h"

const sd_arch sd_arch_qwen2 = {.name = "qwen2",
                               .model_type = {"qwen2"},
                               .linear = sd_plain_linears,
                               .linears = SD_PROJ_COUNT,
                               .gguf = {SD_PLAIN_NORMS_GGUF},
                               .folder = {SD_PLAIN_NORMS_FOLDER},
                               .qkv_bias = true};
