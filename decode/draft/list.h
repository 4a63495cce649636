// The drafters that there are, in the order in which they are asked.
//
// A new one is a file that defines its sd_drafter_kind (drafter.h), and a row here. --spec, the
// statistics and the reports then know it by its word.
#pragma once

// X(SPEC, kind, word): SD_SPEC_<SPEC> asks for sd_drafter_<kind> alone, whose name is the word.
#define SD_DRAFTER_LIST(X)                                                                         \
    X(SUFFIX, suffix, "suffix")                                                                    \
    X(CORPUS, corpus, "index")                                                                     \
    X(DRAFT, model, "draft")                                                                       \
    X(GRAMMAR, grammar, "grammar")

enum {
    SD_MAX_DRAFT = 48,   // tokens of one draft
    SD_MAX_DRAFTERS = 8, // kinds of drafters of one engine
    SD_DRAFTER_NAME = 16 // bytes of a kind's name at most, its 0 included
};
