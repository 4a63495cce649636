// Many rows and K types on AMX. A block's scale is a whole number there, so it goes into the codes:
// their products are split in two parts of 8 bits each, and the unit sums 256 k at a time. Left for
// the vector units is one float operation a row for what were eight (matmul_amx.c). The integer
// sums are exact: the bits are those of few rows (matmul_avx512.c).
//
//     scale * code = high * 2^shift + low
//     Q4_K, Q5_K   the scale is split (6 bits, shift 3), the code is unsigned
//     Q6_K         the product is split (13 bits and a sign, shift 7)
//
// The tests also compile this file over plain C: the includer provides the intrinsics.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/matmul_amx.h"
#include "kernels/cpu/tile_avx512.h"

#include <string.h>

enum { BLOCKS = SD_QSUPER / SD_QBLOCK, PLANES = 8, STEPS = SD_QSUPER / SD_QPAIR };
enum { BESIDE = 2 }; // groups of rows that share codes

// Registers of the unit, as macros since they become names.
#define HIGH_0 0
#define LOW_0 1
#define HIGH_1 2
#define LOW_1 3
#define ACTS_0 4
#define ACTS_1 5
#define CODES_HIGH 6
#define CODES_LOW 7

// 256 k of a tile, ready for any number of rows.
typedef struct {
    _Alignas(64) uint8_t high[BLOCKS][PLANES][SD_PLANE];
    uint8_t low[BLOCKS][PLANES][SD_PLANE];
    uint32_t min[16][SD_TILE_M]; // for each 16 k, twice as bf16
    float d[SD_TILE_M], dmin[SD_TILE_M];
} tile_super;

typedef struct {
    _Alignas(64) int32_t high[BESIDE * SD_AMX_GROUP][SD_TILE_M];
    int32_t low[BESIDE * SD_AMX_GROUP][SD_TILE_M];
    float min[BESIDE * SD_AMX_GROUP][SD_TILE_M];
} super_sums;

SD_INLINE void store(void *to, __m512i v) {
    _mm512_storeu_si512(to, v);
}
SD_INLINE __m512i twice(__m512i words) { // in both halves of a lane
    return in_pairs(words, words);
}

SD_INLINE void split_scale(uint8_t *high, uint8_t *low, __m512i q, __m512i scale) {
    __m512i top = _mm512_srli_epi16(scale, 3), rest = _mm512_and_si512(scale, _mm512_set1_epi16(7));
    // 31 * 7 fits a byte: two of them are multiplied as one word.
    store(high, _mm512_mullo_epi16(q, top));
    store(low, _mm512_mullo_epi16(q, rest));
}

SD_INLINE void split_product(uint8_t *high, uint8_t *low, __m512i q, __m512i scale) {
    const __m512i byte = _mm512_set1_epi16(0xff), seven = _mm512_set1_epi16(0x7f);
    __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8), odd = _mm512_srai_epi16(q, 8);
    even = _mm512_mullo_epi16(even, scale);
    odd = _mm512_mullo_epi16(odd, scale);
    store(low, _mm512_or_si512(_mm512_and_si512(even, seven),
                               _mm512_slli_epi16(_mm512_and_si512(odd, seven), 8)));
    store(high, _mm512_or_si512(_mm512_and_si512(_mm512_srai_epi16(even, 7), byte),
                                _mm512_slli_epi16(_mm512_srai_epi16(odd, 7), 8)));
}

// p: a head.
SD_INLINE void open_super(tile_super *to, const uint8_t *p, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    _mm512_storeu_ps(to->d, half16(p));
    if (f.min) _mm512_storeu_ps(to->dmin, half16(p + 32));
    p += f.head;
    for (int b = 0; b < BLOCKS; b++, p += f.block) {
        const uint8_t *high = p + f.scales, *code = high + f.high;
        for (int at = 0; at < f.block; at += 64) // beyond the ends of tiles and pages too
            _mm_prefetch((const char *)p + AHEAD + at, _MM_HINT_T0);
        if (f.min) {
            __m512i m = _mm512_castps_si512(_mm512_cvtepi32_ps(load_u8(p + 16)));
            m = _mm512_or_si512(m, _mm512_srli_epi32(m, 16)); // 6 bits: exact
            store(to->min[2 * b], m);
            store(to->min[2 * b + 1], m);
        }
        SD_UNROLL for (int g = 0; g < PLANES; g++) {
            __m512i q = codes(code, high, g, t);
            if (f.min) {
                split_scale(to->high[b][g], to->low[b][g], q, twice(load_u8(p)));
            } else {
                q = _mm512_sub_epi8(q, _mm512_set1_epi8((char)f.centre));
                split_product(to->high[b][g], to->low[b][g], q, twice(load_s8(p + g / 4 * 16)));
            }
        }
    }
}

