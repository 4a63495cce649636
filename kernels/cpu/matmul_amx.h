// What the two files of many rows on AMX share (matmul_amx.c, matmul_k_amx.c).
#pragma once

#include "kernels/cpu/packed.h"

enum {
    SD_AMX_ROWS = 256, // at most, in one pass over a tile
    SD_AMX_GROUP = 16  // rows of the matrix unit
};

/// y rows [0, N) <- one tile of a K type, the first `outputs` of its 16; N <= SD_AMX_ROWS.
/// All registers of the unit are 16 rows of 64 bytes.
void sd_k_rows_amx(float *y, int ldy, const uint8_t *tile, const sd_quant_rows *x, int N,
                   int outputs, sd_dtype t);
