// Where a value stands in a tile of the device's form (weight.h): for the packer on the host and the kernels that
// look for single values. The including file says with SD_PLACE_FUNCTION how it declares functions.
#pragma once

#include "kernels/cuda/weight.h"

/// A lane, a step, and one of the step's eight values of that lane, two to a register.
typedef struct {
    int lane, step, reg, high;
} sd_place;

/// Value (r, k) of a tile.
SD_PLACE_FUNCTION sd_place sd_place_of(int r, int k) {
    const int in = k % 16 % 4;
    const sd_place p = {r % 8 * 4 + k % 16 / 4, k / 16, in / 2 * 2 + r / 8, in % 2};
    return p;
}

/// The first byte of a code of 8 bits, or a value of 16 or 32, in its tile.
SD_PLACE_FUNCTION size_t sd_place_byte(int bits, sd_place p) {
    const int of_step = bits == 8    ? p.step % 2 * 8 + p.reg / 2 * 4 + p.high * 2 + p.reg % 2
                        : bits == 16 ? p.reg * 4 + p.high * 2
                                     : p.reg % 2 * 8 + p.high * 4;
    const int unit = bits == 8 ? p.step / 2 : bits == 16 ? p.step : p.step * 2 + p.reg / 2;
    return (size_t)((unit * 32 + p.lane) * 16 + of_step);
}

/// The number of a 4-bit code's uint32 in the tile, and how far the code is shifted there.
SD_PLACE_FUNCTION int sd_place_word(sd_place p) {
    return p.lane * 4 + p.step;
}
SD_PLACE_FUNCTION int sd_place_shift(sd_place p) {
    return 16 * p.high + 4 * p.reg;
}
