// Stored rows into interleaved tiles (packed.h). Runs once per weight at load: a block of one row
// is decoded and its eight words of four codes go to their lanes; the bits of a tile's block are
// then merged plane by plane.
#include "base/memory.h"
#include "kernels/cpu/packed.h"
#include "kernels/huge_arena.h"

#include <string.h>

size_t sd_tile_bytes(sd_dtype t, int K) {
    size_t k = (size_t)K;
    if (!sd_dtype_quantised(t)) return k * SD_TILE_M * (size_t)sd_dtype_block_bytes(t);
    sd_tile_form f = sd_tile_form_of(t);
    return k / SD_QBLOCK * (size_t)f.block + (f.super ? k / 256 * (size_t)f.head : 0);
}

static void pack_float_tile(uint8_t *out, const uint8_t *rows, size_t stride, int size, int K,
                            int n) {
    for (int r = 0; r < n; r++)
        for (int k = 0; k < K; k++)
            memcpy(out + ((size_t)k * SD_TILE_M + r) * size, rows + r * stride + (size_t)k * size,
                   (size_t)size);
}

// The fp16 fields of one row's block of 256 into the head.
static void pack_head(uint8_t *out, sd_dtype t, const uint8_t *block, int r) {
    if (t == SD_Q6_K) {
        memcpy(out + 2 * r, block + 208, 2);
        return;
    }
    memcpy(out + 2 * r, block, 2);
    memcpy(out + 32 + 2 * r, block + 2, 2);
}

// Scales of one row's block of 32; j is its place among the 8 of a K type's block.
static void pack_scales(uint8_t *out, sd_dtype t, const uint8_t *block, int j, int r) {
    if (t == SD_Q6_K) {
        out[r] = block[192 + 2 * j];
        out[16 + r] = block[192 + 2 * j + 1];
    } else if (sd_tile_form_of(t).super) {
        uint8_t scale[8], min[8];
        sd_k_scales(scale, min, block + 4);
        out[r] = scale[j];
        out[16 + r] = min[j];
    } else {
        memcpy(out + 2 * r, block, 2);
        if (sd_dtype_has_min(t)) memcpy(out + 32 + 2 * r, block + 2, 2);
    }
}

// code: 8 planes of whole bytes.
static void merge_planes(uint8_t *high, uint8_t *codes, uint8_t code[8][SD_PLANE], int bits) {
    if (bits == 8) {
        memcpy(codes, code, 8 * SD_PLANE);
        return;
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < SD_PLANE; j++)
            codes[i * SD_PLANE + j] =
                (uint8_t)((code[2 * i][j] & 15) | (code[2 * i + 1][j] & 15) << 4);
    for (int g = 0; g < 8 && bits > 4; g++)
        for (int j = 0; j < SD_PLANE; j++) {
            int top = code[g][j] >> 4;
            if (bits == 5)
                high[j] |= (uint8_t)(top << g);
            else
                high[g / 4 * SD_PLANE + j] |= (uint8_t)(top << g % 4 * 2);
        }
}

static void pack_tile(uint8_t *out, sd_dtype t, const uint8_t *rows, size_t stride, int K, int n) {
    sd_tile_form f = sd_tile_form_of(t);
    size_t bytes = (size_t)sd_dtype_block_bytes(t);
    int per = f.super ? 8 : 1; // blocks of 32 in a stored block
    for (int b = 0; b < K / SD_QBLOCK; b++) {
        const uint8_t *block = rows + (size_t)(b / per) * bytes;
        if (f.super && b % 8 == 0) {
            for (int r = 0; r < n; r++) pack_head(out, t, block + r * stride, r);
            out += f.head;
        }
        uint8_t code[8][SD_PLANE] = {{0}};
        for (int r = 0; r < n; r++) {
            sd_block32 v;
            // IQ4_NL's codes stand as Q4_0's do.
            bool table = t == SD_IQ4_NL;
            sd_block_decode(&v, table ? SD_Q4_0 : t, rows + r * stride, b);
            for (int i = 0; i < 32; i++) v.q[i] = (int8_t)(v.q[i] + (table ? 8 : f.centre));
            for (int g = 0; g < 8; g++) memcpy(code[g] + 4 * r, v.q + 4 * g, 4);
            pack_scales(out, t, block + r * stride, b % per, r);
        }
        merge_planes(out + f.scales, out + f.scales + f.high, code, f.bits);
        out += f.block;
    }
}

size_t sd_pack_tiles_bytes(const sd_weight *w) {
    size_t bytes, tiles = ((size_t)w->rows + SD_TILE_M - 1) / SD_TILE_M;
    return sd_mul_size(&bytes, tiles, sd_tile_bytes(w->dtype, w->cols)) ? bytes : 0;
}

sd_status sd_pack_tiles(sd_packed_weight *out, const sd_weight *w, sd_compute compute,
                        const atomic_bool *stop, sd_error *err) {
    sd_status st = SD_OK;
    size_t tile = sd_tile_bytes(w->dtype, w->cols), bytes = sd_pack_tiles_bytes(w);
    size_t tiles = ((size_t)w->rows + SD_TILE_M - 1) / SD_TILE_M;
    size_t stride = sd_row_bytes(w->dtype, w->cols);
    *out = (sd_packed_weight){.w = *w, .compute = compute, .layout = SD_LAYOUT_TILES};
    SD_CHECK(bytes > 0, err, SD_ELIMIT, "a weight of [%d, %d] is too large to pack", w->rows,
             w->cols);
    out->data = sd_huge_arena_alloc(&out->arena, bytes);
    SD_CHECK_ALLOC(out->data, err);
    out->bytes = bytes;
    for (size_t i = 0; i < tiles; i++) {
        SD_CHECK(!stop || !atomic_load_explicit(stop, memory_order_relaxed), err, SD_EINTERRUPTED,
                 "interrupted");
        const uint8_t *rows = (const uint8_t *)w->data + i * SD_TILE_M * stride;
        uint8_t *to = (uint8_t *)out->data + i * tile;
        int left = w->rows - (int)i * SD_TILE_M, n = left < SD_TILE_M ? left : SD_TILE_M;
        if (sd_dtype_quantised(w->dtype))
            pack_tile(to, w->dtype, rows, stride, w->cols, n);
        else
            pack_float_tile(to, rows, stride, sd_dtype_block_bytes(w->dtype), w->cols, n);
    }
out:
    return st;
}

void sd_packed_weight_free(sd_packed_weight *p) {
    sd_huge_arena_release(p->arena);
    *p = (sd_packed_weight){0};
}
