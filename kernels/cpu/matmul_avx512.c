// Matrix products on AVX-512 with VNNI: the same tiles and the same order of sums as on AVX2, a
// plane in one register and vpdpbusd in place of three instructions. It sums in 32 bits, so nothing
// can saturate; a centred type starts its accumulator at -centre * (sum of the row's codes), and
// Q8_0 and the values of IQ4_NL's table are made unsigned by their top bit (centre 128). Up to
// eight rows share an unpacked plane.
//
// The file also compiles over SIMDe (its includer provides the intrinsics), where the tests run it
// on processors without AVX-512.
#ifndef SPECDEC_SIMDE
#include <immintrin.h>
#endif

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tile_avx512.h"

#include <string.h>

enum { MAX_N = 8, FLOAT_N = 8 };

SD_INLINE __m512i word(const int8_t *p) { // 4 activations in every lane
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

// dot [n] += unsigned codes of groups [g0, g0 + groups) times those of rows at q.
SD_INLINE void dots(__m512i *dot, const uint8_t *code, const uint8_t *high, const int8_t *q, int g0,
                    int groups, int n, sd_dtype t) {
    __m512i even[MAX_N];
    SD_UNROLL for (int r = 0; r < n; r++) even[r] = _mm512_setzero_si512();
    SD_UNROLL for (int g = g0; g < g0 + groups; g++) {
        __m512i w = codes(code, high, g, t);
        SD_UNROLL for (int r = 0; r < n; r++) {
            __m512i a = word(q + r * SD_QPAIR + 4 * g);
            if (n <= 4 && g % 2) // few rows: a second chain hides the latency
                even[r] = _mm512_dpbusd_epi32(even[r], w, a);
            else
                dot[r] = _mm512_dpbusd_epi32(dot[r], w, a);
        }
    }
    if (n > 4) return;
    SD_UNROLL for (int r = 0; r < n; r++) dot[r] = _mm512_add_epi32(dot[r], even[r]);
}

// acc [n] <- one tile of a type with a scale for each 32 k. t and n are constants where this is
// inlined.
SD_INLINE void sum_blocks(__m512 *acc, const uint8_t *p, sd_tile_ahead *ahead,
                          const sd_quant_rows *x, int n0, int n, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int centre = centre_of(t), blocks = x->K / SD_QBLOCK;
    for (int b = 0; b < blocks; b++, p += f.block) {
        const size_t at = sd_quant_rows_at(x, n0, b);
        const int16_t *isum = sd_quant_rows_isum(x, n0, b);
        const uint8_t *high = p + f.scales, *code = high + f.high;
        __m512 d = half16(p), m = f.min ? half16(p + 32) : d;
        __m512i dot[MAX_N];
        sd_tile_ask(ahead, p, f.block);
        SD_UNROLL for (int r = 0; r < n; r++) dot[r] =
            centre ? _mm512_set1_epi32(-centre * isum[2 * r]) : _mm512_setzero_si512();
        dots(dot, code, high, sd_quant_rows_codes(x, n0, b), 0, 8, n, t);
        SD_UNROLL for (int r = 0; r < n; r++) {
            __m512 k = _mm512_mul_ps(d, _mm512_set1_ps(x->scale[at + r]));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), k, acc[r]);
            if (f.min) acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(x->sum[at + r]), acc[r]);
        }
    }
}

