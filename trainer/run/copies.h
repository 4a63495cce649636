// What a completion repeats of its prompt, found when a corpus index is written. Where answers fill a form
// with values that the prompt has, the index of the completions knows the form, and these places say from
// where in a prompt the values come: behind `Version:`, up to the end of the line.
#pragma once

#include "datasets/corpus/corpus_index.h"
#include "model/model.h"

typedef struct {
    sd_corpus_copy *copy; // the caller's to free
    int64_t n, cap;
} sd_corpus_copies;

/// t: NULL where the model has no tokenizer, and no token is another without its space.
/// Appends what completion [n] repeats of prompt [n_prompt], two tokens at least, the longest first from its
/// begin on; `at` is where the completion stands in the corpus.
sd_status sd_corpus_find_copies(sd_corpus_copies *out, const sd_tokenizer *t, const int32_t *prompt,
                                int n_prompt, const int32_t *completion, int n, int64_t at,
                                sd_error *err);
