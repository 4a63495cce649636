// Words that an answer may not have, as the sequences of tokens that are banned.
//
// A word is banned as it is within a text and behind a space, because most vocabularies have tokens
// of their own for the two. A sequence is banned by banning its last token where the others stand at
// the end of what was said, prompt included. Other ways to spell the word from smaller tokens stay
// possible, and a longer word that begins with the same tokens is banned as well: as in vLLM.
//
//     sd_ids banned = {0};
//     SD_TRY(sd_bad_word_add(&banned, model, "darn", 4, err));
//     sd_request r = {..., .shaping = {.bad_words = banned.id, .n_bad_words = banned.n}};
#pragma once

#include "decode/engine/engine.h"

/// Appends the word's sequences, each behind its length: one, or two where they differ. Spaces in
/// front of the word are dropped; special tokens that it writes out are meant. SD_EINVAL: the model
/// has no tokenizer, the word is empty, or it has more than SD_MAX_BAD_WORD_TOKENS tokens.
sd_status sd_bad_word_add(sd_ids *out, const sd_model *m, const char *word, size_t len,
                          sd_error *err);
