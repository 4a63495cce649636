// The products of training with TDPBF16PS: 32 rows times a panel of 32 outputs in four tiles of
// sums, two of operands on each side. A panel's bf16 form (gemm_packed.h) is the unit's right operand as
// it stands: a row of the operand is a pair of terms.
//
// The rows are rounded DEPTH terms at a time, which stay in L2. SHARE terms of a panel stay in L1 and
// meet all rows before the next ones do. The sums wait beside the rows for the last of these, and
// reach y once.
#include "kernels/cpu/amx.h"
#include "kernels/tensor.h"
#include "kernels/train/gemm_packed_isa.h"

#include <string.h>

enum { ROWS = 32, PANEL = 32, SIDE = 16, STEP = 32, DEPTH = 1536, SHARE = 256 };
_Static_assert(SD_GEMM_TILE_ROWS % ROWS == 0 &&
                   SD_GEMM_TILE_ROWS * (DEPTH * 2 + PANEL * 4) <= SD_GEMM_SCRATCH,
               "scratch");

// Sums in 0..3, rows of x in 4 and 5, the panel in 6 and 7. terms: of one step, even.
static void configure(int terms) {
    sd_tile_config c = {0};
    for (int t = 0; t < 4; t++) c.rows[t] = SIDE, c.bytes[t] = 4 * SIDE;
    for (int t = 4; t < 6; t++) c.rows[t] = SIDE, c.bytes[t] = (uint16_t)(2 * terms);
    for (int t = 6; t < 8; t++) c.rows[t] = (uint8_t)(terms / 2), c.bytes[t] = 4 * SIDE;
    sd_tiles_configure(&c);
}

// Sums of a block of rows and a panel, `ld` apart.
typedef struct {
    float *at;
    int ld;
} block_sums;

// to [ROWS][PANEL] <- x [steps][ROWS][STEP] times `steps` steps of a panel, and `from` unless NULL.
static void block(block_sums to, block_sums from, const uint16_t *x, const uint16_t *w, int steps) {
    const long of_from = 4L * from.ld, of_to = 4L * to.ld, of_x = 2L * STEP, of_w = 4L * PANEL;
    if (from.at) {
        _tile_loadd(0, from.at, of_from);
        _tile_loadd(1, from.at + SIDE, of_from);
        _tile_loadd(2, from.at + SIDE * (size_t)from.ld, of_from);
        _tile_loadd(3, from.at + SIDE * (size_t)from.ld + SIDE, of_from);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int k = 0; k < steps; k++, x += ROWS * STEP, w += STEP * PANEL) {
        _tile_loadd(6, w, of_w);
        _tile_loadd(4, x, of_x);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + 2 * SIDE, of_w);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, x + SIDE * STEP, of_x);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to.at, of_to);
    _tile_stored(1, to.at + SIDE, of_to);
    _tile_stored(2, to.at + SIDE * (size_t)to.ld, of_to);
    _tile_stored(3, to.at + SIDE * (size_t)to.ld + SIDE, of_to);
}

// y [rows][outputs], fewer than a block has, is where the sums begin (add) or end.
static void take_part(float *sums, const float *y, int ldy, int rows, int outputs) {
    memset(sums, 0, ROWS * PANEL * sizeof *sums);
    for (int r = 0; r < rows; r++)
        memcpy(sums + r * PANEL, y + (size_t)r * ldy, sizeof(float) * (size_t)outputs);
    __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
}
static void give_part(float *y, int ldy, const float *sums, int rows, int outputs) {
    __asm__ volatile("" : : : "memory");
    for (int r = 0; r < rows; r++)
        memcpy(y + (size_t)r * ldy, sums + r * PANEL, sizeof(float) * (size_t)outputs);
}

// to [steps][ROWS][STEP] <- rows of x, fewer than ROWS or all; what is missing is zero. A step of a
// block is one run of memory: rows side by side would be a power of two apart, and the cache would
// hold few of them.
static void copy_rows(uint16_t *to, const float *x, int ldx, int rows, int terms) {
    for (int k = 0; k < terms; k += STEP) {
        int n = terms - k < STEP ? terms - k : STEP;
        for (int r = 0; r < ROWS; r++, to += STEP) {
            const float *from = x + (size_t)r * ldx + k;
            if (r >= rows || n < STEP) memset(to, 0, STEP * sizeof *to);
            if (r >= rows) continue;
            if (n == STEP)
                for (int i = 0; i < STEP; i++) to[i] = sd_float_to_bf16(from[i]);
            else
                for (int i = 0; i < n; i++) to[i] = sd_float_to_bf16(from[i]);
        }
    }
}

// The rows [n][`steps` steps] times one panel at w: y [n][outputs] <- or +=. kept: [n][PANEL].
static void one_panel(float *y, int ldy, const uint16_t *rows, const uint16_t *w, int n,
                      int outputs, int steps, bool add, float *kept) {
    enum { MOST = SHARE / STEP };
    const block_sums none = {NULL, PANEL};
    for (int k = 0; k < steps; k += MOST) {
        const bool first = k == 0, last = k + MOST >= steps;
        const uint16_t *from = rows + k * ROWS * STEP;
        for (int r = 0; r < n; r += ROWS, from += steps * ROWS * STEP) {
            const int there = n - r < ROWS ? n - r : ROWS;
            const bool whole = there == ROWS && outputs == PANEL;
            float *to = y + (size_t)r * ldy;
            const block_sums own = {kept + r * PANEL, PANEL}, in_y = {to, ldy};
            if (!whole && first && add) take_part(own.at, to, ldy, there, outputs);
            block(whole && last ? in_y : own,
                  first && !add    ? none
                  : first && whole ? in_y
                                   : own,
                  from, w + k * STEP * PANEL, last ? steps - k : MOST);
            if (!whole && last) give_part(to, ldy, own.at, there, outputs);
        }
    }
}

// Terms [k0, k0 + terms) of the sums: whole steps, or one that is not.
static void some_terms(float *y, int ldy, const float *x, int ldx, const uint16_t *packed, int n,
                       int out, int padded, int k0, int terms, bool add, void *scratch) {
    const int steps = (terms + STEP - 1) / STEP;
    uint16_t *rows = scratch;
    float *kept = (float *)(void *)(rows + SD_GEMM_TILE_ROWS * DEPTH);
    for (int r = 0; r < n; r += ROWS)
        copy_rows(rows + (size_t)r * steps * STEP, x + (size_t)r * ldx + k0, ldx,
                  n - r < ROWS ? n - r : ROWS, terms);
    __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
    configure(terms < STEP ? (terms + 1) / 2 * 2 : STEP);
    for (int m = 0; m < out; m += PANEL)
        one_panel(y + m, ldy, rows, packed + (size_t)m * padded + (size_t)k0 * PANEL, n,
                  out - m < PANEL ? out - m : PANEL, steps, add, kept);
    _tile_release();
}

static void matmul_amx(float *y, int ldy, const float *x, int ldx, const void *packed, int n,
                       int out, int k, bool add, void *scratch) {
    int padded = (k + 1) / 2 * 2, whole = k / STEP * STEP, k0 = 0;
    for (int terms; k0 < whole; k0 += terms) {
        terms = whole - k0 < DEPTH ? whole - k0 : DEPTH;
        some_terms(y, ldy, x, ldx, packed, n, out, padded, k0, terms, add || k0, scratch);
    }
    if (whole < k)
        some_terms(y, ldy, x, ldx, packed, n, out, padded, whole, k - whole, add || whole, scratch);
}

const sd_gemm_packed sd_gemm_packed_amx = {"amx-bf16", PANEL, ROWS, true, matmul_amx};
