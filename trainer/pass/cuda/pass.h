// The training pass on a CUDA device: what trainer/pass/pass.h says, over the table of the device's functions.
//
//     sd_cuda_train *t;
//     SD_TRY(sd_cuda_train_plan(&plan, model, &lay, &options, device, err));
//     SD_TRY(sd_cuda_train_open(&t, model, &lay, pool, &options, device, err));
//     SD_TRY(sd_cuda_train_accumulate(t, theta, grad, &batch, &sum, err));
//
// The frozen weights lie on the device in their stored precision and are dequantised stack by stack, in each direction. Parameters and gradients are
// the host's: they cross with every micro-batch, so the optimiser is the CPU's, and a checkpoint is what it is there.
//
// Two runs give the same bytes on the same device with the same cuBLASLt. A segment beside others has the same numbers up to rounding, not the same
// bytes: cuBLASLt adds in an order that depends on the number of rows.
#pragma once

#include "trainer/pass/pass.h"

typedef struct sd_cuda_train sd_cuda_train;

/// Memory of the device by part, then what the process holds; total is the device's. What says auto becomes bf16, and the fastest recompute that fits
/// o->memory_limit, or what the device has left where that is 0. SD_ELIMIT: nothing fits; SD_ENOTFOUND: no device, or no cuBLASLt; SD_EINVAL: no such
/// device, or a model that it does not run.
sd_status sd_cuda_train_plan(sd_train_plan_report *out, const sd_model *m,
                             const sd_lora_layout *lay, const sd_train_options *o, int device,
                             sd_error *err);
/// Takes all its memory here, and reads the model's weights for the last time. Holds a reference to m and copies lay; pool (NULL: one thread) packs.
sd_status sd_cuda_train_open(sd_cuda_train **out, sd_model *m, const sd_lora_layout *lay,
                             sd_pool *pool, const sd_train_options *o, int device, sd_error *err);
void sd_cuda_train_close(sd_cuda_train *t); // NULL is fine
/// As sd_train_accumulate and sd_train_loss.
sd_status sd_cuda_train_accumulate(sd_cuda_train *t, const float *theta, float *grad,
                                   const sd_train_batch *b, sd_train_sum *sum, sd_error *err);
sd_status sd_cuda_train_loss(sd_cuda_train *t, const float *theta, const sd_train_batch *b,
                             sd_train_sum *sum, sd_error *err);