#define PRODUCT(sums, acts, codes, min)                                                            \
    do {                                                                                           \
        if (min)                                                                                   \
            _tile_dpbsud(sums, acts, codes);                                                       \
        else                                                                                       \
            _tile_dpbssd(sums, acts, codes);                                                       \
    } while (0)

// The sums += the products of 64 k, those at i, of `groups` groups of rows from n0 on.
SD_INLINE void super_products(const tile_super *c, const sd_quant_rows *x, int n0, int b0, int i,
                              int groups, bool min) {
    const int8_t *q = sd_quant_rows_codes(x, n0, b0 + 2 * i);
    _tile_loadd(ACTS_0, q, SD_QPAIR);
    _tile_loadd(CODES_HIGH, c->high[2 * i], SD_PLANE);
    PRODUCT(HIGH_0, ACTS_0, CODES_HIGH, min);
    _tile_loadd(CODES_LOW, c->low[2 * i], SD_PLANE);
    PRODUCT(LOW_0, ACTS_0, CODES_LOW, min);
    if (groups == 1) return;
    _tile_loadd(ACTS_1, q + SD_AMX_GROUP * SD_QPAIR, SD_QPAIR);
    PRODUCT(HIGH_1, ACTS_1, CODES_HIGH, min);
    PRODUCT(LOW_1, ACTS_1, CODES_LOW, min);
}

SD_INLINE void begin_sums(void) {
    _tile_zero(HIGH_0);
    _tile_zero(LOW_0);
    _tile_zero(HIGH_1);
    _tile_zero(LOW_1);
}

SD_INLINE void end_sums(super_sums *s, const tile_super *c, const sd_quant_rows *x, int n0, int b0,
                        int groups, bool min) {
    _tile_stored(HIGH_0, s->high, 4 * SD_TILE_M);
    _tile_stored(LOW_0, s->low, 4 * SD_TILE_M);
    if (groups == 2) {
        _tile_stored(HIGH_1, s->high[SD_AMX_GROUP], 4 * SD_TILE_M);
        _tile_stored(LOW_1, s->low[SD_AMX_GROUP], 4 * SD_TILE_M);
    }
    if (!min) return;
    const uint32_t *sums = x->bsum + sd_quant_rows_at(x, n0, b0 / BLOCKS) * 16;
    _tile_loadd(CODES_LOW, c->min, SD_PLANE);
    _tile_loadd(ACTS_0, sums, SD_PLANE);
    _tile_zero(LOW_0);
    _tile_dpbf16ps(LOW_0, ACTS_0, CODES_LOW);
    _tile_stored(LOW_0, s->min, 4 * SD_TILE_M);
    if (groups == 1) return;
    _tile_loadd(ACTS_1, sums + SD_AMX_GROUP * 16, SD_PLANE);
    _tile_zero(LOW_1);
    _tile_dpbf16ps(LOW_1, ACTS_1, CODES_LOW);
    _tile_stored(LOW_1, s->min[SD_AMX_GROUP], 4 * SD_TILE_M);
}

// Where the sums of a group of rows go: into acc, from acc or zero, and at the end to y.
typedef struct {
    float *acc, *y;
    int ldy;
    __mmask16 outputs;
    bool first, last;
} super_place;

