// The flat parameter vector: where each LoRA factor stands in it. Optimiser, checkpoints and loop
// see this only.
//
// A block is four stacks of linear maps, each reading one input: q k v, o, gate up, down. Inside a
// layer a stack's factors stand together.
#pragma once

#include "model/adapter/adapter.h"
#include "model/model.h"

enum { SD_STACK_QKV, SD_STACK_O, SD_STACK_GU, SD_STACK_DOWN, SD_STACKS };

typedef struct {
    int r, in, out; // r 0: not adapted
    size_t a, b;    // offsets into theta of A [r, in] and B [out, r]
    double scale;   // s
} sd_lora_slot;

typedef struct {
    int n_linears, linears; // of the model, of a layer
    sd_lora_slot *slot;     // [n_linears]
    /// Stack s of a layer holds its linear maps from first[s] up to, not including, first[s + 1].
    int first[SD_STACKS + 1];
    size_t n_params;
} sd_lora_layout;

/// rank, alpha: [n_linears]; rank 0: not adapted. rslora: s = alpha / sqrt(r).
sd_status sd_lora_layout_init(sd_lora_layout *lay, const sd_model *m, const int *rank,
                              const double *alpha, bool rslora, sd_error *err);
/// to <- a copy, freed as one that was initialised.
sd_status sd_lora_layout_copy(sd_lora_layout *to, const sd_lora_layout *from, sd_error *err);
void sd_lora_layout_free(sd_lora_layout *lay);
/// The lowest layer with an adapted map: the backward pass ends there. L when there is none.
int sd_lora_lowest(const sd_lora_layout *lay);
/// PEFT's init: A ~ U(-1/sqrt(in), 1/sqrt(in)) from (seed, slot, index), B = 0.
void sd_lora_init(float *theta, const sd_lora_layout *lay, uint64_t seed);
/// The adapter that these parameters are (copies).
sd_status sd_lora_to_adapter(sd_adapter **out, const char *name, const float *theta,
                             const sd_lora_layout *lay, const sd_model *base, sd_error *err);
