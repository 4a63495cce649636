// Answers of an engine, collected whole and compared bit by bit.
#pragma once

#include "decode/engine/engine.h"

typedef struct {
    sd_token_info *token; // [n]
    int n, cap;
    sd_buf text;
    sd_finish finish;
    sd_request_stats stats; // with the finish
    char error[256];        // of a finish that is an error
    bool lost;              // there was no memory for it
} exact_answer;

/// The on_event that fills an exact_answer given as ctx, which is zeroed or was cleared.
void exact_collect(void *answer, const sd_event *ev);
void exact_answer_clear(exact_answer *a); // the memory is kept
void exact_answer_free(exact_answer *a);

/// The first token where `got` is not `want`; -1: they are the same in tokens, text and end, and where
/// logprobs >= 0 in each bit of the log probabilities that both have. got may be cut: then it must be
/// the beginning of the other.
int exact_difference(const exact_answer *want, const exact_answer *got, int logprobs, bool cut);
/// One line without an end: what stands at a token, or how the answer ended before it.
void exact_print(const char *who, const sd_tokenizer *t, const exact_answer *a, int at);
