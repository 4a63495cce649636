// ggml's quantised blocks, and the one view of them that the kernels use: 32 integer codes with a
// scale per 16 and a minimum.
//
//     weight[j] = d[j / 16] * q[j] + m        (the sum only for types that have a minimum)
//
// Layouts, little-endian (d and m are fp16; "low, then high" means byte i holds code i in its low
// nibble and code i + n/2 in its high one):
//
//     Q4_0  d, 16 bytes low then high; q - 8                                       18 bytes / 32
//     Q4_1  d, m, 16 bytes low then high                                           20 bytes / 32
//     Q5_0  d, 32 high bits, 16 bytes low then high; q - 16                        22 bytes / 32
//     Q5_1  d, m, 32 high bits, 16 bytes low then high                             24 bytes / 32
//     Q8_0  d, 32 int8                                                             34 bytes / 32
//     Q4_K  d, dmin, 12 bytes of 6-bit scales and mins, 4 x 32 bytes low then high 144 bytes / 256
//     Q5_K  d, dmin, the same 12 bytes, 32 bytes of high bits (bit b: block b),
//           4 x 32 bytes low then high                                             176 bytes / 256
//     Q6_K  128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, d;
//           q - 32                                                                 210 bytes / 256
//     IQ4_NL  d, 16 bytes low then high; q = sd_iq4_value[code]                    18 bytes / 32
#pragma once

#include "kernels/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int8_t q[32]; // centred for types without a minimum
    float d[2];
    float m; // 0 for types without
} sd_block32;

/// All but F32, F16, BF16.
bool sd_dtype_quantised(sd_dtype t);
bool sd_dtype_has_min(sd_dtype t);

/// Block b (elements [32 b, 32 b + 32)) of a row of a quantised type.
void sd_block_decode(sd_block32 *out, sd_dtype t, const void *row, int b);

/// What the codes of IQ4_NL stand for.
extern const int8_t sd_iq4_value[16];

/// The eight 6-bit scales and minimums of a Q4_K or Q5_K block from their 12 bytes.
void sd_k_scales(uint8_t scale[8], uint8_t min[8], const uint8_t bytes[12]);

#ifdef __cplusplus
}
#endif
