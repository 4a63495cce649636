// What the channels of int8 keys are divided by.
//
// Some channels of keys are ten times larger than the others, by their bias or by the weight of their
// norm. One scale for all channels would leave the others few codes. So each channel of the keys is
// divided by a power of two before quantisation, and the queries are multiplied by it: apart from the
// codes the score is the same to the bit (arXiv:2211.10438). Both channels of a rotated pair share a
// scale, so that it outlasts the rotation.
#pragma once

#include "model/model.h"

/// Values of a model's scales, L * G * D; 0 where neither biases nor norms tell how large its keys are.
size_t sd_key_scales(const sd_hparams *hp);
/// scale [L, G, D] <- powers of two.
void sd_key_scales_get(float *scale, const sd_model *m);
