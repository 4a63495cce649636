// Training on CUDA devices: a learner (trainer/pass/learner.h) over the table of the device's functions.
//
//     SD_TRY(sd_cuda_train_plan(&plan, model, &lay, &options, devices, err));
//     SD_TRY(sd_cuda_learner_open(&learner, model, &lay, pool, &options, devices, err));
//
// The frozen weights lie on the device in their stored precision and are dequantised stack by stack, in each direction. Parameters, gradients and
// AdamW's state are the device's; they come back when they are read, and a checkpoint of them is what it is on the CPU.
//
// Several devices share the micro-batches of a step, and each has all weights and parameters. They give the bytes of one device of their kind that is
// given the same micro-batches.
//
// Two runs give the same bytes on the same device with the same cuBLASLt. A segment beside others has the same numbers up to rounding, not the same
// bytes: cuBLASLt adds in an order that depends on the number of rows.
#pragma once

#include "trainer/pass/learner.h"

enum { SD_CUDA_TRAIN_DEVICES = 16 }; // at most

/// Devices [first, first + count).
typedef struct {
    int first, count;
} sd_cuda_devices;

/// Memory of a device by part, then what the process holds; total is that of each device. What says auto becomes bf16, and the fastest recompute that
/// fits o->memory_limit, or what the device that has least has left where that is 0. SD_ELIMIT: nothing fits; SD_ENOTFOUND: no device, no cuBLASLt or,
/// for several devices, no NCCL; SD_EINVAL: no such devices, devices of several kinds, or a model that they do not run.
sd_status sd_cuda_train_plan(sd_train_plan_report *out, const sd_model *m,
                             const sd_lora_layout *lay, const sd_train_options *o,
                             sd_cuda_devices devices, sd_error *err);
/// Takes all its memory here, and reads the model's weights for the last time. Holds a reference to m and copies lay; pool (NULL: one thread) packs.
sd_status sd_cuda_learner_open(sd_learner *out, sd_model *m, const sd_lora_layout *lay,
                               sd_pool *pool, const sd_train_options *o, sd_cuda_devices devices,
                               sd_error *err);
/// For tests: the parameters and the step's gradient [n_params] as they lie on the device of a rank. Either may be NULL.
sd_status sd_cuda_learner_look(const sd_learner *l, int rank, float *theta, float *grad,
                               sd_error *err);
