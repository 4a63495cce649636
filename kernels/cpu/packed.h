// The packed form of the AVX2 and AVX-512 tables: tiles of 16 outputs, their rows interleaved so
// that a vector lane is one output.
//
// Floats (F32, F16, BF16): per k, 16 values in the stored type.
//
// Quantised types keep their own bits and scales. A tile is a run of blocks of 32 k; K types put a
// head of fp16 scales before every 8 blocks. A "plane" is 64 bytes: byte 4 r + j belongs to row r
// and, in group g, to k = 4 g + j. One plane is two AVX2 registers or one of AVX-512, and each lane
// of 4 bytes is what maddubs/vpdpbusd sums.
//
//     head   d [16] fp16; dmin [16] fp16 (Q4_K, Q5_K)                    K types only
//     scales d [16] fp16, m [16] fp16 | scale [16] u8, min [16] u8 | scale0, scale1 [16] int8
//     high   5 bits: 1 plane, bit g of a byte belongs to group g
//            6 bits: 2 planes, bits 2 (g%4).. of a byte of plane g/4 belong to group g
//     codes  4 planes: low nibble group 2 i, high nibble group 2 i + 1; Q8_0: 8 planes of int8
//
// Codes are unsigned (not centred) but for Q8_0; those of IQ4_NL are places in its table.
#pragma once

#include "kernels/cpu/cpu.h"
#include "kernels/dequantize.h"

enum { SD_PLANE = 64, SD_LAYOUT_TILES = 1 };

/// Each instance of a kernel for one type stands in a table by the type.
#define SD_EACH_OF_32(f) f(Q4_0) f(Q4_1) f(Q5_0) f(Q5_1) f(Q8_0) f(IQ4_NL)
#define SD_EACH_K(f) f(Q4_K) f(Q5_K) f(Q6_K)
#define SD_EACH_QUANTISED(f) SD_EACH_OF_32(f) SD_EACH_K(f)

typedef struct {
    int bits;   // 4, 5, 6, 8
    int centre; // subtracted from a code
    bool min;   // a minimum is added
    bool super; // K type: a head before every 8 blocks
    int head, scales, high, codes;
    int block; // bytes: scales + high + codes
} sd_tile_form;

static inline __attribute__((always_inline)) sd_tile_form sd_tile_form_of(sd_dtype t) {
    sd_tile_form f = {0};
    f.bits = t == SD_Q8_0                                   ? 8
             : t == SD_Q6_K                                 ? 6
             : t == SD_Q5_0 || t == SD_Q5_1 || t == SD_Q5_K ? 5
                                                            : 4;
    f.centre = t == SD_Q4_0 ? 8 : t == SD_Q5_0 ? 16 : t == SD_Q6_K ? 32 : 0;
    f.min = t == SD_Q4_1 || t == SD_Q5_1 || t == SD_Q4_K || t == SD_Q5_K;
    f.super = t == SD_Q4_K || t == SD_Q5_K || t == SD_Q6_K;
    f.head = t == SD_Q6_K ? 32 : f.super ? 64 : 0;
    f.scales = f.super || !f.min ? 32 : 64;
    f.high = f.bits == 5 ? SD_PLANE : f.bits == 6 ? 2 * SD_PLANE : 0;
    f.codes = f.bits == 8 ? 8 * SD_PLANE : 4 * SD_PLANE;
    f.block = f.scales + f.high + f.codes;
    return f;
}

/// Bytes of one tile of K inputs.
size_t sd_tile_bytes(sd_dtype t, int K);

size_t sd_pack_tiles_bytes(const sd_weight *w);
/// The pack of both tables. data is padded with zero rows to whole tiles.
sd_status sd_pack_tiles(sd_packed_weight *out, const sd_weight *w, sd_compute compute,
                        const atomic_bool *stop, sd_error *err);

/// What a pass over a tile asks memory for meanwhile. Of several passes the first ask for a share
/// each of the next tile, so that memory works while rows are computed. The others, and the only one, ask
/// for what follows closely.
typedef struct {
    const uint8_t *at;
    int each; // bytes a block of 32 k
} sd_tile_ahead;
/// The share of a block of `bytes` at p. It runs beyond the ends of tiles and pages, which is harmless.
static inline __attribute__((always_inline)) void sd_tile_ask(sd_tile_ahead *a, const uint8_t *p,
                                                              int bytes) {
    enum { CLOSELY = 1536, LINE = 64 };
    if (!a) {
        for (int i = 0; i < bytes; i += LINE) __builtin_prefetch(p + CLOSELY + i);
        return;
    }
    const uint8_t *to = a->at + a->each;
    for (const uint8_t *i = (const uint8_t *)(((uintptr_t)a->at + LINE - 1) / LINE * LINE); i < to;
         i += LINE)
        __builtin_prefetch(i);
    a->at = to;
}

/// y [n][rows], ldy apart, <- or += one tile and rows [n0, n0 + n) of x, for the n of the function.
typedef void (*sd_tile_fn)(float *y, int ldy, const uint8_t *tile, sd_tile_ahead *ahead,
                           const sd_quant_rows *x, int n0, int rows);
/// A matmul: every tile of the outputs [m0, m1) meets all rows, n <= most at a time by fn[n - 1].
void sd_tiles_run(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                  int m0, int m1, const sd_tile_fn *fn, int most);

typedef struct {
    /// out [32][16] <- the values of a tile's block, as the stored ones. head: of its 8 blocks (K
    /// types).
    void (*write)(float *out, const uint8_t *block, const uint8_t *head, sd_dtype t);
    /// acc [N][16] += w [32][16] times N rows of x, K apart.
    void (*fma)(float *acc, const float *w, const float *x, int K, int N);
} sd_block_fns;
/// A matmul of quantised weights with activations in fp32.
void sd_tiles_fp32(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                   int m0, int m1, const sd_block_fns *fn);
/// A `write` for every processor.
void sd_tile_values(float *out, const uint8_t *block, const uint8_t *head, sd_dtype t);

/// The plain table with packed tiles and their matrix products.
void sd_ops_over_tiles(sd_ops *out, const char *name, sd_matmul_fn matmul, sd_matmul_fn add);
