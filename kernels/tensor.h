// Element types, weights, and the one alphabet of dimensions.
//
// B batch, T time, C channels (hidden), H query heads, G kv heads, D head size, F ffn, V
// vocabulary, L layers, R adapter rank, N rows (tokens in flight), M outputs and K inputs of a
// matrix. Slices are named by index (x_n), gradients d + name.
//
// Quantised types are ggml's block formats, little-endian, exactly as they stand in a GGUF file
// (kernels/dequantize.h has their layouts).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

// Values are ggml's type numbers, so that a GGUF file's field is this enum after a check.
typedef enum {
    SD_F32 = 0,
    SD_F16 = 1,
    SD_Q4_0 = 2,
    SD_Q4_1 = 3,
    SD_Q5_0 = 6,
    SD_Q5_1 = 7,
    SD_Q8_0 = 8,
    SD_Q4_K = 12,
    SD_Q5_K = 13,
    SD_Q6_K = 14,
    SD_IQ4_NL = 20,
    SD_BF16 = 30
} sd_dtype;

/// A frozen matrix in its stored form: row m, column k multiplies input k into output m.
typedef struct {
    sd_dtype dtype;
    int rows;         // M
    int cols;         // K; a multiple of the type's block
    const void *data; // [M, K] in rows of sd_row_bytes(dtype, K); points into the file's mapping
} sd_weight;

bool sd_dtype_known(uint32_t number);
const char *sd_dtype_name(sd_dtype t); // "Q4_K"
int sd_dtype_block(sd_dtype t);        // elements a block: 1, 32 or 256
int sd_dtype_block_bytes(sd_dtype t);
/// Bytes of one row of K elements; K must be a multiple of the block.
size_t sd_row_bytes(sd_dtype t, int K);

/// y [count] <- the values of one row (count elements, a multiple of the block). Bit-identical to
/// ggml's reference.
void sd_dequantise(float *y, sd_dtype t, const void *row, int count);

/// row <- y, with ggml's reference rounding (used by merged GGUF exports). False for a type that
/// cannot be written.
bool sd_quantise(void *row, sd_dtype t, const float *y, int count);

float sd_half_to_float(uint16_t h);
uint16_t sd_float_to_half(float f); // round to nearest even
float sd_bf16_to_float(uint16_t h);

// Round to nearest even; NaN stays NaN. Here, so that loops over it become vectors.
static inline uint16_t sd_float_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? (u >> 16 | 64) : rounded);
}

#ifdef __cplusplus
}
#endif
