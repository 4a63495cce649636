// The operations of a table, from the launchers that it is linked with: the same ones over CUDA and emulated.
#pragma once

#include "kernels/cuda/device.h"

static inline void sd_cuda_set_operations(sd_cuda_device *d) {
    d->rmsnorm = sd_cuda_rmsnorm;
    d->rmsnorm_add = sd_cuda_rmsnorm_add;
    d->glu = sd_cuda_glu;
    d->rope_store = sd_cuda_rope_store;
    d->matmul = sd_cuda_matmul;
    d->embedding = sd_cuda_embedding;
    d->lora_shrink = sd_cuda_lora_shrink;
    d->lora_expand = sd_cuda_lora_expand;
    d->attention_rows = sd_cuda_attention_rows;
    d->attention_floats = sd_cuda_attention_floats;
    d->attend = sd_cuda_attend;
    d->sample = sd_cuda_sample;
}