// The same for a K type: the scales of blocks are whole numbers, so that 256 k are summed exactly.
SD_INLINE void sum_supers(__m512 *acc, const uint8_t *p, sd_tile_ahead *ahead,
                          const sd_quant_rows *x, int n0, int n, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int parts = parts_of(t), supers = x->K / SD_QSUPER;
    for (int s = 0; s < supers; s++) {
        const uint8_t *head = p;
        __m512i isum[MAX_N], msum[MAX_N];
        SD_UNROLL for (int r = 0; r < n; r++) isum[r] = msum[r] = _mm512_setzero_si512();
        p += f.head;
        for (int b = 8 * s; b < 8 * s + 8; b++, p += f.block) {
            const uint8_t *high = p + f.scales, *code = high + f.high;
            sd_tile_ask(ahead, p, f.block);
            SD_UNROLL for (int part = 0; part < parts; part++) {
                __m512i dot[MAX_N];
                __m512i scale = parts == 2 ? load_s8(p + 16 * part) : load_u8(p);
                SD_UNROLL for (int r = 0; r < n; r++) dot[r] = _mm512_setzero_si512();
                dots(dot, code, high, sd_quant_rows_codes(x, n0, b), part * 4, 8 / parts, n, t);
                SD_UNROLL for (int r = 0; r < n; r++) isum[r] =
                    _mm512_add_epi32(isum[r], _mm512_mullo_epi32(dot[r], scale));
            }
            if (!f.centre) continue;
            // The codes are `centre` too large: -128 * -32 still fits 16 bits.
            const __m512i centre = _mm512_set1_epi16((short)-f.centre);
            __m512i scale = _mm512_mullo_epi16(in_pairs(load_s8(p), load_s8(p + 16)), centre);
            const int16_t *sum = x->isum16 + 2 * sd_quant_rows_at(x, n0, b);
            SD_UNROLL for (int r = 0; r < n; r++) isum[r] =
                _mm512_dpwssd_epi32(isum[r], scale, pair(sum + 2 * r));
        }
        for (int b = 0; f.min && b < 8; b += 2) {
            __m512i m = min_pair(head + f.head + b * f.block, t);
            const int16_t *sum = sd_quant_rows_isum(x, n0, 8 * s + b);
            SD_UNROLL for (int r = 0; r < n; r++) msum[r] =
                _mm512_dpwssd_epi32(msum[r], m, pair(sum + 2 * r));
        }
        const float *k = x->scale + sd_quant_rows_at(x, n0, 8 * s);
        __m512 d = half16(head), dmin = f.min ? half16(head + 32) : d;
        SD_UNROLL for (int r = 0; r < n; r++) acc[r] =
            add_super(acc[r], isum[r], _mm512_cvtepi32_ps(msum[r]), d, dmin, k[r], t);
    }
}

// y rows [n] <- one tile.
SD_INLINE void tile_int8(float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead,
                         const sd_quant_rows *x, int n0, int rows, int n, sd_dtype t) {
    __m512 acc[MAX_N];
    SD_UNROLL for (int r = 0; r < n; r++) acc[r] = _mm512_setzero_ps();
    if (sd_tile_form_of(t).super)
        sum_supers(acc, p, ahead, x, n0, n, t);
    else
        sum_blocks(acc, p, ahead, x, n0, n, t);
    SD_UNROLL for (int r = 0; r < n; r++)
        _mm512_mask_storeu_ps(y + (size_t)r * ldy, outputs(rows), acc[r]);
}

