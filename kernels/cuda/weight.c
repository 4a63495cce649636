// Stored weights to the device's form and back. Codes go through sd_block_decode, so that no layout of a file is
// known twice; scales are moved as the file has them, since a product of two of them needs more bits than a half.
#include "kernels/cuda/weight.h"

#include "base/status.h"
#include "kernels/dequantize.h"

#define SD_PLACE_FUNCTION static inline
#include "kernels/cuda/weight_place.h"

#include <string.h>

enum { TILE_M = SD_CUDA_TILE_M, TILE_K = SD_CUDA_TILE_K };

typedef enum { NO_SCALE, FLAT, FLAT_MIN, NESTED_MIN, NESTED_16 } scale_kind;
typedef struct {
    const char *name;
    int code_bits;
    scale_kind scale;
} format_row;
static const format_row formats[] = {
    [SD_CUDA_Q4] = {"Q4", 4, FLAT},          [SD_CUDA_Q4M] = {"Q4M", 4, FLAT_MIN},
    [SD_CUDA_Q4K] = {"Q4K", 4, NESTED_MIN},  [SD_CUDA_Q8] = {"Q8", 8, FLAT},
    [SD_CUDA_Q8M] = {"Q8M", 8, FLAT_MIN},    [SD_CUDA_Q8K] = {"Q8K", 8, NESTED_MIN},
    [SD_CUDA_Q8S] = {"Q8S", 8, NESTED_16},   [SD_CUDA_W_BF16] = {"BF16", 16, NO_SCALE},
    [SD_CUDA_W_F16] = {"F16", 16, NO_SCALE}, [SD_CUDA_W_F32] = {"F32", 32, NO_SCALE},
};
static const size_t scale_bytes[] = {0, 64, 128, 64, 64}; // of a tile

const char *sd_cuda_format_name(sd_cuda_format f) {
    return formats[f].name;
}

static sd_cuda_format format_of(sd_dtype t) {
    switch (t) {
    case SD_Q4_0:
        return SD_CUDA_Q4;
    case SD_Q4_1:
        return SD_CUDA_Q4M;
    case SD_Q4_K:
        return SD_CUDA_Q4K;
    case SD_Q8_0:
    case SD_Q5_0:
    case SD_IQ4_NL:
        return SD_CUDA_Q8;
    case SD_Q5_1:
        return SD_CUDA_Q8M;
    case SD_Q5_K:
        return SD_CUDA_Q8K;
    case SD_Q6_K:
        return SD_CUDA_Q8S;
    case SD_BF16:
        return SD_CUDA_W_BF16;
    case SD_F16:
        return SD_CUDA_W_F16;
    case SD_F32:
        return SD_CUDA_W_F32;
    }
    SD_ASSERT(!"a known type"); // readers check sd_dtype_known first
    return SD_CUDA_W_F32;
}

static bool nested(const format_row *f) {
    return f->scale == NESTED_MIN || f->scale == NESTED_16;
}
static int tiles_m(const sd_cuda_weight *d) {
    return (d->M + TILE_M - 1) / TILE_M;
}
static int tiles_k(const sd_cuda_weight *d) {
    return (d->K + TILE_K - 1) / TILE_K;
}

sd_cuda_weight sd_cuda_weight_of(const sd_weight *w) {
    sd_cuda_weight d = {.format = format_of(w->dtype), .M = w->rows, .K = w->cols};
    const format_row *f = &formats[d.format];
    const size_t tiles = (size_t)tiles_m(&d) * (size_t)tiles_k(&d);
    d.codes = tiles * TILE_M * TILE_K * (size_t)f->code_bits / 8;
    d.scales = tiles * scale_bytes[f->scale];
    d.supers =
        nested(f) ? tiles / SD_CUDA_SUPER_TILES * 64 : 0; // blocks of 256: whole fours of tiles
    d.bytes = d.codes + d.scales + d.supers;
    return d;
}

static uint32_t *nibble_word(uint8_t *tile, sd_place p) {
    return (uint32_t *)(void *)tile + sd_place_word(p);
}

static void put_code(uint8_t *tile, const format_row *f, sd_place p, int q) {
    if (f->code_bits == 4)
        *nibble_word(tile, p) |= (uint32_t)(f->scale == FLAT ? q + 8 : q) << sd_place_shift(p);
    else
        tile[sd_place_byte(8, p)] = (uint8_t)(int8_t)q;
}
static int get_code(uint8_t *tile, const format_row *f, sd_place p) {
    if (f->code_bits == 8) return (int8_t)tile[sd_place_byte(8, p)];
    const int q = (int)(*nibble_word(tile, p) >> sd_place_shift(p) & 15);
    return f->scale == FLAT ? q - 8 : q;
}

// Scales of the 32-block b of tile row r, as bytes of the file: where the block's superblock begins, and which
// 32 of it this is.
static void put_scales(uint8_t *scales, uint8_t *super, const format_row *f, int r, int b,
                       const uint8_t *block, int j) {
    uint8_t *row = scales + (size_t)(r % 8) * scale_bytes[f->scale] / 8;
    const int at = b * 2 + r / 8;
    uint8_t scale[8], min[8];
    switch (f->scale) {
    case FLAT:
        memcpy(row + 2 * at, block, 2);
        break;
    case FLAT_MIN:
        memcpy(row + 4 * at, block, 4);
        break;
    case NESTED_MIN:
        sd_k_scales(scale, min, block + 4);
        row[2 * at] = scale[j], row[2 * at + 1] = min[j];
        memcpy(super + r % 8 * 8 + r / 8 * 4, block, 4);
        break;
    case NESTED_16:
        row[(2 * b) * 2 + r / 8] = block[192 + 2 * j];
        row[(2 * b + 1) * 2 + r / 8] = block[193 + 2 * j];
        memcpy(super + r % 8 * 8 + r / 8 * 4, block + 208, 2);
        break;
    case NO_SCALE:
        break;
    }
}

