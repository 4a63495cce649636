// What the two readers of models (from_gguf.c, from_folder.c) share with model.c.
#pragma once

#include "base/memory.h"
#include "model/model.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct {
    sd_arena arena; // vectors that had to be converted or aligned
    atomic_int references;
    pthread_mutex_t lock; // of what follows
    bool hashed;
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

/// A tensor of either format; a vector has rows 1.
typedef struct {
    const char *name; // in the source's memory
    sd_dtype dtype;
    const char *dtype_name;
    int64_t rows, cols;
    const void *data;
    size_t bytes;
} sd_tensor_ref;

/// Where tensors come from and what they are called there; %d is the layer.
typedef struct {
    bool (*find)(const sd_model *m, const char *name, sd_tensor_ref *out);
    const char *(*name_at)(const sd_model *m, int i); // NULL after the last
    const char *embedding, *out_norm, *head;
    const char *attn_norm, *ffn_norm, *bq, *bk, *bv, *q_norm, *k_norm;
    const char *w[SD_PROJ_COUNT];
    const char *ignored[4]; // suffixes of tensors that hold nothing the forward needs; NULL: end
} sd_tensor_source;

/// Fills m->layer, embedding, head and norms from the source, every shape checked against m->hp; a
/// tensor that nothing used is refused.
sd_status sd_model_bind(sd_model *m, const sd_tensor_source *source, sd_error *err);
/// m->hp against what the forward can run.
sd_status sd_model_check_hparams(const sd_model *m, sd_error *err);
/// One vector as fp32, in place when it is that already.
sd_status sd_model_bind_vector(sd_model *m, const sd_tensor_source *source, const char *name, int n,
                               const float **out, sd_error *err);

sd_status sd_model_read_gguf(sd_model *m, sd_error *err);
sd_status sd_model_read_folder(sd_model *m, sd_error *err);

/// Keeps the template, or why it is not understood.
sd_status sd_model_set_template(sd_model *m, const char *source, size_t len, sd_error *err);
void sd_model_add_end(sd_model *m, int64_t token); // ignores -1, repetitions and what is too much
