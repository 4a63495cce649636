// Options that every verb which runs a model takes.
#pragma once

#include "base/option.h"
#include "cli/verb.h"
#include "kernels/ops.h"
#include "model/infer/device.h"

typedef struct {
    const char *model, *device;
    int64_t threads, prefill_chunk;
    int compute, kv;
    bool no_pack_cache, other_base;
} sd_model_args;

// clang-format off
// The same option reads the same in every verb. without: what 0 threads mean.
#define SD_THREADS_ROW(values, member, without)                                                    \
    {.name = "threads", .type = SD_OPT_INT, .def = "0", .min = 0, .max = 256,                      \
     .offset = offsetof(values, member), .help = "worker threads; 0: " without}
#define SD_MODEL_ROW(values, member, text)                                                         \
    {.name = "model", .letter = 'm', .type = SD_OPT_STRING, .value = "MODEL", .required = true,    \
     .offset = offsetof(values, member), .help = text}
#define SD_JSON_ROW(values, member, text)                                                          \
    {.name = "json", .type = SD_OPT_FLAG, .offset = offsetof(values, member), .help = text}
#define SD_OUTPUT_ROW(values, member, kind, needed, text)                                          \
    {.name = "output", .letter = 'o', .type = SD_OPT_STRING, .value = kind, .required = needed,    \
     .offset = offsetof(values, member), .help = text}

#define SD_OTHER_BASE_ROW(values, member)                                                          \
    {.name = "other-base", .type = SD_OPT_FLAG, .offset = offsetof(values, member),                \
     .help = "take an adapter that was trained on another model than this: both hashes and how "   \
             "far the weights differ are said (the same model in another precision needs no flag)"}

// otherwise: which template it is without one.
#define SD_CHAT_TEMPLATE_ROW(values, member, otherwise)                                            \
    {.name = "chat-template", .type = SD_OPT_STRING, .value = "FILE",                              \
     .offset = offsetof(values, member),                                                           \
     .help = "chat template in Jinja; left out: " otherwise}

// Rows for a table whose struct has the member `sd_model_args common`.
#define SD_COMMON_ROWS(values)                                                                     \
    SD_MODEL_ROW(values, common.model, "GGUF file or Hugging Face folder"),                        \
    SD_THREADS_ROW(values, common.threads, "one per processor"),                                   \
    {.name = "device", .type = SD_OPT_STRING, .def = "auto", .value = SD_DEVICES,                  \
     .offset = offsetof(values, common.device),                                                    \
     .help = "where to run; auto: on a CUDA device where one can be used (inspect --devices)"},    \
    {.name = "compute", .type = SD_OPT_ENUM, .def = "auto", .value = "auto|fp32",                  \
     .offset = offsetof(values, common.compute),                                                   \
     .help = "fp32 keeps activations unquantised: for parity checks"},                             \
    {.name = "kv", .type = SD_OPT_ENUM, .def = "auto", .value = SD_KV_CHOICES,                     \
     .offset = offsetof(values, common.kv),                                                        \
     .help = "keys and values of the context: auto takes f16 or bf16, whichever is faster here; "  \
             "int8 takes about half the memory, at a small loss"},                                 \
    {.name = "prefill-chunk", .type = SD_OPT_INT, .def = "192", .min = 1, .max = 8192,             \
     .offset = offsetof(values, common.prefill_chunk), .unit = "tokens",                           \
     .help = "prompt tokens of one step at most"},                                                 \
    {.name = "no-pack-cache", .type = SD_OPT_FLAG,                                                 \
     .offset = offsetof(values, common.no_pack_cache),                                             \
     .help = "pack the weights anew, and keep nothing for the next start"},                        \
    SD_OTHER_BASE_ROW(values, common.other_base)
// clang-format on

/// Progress on standard error: a bar on a terminal, else a line every ten seconds and at the end.
/// seconds: since the start.
void sd_progress(const char *what, int64_t done, int64_t total, double seconds);
