// Integer matrix products of many rows with AMX: prefill, and the verification of long drafts. A
// plane of packed codes (packed.h) is a row of the matrix unit's right operand, so one instruction
// multiplies 16 rows of activations by a block of 16 outputs and 32 k. Left for the vector units is
// the scaling of its sums, as with few rows (matmul_avx512.c): the integer sums are exact and the
// float sums see the same values in the same order, so the bits are the same. K types have a way of
// their own (matmul_k_amx.c).
//
// The codes of two tiles are written out as signed bytes for CHUNK blocks, and 16 rows at a time
// pass by: two tiles share what is read of the rows. A group's sums are all made before the first
// is read, since a store of the matrix unit is not forwarded to a load.
//
// The tests also compile this file over plain C: the includer provides the intrinsics.
#include "kernels/cpu/matmul_amx.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tile_avx512.h"

enum { PAIR = 2 }; // tiles that share what is read of the rows
enum { ROWS = SD_AMX_ROWS, GROUP = SD_AMX_GROUP };
enum { HALF = 8, CHUNK = 6, GROUPS = 8, L2_BYTES = 768 << 10 };
enum { LEAST = 2 * GROUP, LEAST_K = 9 }; // rows; fewer are faster without (LOG.md)

// Registers of the unit, as macros since they become names.
#define SUMS 0
#define ACTS 2
#define CODES 4

// Blocks of a pair of tiles, ready for any number of rows.
typedef struct {
    _Alignas(64) uint8_t code[PAIR][CHUNK][GROUPS][SD_PLANE]; // signed
    float d[PAIR][CHUNK][SD_TILE_M], m[PAIR][CHUNK][SD_TILE_M];
} tile_chunk;

// The integer sums of a group with a chunk.
typedef struct {
    _Alignas(64) int32_t of[PAIR][CHUNK][GROUP][SD_TILE_M];
} tile_sums;

static void configure(bool super) { // a product of 64 k, or of a block
    const int k = super ? SD_QPAIR : SD_QBLOCK;
    sd_tile_config c = {0};
    for (int i = 0; i < 8; i++) c.rows[i] = GROUP, c.bytes[i] = SD_PLANE;
    c.bytes[ACTS] = (uint16_t)k;
    c.rows[CODES] = (uint8_t)(k / 4);
    sd_tiles_configure(&c);
}

// Block i of tile j of the pair.
SD_INLINE void open_block(tile_chunk *to, int j, int i, const uint8_t *p, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const uint8_t *high = p + f.scales, *code = high + f.high;
    for (int at = 0; at < f.block; at += 64) // beyond the ends of tiles and pages too
        _mm_prefetch((const char *)p + AHEAD + at, _MM_HINT_T0);
    _mm512_storeu_ps(to->d[j][i], half16(p));
    if (f.min) _mm512_storeu_ps(to->m[j][i], half16(p + 32));
    const __m512i centre = _mm512_set1_epi8((char)centre_of(t));
    SD_UNROLL for (int g = 0; g < GROUPS; g++) {
        __m512i q = _mm512_sub_epi8(codes(code, high, g, t), centre);
        _mm512_storeu_si512((void *)to->code[j][i][g], q);
    }
}

// The sums of 16 rows at q with block i; tiles is 1 or 2.
SD_INLINE void products(tile_sums *s, const tile_chunk *c, int i, const int8_t *q, int tiles) {
    _tile_loadd(ACTS, q, SD_QPAIR);
    SD_UNROLL for (int j = 0; j < tiles; j++) {
        _tile_loadd(CODES, c->code[j][i], SD_PLANE);
        _tile_zero(SUMS);
        _tile_dpbssd(SUMS, ACTS, CODES);
        _tile_stored(SUMS, s->of[j][i], 4 * SD_TILE_M);
    }
}

