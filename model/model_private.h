// What stands behind a model: for its readers and its own files alone.
#pragma once

#include "base/memory.h"
#include "model/formats/gguf.h"
#include "model/formats/safetensors.h"
#include "model/model.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct sd_model_owned {
    sd_gguf *gguf; // the source, one of these two; both NULL: made in memory
    sd_safetensors *st;
    const atomic_bool *stop;                   // ends hashing; NULL: never
    sd_arena arena;                            // vectors that had to be converted or aligned
    const float *classifier, *classifier_bias; // [labels, C], [labels]; NULL: none
    bool template_taken;                       // the template is not the files' (model/chat.h)
    atomic_int references;
    pthread_mutex_t lock; // of what follows
    bool hashed;          // sha256 is that of the files
    bool known;           // sha256 was handed in, and counts as long as the files are as they were
    sd_sha256 sha256;
    uint64_t *row_sum; // [V] model/infer/weight_cache/row_sums.h; NULL: not known yet
} sd_model_owned;

/// m->layer [L] and m->linear [L * linears of the architecture], named but without weights. hp has its
/// arch and L, 1 to 1024.
sd_status sd_model_make_layers(sd_model *m, sd_error *err);
/// Linear map i has these weights and this bias (NULL: none), and so have the matrices of its block.
void sd_model_set_linear(sd_model *m, int i, const sd_weight *w, const float *bias,
                         const char *name);

/// Keeps the template, or why it is not understood.
sd_status sd_model_set_template(sd_model *m, const char *source, size_t len, sd_error *err);
void sd_model_add_end(sd_model *m, int64_t token); // ignores -1, repetitions and what is too much
