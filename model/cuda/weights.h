// A model's weights in memory of a CUDA device, in the device's form (kernels/cuda/weight.h).
//
//     sd_cuda_weights w = {.owned.dev = dev};
//     SD_TRY(sd_cuda_load_weights(&w, model, stream, pool, NULL, err));
//     ...
//     sd_cuda_free_weights(&w); // the stream is idle
#pragma once

#include "base/pool.h"
#include "model/cuda/memory.h"
#include "model/model.h"

#include <stdatomic.h>

typedef struct {
    sd_cuda_weight w[SD_PROJ_COUNT];
    const float *bias[SD_PROJ_COUNT]; // [rows]; NULL: none
    const float *attn_norm, *ffn_norm, *post_attn_norm, *post_ffn_norm, *q_norm, *k_norm;
} sd_cuda_layer;

typedef struct {
    sd_cuda_owned owned;
    sd_cuda_weight embedding, head; // one memory where they are tied
    const float *out_norm;          // [C]
    sd_cuda_layer *layer;           // [L]
} sd_cuda_weights;

/// stop (NULL: never): once it is set, SD_EINTERRUPTED. What was taken is freed by sd_cuda_free_weights also after an error.
sd_status sd_cuda_load_weights(sd_cuda_weights *out, sd_model *m, sd_cuda_stream *stream,
                               sd_pool *pool, const atomic_bool *stop, sd_error *err);
void sd_cuda_free_weights(sd_cuda_weights *w); // harmless on a zeroed one
/// Bytes that they take.
size_t sd_cuda_weight_sum(const sd_model *m);
