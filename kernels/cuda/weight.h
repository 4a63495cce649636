// Weights as the device's kernels read them: every value of the stored form, in the order of the tensor core's
// registers.
//
//     sd_cuda_weight d = sd_cuda_weight_of(&w);        // its format and bytes
//     sd_cuda_weight_pack(host, &d, &w);               // host [d.bytes]
//     ... copied to the device: d.data ...
//
// A value is d * q + m as in the stored form (kernels/dequantize.h); q, and what d and m are made of, stay the
// very numbers, so nothing is lost and nothing is rounded before the product. q is exact in bf16.
//
//     format  codes                scale and minimum                            of               bits a value
//     Q4      4 bits, less 8       half d a 32                                  Q4_0             4.5
//     Q4M     4 bits               half d, m a 32                               Q4_1             5
//     Q4K     4 bits               uint8 scale, min a 32; half d, dmin a 256    Q4_K             4.625
//     Q8      int8                 half d a 32                                  Q8_0 Q5_0 IQ4_NL 8.5
//     Q8M     int8                 half d, m a 32                               Q5_1             9
//     Q8K     int8                 uint8 scale, min a 32; half d, dmin a 256    Q5_K             8.625
//     Q8S     int8                 int8 scale a 16; half d a 256                Q6_K             8.625
//     BF16    the value                                                         BF16             16
//     F16     the value, two terms of bf16 in the product                       F16              16
//     F32     the value, three terms                                            F32              32
//
// Layout. A tile is 16 rows and 64 k; tiles of one 16 rows lie behind each other in ascending k. Rows and k
// beyond the matrix are zeros under a scale of zero. Lane l of a warp, with g = l / 4 and t = l % 4, has in step j
// of a tile (16 k) the rows g and g + 8 at k = 16 j + 4 t + {0, 1, 2, 3}, as the four registers of mma's A:
//
//     a0: row g, k + 0, 1    a1: row g + 8, k + 0, 1    a2: row g, k + 2, 3    a3: row g + 8, k + 2, 3
//
// (which columns of A they are to the instruction does not matter, as long as B's are the same k). A lane reads
// whole 16 bytes, of which a warp's lie side by side:
//
//     codes   4 bits    [lane] uint32 of each step; register i: bits 4 i.. low, 16 + 4 i.. high
//             int8      [step / 2][lane] two uint32 of each step: bytes a0 low, a1 low, a0 high, a1 high; a2, a3
//             16 bits   [step][lane] a0, a1, a2, a3
//             fp32      [step][i / 2][lane] the two values of each register
//     scales  [g], a 32 at a time: half [2 blocks][rows g, g + 8]         (Q4, Q8)       8 bytes
//                                  half d, m [2 blocks][2 rows]           (Q4M, Q8M)    16
//                                  uint8 scale, min [2 blocks][2 rows]    (Q4K, Q8K)     8
//                                  int8 [4 blocks of 16][2 rows]          (Q8S)          8
//     supers  [g] half d, dmin [2 rows], one for four tiles               (Q4K, Q8K, Q8S) 8
//
// All codes come first, then all scales, then all supers.
#pragma once

#include "kernels/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    SD_CUDA_Q4,
    SD_CUDA_Q4M,
    SD_CUDA_Q4K,
    SD_CUDA_Q8,
    SD_CUDA_Q8M,
    SD_CUDA_Q8K,
    SD_CUDA_Q8S,
    SD_CUDA_W_BF16,
    SD_CUDA_W_F16,
    SD_CUDA_W_F32
} sd_cuda_format;

enum {
    SD_CUDA_TILE_M = 16,
    SD_CUDA_TILE_K = 64,
    SD_CUDA_SUPER_TILES = 4 // tiles that share a super
};

typedef struct {
    sd_cuda_format format;
    int M, K;
    size_t codes, scales, supers; // bytes of each, one behind the other
    size_t bytes;                 // of all
    const void *data;             // on the device; a multiple of 16
} sd_cuda_weight;

/// The form of a stored weight; data is NULL.
sd_cuda_weight sd_cuda_weight_of(const sd_weight *w);
/// host [d->bytes] <- w in that form. Serial, a pass over w; safe on different weights at once.
void sd_cuda_weight_pack(void *host, const sd_cuda_weight *d, const sd_weight *w);
/// y [K] <- row m of packed memory of the host, the bits that sd_dequantise gives of the stored row.
void sd_cuda_weight_unpack(float *y, const void *host, const sd_cuda_weight *d, int m);
const char *sd_cuda_format_name(sd_cuda_format f); // "Q4K"

#ifdef __cplusplus
}
#endif
