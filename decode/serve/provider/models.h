// The models that the local provider has: the base under its names, and the adapters, which come and go.
//
// A row is immutable from its opening to its end. Whoever names it by its number keeps it from going: rows are
// removed when nobody will ask for them any more.
#pragma once

#include "base/files/beneath.h"
#include "base/option.h"
#include "datasets/corpus/corpus_index.h"
#include "decode/serve/provider/provider.h"
#include "model/adapter/adapter.h"
#include "model/defaults.h"
#include "model/dialogue/dialogue.h"
#include "model/grammar/schema/cache.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SD_MODELS_MOST = 1024 }; // rows

// The base (row 0) or an adapter.
typedef struct {
    sd_model_card card;
    char *name, *path;         // path: of the adapter
    sd_adapter *adapter;       // NULL: the base. Rows whose weights are the same share it
    sd_corpus *corpus;         // the adapter's own; NULL: none
    sd_adapter *draft_adapter; // of the draft model, for this adapter; NULL: none
    sd_template *chat;         // the adapter's own; NULL: the model's
    int32_t end_token;         // where chat ends an answer; -1: only where the model does
    sd_defaults defaults;      // of conversations with it; zeroed: none
    sd_dialogue dialogue;      // what its template takes, and how its answers are read
} sd_models_row;

typedef struct {
    const char *model;
    const char *pack_dir;           // the packed form's cache; NULL: none
    const char *chat_template;      // a Jinja file for all rows; NULL: each its own
    int tool_format;                // 0: by the template; else 1 + sd_tool_format
    bool other_base;                // take adapters that were trained on another model
    bool no_run_defaults;           // rows have no defaults
    bool has_draft;                 // the base is drafted for
    size_t adapter_memory;          // bytes that factors and indexes may come to by sd_models_add
    const sd_strings *adapters;     // "NAME=PATH"; may be NULL
    const sd_strings *served_names; // aliases of the base; may be NULL
} sd_models_options;

// What is not a row is immutable once it is open.
typedef struct {
    sd_model *model;
    pthread_mutex_t lock; // of the places, not of what stands in them
    sd_models_row **row;  // [SD_MODELS_MOST] NULL: the place is free
    int n;                // rows that were opened with it: the first places
    char **alias;         // [n_alias] further names of the base
    int n_alias;
    size_t longest_token;       // bytes
    sd_grammar_cache *grammars; // over the model's tokenizer, thread-safe; NULL: it has none
} sd_models;

/// The path in [NAME=]PATH.
const char *sd_models_adapter_path(const char *spec);

// An adapter that is to come. Names are of 1 to 64 letters, digits, '.', '_' and '-'.
typedef struct {
    const char *name, *path;
    const char
        *draft_path; // an adapter of the draft model, or a corpus index; NULL: the run's own index
    bool *bad_draft; // true where the draft is why it is refused; NULL: nobody asks
    const sd_root *root; // the paths lead below it; NULL: they are the operator's own
    sd_model *draft;     // the model that drafts; NULL: none
} sd_models_asked;

/// Reads and verifies it: *row is its place. What comes along and does not fit is an error too, unless there is
/// no root: then it is left out with a warning. SD_ELIMIT beyond the options' memory, where there is a root. Any
/// thread, one at a time; nothing has changed after an error.
sd_status sd_models_add(sd_models *m, int *row, const sd_models_asked *a,
                        const sd_models_options *o, sd_error *err);
/// The row is closed, and its place is free.
void sd_models_remove(sd_models *m, int row);
bool sd_model_name_is_good(const char *name);
bool sd_served_name_is_good(const char *name);
/// Bytes of all adapters' factors and of their indexes, what they share counted once. Any thread.
void sd_models_bytes(sd_models *m, size_t *factors, size_t *indexes);

/// SD_EINVAL names the adapter that cannot be served, and why. *stop, once set, ends it early.
sd_status sd_models_open(sd_models *m, const sd_models_options *o, const atomic_bool *stop,
                         sd_error *err);
void sd_models_close(sd_models *m); // a zeroed one is fine
