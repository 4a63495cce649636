// The options of a training pass and the memory that it takes with them.
//
//     sd_train_plan_report plan;
//     SD_TRY(sd_train_plan(&plan, model, &lay, &options, threads, err));
//     options.compute = plan.compute, options.recompute = plan.recompute; // what auto became
#pragma once

#include "model/model.h"
#include "trainer/pass/layout.h"

typedef enum { SD_TRAIN_AUTO, SD_TRAIN_FP32, SD_TRAIN_BF16 } sd_train_compute;
#define SD_TRAIN_COMPUTE "auto|fp32|bf16"
typedef enum {
    SD_RECOMPUTE_AUTO,
    SD_RECOMPUTE_NONE,
    SD_RECOMPUTE_ATTN,
    SD_RECOMPUTE_BLOCK
} sd_recompute;
#define SD_RECOMPUTE "auto|none|attn|block"

typedef struct {
    int max_tokens;           // tokens (rows * T, padding left out) of one micro-batch at most
    sd_train_compute compute; // auto: bf16 GEMM where the processor has it, else fp32
    sd_recompute recompute;   // auto: the fastest that fits memory_limit
    int context; // positions that a sequence may have, by which LongRoPE chooses; 0: max_tokens
    size_t memory_limit; // bytes for the whole process; 0: none
    size_t data;         // bytes that the caller holds as data: part of the plan
} sd_train_options;

typedef struct {
    struct {
        const char *part; // "weights (mapped)", "activations", ...
        size_t bytes;
    } row[16];
    int n;
    int n_total; // rows [0, n_total) are those of the total; what is behind them lies elsewhere
    size_t total;
    sd_train_compute compute; // what auto became
    sd_recompute recompute;
    char kernels[32]; // name of the matrix kernels: other ones round otherwise
} sd_train_plan_report;

/// Bytes by part, before anything runs; the run stays within it.
sd_status sd_train_plan(sd_train_plan_report *out, const sd_model *m, const sd_lora_layout *lay,
                        const sd_train_options *o, int threads, sd_error *err);
