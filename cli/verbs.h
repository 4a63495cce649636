// The table of verbs: parser, help and dispatcher. A verb is one row here and one file
// of cli/verbs; chat, inspect, bench and cost have folders.
//
// There are two programs of one set of verbs. specdec is what serves: it starts at once and maps
// few libraries. What needs those of preparing data and of training (HDF5, libarchive, oneDNN, and
// forty that these bring along: 12 MB of every process) is specdec-tuning's, which specdec becomes
// for such a verb.
#pragma once

#include "cli/verb.h"

// name, what --help shows after it, one line of help. In the order of the work. X: specdec's,
// T: specdec-tuning's, B: both have a part of it.
#define SD_VERB_LIST(X, T, B)                                                                      \
    T(inspect, "inspect PATH", "what is this: model, adapter, dataset, run, corpus index")         \
    X(tokenize, "tokenize -m MODEL [TEXT|-]", "text to token ids")                                 \
    X(detokenize, "detokenize -m MODEL IDS", "token ids to text")                                  \
    X(logits, "logits -m MODEL [-a ADAPTER] --tokens IDS|--text TEXT -o OUT.npy",                  \
      "the logits of every position, as a NumPy file")                                             \
    X(perplexity, "perplexity -m MODEL [-a ADAPTER] FILE", "how well the model predicts a text")   \
    T(data, "data prepare|inspect|stats ...", "prepare and look at training data")                 \
    T(train, "train RECIPE [key=value ...]", "tune a LoRA adapter by a recipe")                    \
    X(export, "export RUN|ADAPTER --to FORMAT -o OUT",                                             \
      "write an adapter for other tools, or merge it")                                             \
    X(eval, "eval -m MODEL [-a ADAPTER] --suite FILE",                                             \
      "score a model on a suite of prompts with wanted answers")                                   \
    X(generate, "generate -m MODEL [-a ADAPTER] [-d DRAFT] -p PROMPT", "one answer")               \
    X(chat, "chat -m MODEL [-a ADAPTER] [-d DRAFT]", "a conversation in the terminal")             \
    X(serve, "serve -m MODEL [-a [NAME=]PATH ...] [-d DRAFT]", "an OpenAI-compatible server")      \
    X(key, "key new ID [--admin]", "a new API key and its line for serve")                         \
    X(pack, "pack MODEL", "make a model's packed form now, or check the one that is kept")         \
    X(cache, "cache list|clear", "the packed forms that are kept")                                 \
    B(bench, "bench model|kernels|spec ...", "measure")                                            \
    X(cost, "cost --requests-day N --in TOKENS --out TOKENS ...",                                  \
      "own replicas or an API: what a load costs, and from which load on")

#define SD_VERB_DECLARE(name, args, help)                                                          \
    sd_status sd_verb_##name(int argc, char **argv, sd_error *err);
SD_VERB_LIST(SD_VERB_DECLARE, SD_VERB_DECLARE, SD_VERB_DECLARE)
#undef SD_VERB_DECLARE

extern const sd_verb sd_verbs[]; // ends with a row without a name; without `run`: the other's

/// Becomes the other program, with this one's arguments. Returns only with the reason.
sd_status sd_become_other(sd_error *err);
