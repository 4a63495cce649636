// Keys and values of a few sequences in pages of device memory, in any order, and what a test writes into them.
#pragma once

#include "kernels/cuda/cuda.h"
#include "tests/cuda/check.h"

struct Pages {
    int G, D, sequences, of_a_sequence; // pages of each
    sd_cuda_real type;
    sd_cuda_kv kv;
    std::vector<int32_t> table; // [sequences, of_a_sequence], a permutation of what there is
};
/// Pages for so many positions, all NaN (codes: -1, their scales NaN); the table is shuffled by the seed of uniform().
Pages pages_open(int sequences, int positions, int G, int D, sd_cuda_real type, bool codes = false);
/// Value d of kv head g at a position.
float pages_get(const Pages &p, bool value, int sequence, int position, int g, int d);
/// A head's D values there, rounded as the type rounds, or as codes with their scale.
void pages_put(const Pages &p, bool value, int sequence, int position, int g,
               const std::vector<float> &x);
/// Where pages hold codes: the head's, and their scale.
const int8_t *pages_codes(const Pages &p, bool value, int sequence, int position, int g);
float *pages_scale(const Pages &p, bool value, int sequence, int position, int g);
/// [N, of_a_sequence] in device memory: the table of each row's sequence.
int32_t *pages_table(const Pages &p, const std::vector<int> &sequence_of_row);
/// x in memory of the device, as the type has it; x becomes that.
void *real_copy(std::vector<float> *x, sd_cuda_real type);
/// codes <- of x, by the definition of sd_ops' quantize_i8; the scale.
float codes_of(std::vector<int> *codes, const std::vector<float> &x);
