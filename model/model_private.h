// What stands behind a model (model.c, digest.c), for its readers and for what reads its files again.
#pragma once

#include "base/memory.h"
#include "model/model.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct {
    sd_arena arena; // vectors that had to be converted or aligned
    atomic_int references;
    pthread_mutex_t lock; // of what follows
    bool hashed;          // sha256 is that of the files
    bool known;           // sha256 was handed in, and counts as long as the files are as they were
    sd_sha256 sha256;
    uint64_t *row_sum; // [V] model/infer/weight_cache/row_sums.h; NULL: not known yet
} sd_model_owned;

static inline sd_model_owned *sd_owned(const sd_model *m) {
    return m->owned;
}

/// The files that the weights are read from: one GGUF, or safetensors in name order.
int sd_model_source_count(const sd_model *m);
const char *sd_model_source_path(const sd_model *m, int i);
sd_map *sd_model_source(const sd_model *m, int i);

/// SD_EIO when one of them was cut, could not be read, or is in another state than when it was opened.
sd_status sd_model_check_sources(const sd_model *m, sd_error *err);

/// Keeps the template, or why it is not understood.
sd_status sd_model_set_template(sd_model *m, const char *source, size_t len, sd_error *err);
void sd_model_add_end(sd_model *m, int64_t token); // ignores -1, repetitions and what is too much
