// A model with all that requests may name: adapters, corpus indexes, models that draft, constraints.
//
// Those of generated models are files in a directory of their own under /tmp, the same on every machine.
#pragma once

#include "datasets/corpus/corpus_index.h"
#include "model/adapter/adapter.h"
#include "model/dialogue/dialogue.h"
#include "model/grammar/schema/cache.h"

enum { EXACT_ADAPTERS = 3, EXACT_DRAFTS = 2 };

typedef struct {
    const char *name;
    char *dir;
    sd_model *model;
    sd_adapter *adapter[EXACT_ADAPTERS];
    sd_corpus *index[EXACT_ADAPTERS + 1]; // of the base, then of each adapter: from its own answers
    char *draft[EXACT_DRAFTS];            // one that is mostly right, one that seldom is
    char *draft_adapter;                  // a folder, of the first of them
    sd_grammar_cache *grammars;
    sd_dialogue dialogue; // in which calls are written
    bool real;            // its weights were trained: it reads texts
} exact_world;

enum { EXACT_WORLDS = 9 }; // generated ones

/// number: 0 to EXACT_WORLDS - 1.
sd_status exact_world_generate(exact_world *w, int number, sd_error *err);
/// A model's file or folder, which drafts for itself.
sd_status exact_world_open(exact_world *w, const char *path, sd_error *err);
void exact_world_close(exact_world *w); // a zeroed one is fine
