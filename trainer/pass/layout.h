// The flat parameter vector: where each LoRA factor stands in it. Optimiser, checkpoints and loop see
// this only.
#pragma once

#include "model/adapter/adapter.h"
#include "model/model.h"

typedef struct {
    int r, in, out; // r 0: not adapted
    size_t a, b;    // offsets into theta of A [r, in] and B [out, r]
    double scale;   // s
} sd_lora_slot;

typedef struct {
    int L;
    sd_lora_slot *slot; // [L * SD_PROJ_COUNT], by layer then projection
    size_t n_params;
} sd_lora_layout;

/// rank, alpha: [L * SD_PROJ_COUNT]; rank 0: not adapted. rslora: s = alpha / sqrt(r).
sd_status sd_lora_layout_init(sd_lora_layout *lay, const sd_hparams *hp, const int *rank,
                              const double *alpha, bool rslora, sd_error *err);
void sd_lora_layout_free(sd_lora_layout *lay);
/// PEFT's init: A ~ U(-1/sqrt(in), 1/sqrt(in)) from (seed, slot, index), B = 0.
void sd_lora_init(float *theta, const sd_lora_layout *lay, uint64_t seed);
/// The adapter that these parameters are (copies).
sd_status sd_lora_to_adapter(sd_adapter **out, const char *name, const float *theta,
                             const sd_lora_layout *lay, const sd_model *base, sd_error *err);
