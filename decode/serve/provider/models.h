// The models that the local provider has: the base under its names, and the adapters.
#pragma once

#include "base/option.h"
#include "datasets/corpus/corpus_index.h"
#include "decode/serve/provider/provider.h"
#include "model/adapter/adapter.h"
#include "model/defaults.h"
#include "model/dialogue/dialogue.h"
#include "model/grammar/schema/cache.h"

#include <stdatomic.h>

// The base (row 0) or an adapter.
typedef struct {
    sd_model_card card;
    char *name;
    sd_adapter *adapter;  // NULL: the base
    sd_corpus *corpus;    // the adapter's own; NULL: none
    sd_template *chat;    // the adapter's own; NULL: the model's
    int32_t end_token;    // where chat ends an answer; -1: only where the model does
    sd_defaults defaults; // of conversations with it; zeroed: none
    sd_dialogue dialogue; // what its template takes, and how its answers are read
} sd_models_row;

typedef struct {
    const char *model;
    const char *pack_dir;           // the packed form's cache; NULL: none
    const char *chat_template;      // a Jinja file for all rows; NULL: each its own
    int tool_format;                // 0: by the template; else 1 + sd_tool_format
    bool other_base;                // take adapters that were trained on another model
    bool no_run_defaults;           // rows have no defaults
    bool has_draft;                 // the base is drafted for
    const sd_strings *adapters;     // "NAME=PATH"; may be NULL
    const sd_strings *served_names; // aliases of the base; may be NULL
} sd_models_options;

// Immutable once it is open.
typedef struct {
    sd_model *model;
    sd_models_row *row; // [n]
    int n;
    char **alias; // [n_alias] further names of the base
    int n_alias;
    size_t longest_token;       // bytes
    sd_grammar_cache *grammars; // over the model's tokenizer, thread-safe; NULL: it has none
} sd_models;

/// The path in [NAME=]PATH.
const char *sd_models_adapter_path(const char *spec);

/// SD_EINVAL names the adapter that cannot be served, and why. *stop, once set, ends it early.
sd_status sd_models_open(sd_models *m, const sd_models_options *o, const atomic_bool *stop,
                         sd_error *err);
void sd_models_close(sd_models *m); // a zeroed one is fine
