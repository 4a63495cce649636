// Tiny random models in memory and micro-batches, for tests of the training pass.
#pragma once

#include "model/arch/arch.h"
#include "trainer/pass/pass.h"

/// A model of 3 layers with F32 weights. Released with sd_model_release.
sd_model *train_model(const sd_arch *arch, uint64_t seed);
/// The same with every matrix requantised to `dtype` (widths are multiples of 32).
sd_model *train_model_quantised(const sd_arch *arch, uint64_t seed, sd_dtype dtype);
/// F32 copies of the values that m's quantised matrices hold.
sd_model *train_model_dequantised(const sd_model *m);

/// "qkvogud" letters in the order of sd_proj; rank of letter i of layer l is r + l; alpha 6.
/// `layers`: a mask of adapted layers.
void train_layout(sd_lora_layout *lay, const sd_model *m, const char *which, unsigned layers, int r,
                  bool rslora);

enum { TRAIN_ROWS = 3, TRAIN_T = 24 };
typedef struct {
    int32_t token[TRAIN_ROWS * TRAIN_T], label[TRAIN_ROWS * TRAIN_T], segment[TRAIN_ROWS * TRAIN_T];
    sd_train_batch batch;
} train_data;
/// Two packed rows of three segments with padding at the end, and one full row; about half of the
/// places are supervised.
void train_batch(train_data *d, int V);
