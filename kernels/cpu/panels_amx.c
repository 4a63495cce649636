// The products of training with TDPBF16PS: 32 rows times a panel of 32 outputs in four tiles of
// sums, two of operands on each side. A panel's bf16 form (panels.h) is the unit's right operand as
// it stands: a row of the operand is a pair of terms. Sums stay in the unit over DEPTH terms.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/panels_isa.h"
#include "kernels/tensor.h"

#include <string.h>

enum { ROWS = 32, PANEL = 32, SIDE = 16, STEP = 32, DEPTH = 768 };
_Static_assert(SD_PANEL_TILE % ROWS == 0 && SD_PANEL_TILE * DEPTH * 2 <= SD_PANEL_SCRATCH,
               "scratch");

// Sums in 0..3, rows of x in 4 and 5, the panel in 6 and 7. terms: of one step, even.
static void configure(int terms) {
    sd_tile_config c = {0};
    for (int t = 0; t < 4; t++) c.rows[t] = SIDE, c.bytes[t] = 4 * SIDE;
    for (int t = 4; t < 6; t++) c.rows[t] = SIDE, c.bytes[t] = (uint16_t)(2 * terms);
    for (int t = 6; t < 8; t++) c.rows[t] = (uint8_t)(terms / 2), c.bytes[t] = 4 * SIDE;
    sd_tiles_configure(&c);
}

// sums [ROWS][PANEL] <- x [steps][ROWS][STEP] times `steps` steps of a panel; add: += .
static void block(float *sums, int lds, const uint16_t *x, const uint16_t *w, int steps, bool add) {
    const long of_sums = 4L * lds, of_x = 2L * STEP, of_w = 4L * PANEL;
    if (add) {
        _tile_loadd(0, sums, of_sums);
        _tile_loadd(1, sums + SIDE, of_sums);
        _tile_loadd(2, sums + SIDE * (size_t)lds, of_sums);
        _tile_loadd(3, sums + SIDE * (size_t)lds + SIDE, of_sums);
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
    _tile_stored(0, sums, of_sums);
    _tile_stored(1, sums + SIDE, of_sums);
    _tile_stored(2, sums + SIDE * (size_t)lds, of_sums);
    _tile_stored(3, sums + SIDE * (size_t)lds + SIDE, of_sums);
}

// The same where fewer rows or outputs are there than a block has.
static void part(float *y, int ldy, const uint16_t *x, const uint16_t *w, int steps, int rows,
                 int outputs, bool add) {
    _Alignas(64) float sums[ROWS * PANEL] = {0};
    for (int r = 0; add && r < rows; r++)
        memcpy(sums + r * PANEL, y + (size_t)r * ldy, sizeof(float) * (size_t)outputs);
    __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
    block(sums, PANEL, x, w, steps, add);
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

// Terms [k0, k0 + terms) of the sums: whole steps, or one that is not.
static void some_terms(float *y, int ldy, const float *x, int ldx, const uint16_t *packed, int n,
                       int out, int padded, int k0, int terms, bool add, uint16_t *rows) {
    int steps = (terms + STEP - 1) / STEP;
    const size_t each = (size_t)steps * ROWS * STEP;
    for (int r = 0; r < n; r += ROWS)
        copy_rows(rows + (size_t)(r / ROWS) * each, x + (size_t)r * ldx + k0, ldx,
                  n - r < ROWS ? n - r : ROWS, terms);
    __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
    configure(terms < STEP ? (terms + 1) / 2 * 2 : STEP);
    for (int m = 0; m < out; m += PANEL) {
        const uint16_t *w = packed + (size_t)m * padded + (size_t)k0 * PANEL;
        int outputs = out - m < PANEL ? out - m : PANEL;
        for (int r = 0; r < n; r += ROWS) {
            float *to = y + (size_t)r * ldy + m;
            const uint16_t *from = rows + (size_t)(r / ROWS) * each;
            if (outputs == PANEL && n - r >= ROWS)
                block(to, ldy, from, w, steps, add);
            else
                part(to, ldy, from, w, steps, n - r < ROWS ? n - r : ROWS, outputs, add);
        }
    }
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

const sd_panels sd_panels_amx = {"amx-bf16", PANEL, ROWS, true, matmul_amx};
