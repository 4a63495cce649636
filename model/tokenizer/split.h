// Pre-tokenisers: the steps that cut a text into words, and the encoder that runs them.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8

#include "model/tokenizer/bpe.h"

#include <pcre2.h>

enum { SD_TOK_MAX_STEPS = 16 };

typedef enum {
    SD_STEP_REGEX,
    SD_STEP_DIGITS, // by characters of category N
    SD_STEP_PREFIX  // a space before each piece that has none
} sd_split_step_kind;

// One row for each thing that can become of a match: name, tokenizer.json's word for it.
#define SD_SPLIT_LIST(X)                                                                           \
    X(SD_SPLIT_REMOVED, "Removed")                                                                 \
    X(SD_SPLIT_ISOLATED, "Isolated")                                                               \
    X(SD_SPLIT_PREVIOUS, "MergedWithPrevious")                                                     \
    X(SD_SPLIT_NEXT, "MergedWithNext")                                                             \
    X(SD_SPLIT_CONTIGUOUS, "Contiguous")

typedef enum {
#define SD_SPLIT_ENUM(name, word) name,
    SD_SPLIT_LIST(SD_SPLIT_ENUM)
#undef SD_SPLIT_ENUM
} sd_split_behaviour;

typedef struct {
    sd_split_step_kind kind;
    sd_split_behaviour behaviour;
    bool invert;
    pcre2_code *code;
} sd_split_step;

#define SD_REGEX_GPT2                                                                              \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SD_REGEX_LLAMA3                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "                     \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SD_REGEX_QWEN2                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "                          \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#define SD_REGEX_QWEN35                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "                  \
    "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
// A word in capitals, then small letters; or the other way round.
#define SD_REGEX_CAPITALS(tail)                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"     \
    "+" tail "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}"  \
    "\\p{M}]*" tail
#define SD_REGEX_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SD_REGEX_GPT4O                                                                             \
    SD_REGEX_CAPITALS("(?i:'s|'t|'re|'ve|'m|'ll|'d)?") "|\\p{N}{1,3}" SD_REGEX_REST
#define SD_REGEX_TEKKEN SD_REGEX_CAPITALS("") "|\\p{N}" SD_REGEX_REST

/// Rewrites a pattern of Hugging Face's engine (Oniguruma) for PCRE2 with the same meaning.
sd_status sd_regex_translate(sd_buf *out, const char *pattern, size_t len, sd_error *err);
/// Category N of Unicode 17, as Rust's char::is_numeric sees it.
bool sd_is_numeric(int32_t cp);
/// \w: a letter, mark, number or connector. -1 is none.
bool sd_is_word(int32_t cp);

// ---- running them (split.c)

/// Splits valid UTF-8 into words and appends their ids.
typedef struct sd_encoder sd_encoder;
struct sd_encoder {
    const sd_tokenizer *t;
    sd_ids *out;
    const char *begin;  // of the whole text
    const char *origin; // the same place in the normalised text; NULL: it is in another part
    sd_bpe_scratch scratch;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    sd_error *err;
};
sd_status sd_encoder_open(sd_encoder *e, const sd_tokenizer *t, sd_ids *out, sd_error *err);
void sd_encoder_close(sd_encoder *e);
sd_status sd_encoder_text(sd_encoder *e, const char *text, size_t len, sd_error *err);
