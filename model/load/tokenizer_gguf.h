// A tokenizer out of a GGUF file.
#pragma once

#include "model/formats/gguf.h"
#include "model/tokenizer/tokenizer.h"

/// From GGUF metadata: model "gpt2" (byte-level BPE), with the pre-tokenisers default, gpt-2,
/// llama-bpe, smollm, qwen2, deepseek-r1-qwen, qwen35, gpt-4o and tekken, or "llama"
/// (SentencePiece's BPE). Others: SD_EFORMAT, named.
sd_status sd_tokenizer_from_gguf(sd_tokenizer **out, const sd_gguf *g, sd_error *err);

/// The vocabulary of model "llama" (pieces_gguf.c) into t, zeroed.
sd_status sd_tokenizer_read_gguf_pieces(sd_tokenizer *t, const sd_gguf *g, sd_error *err);
