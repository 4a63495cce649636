// A tokenizer out of a GGUF file.
#pragma once

#include "model/formats/gguf.h"
#include "model/tokenizer/tokenizer.h"

/// From GGUF metadata: model "gpt2" (byte-level BPE); pre-tokenisers default, gpt-2, llama-bpe,
/// smollm, qwen2. Others: SD_EFORMAT, named.
sd_status sd_tokenizer_from_gguf(sd_tokenizer **out, const sd_gguf *g, sd_error *err);
