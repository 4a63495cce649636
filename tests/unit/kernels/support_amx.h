// The instructions of AMX that our kernels use, in plain C.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static struct {
    uint16_t bytes[8];
    uint8_t rows[8];
    int8_t of[8][16][64];
} emulated_tile;

static inline void emulated_tile_loadconfig(const void *config) {
    memcpy(emulated_tile.bytes, (const char *)config + 16, sizeof emulated_tile.bytes);
    memcpy(emulated_tile.rows, (const char *)config + 48, sizeof emulated_tile.rows);
}
static inline void emulated_tile_release(void) {
    memset(&emulated_tile, 0, sizeof emulated_tile);
}
static inline void emulated_tile_zero(int t) {
    memset(emulated_tile.of[t], 0, sizeof emulated_tile.of[t]);
}
static inline void emulated_tile_loadd(int t, const void *from, long stride) {
    emulated_tile_zero(t);
    for (int r = 0; r < emulated_tile.rows[t]; r++)
        memcpy(emulated_tile.of[t][r], (const char *)from + r * stride, emulated_tile.bytes[t]);
}
static inline void emulated_tile_stored(int t, void *to, long stride) {
    for (int r = 0; r < emulated_tile.rows[t]; r++)
        memcpy((char *)to + r * stride, emulated_tile.of[t][r], emulated_tile.bytes[t]);
}
// c[m][n] += a[m][4 k + i] b[k][4 n + i]: bytes, those of a signed, sums of 32 bits.
static inline void emulated_tile_dp(int c, int a, int b, bool b_signed) {
    for (int m = 0; m < emulated_tile.rows[c]; m++)
        for (int n = 0; n < emulated_tile.bytes[c] / 4; n++) {
            int32_t sum;
            memcpy(&sum, &emulated_tile.of[c][m][4 * n], 4);
            for (int k = 0; k < emulated_tile.bytes[a] / 4; k++)
                for (int i = 0; i < 4; i++) {
                    int8_t w = emulated_tile.of[b][k][4 * n + i];
                    sum += emulated_tile.of[a][m][4 * k + i] * (b_signed ? w : (uint8_t)w);
                }
            memcpy(&emulated_tile.of[c][m][4 * n], &sum, 4);
        }
}
static inline void emulated_tile_dpbssd(int c, int a, int b) {
    emulated_tile_dp(c, a, b, true);
}
static inline void emulated_tile_dpbsud(int c, int a, int b) {
    emulated_tile_dp(c, a, b, false);
}

// c[m][n] += a[m][2 k + i] b[k][2 n + i], bf16 with sums of fp32 (the processor's own order of a
// pair and its roundings differ in the last place).
static inline float emulated_bf16(const int8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline void emulated_tile_dpbf16ps(int c, int a, int b) {
    for (int m = 0; m < emulated_tile.rows[c]; m++)
        for (int n = 0; n < emulated_tile.bytes[c] / 4; n++) {
            float sum;
            memcpy(&sum, &emulated_tile.of[c][m][4 * n], 4);
            for (int k = 0; k < emulated_tile.bytes[a] / 4; k++)
                for (int i = 0; i < 2; i++)
                    sum += emulated_bf16(&emulated_tile.of[a][m][4 * k + 2 * i]) *
                           emulated_bf16(&emulated_tile.of[b][k][4 * n + 2 * i]);
            memcpy(&emulated_tile.of[c][m][4 * n], &sum, 4);
        }
}

#define _tile_dpbf16ps emulated_tile_dpbf16ps
#define _tile_loadconfig emulated_tile_loadconfig
#define _tile_release emulated_tile_release
#define _tile_zero emulated_tile_zero
#define _tile_loadd emulated_tile_loadd
#define _tile_stored emulated_tile_stored
#define _tile_dpbssd emulated_tile_dpbssd
#define _tile_dpbsud emulated_tile_dpbsud
