// The models a server answers for: the base under its names, and the adapters.
#pragma once

#include "base/option.h"
#include "datasets/corpus/corpus_index.h"
#include "model/adapter/adapter.h"

#include <stdatomic.h>

// The base (row 0) or an adapter, under the name requests use. Immutable once the models are open,
// but for what is counted.
typedef struct {
    char *name;
    sd_adapter *adapter; // NULL: the base
    sd_corpus *corpus;   // the adapter's own; NULL: none
    const char *draft;   // "index", "draft" or "none", for metrics
    int running;
    int64_t rounds, accepted; // of its finished requests
} sd_served;

typedef struct {
    const char *model;
    const char *pack_dir;           // the packed form's cache; NULL: none
    bool other_base;                // take adapters that were trained on another model
    bool has_draft;                 // the base is drafted for
    const sd_strings *adapters;     // "NAME=PATH"; may be NULL
    const sd_strings *served_names; // aliases of the base; may be NULL; outlive the models
} sd_models_options;

typedef struct {
    sd_model *model;
    sd_served *row; // [n]
    int n;
    char *alias[4]; // further names of the base
    int n_alias;
    const sd_strings *served_names;
    size_t longest_token; // bytes
} sd_models;

/// SD_EINVAL names the adapter that cannot be served, and why. *stop, once set, ends it early.
sd_status sd_models_open(sd_models *m, const sd_models_options *o, const atomic_bool *stop,
                         sd_error *err);
void sd_models_close(sd_models *m); // a zeroed one is fine
/// The row that a request's model field means; NULL: unknown. NULL or "": the base.
sd_served *sd_models_find(const sd_models *m, const char *name);
