// What tells one architecture from another, in one row each: readers of models and adapters ask here
// instead of comparing names.
#pragma once

#include "model/model.h"

typedef struct {
    const char *name;      // general.architecture of GGUF, model_type of config.json
    bool qkv_bias;         // q, k and v have a bias
    bool qk_norm;          // each head of q and k is normed
    bool gguf_interleaved; // GGUF files hold the rows of q and k permuted (model/adapter/basis.h)
    bool always_window;    // config.json's sliding_window holds without use_sliding_window
    int head_dim;          // where config.json has none; 0: hidden size / heads
} sd_arch_row;

const sd_arch_row *sd_arch_row_of(sd_arch a);
