// A model's tokenizer without its weights, for what needs no more: tokenize, detokenize, inspect. It
// serves whole models, vocabularies that were cut out of them, and folders that hold a tokenizer.json
// alone.
//
//     sd_vocabulary *v;
//     SD_TRY(sd_vocabulary_open(&v, "ggml-vocab-phi-3.gguf", err));
//     ... v->tokenizer
//     sd_vocabulary_close(v);
#pragma once

#include "model/formats/gguf.h"
#include "model/tokenizer/tokenizer.h"

typedef struct {
    char *path;              // as given
    sd_gguf *gguf;           // NULL: a folder
    sd_tokenizer *tokenizer; // NULL when there is none that is understood
    char *tokenizer_error;   // why tokenizer is NULL although the source has one; NULL otherwise
    int V; // ids of the model, as far as the source says; at least the tokenizer's
} sd_vocabulary;

/// A GGUF file or a folder. SD_EINVAL: it is an adapter or a run. SD_ENOTFOUND: a folder without
/// config.json and tokenizer.json.
sd_status sd_vocabulary_open(sd_vocabulary **out, const char *path, sd_error *err);
void sd_vocabulary_close(sd_vocabulary *v); // NULL is fine

/// True when path is a tokenizer alone: a GGUF file without tensors, or a folder that holds a
/// tokenizer and no config.json, and is no adapter or run. sd_model_open refuses it.
sd_status sd_vocabulary_is(bool *alone, const char *path, sd_error *err);