// 32 values of row m from k0 on, k0 a multiple of 32.
static void pack_32(uint8_t *host, const sd_cuda_weight *d, const sd_weight *w, int m, int k0) {
    const format_row *f = &formats[d->format];
    const size_t tile = (size_t)(m / TILE_M) * (size_t)tiles_k(d) + (size_t)(k0 / TILE_K);
    uint8_t *codes = host + tile * (d->codes / ((size_t)tiles_m(d) * (size_t)tiles_k(d)));
    uint8_t *scales = host + d->codes + tile * scale_bytes[f->scale];
    uint8_t *super = host + d->codes + d->scales + tile / SD_CUDA_SUPER_TILES * 64;
    const uint8_t *row = (const uint8_t *)w->data + (size_t)m * sd_row_bytes(w->dtype, w->cols);
    const int r = m % TILE_M, per = sd_dtype_block(w->dtype) / 32;
    if (f->scale == NO_SCALE) {
        const size_t value = (size_t)f->code_bits / 8;
        for (int i = 0; i < 32 && k0 + i < d->K; i++)
            memcpy(codes + sd_place_byte(f->code_bits, sd_place_of(r, k0 % TILE_K + i)),
                   row + (size_t)(k0 + i) * value, value);
        return;
    }
    sd_block32 k;
    sd_block_decode(&k, w->dtype, row, k0 / 32);
    for (int i = 0; i < 32; i++) put_code(codes, f, sd_place_of(r, k0 % TILE_K + i), k.q[i]);
    put_scales(scales, super, f, r, k0 % TILE_K / 32,
               row + (size_t)(k0 / 32 / per) * (size_t)sd_dtype_block_bytes(w->dtype),
               k0 / 32 % per);
}

void sd_cuda_weight_pack(void *host, const sd_cuda_weight *d, const sd_weight *w) {
    memset(host, 0, d->bytes);
    for (int m = 0; m < d->M; m++)
        for (int k = 0; k < d->K; k += 32) pack_32(host, d, w, m, k);
}

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return sd_half_to_float(h);
}

// d and m of the value at tile row r, k of the tile.
static void scale_at(float *scale, float *min, const uint8_t *scales, const uint8_t *super,
                     const format_row *f, int r, int k) {
    const uint8_t *row = scales + (size_t)(r % 8) * scale_bytes[f->scale] / 8;
    const uint8_t *above = super + r % 8 * 8 + r / 8 * 4;
    const int at = k / 32 * 2 + r / 8;
    *scale = 1, *min = 0;
    switch (f->scale) {
    case FLAT:
        *scale = half_at(row + 2 * at);
        break;
    case FLAT_MIN:
        *scale = half_at(row + 4 * at), *min = half_at(row + 4 * at + 2);
        break;
    case NESTED_MIN:
        *scale = half_at(above) * row[2 * at], *min = -(half_at(above + 2) * row[2 * at + 1]);
        break;
    case NESTED_16:
        *scale = half_at(above) * (int8_t)row[k / 16 * 2 + r / 8];
        break;
    case NO_SCALE:
        break;
    }
}

void sd_cuda_weight_unpack(float *y, const void *host, const sd_cuda_weight *d, int m) {
    const format_row *f = &formats[d->format];
    const size_t tiles = (size_t)tiles_k(d), each = d->codes / ((size_t)tiles_m(d) * tiles);
    for (int k = 0; k < d->K; k++) {
        const size_t tile = (size_t)(m / TILE_M) * tiles + (size_t)(k / TILE_K);
        uint8_t codes[TILE_M * TILE_K * 4];
        const uint8_t *from = (const uint8_t *)host + tile * each;
        const uint8_t *scales = (const uint8_t *)host + d->codes + tile * scale_bytes[f->scale];
        const uint8_t *super =
            (const uint8_t *)host + d->codes + d->scales + tile / SD_CUDA_SUPER_TILES * 64;
        const sd_place p = sd_place_of(m % TILE_M, k % TILE_K);
        float scale, min;
        if (d->format == SD_CUDA_W_F32) {
            memcpy(&y[k], from + sd_place_byte(32, p), 4);
        } else if (d->format == SD_CUDA_W_F16) {
            y[k] = half_at(from + sd_place_byte(16, p));
        } else if (d->format == SD_CUDA_W_BF16) {
            uint16_t h;
            memcpy(&h, from + sd_place_byte(16, p), 2);
            y[k] = sd_bf16_to_float(h);
        } else {
            memcpy(codes, from, each);
            scale_at(&scale, &min, scales, super, f, m % TILE_M, k % TILE_K);
            y[k] = scale * (float)get_code(codes, f, p);
            if (f->scale == FLAT_MIN || f->scale == NESTED_MIN) y[k] += min;
        }
    }
}
