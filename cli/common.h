// Options that every verb which runs a model takes.
#pragma once

#include "base/option.h"
#include "cli/verb.h"
#include "kernels/ops.h"

typedef struct {
    const char *model;
    int64_t threads, prefill_chunk;
    int device, compute;
} sd_model_args;

// Rows for a table whose struct has the member `sd_model_args common`.
#define SD_COMMON_ROWS(type)                                                                       \
    {.name = "model",                                                                              \
     .letter = 'm',                                                                                \
     .type = SD_OPT_STRING,                                                                        \
     .offset = offsetof(type, common.model),                                                       \
     .value = "MODEL",                                                                             \
     .required = true,                                                                             \
     .help = "GGUF file or Hugging Face folder"},                                                  \
        {.name = "threads",                                                                        \
         .type = SD_OPT_INT,                                                                       \
         .offset = offsetof(type, common.threads),                                                 \
         .def = "0",                                                                               \
         .min = 0,                                                                                 \
         .max = 256,                                                                               \
         .help = "worker threads; 0: one per processor"},                                          \
        {.name = "device",                                                                         \
         .type = SD_OPT_ENUM,                                                                      \
         .offset = offsetof(type, common.device),                                                  \
         .def = "auto",                                                                            \
         .value = "auto|cpu",                                                                      \
         .help = "where to run"},                                                                  \
        {.name = "compute",                                                                        \
         .type = SD_OPT_ENUM,                                                                      \
         .offset = offsetof(type, common.compute),                                                 \
         .def = "auto",                                                                            \
         .value = "auto|fp32",                                                                     \
         .help = "fp32 keeps activations unquantised: for parity checks"},                         \
        {.name = "prefill-chunk",                                                                  \
         .type = SD_OPT_INT,                                                                       \
         .offset = offsetof(type, common.prefill_chunk),                                           \
         .def = "256",                                                                             \
         .min = 1,                                                                                 \
         .max = 8192,                                                                              \
         .unit = "tokens",                                                                         \
         .help = "prompt tokens of one step at most"},\
