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
    d->dequantise = sd_cuda_dequantise;
    d->round = sd_cuda_round;
    d->bias = sd_cuda_bias;
    d->take_rows = sd_cuda_take_rows;
    d->rmsnorm_backward = sd_cuda_rmsnorm_backward;
    d->glu_backward = sd_cuda_glu_backward;
    d->turn_forward = sd_cuda_turn_forward;
    d->turn_backward = sd_cuda_turn_backward;
    d->flash_tiles = sd_cuda_flash_tiles;
    d->flash_forward = sd_cuda_flash_forward;
    d->flash_backward = sd_cuda_flash_backward;
    d->head_floats = sd_cuda_head_floats;
    d->head_chunk = sd_cuda_head_chunk;
    d->head_loss = sd_cuda_head_loss;
    d->head_gradient = sd_cuda_head_gradient;
    d->gradient_add = sd_cuda_gradient_add;
    d->grad_partials = sd_cuda_grad_partials;
    d->grad_norm = sd_cuda_grad_norm;
    d->adamw = sd_cuda_adamw;
    d->blas_close = sd_cuda_blas_close;
    d->blas_multiply = sd_cuda_blas_multiply;
    d->comm_close = sd_cuda_comm_close;
    d->comm_gather = sd_cuda_comm_gather;
}
