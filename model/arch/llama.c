// Llama 2 and 3, SmolLM2, TinyLlama, and Mistral, whose blocks are llama's.
#include "model/arch/arch.h"

const sd_arch sd_arch_llama = {.name = "llama",
                               .model_type = {"llama", "mistral"},
                               .linear = sd_plain_linears,
                               .linears = SD_PROJ_COUNT,
                               .gguf = {SD_PLAIN_NORMS_GGUF},
                               .folder = {SD_PLAIN_NORMS_FOLDER},
                               .gguf_interleaved = true,
                               .always_window = true};