// acc [tiles][HALF] += the sums of block i and rows [r0, r0 + HALF) of the group.
SD_INLINE void scale_rows(__m512 acc[PAIR][HALF], const tile_sums *s, const tile_chunk *c, int i,
                          int r0, const float *scale, const float *sum, int tiles, sd_dtype t) {
    const bool min = sd_tile_form_of(t).min;
    __m512 d[PAIR], m[PAIR];
    SD_UNROLL for (int j = 0; j < tiles; j++) {
        d[j] = _mm512_loadu_ps(c->d[j][i]);
        if (min) m[j] = _mm512_loadu_ps(c->m[j][i]);
    }
    SD_UNROLL for (int r = 0; r < HALF; r++) {
        __m512 k = _mm512_set1_ps(scale[r0 + r]);
        SD_UNROLL for (int j = 0; j < tiles; j++) {
            __m512 v = _mm512_cvtepi32_ps(load((const uint8_t *)s->of[j][i][r0 + r]));
            acc[j][r] = _mm512_fmadd_ps(v, _mm512_mul_ps(d[j], k), acc[j][r]);
        }
        if (!min) continue;
        k = _mm512_set1_ps(sum[r0 + r]);
        SD_UNROLL for (int j = 0; j < tiles; j++) acc[j][r] = _mm512_fmadd_ps(m[j], k, acc[j][r]);
    }
}

// Where the sums of rows go: into acc [tiles][.. ROWS][16], from there or from zero, and at the end
// to y.
typedef struct {
    float *acc, *y;
    int ldy;
    __mmask16 outputs[PAIR];
    bool first, last;
} tile_place;

// Blocks [b0, b0 + count), in the chunk, times rows [n0, n0 + GROUP). The first pass begins at zero
// and the last writes to y, so that neither takes a walk of its own.
SD_INLINE void add_group(const tile_place *to, const tile_chunk *c, const sd_quant_rows *x, int n0,
                         int b0, int count, int tiles, sd_dtype t) {
    tile_sums s;
    for (int i = 0; i < count; i++) products(&s, c, i, sd_quant_rows_codes(x, n0, b0 + i), tiles);
    for (int r0 = 0; r0 < GROUP; r0 += HALF) {
        float *acc = to->acc + (n0 + r0) * SD_TILE_M;
        __m512 a[PAIR][HALF];
        SD_UNROLL for (int j = 0; j < tiles; j++) {
            SD_UNROLL for (int r = 0; r < HALF; r++) {
                const float *from = acc + (j * ROWS + r) * SD_TILE_M;
                a[j][r] = to->first ? _mm512_setzero_ps() : _mm512_loadu_ps(from);
            }
        }
        for (int i = 0; i < count; i++) {
            const size_t at = sd_quant_rows_at(x, n0, b0 + i);
            scale_rows(a, &s, c, i, r0, x->scale + at, x->sum + at, tiles, t);
        }
        float *y = to->y + (size_t)(n0 + r0) * to->ldy;
        SD_UNROLL for (int j = 0; j < tiles; j++) {
            SD_UNROLL for (int r = 0; r < HALF; r++) {
                if (to->last)
                    _mm512_mask_storeu_ps(y + (size_t)r * to->ldy + j * SD_TILE_M, to->outputs[j],
                                          a[j][r]);
                else
                    _mm512_storeu_ps(acc + (j * ROWS + r) * SD_TILE_M, a[j][r]);
            }
        }
    }
}

// y rows [0, N) <- `tiles` tiles from p on, `bytes` apart; N <= ROWS, a multiple of GROUP.
SD_INLINE void tile_rows(float *y, int ldy, const uint8_t *p, size_t bytes, const sd_quant_rows *x,
                         int N, int outputs_there, int tiles, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int blocks = x->K / SD_QBLOCK;
    _Alignas(64) float acc[PAIR * ROWS * SD_TILE_M];
    tile_chunk c;
    tile_place to = {.acc = acc, .y = y, .ldy = ldy};
    for (int j = 0, left; j < tiles; j++) {
        left = outputs_there - j * SD_TILE_M;
        to.outputs[j] = outputs(left < SD_TILE_M ? left : SD_TILE_M);
    }
    for (int b = 0; b < blocks; b += CHUNK) {
        const int count = blocks - b < CHUNK ? blocks - b : CHUNK;
        to.first = b == 0, to.last = b + count == blocks;
        for (int j = 0; j < tiles; j++) {
            const uint8_t *block = p + (size_t)j * bytes;
            for (int i = 0; i < count; i++, block += f.block) open_block(&c, j, i, block, t);
        }
        p += count * f.block;
        __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
        for (int n0 = 0; n0 < N; n0 += GROUP) add_group(&to, &c, x, n0, b, count, tiles, t);
    }
}

