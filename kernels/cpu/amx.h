// The shapes of AMX's tiles. Also compiled over emulated instructions: the includer provides them.
#pragma once

#ifndef SPECDEC_SIMDE
#include <immintrin.h>
#endif
#include <stdint.h>

// As the processor reads it: of each tile the rows, and the bytes of a row.
typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} sd_tile_config;
_Static_assert(sizeof(sd_tile_config) == 64, "the processor's own layout");

/// Until _tile_release. All tiles become zero.
static inline void sd_tiles_configure(sd_tile_config *c) {
    c->palette = 1;
    // gcc 12 believes that the instruction reads 8 bytes, and would drop the other stores.
    __asm__ volatile("" : : "r"(c) : "memory");
    _tile_loadconfig(c);
}
