// Keys and values of a few sequences in pages of device memory, in any order, and what a test writes into them.
#pragma once

#include "kernels/cuda/cuda.h"
#include "tests/cuda/check.h"

struct Pages {
    int G, D, sequences, of_a_sequence; // pages of each
    sd_cuda_real type;
    size_t k, v, page_bytes;
    char *layer;
    std::vector<int32_t> table; // [sequences, of_a_sequence], a permutation of what there is
};
/// Pages for so many positions, all NaN; the table is shuffled by the seed of uniform().
Pages pages_open(int sequences, int positions, int G, int D, sd_cuda_real type);
/// Value d of kv head g at a position. Writing rounds as the type does.
float pages_get(const Pages &p, bool value, int sequence, int position, int g, int d);
void pages_put(const Pages &p, bool value, int sequence, int position, int g, int d, float x);
/// [N, of_a_sequence] in device memory: the table of each row's sequence.
int32_t *pages_table(const Pages &p, const std::vector<int> &sequence_of_row);
/// x in memory of the device, as the type has it; x becomes that.
void *real_copy(std::vector<float> *x, sd_cuda_real type);