typedef void (*many_fn)(float *y, int ldy, const uint8_t *p, size_t bytes, const sd_quant_rows *x,
                        int N, int outputs_there);
#define AMX_MANY(t, tiles)                                                                         \
    static __attribute__((noinline)) void many_##t##_##tiles(float *y, int ldy, const uint8_t *p,  \
                                                             size_t bytes, const sd_quant_rows *x, \
                                                             int N, int outputs_there) {           \
        tile_rows(y, ldy, p, bytes, x, N, outputs_there, tiles, SD_##t);                           \
    }
#define AMX_BOTH(t) AMX_MANY(t, 1) AMX_MANY(t, 2)
SD_EACH_OF_32(AMX_BOTH)
#define AMX_ROW(t) [SD_##t] = {many_##t##_1, many_##t##_2},
static const many_fn many_of[SD_IQ4_NL + 1][PAIR] = {SD_EACH_OF_32(AMX_ROW)};

// x without its first n rows.
static sd_quant_rows rows_from(const sd_quant_rows *x, int n) {
    sd_quant_rows a = *x;
    a.x += (size_t)n * x->K;
    if (n == 0) return a; // under fp32 there are no codes
    a.q += n * SD_QPAIR, a.scale += n, a.sum += n;
    a.isum += 2 * n, a.isum16 += 2 * n, a.bsum += 16 * n;
    return a;
}

// Rows that all tiles meet before the next ones come: their codes stay in L2 meanwhile.
static int rows_at_once(int K) {
    int rows = L2_BYTES / K / (2 * GROUP) * (2 * GROUP);
    return rows < 2 * GROUP ? 2 * GROUP : rows > ROWS ? ROWS : rows;
}

// Rows [0, N) of the outputs [m0, m1).
static void many_rows(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                      int m0, int m1) {
    const sd_dtype t = w->w.dtype;
    const bool super = sd_tile_form_of(t).super;
    const size_t bytes = sd_tile_bytes(t, w->w.cols);
    const int most = rows_at_once(x->K);
    configure(super);
    for (int n0 = 0, n; n0 < N; n0 += n, y += (size_t)n * ldy) {
        n = N - n0 < most ? N - n0 : most;
        const sd_quant_rows from = rows_from(x, n0);
        for (int m = m0, tiles; m < m1; m += tiles * SD_TILE_M) {
            const uint8_t *p = (const uint8_t *)w->data + (size_t)(m / SD_TILE_M) * bytes;
            const int left = m1 - m;
            tiles = super || left <= SD_TILE_M ? 1 : PAIR;
            if (super)
                sd_k_rows_amx(y + m, ldy, p, &from, n, left < SD_TILE_M ? left : SD_TILE_M, t);
            else
                many_of[t][tiles - 1](y + m, ldy, p, bytes, &from, n, left);
        }
    }
    _tile_release();
}

// How many of N rows the matrix unit takes. K types have no use for whole groups.
static int rows_for_unit(const sd_packed_weight *w, int N) {
    if (w->compute != SD_COMPUTE_AUTO || !sd_dtype_quantised(w->w.dtype)) return 0;
    if (sd_tile_form_of(w->w.dtype).super) return N < LEAST_K ? 0 : N;
    return N < LEAST ? 0 : N / GROUP * GROUP;
}

void sd_matmul_amx(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                   int m0, int m1) {
    const int many = rows_for_unit(w, N);
    if (many) many_rows(y, ldy, w, x, many, m0, m1);
    if (many == N) return;
    sd_quant_rows rest = rows_from(x, many);
    sd_matmul_avx512(y + (size_t)many * ldy, ldy, w, &rest, N - many, m0, m1);
}
