// The loop of roofline_avx512.c on the matrix unit: four tiles of sums, two of operands on each side,
// as the products of training have them.
#include "kernels/cpu/amx.h"
#include "kernels/roofline/roofline_isa.h"

double sd_bf16_loop_amx(int64_t rounds) {
    enum { TILES = 8, SIDE = 16, PRODUCTS = 4, SHARE = 64 };
    sd_tile_config c = {0};
    for (int t = 0; t < TILES; t++) c.rows[t] = SIDE, c.bytes[t] = 4 * SIDE;
    sd_tiles_configure(&c);
    rounds /= SHARE; // a product is 16,384 operations
    for (int64_t k = 0; k < rounds; k++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)rounds * PRODUCTS * 2 * SIDE * SIDE * 2 * SIDE;
}
