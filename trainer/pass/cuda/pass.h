// Training on a CUDA device: a learner (trainer/pass/learner.h) over the table of the device's functions.
//
//     SD_TRY(sd_cuda_train_plan(&plan, model, &lay, &options, device, err));
//     SD_TRY(sd_cuda_learner_open(&learner, model, &lay, pool, &options, device, err));
//
// The frozen weights lie on the device in their stored precision and are dequantised stack by stack, in each direction. Parameters, gradients and
// AdamW's state are the device's; they come back when they are read, and a checkpoint of them is what it is on the CPU.
//
// Two runs give the same bytes on the same device with the same cuBLASLt. A segment beside others has the same numbers up to rounding, not the same
// bytes: cuBLASLt adds in an order that depends on the number of rows.
#pragma once

#include "trainer/pass/learner.h"

/// Memory of the device by part, then what the process holds; total is the device's. What says auto becomes bf16, and the fastest recompute that fits
/// o->memory_limit, or what the device has left where that is 0. SD_ELIMIT: nothing fits; SD_ENOTFOUND: no device, or no cuBLASLt; SD_EINVAL: no such
/// device, or a model that it does not run.
sd_status sd_cuda_train_plan(sd_train_plan_report *out, const sd_model *m,
                             const sd_lora_layout *lay, const sd_train_options *o, int device,
                             sd_error *err);
/// Takes all its memory here, and reads the model's weights for the last time. Holds a reference to m and copies lay; pool (NULL: one thread) packs.
sd_status sd_cuda_learner_open(sd_learner *out, sd_model *m, const sd_lora_layout *lay,
                               sd_pool *pool, const sd_train_options *o, int device, sd_error *err);
/// For tests: the step's gradient [n_params] as it lies on the device.
sd_status sd_cuda_learner_gradient(const sd_learner *l, float *grad, sd_error *err);
