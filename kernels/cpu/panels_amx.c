// The products of training with TDPBF16PS: 32 rows times a panel of 32 outputs in four tiles of
// sums, two of operands on each side. A panel's bf16 form (panels.h) is the unit's right operand as
// it stands: a row of the operand is a pair of terms. Sums stay in the unit over DEPTH terms.
//
// The tests also compile this file over plain C: the includer provides the instructions.
#ifndef SPECDEC_SIMDE
#include <immintrin.h>
#endif

#include "kernels/cpu/panels_isa.h"
#include "kernels/tensor.h"

#include <string.h>

enum { ROWS = 32, PANEL = 32, SIDE = 16, STEP = 32, DEPTH = 768 };
_Static_assert(SD_PANEL_TILE % ROWS == 0 && SD_PANEL_TILE * DEPTH * 2 <= SD_PANEL_SCRATCH,
               "scratch");

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; // of a row
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "the processor's own layout");

// Sums in 0..3, rows of x in 4 and 5, the panel in 6 and 7. terms: of one step, even.
static void configure(int terms) {
    tile_config c = {.palette = 1};
    for (int t = 0; t < 4; t++) c.rows[t] = SIDE, c.bytes[t] = 4 * SIDE;
    for (int t = 4; t < 6; t++) c.rows[t] = SIDE, c.bytes[t] = (uint16_t)(2 * terms);
    for (int t = 6; t < 8; t++) c.rows[t] = (uint8_t)(terms / 2), c.bytes[t] = 4 * SIDE;
    // gcc 12 believes that the instruction reads 8 bytes, and would drop the other stores.
    __asm__ volatile("" : : "r"(&c) : "memory");
    _tile_loadconfig(&c);
}

// sums [ROWS][PANEL] <- x [ROWS, ldx] times `steps` steps of a panel; add: += .
static void block(float *sums, int lds, const uint16_t *x, int ldx, const uint16_t *w, int steps,
                  bool add) {
    const long of_sums = 4L * lds, of_x = 2L * ldx, of_w = 4L * PANEL;
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
    for (int k = 0; k < steps; k++, x += STEP, w += STEP * PANEL) {
        _tile_loadd(6, w, of_w);
        _tile_loadd(7, w + 2 * SIDE, of_w);
        _tile_loadd(4, x, of_x);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, x + SIDE * (size_t)ldx, of_x);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, of_sums);
    _tile_stored(1, sums + SIDE, of_sums);
    _tile_stored(2, sums + SIDE * (size_t)lds, of_sums);
    _tile_stored(3, sums + SIDE * (size_t)lds + SIDE, of_sums);
}

// The same where fewer rows or outputs are there than a block has.
static void part(float *y, int ldy, const uint16_t *x, int ldx, const uint16_t *w, int steps,
                 int rows, int outputs, bool add) {
    _Alignas(64) float sums[ROWS * PANEL] = {0};
    for (int r = 0; add && r < rows; r++)
        memcpy(sums + r * PANEL, y + (size_t)r * ldy, sizeof(float) * (size_t)outputs);
    block(sums, PANEL, x, ldx, w, steps, add);
    for (int r = 0; r < rows; r++)
        memcpy(y + (size_t)r * ldy, sums + r * PANEL, sizeof(float) * (size_t)outputs);
}

// to [terms, to an even number] <- x in bf16, to the nearest; what is missing is zero.
static void copy_row(uint16_t *to, const float *x, int terms) {
    int i = 0;
    for (; i + SIDE <= terms; i += SIDE) {
        __m256i v = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        _mm256_storeu_si256((__m256i *)(void *)(to + i), v);
    }
    for (; i < terms; i++) to[i] = sd_float_to_bf16(x[i]);
    if (terms & 1) to[terms] = 0;
}

// Terms [k0, k0 + terms) of the sums; terms is a multiple of `step`, or one step of an odd number.
static void some_terms(float *y, int ldy, const float *x, int ldx, const uint16_t *packed, int n,
                       int out, int padded, int k0, int terms, int step, bool add, uint16_t *rows) {
    int all = (n + ROWS - 1) / ROWS * ROWS, steps = (terms + step - 1) / step;
    for (int r = 0; r < n; r++) copy_row(rows + (size_t)r * DEPTH, x + (size_t)r * ldx + k0, terms);
    memset(rows + (size_t)n * DEPTH, 0, sizeof *rows * (size_t)(all - n) * DEPTH);
    __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
    configure(step);
    for (int m = 0; m < out; m += PANEL) {
        const uint16_t *w = packed + (size_t)m * padded + (size_t)k0 * PANEL;
        int outputs = out - m < PANEL ? out - m : PANEL;
        for (int r = 0; r < n; r += ROWS) {
            float *to = y + (size_t)r * ldy + m;
            const uint16_t *from = rows + (size_t)r * DEPTH;
            if (outputs == PANEL && n - r >= ROWS)
                block(to, ldy, from, DEPTH, w, steps, add);
            else
                part(to, ldy, from, DEPTH, w, steps, n - r < ROWS ? n - r : ROWS, outputs, add);
        }
    }
    _tile_release();
}

static void matmul_amx(float *y, int ldy, const float *x, int ldx, const void *packed, int n,
                       int out, int k, bool add, void *scratch) {
    int padded = (k + 1) / 2 * 2, whole = k / STEP * STEP, k0 = 0;
    for (; k0 < whole; k0 += DEPTH) {
        int terms = whole - k0 < DEPTH ? whole - k0 : DEPTH;
        some_terms(y, ldy, x, ldx, packed, n, out, padded, k0, terms, STEP, add || k0, scratch);
    }
    if (whole < k)
        some_terms(y, ldy, x, ldx, packed, n, out, padded, whole, k - whole, padded - whole,
                   add || whole, scratch);
}

const sd_panels sd_panels_amx = {"amx-bf16", PANEL, ROWS, true, matmul_amx};
