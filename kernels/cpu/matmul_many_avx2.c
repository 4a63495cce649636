// Integer matrix products of a dozen rows and more with the weights of 5 and 6 bits on AVX2. The
// load: verifying long drafts (up to 48 rows) and prefill (hundreds).
//
// Putting these codes together from two planes takes most of a pass over few rows. Here a tile's
// codes are written out as bytes for 256 k at a time (4 KB, in L1), and rows meet them by fives:
// ten integer sums stand in registers, nothing is masked, shifted or spilled on the way. The float
// sums wait in L1 and are touched once a block. Each row's sums go through the same steps in the
// same order as with few rows (matmul_avx2.c). Types of 4 bits gain nothing from it (LOG.md).
#include "kernels/cpu/tile_avx2.h"

enum { MAX_N = 5, ROWS = 128, CHUNK = 8, GROUPS = 8 };

// CHUNK blocks of one tile, ready for any number of rows.
typedef struct {
    _Alignas(32) uint8_t code[CHUNK][GROUPS][SD_PLANE];
    float d[CHUNK][2][SD_TILE_M]; // Q6_K has one for each 16 k
    float m[CHUNK][SD_TILE_M];
} tile_chunk;

SD_INLINE void store(uint8_t *p, __m256i v) {
    _mm256_store_si256((__m256i *)(void *)p, v);
}

SD_INLINE void open_block(tile_chunk *to, int i, const uint8_t *p, const uint8_t *head,
                          sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const uint8_t *high = p + f.scales, *code = high + f.high;
    for (int j = 0; j < f.block;
         j += 64) // of the next chunk; beyond the ends of tiles and pages too
        _mm_prefetch((const char *)p + CHUNK * f.block + f.head + j, _MM_HINT_T0);
    SD_UNROLL for (int h = 0; h < HALVES; h++) {
        __m256 d, m;
        scales(&d, &m, p, head, h, t);
        for (int part = 0; part < (t == SD_Q6_K ? 2 : 1); part++) {
            __m256 dp = t == SD_Q6_K ? _mm256_mul_ps(d, s8x8(p + 16 * part + 8 * h)) : d;
            _mm256_store_ps(to->d[i][part] + 8 * h, dp);
        }
        if (f.min) _mm256_store_ps(to->m[i] + 8 * h, m);
        SD_UNROLL for (int g = 0; g < GROUPS; g++) {
            __m256i plane = load(code + g / 2 * SD_PLANE + 32 * h);
            store(to->code[i][g] + 32 * h, codes(plane, high, h, g, f.bits));
        }
    }
}

// s [n][HALVES] <- 16-bit sums of the products of groups [g0, g1).
SD_INLINE void products(__m256i s[MAX_N][HALVES], uint8_t code[][SD_PLANE], const int8_t *q, int n,
                        int g0, int g1) {
    SD_UNROLL for (int g = g0; g < g1; g++) {
        __m256i a = load(code[g]), b = load(code[g] + 32);
        SD_UNROLL for (int r = 0; r < n; r++) {
            __m256i x = word(q + r * SD_QPAIR + 4 * g);
            __m256i u = _mm256_maddubs_epi16(a, x);
            s[r][0] = g == g0 ? u : _mm256_add_epi16(s[r][0], u);
            SETTLE(s[r][0]);
            u = _mm256_maddubs_epi16(b, x);
            s[r][1] = g == g0 ? u : _mm256_add_epi16(s[r][1], u);
            SETTLE(s[r][1]);
        }
    }
}