// What the integer sums of the rows [n0, n0 + n) are in floats. The first pass begins at zero and
// the last writes to y, so that neither takes a walk of its own.
SD_INLINE void add_rows(const super_place *to, const super_sums *s, const tile_super *c,
                        const sd_quant_rows *x, int n0, int b0, int n, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const float *scale = x->scale + sd_quant_rows_at(x, n0, b0);
    __m512 d = _mm512_loadu_ps(c->d), dmin = f.min ? _mm512_loadu_ps(c->dmin) : d;
    for (int r = 0; r < n; r++) {
        __m512i isum = load((const uint8_t *)s->high[r]);
        isum = _mm512_add_epi32(_mm512_slli_epi32(isum, f.min ? 3 : 7),
                                load((const uint8_t *)s->low[r]));
        __m512 msum = f.min ? _mm512_loadu_ps(s->min[r]) : d;
        float *acc = to->acc + (n0 + r) * SD_TILE_M;
        __m512 v = to->first ? _mm512_setzero_ps() : _mm512_loadu_ps(acc);
        v = add_super(v, isum, msum, d, dmin, scale[r], t);
        if (to->last)
            _mm512_mask_storeu_ps(to->y + (size_t)(n0 + r) * to->ldy, to->outputs, v);
        else
            _mm512_storeu_ps(acc, v);
    }
}

// y rows [0, N) <- one tile; N <= SD_AMX_ROWS. What the unit makes of rows beyond N is dropped.
SD_INLINE void super_rows(float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int N,
                          int there, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int blocks = x->K / SD_QBLOCK;
    _Alignas(64) float acc[SD_AMX_ROWS * SD_TILE_M];
    tile_super c;
    super_sums s;
    super_place to = {acc, y, ldy, outputs(there), true, false};
    for (int b = 0; b < blocks; b += BLOCKS, p += f.head + BLOCKS * f.block) {
        to.first = b == 0, to.last = b + BLOCKS == blocks;
        open_super(&c, p, t);
        __asm__ volatile("" : : : "memory"); // the unit reads what was just stored
        for (int n0 = 0; n0 < N; n0 += BESIDE * SD_AMX_GROUP) {
            const int left = N - n0, groups = left > SD_AMX_GROUP ? BESIDE : 1;
            const int rows = left < BESIDE * SD_AMX_GROUP ? left : BESIDE * SD_AMX_GROUP;
            begin_sums();
            for (int i = 0; i < STEPS; i++) super_products(&c, x, n0, b, i, groups, f.min);
            end_sums(&s, &c, x, n0, b, groups, f.min);
            add_rows(&to, &s, &c, x, n0, b, rows, t);
        }
    }
}

#define SUPER_ROWS(t)                                                                              \
    static __attribute__((noinline)) void super_rows_##t(                                          \
        float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int N, int there) {           \
        super_rows(y, ldy, p, x, N, there, SD_##t);                                                \
    }
SD_EACH_K(SUPER_ROWS)

void sd_k_rows_amx(float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int N, int outputs,
                   sd_dtype t) {
    (t == SD_Q4_K   ? super_rows_Q4_K
     : t == SD_Q5_K ? super_rows_Q5_K
                    : super_rows_Q6_K)(y, ldy, p, x, N, outputs);
}

void sd_quantize_rows_amx(sd_quant_rows *a, const float *x, int n0, int n1) {
    sd_quantize_rows_avx2(a, x, n0, n1);
    if (a->compute == SD_COMPUTE_FP32 || a->group != SD_QSUPER) return;
    for (int b = 0; b + BLOCKS <= a->K / SD_QBLOCK; b += BLOCKS)
        for (int n = n0; n < n1; n++) {
            int32_t by_block[BLOCKS]; // pairs of sums
            for (int i = 0; i < BLOCKS; i++)
                memcpy(&by_block[i], a->isum16 + 2 * sd_quant_rows_at(a, n, b + i), 4);
            __m512i sum = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)by_block));
            __m512i low = _mm512_and_si512(sum, _mm512_set1_epi32(15)); // 12 bits are 8 and 4
            __m512 high = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, low));
            low = _mm512_castps_si512(_mm512_cvtepi32_ps(low));
            store(a->bsum + sd_quant_rows_at(a, n, b / BLOCKS) * 16,
                  _mm512_or_si512(low, _mm512_srli_epi32(_mm512_castps_si512(high), 16)));
        }
}