// Fewer rows than half of the most are always the only pass (the last ones go in two like halves),
// and asking whether they are would cost a row by itself 1.5 %.
#define AVX512_TILE(t, n)                                                                          \
    static __attribute__((noinline)) void tile_##t##_##n(                                          \
        float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead, const sd_quant_rows *x, int n0, \
        int rows) {                                                                                \
        tile_int8(y, ldy, p, n < MAX_N / 2 ? NULL : ahead, x, n0, rows, n, SD_##t);                \
    }
#define AVX512_TILES(t)                                                                            \
    AVX512_TILE(t, 1)                                                                              \
    AVX512_TILE(t, 2)                                                                              \
    AVX512_TILE(t, 3)                                                                              \
    AVX512_TILE(t, 4) AVX512_TILE(t, 5) AVX512_TILE(t, 6) AVX512_TILE(t, 7) AVX512_TILE(t, 8)
SD_EACH_QUANTISED(AVX512_TILES)

#define AVX512_ROW(t)                                                                              \
    [SD_##t] = {tile_##t##_1, tile_##t##_2, tile_##t##_3, tile_##t##_4,                            \
                tile_##t##_5, tile_##t##_6, tile_##t##_7, tile_##t##_8},
static const sd_tile_fn tile_of[SD_IQ4_NL + 1][MAX_N] = {SD_EACH_QUANTISED(AVX512_ROW)};

// ---- quantised weights, activations in fp32

// out [32][16] <- the block's values at p, bit-identical to the stored ones.
SD_INLINE void write_block(float *out, const uint8_t *p, const uint8_t *head, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const uint8_t *high = p + f.scales, *code = high + f.high;
    __m512 d = half16(f.super ? head : p), m = _mm512_setzero_ps(), d0 = d;
    if (f.super && f.min) d = _mm512_mul_ps(d0, _mm512_cvtepi32_ps(load_u8(p)));
    if (f.min) m = half16(f.super ? head + 32 : p + 32);
    if (f.super && f.min) m = _mm512_mul_ps(m, _mm512_cvtepi32_ps(load_u8(p + 16)));
    SD_UNROLL for (int g = 0; g < 8; g++) {
        if (t == SD_Q6_K) d = _mm512_mul_ps(d0, _mm512_cvtepi32_ps(load_s8(p + 16 * (g / 4))));
        __m512i q = _mm512_sub_epi8(codes(code, high, g, t), _mm512_set1_epi8((char)centre_of(t)));
        SD_UNROLL for (int j = 0; j < 4; j++) {
            __m512i v = _mm512_srai_epi32(_mm512_slli_epi32(q, (unsigned)(24 - 8 * j) & 31), 24);
            __m512 x = _mm512_mul_ps(d, _mm512_cvtepi32_ps(v));
            if (f.min) x = f.super ? _mm512_sub_ps(x, m) : _mm512_add_ps(x, m);
            _mm512_storeu_ps(out + (4 * g + j) * SD_TILE_M, x);
        }
    }
}

static void write_values(float *out, const uint8_t *p, const uint8_t *head, sd_dtype t) {
#define AVX512_CASE(type)                                                                          \
    case SD_##type:                                                                                \
        write_block(out, p, head, SD_##type);                                                      \
        break;
    switch (t) {
        SD_EACH_QUANTISED(AVX512_CASE)
    default:
        break;
    }
}

// acc [n][16] += w [32][16] times rows of x.
SD_INLINE void fma_rows(float *acc, const float *w, const float *x, int K, int n) {
    __m512 s[MAX_N];
    SD_UNROLL for (int r = 0; r < n; r++) s[r] = _mm512_loadu_ps(acc + r * SD_TILE_M);
    for (int k = 0; k < SD_QBLOCK; k++) {
        __m512 a = _mm512_loadu_ps(w + k * SD_TILE_M);
        SD_UNROLL for (int r = 0; r < n; r++) s[r] =
            _mm512_fmadd_ps(a, _mm512_set1_ps(x[(size_t)r * K + k]), s[r]);
    }
    SD_UNROLL for (int r = 0; r < n; r++) _mm512_storeu_ps(acc + r * SD_TILE_M, s[r]);
}

static void fma_block(float *acc, const float *w, const float *x, int K, int N) {
    int n = 0;
    for (; n + MAX_N <= N; n += MAX_N)
        fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, MAX_N);
    for (; n + 2 <= N; n += 2) fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, 2);
    if (n < N) fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, 1);
}

// ---- weights of floats

