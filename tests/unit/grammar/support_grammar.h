// Grammars in tests: the tiny tokenizer, whose first 256 tokens are the bytes, and texts that are
// said byte by byte.
#pragma once

#include "model/grammar/grammar.h"
#include "model/grammar/schema/schema.h"

/// The tiny tokenizer's vocabulary, once for a test program; V of it.
sd_vocab *test_vocab(int *V);
const sd_tokenizer *test_tokenizer(void); // NULL until then

/// The grammar of an expression, a pattern or a schema, or NULL and the reason in *err.
sd_grammar *test_compile(sd_grammar_builder *b, int e, sd_error *err);
sd_grammar *test_regex(const char *pattern, sd_error *err);
sd_grammar *test_schema(const char *schema, sd_error *err);

/// How far a text is followed: bytes that were accepted; *ends: it may end there.
size_t test_follow(sd_grammar *g, const char *text, size_t len, bool *ends);
/// Whether the whole text is one of the grammar's.
bool test_accepts(sd_grammar *g, const char *text);

/// A random text of the grammar as tokens of the mask, at most `most` of them; appended to out. False:
/// it did not end by itself. Fails the test where a mask offers a token that is not accepted, or
/// nothing though the text may not end.
bool test_random_text(sd_grammar *g, uint64_t *seed, int most, sd_buf *out);
