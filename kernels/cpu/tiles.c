// What the tables of packed tiles share: the walk over tiles and rows, and the product of quantised
// weights with activations in fp32.
#include "kernels/cpu/packed.h"

#include <string.h>

// ASKING: passes over a tile, of many, that ask for the next one; it costs each 4 % of its time.
enum { FP32_ROWS = 64, L2_BYTES = 512 << 10, ASKING = 4 };

static const uint8_t *tile_at(const sd_packed_weight *w, size_t bytes, int m) {
    return (const uint8_t *)w->data + (size_t)(m / SD_TILE_M) * bytes;
}
static int outputs(int m, int m1) {
    return m1 - m < SD_TILE_M ? m1 - m : SD_TILE_M;
}

// Every tile of the outputs [m0, m1) meets the rows [n0, n1).
static void run_rows(float *y, int ldy, const sd_packed_weight *w, size_t bytes,
                     const sd_quant_rows *x, int n0, int n1, int m0, int m1, const sd_tile_fn *fn,
                     int most) {
    const int passes = (n1 - n0 + most - 1) / most, asking = passes < ASKING ? passes : ASKING;
    const int blocks = (x->K + SD_QBLOCK - 1) / SD_QBLOCK * asking;
    const int each = passes > 1 ? (int)(bytes / (size_t)blocks) + 1 : 0;
    for (int m = m0; m < m1; m += SD_TILE_M) {
        const uint8_t *tile = tile_at(w, bytes, m);
        int rows = outputs(m, m1);
        sd_tile_ahead ahead = {tile + bytes, each};
        for (int i = n0, n; i < n1; i += n) {
            // The last rows go in two like halves: a row by itself would pay for the unpacking
            // alone.
            int left = n1 - i;
            n = left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
            const bool asks = each > 0 && ahead.at < tile + 2 * bytes;
            fn[n - 1](y + (size_t)i * ldy + m, ldy, tile, asks ? &ahead : NULL, x, i, rows);
        }
    }
}

void sd_tiles_run(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                  int m0, int m1, const sd_tile_fn *fn, int most) {
    // Asked once: the lookup takes as long as a tile of an adapter's few k.
    const size_t bytes = sd_tile_bytes(w->w.dtype, w->w.cols);
    const int row_bytes = x->K * (sd_dtype_quantised(w->w.dtype) ? 1 : 4);
    int at_once = L2_BYTES / row_bytes / most * most; // they stay in L2 while all tiles pass by
    if (at_once < 2 * most) at_once = 2 * most;
    for (int n0 = 0, n; n0 < N; n0 += n) {
        n = N - n0 < at_once + most ? N - n0 : at_once;
        run_rows(y, ldy, w, bytes, x, n0, n0 + n, m0, m1, fn, most);
    }
}

// acc [N][16] <- one tile and rows of x, block by block.
static void blocks(float *acc, const uint8_t *p, const float *x, int K, int N, sd_dtype t,
                   const sd_block_fns *fn) {
    _Alignas(64) float w[SD_QBLOCK * SD_TILE_M];
    sd_tile_form f = sd_tile_form_of(t);
    const uint8_t *head = p;
    memset(acc, 0, (size_t)N * SD_TILE_M * sizeof *acc);
    for (int k = 0; k < K; k += SD_QBLOCK, p += f.block) {
        if (f.super && k % 256 == 0) head = p, p += f.head;
        fn->write(w, p, head, t);
        fn->fma(acc, w, x + k, K, N);
    }
}

void sd_tiles_fp32(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                   int m0, int m1, const sd_block_fns *fn) {
    _Alignas(64) float acc[FP32_ROWS * SD_TILE_M];
    const size_t bytes = sd_tile_bytes(w->w.dtype, w->w.cols);
    int K = w->w.cols;
    for (int m = m0; m < m1; m += SD_TILE_M)
        for (int n0 = 0; n0 < N; n0 += FP32_ROWS) {
            int n = N - n0 < FP32_ROWS ? N - n0 : FP32_ROWS;
            blocks(acc, tile_at(w, bytes, m), x->x + (size_t)n0 * K, K, n, w->w.dtype, fn);
            for (int r = 0; r < n; r++)
                memcpy(y + (size_t)(n0 + r) * ldy + m, acc + r * SD_TILE_M,
                       (size_t)outputs(m, m1) * sizeof *acc);
        }
}

// ---- the values of a block, for tables without their own way

static int code_at(const uint8_t *p, sd_tile_form f, int g, int i) {
    const uint8_t *high = p + f.scales, *code = high + f.high;
    if (f.bits == 8) return (int8_t)code[g * SD_PLANE + i];
    int q = code[g / 2 * SD_PLANE + i] >> g % 2 * 4 & 15;
    if (f.bits == 5) q |= (high[i] >> g & 1) << 4;
    if (f.bits == 6) q |= (high[g / 4 * SD_PLANE + i] >> g % 4 * 2 & 3) << 4;
    return q;
}

static float half_of(const uint8_t *p, int r) {
    return sd_half_to_float((uint16_t)(p[2 * r] | p[2 * r + 1] << 8));
}

void sd_tile_values(float *out, const uint8_t *block, const uint8_t *head, sd_dtype t) {
    sd_tile_form f = sd_tile_form_of(t);
    for (int r = 0; r < SD_TILE_M; r++) {
        float d0 = half_of(f.super ? head : block, r), m = 0;
        if (f.min) m = half_of((f.super ? head : block) + 32, r);
        if (f.min && f.super) m = -(m * block[16 + r]);
        for (int k = 0; k < SD_QBLOCK; k++) {
            int q = code_at(block, f, k / 4, 4 * r + k % 4);
            q = t == SD_IQ4_NL ? sd_iq4_value[q] : q - f.centre;
            float d = t == SD_Q6_K ? d0 * (int8_t)block[16 * (k / 16) + r]
                      : f.super    ? d0 * block[r]
                                   : d0;
            float v = d * (float)q;
            out[k * SD_TILE_M + r] = f.min ? v + m : v;
        }
    }
}

void sd_ops_over_tiles(sd_ops *out, const char *name, sd_matmul_fn matmul, sd_matmul_fn add) {
    *out = sd_ops_plain;
    out->name = name;
    out->layout = SD_LAYOUT_TILES;
    out->pack_bytes = sd_pack_tiles_bytes;
    out->pack = sd_pack_tiles;
    out->matmul = matmul;
    out->matmul_add = add;
}
