// A tokenizer's vocabulary as a trie over bytes, made once and shared by all grammars.
//
// Special tokens are left out: their text is no text. Tokens that are plain inside a JSON string
// (whole UTF-8 characters, none of them '"', '\' or a control character) are also kept by their
// number of characters, so that the mask inside a string needs no walk over them.
#pragma once

#include "model/tokenizer/tokenizer.h"

typedef struct sd_vocab sd_vocab;

/// The tokenizer must outlive it.
sd_status sd_vocab_open(sd_vocab **out, const sd_tokenizer *t, sd_error *err);
size_t sd_vocab_bytes(const sd_vocab *v);
/// Bytes that one takes at most: no two tokens may begin alike.
size_t sd_vocab_most_bytes(const sd_tokenizer *t);
sd_vocab *sd_vocab_acquire(sd_vocab *v);
void sd_vocab_release(sd_vocab *v); // NULL is fine
