// Options that shape the logits of an answer, for the verbs that give one: penalties, biases, tokens
// that are banned or allowed, a least length. kernels/sample/sampler.h says in which order they act.
#pragma once

#include "cli/common.h"
#include "decode/engine/engine.h"

typedef struct {
    double presence, frequency, repetition;
    int64_t min_tokens;
    sd_strings bias, allowed, bad_words;
} sd_shaping_args;

// Rows for a table whose struct has the member `sd_shaping_args shaping`.
// clang-format off
#define SD_SHAPING_ROWS(values)                                                                    \
    {.name = "presence-penalty", .type = SD_OPT_FLOAT, .def = "0", .min = -2, .max = 2,            \
     .offset = offsetof(values, shaping.presence),                                                 \
     .help = "taken from the logits of tokens that the answer has; 0: off"},                       \
    {.name = "frequency-penalty", .type = SD_OPT_FLOAT, .def = "0", .min = -2, .max = 2,           \
     .offset = offsetof(values, shaping.frequency),                                                \
     .help = "the same, once for each time that the answer has the token; 0: off"},                \
    {.name = "repetition-penalty", .type = SD_OPT_FLOAT, .def = "1", .min = .01, .max = 100,       \
     .offset = offsetof(values, shaping.repetition),                                               \
     .help = "divides the logits of tokens that prompt or answer has; 1: off"},                    \
    {.name = "logit-bias", .type = SD_OPT_LIST, .value = "ID=BIAS",                                \
     .offset = offsetof(values, shaping.bias),                                                     \
     .help = "add -100 to 100 to a token's logit (may be given several times)"},                   \
    {.name = "allow-token", .type = SD_OPT_LIST, .value = "ID",                                    \
     .offset = offsetof(values, shaping.allowed),                                                  \
     .help = "only such tokens may come (may be given several times); none: all"},                 \
    {.name = "bad-word", .type = SD_OPT_LIST, .value = "TEXT",                                     \
     .offset = offsetof(values, shaping.bad_words),                                                \
     .help = "never say this (may be given several times)"},                                       \
    {.name = "min-tokens", .type = SD_OPT_INT, .def = "0", .min = 0, .max = SD_MAX_MIN_TOKENS,     \
     .offset = offsetof(values, shaping.min_tokens), .unit = "tokens",                             \
     .help = "do not end the answer before so many"}
// clang-format on

/// What the options say, for the requests of a verb. Zeroed is valid and closed.
typedef struct {
    sd_request_shaping request; // points to the members below
    sd_token_bias bias[SD_MAX_LIST];
    int32_t allowed[SD_MAX_LIST];
    sd_ids bad_words;
} sd_shaping_options;

/// SD_EINVAL names the option that is no token id, no bias or no word.
sd_status sd_shaping_open(sd_shaping_options *o, const sd_shaping_args *a, const sd_model *m,
                          sd_error *err);
void sd_shaping_close(sd_shaping_options *o);
