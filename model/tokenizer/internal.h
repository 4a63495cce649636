// The tokenizer as its own files see it, and the opening of one by the readers of files
// (from_json.c, model/load/tokenizer_gguf.c).
//
// The room, from the ground up:
//
//   ids.c      a growing list of ids            printable.c   bytes as vocabularies write them
//   bpe.c      word -> ids                      added.c       added tokens
//   regex.c    patterns for PCRE2               normalise.c   Unicode's forms
//   split.c    text -> words                    tokenizer.c   opening, closing, questions
//   encode.c   text -> ids                      decode.c      ids -> text
#pragma once

#include "model/tokenizer/added.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/split.h"

enum { SD_TOK_MAX_TEXT = 1 << 30 }; // bytes of one text, so that positions fit 32 bits

struct sd_tokenizer {
    sd_bpe bpe;
    sd_split_step step[SD_TOK_MAX_STEPS];
    int n_steps;
    bool normalises; // to normal_form (UTF8PROC_* options)
    int normal_form;
    sd_added_token *added;
    int n_added, cap_added;
    sd_trie raw, normal; // tokens found before and after normalisation
    int32_t bos, eos;
    bool add_bos;
    char fingerprint[65];
};

sd_status sd_tokenizer_add_regex(sd_tokenizer *t, const char *pattern, size_t len, bool literal,
                                 sd_split_behaviour behaviour, bool invert, sd_error *err);
sd_status sd_tokenizer_add_step(sd_tokenizer *t, sd_split_step step, sd_error *err);
sd_status sd_tokenizer_add_added_token(sd_tokenizer *t, const sd_added_token *a, sd_error *err);
/// Tries and fingerprint; the last step of opening.
sd_status sd_tokenizer_finish(sd_tokenizer *t, sd_error *err);
