// The suite's prompts: each a request as a client may write it, made by a rule from a seed and its number.
//
// Prompts come in groups. Those of a group share a model and the beginnings of their texts, so that a
// prefix cache finds something, and run together. A group is one unit of work: it knows nothing of others.
#pragma once

#include "tests/e2e/exact/answer.h"
#include "tests/e2e/exact/dice.h"
#include "tests/e2e/exact/world.h"

enum { EXACT_GROUP = 12, EXACT_CTX = 512, EXACT_MOST_CHOICES = 3 };

// What a prompt has of all that is drawn.
// clang-format off
#define EXACT_TRAITS(X)                                                                            \
    X(GREEDY, "greedy") X(SAMPLED, "sampled") X(TRUNCATED, "top-p, top-k or min-p")                \
    X(PENALTIES, "penalties") X(BIAS, "logit_bias") X(MIN_TOKENS, "min_tokens")                    \
    X(BAD_WORDS, "bad words") X(ALLOWED, "allowed tokens") X(STOPS, "stop strings or tokens")      \
    X(OBJECT, "json_object") X(SCHEMA, "schema") X(REGEX, "regex") X(CHOICE, "choice")             \
    X(CALLS, "forced tool call") X(ADAPTER, "adapter") X(SEVERAL, "n > 1") X(LOGPROBS, "logprobs") \
    X(INDEX, "index of its own") X(TURN, "a conversation's next turn") X(SHARED, "shared beginning")
#define EXACT_TRAIT_ENUM(name, word) EXACT_##name,
typedef enum { EXACT_TRAITS(EXACT_TRAIT_ENUM) EXACT_TRAIT_COUNT } exact_trait;
#undef EXACT_TRAIT_ENUM
// clang-format on
extern const char *const exact_trait_name[EXACT_TRAIT_COUNT];

typedef struct {
    int64_t number;
    sd_ids prompt;
    sd_request r; // of the first choice, without a receiver
    int choices;  // r.sampling.choice 0 to choices - 1
    uint32_t traits;
    // What r points to.
    int32_t bad_words[12], stop_token[2];
    sd_token_bias bias[6];
    sd_ids allowed;
    char stop[2][8];
} exact_prompt;

/// before, said: the prompt before it in its group and its first choice's answer, which it may go on from;
/// NULL: it is the first. Where it stands it stays: r points into it.
sd_status exact_prompt_make(exact_prompt *p, const exact_world *w, uint64_t seed, int64_t number,
                            const exact_prompt *before, const exact_answer *said, sd_error *err);
void exact_prompt_free(exact_prompt *p);