// acc [n][16] += block i of the chunk times its rows. span: groups whose products fit 16 bits.
SD_INLINE void add_rows(float *acc, tile_chunk *c, int i, const sd_quant_rows *x, int n0, int b,
                        int n, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t at = sd_quant_rows_at(x, n0, b);
    const int8_t *q = sd_quant_rows_codes(x, n0, b);
    const int16_t *isum = sd_quant_rows_isum(x, n0, b);
    const int parts = t == SD_Q6_K ? 2 : 1, all = GROUPS / parts;
    const int span = f.bits == 5 ? 4 : 2;
    SD_UNROLL for (int part = 0; part < parts; part++) {
        __m256i s[MAX_N][HALVES], first[MAX_N][HALVES];
        products(s, c->code[i], q, n, part * all, part * all + span);
        SD_UNROLL for (int r = 0; r < n; r++) {
            SD_UNROLL for (int h = 0; h < HALVES; h++) {
                first[r][h] = _mm256_madd_epi16(s[r][h], ones);
                SETTLE(first[r][h]);
            }
        }
        products(s, c->code[i], q, n, part * all + span, (part + 1) * all);
        SD_UNROLL for (int r = 0; r < n; r++) {
            SD_UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i dot = _mm256_madd_epi16(s[r][h], ones);
                dot = _mm256_add_epi32(dot, first[r][h]);
                if (f.centre) {
                    int32_t sum = parts == 2 ? x->isum16[2 * (at + r) + part] : isum[2 * r];
                    dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(sum * f.centre));
                }
                float *to = acc + r * SD_TILE_M + 8 * h;
                __m256 d = _mm256_load_ps(c->d[i][part] + 8 * h), m = d;
                if (f.min) m = _mm256_load_ps(c->m[i] + 8 * h);
                __m256 sum =
                    add_block(_mm256_load_ps(to), dot, d, m, x->scale + at + r, x->sum + at + r, t);
                _mm256_store_ps(to, sum);
            }
        }
    }
}

// Rows [n0, n0 + n) and blocks [b0, b0 + count) of x.
SD_INLINE void add_chunk(float *acc, tile_chunk *c, const sd_quant_rows *x, int n0, int b0,
                         int count, int n, sd_dtype t) {
    for (int i = 0; i < count; i++) add_rows(acc, c, i, x, n0, b0 + i, n, t);
}

// y rows [n0, n0 + N) <- one tile, N <= ROWS.
SD_INLINE void tile_rows(float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int n0, int N,
                         int rows, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int blocks = x->K / SD_QBLOCK, groups = (N + MAX_N - 1) / MAX_N;
    _Alignas(32) float acc[ROWS * SD_TILE_M];
    tile_chunk c;
    const uint8_t *head = p;
    memset(acc, 0, (size_t)N * SD_TILE_M * sizeof *acc);
    for (int b = 0; b < blocks; b += CHUNK) {
        int count = blocks - b < CHUNK ? blocks - b : CHUNK;
        for (int i = 0; i < count; i++, p += f.block) {
            if (f.super && (b + i) % 8 == 0) head = p, p += f.head;
            open_block(&c, i, p, head, t);
        }
        for (int i = 0, r = 0, n; i < groups; i++, r += n) { // as even as can be: 8 is 4 + 4
            n = (N - r + groups - i - 1) / (groups - i);
            float *to = acc + r * SD_TILE_M;
            switch (n) {
            case 5:
                add_chunk(to, &c, x, n0 + r, b, count, 5, t);
                break;
            case 4:
                add_chunk(to, &c, x, n0 + r, b, count, 4, t);
                break;
            case 3:
                add_chunk(to, &c, x, n0 + r, b, count, 3, t);
                break;
            case 2:
                add_chunk(to, &c, x, n0 + r, b, count, 2, t);
                break;
            default:
                add_chunk(to, &c, x, n0 + r, b, count, 1, t);
                break;
            }
        }
    }
    for (int r = 0; r < N; r++)
        memcpy(y + (size_t)(n0 + r) * ldy, acc + r * SD_TILE_M, (size_t)rows * sizeof *acc);
}

typedef void (*many_fn)(float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int n0, int N,
                        int rows);
#define AVX2_MANY(t)                                                                               \
    static __attribute__((noinline)) void many_##t(                                                \
        float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int n0, int N, int rows) {    \
        tile_rows(y, ldy, p, x, n0, N, rows, SD_##t);                                              \
    }
AVX2_MANY(Q5_0)
AVX2_MANY(Q5_1)
AVX2_MANY(Q5_K)
AVX2_MANY(Q6_K)

static const many_fn many_of[SD_Q6_K + 1] = {
    [SD_Q5_0] = many_Q5_0, [SD_Q5_1] = many_Q5_1, [SD_Q5_K] = many_Q5_K, [SD_Q6_K] = many_Q6_K};

void sd_matmul_many_avx2(float *y, int ldy, const uint8_t *tile, const sd_quant_rows *x, int N,
                         int rows, sd_dtype t) {
    for (int n0 = 0; n0 < N; n0 += ROWS)
        many_of[t](y, ldy, tile, x, n0, N - n0 < ROWS ? N - n0 : ROWS, rows);
}