SD_INLINE __m512 float16(const uint8_t *p, sd_dtype t) {
    if (t == SD_F32) return _mm512_loadu_ps((const void *)p);
    if (t == SD_F16) return half16(p);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

// y [n][rows] <- or += one packed tile and n rows of x. Even and odd k are summed apart: one chain
// alone would wait for itself.
SD_INLINE void float_rows(float *y, int ldy, const uint8_t *p, const float *x, int K, int rows,
                          bool add, sd_dtype t, int n) {
    const size_t step = SD_TILE_M * (t == SD_F32 ? 4 : 2);
    __m512 s[FLOAT_N][2];
    SD_UNROLL for (int r = 0; r < n; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
    for (int k = 0; k < K; k += 2, p += 2 * step) {
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        if (step == 64) _mm_prefetch((const char *)p + AHEAD + 64, _MM_HINT_T0);
        SD_UNROLL for (int c = 0; c < 2; c++) {
            if (c == 1 && k + 1 == K) break;
            __m512 a = float16(p + c * step, t);
            SD_UNROLL for (int r = 0; r < n; r++) s[r][c] =
                _mm512_fmadd_ps(a, _mm512_set1_ps(x[(size_t)r * K + k + c]), s[r][c]);
        }
    }
    SD_UNROLL for (int r = 0; r < n; r++) {
        float *to = y + (size_t)r * ldy, v[SD_TILE_M];
        __m512 sum = _mm512_add_ps(s[r][0], s[r][1]);
        if (rows < SD_TILE_M)
            _mm512_storeu_ps(v, sum);
        else
            _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
        for (int i = 0; rows < SD_TILE_M && i < rows; i++) to[i] = add ? to[i] + v[i] : v[i];
    }
}

// Stores (add 0) or adds (1).
#define AVX512_FLOAT(t, n, add)                                                                    \
    static void float_##t##_##n##_##add(float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead, \
                                        const sd_quant_rows *x, int n0, int rows) {                \
        (void)ahead;                                                                               \
        float_rows(y, ldy, p, x->x + (size_t)n0 * x->K, x->K, rows, add, SD_##t, n);               \
    }
// clang-format finds no layout of these lists that it leaves alone.
// clang-format off
#define AVX512_FLOATS(t, add)                                                                             \
    AVX512_FLOAT(t, 1, add) AVX512_FLOAT(t, 2, add) AVX512_FLOAT(t, 3, add) AVX512_FLOAT(t, 4, add)                            \
    AVX512_FLOAT(t, 5, add) AVX512_FLOAT(t, 6, add) AVX512_FLOAT(t, 7, add) AVX512_FLOAT(t, 8, add)
// clang-format on
AVX512_FLOATS(F32, 0)
AVX512_FLOATS(F16, 0)
AVX512_FLOATS(BF16, 0)
AVX512_FLOATS(F32, 1)
AVX512_FLOATS(F16, 1)
AVX512_FLOATS(BF16, 1)
// clang-format off
#define AVX512_FLOAT_ROW(t, add)                                                                          \
    {float_##t##_1_##add, float_##t##_2_##add, float_##t##_3_##add, float_##t##_4_##add,           \
     float_##t##_5_##add, float_##t##_6_##add, float_##t##_7_##add, float_##t##_8_##add}
// clang-format on
static const sd_tile_fn float_of[2][3][FLOAT_N] = {
    {AVX512_FLOAT_ROW(F32, 0), AVX512_FLOAT_ROW(F16, 0), AVX512_FLOAT_ROW(BF16, 0)},
    {AVX512_FLOAT_ROW(F32, 1), AVX512_FLOAT_ROW(F16, 1), AVX512_FLOAT_ROW(BF16, 1)}};

static const sd_tile_fn *floats_of(sd_dtype t, int add) {
    return float_of[add][t == SD_F32 ? 0 : t == SD_F16 ? 1 : 2];
}

void sd_matmul_avx512(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                      int m0, int m1) {
    if (!sd_dtype_quantised(w->w.dtype))
        sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 0), FLOAT_N);
    else if (w->compute == SD_COMPUTE_AUTO)
        sd_tiles_run(y, ldy, w, x, N, m0, m1, tile_of[w->w.dtype], MAX_N);
    else
        sd_tiles_fp32(y, ldy, w, x, N, m0, m1, &(sd_block_fns){write_values, fma_block});
}

void sd_matmul_add_avx512(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x,
                          int N, int m0, int m1) {
    sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 1), FLOAT_N);
}
