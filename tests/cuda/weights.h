// Random stored weights of every type for tests, and the device's form of them.
#pragma once

#include "kernels/cuda/weight.h"
#include "tests/cuda/check.h"

struct Stored {
    std::vector<uint8_t> bytes;
    sd_weight w;
};
/// Random codes under scales of either sign, of any size that a file may hold short of infinity. wild: also the
/// largest, subnormal and zero scales.
void random_stored(Stored *s, sd_dtype t, int M, int K, bool wild);
/// The device's form in device memory.
sd_cuda_weight on_device(const sd_weight &w);
std::vector<float> stored_row(const sd_weight &w, int m);

extern const std::vector<sd_dtype> all_types;
