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

enum { MAX_N = 8, FLOAT_N = 4 };

INLINE __m512i word(const int8_t *p) { // 4 activations in every lane
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

// y rows [n] <- one tile. t and n are constants where this is inlined.
INLINE void tile_int8(float *y, int ldy, const uint8_t *p, const sd_act *x, int n0, int rows, int n,
                      sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int centre = centre_of(t), parts = parts_of(t);
    __m512 acc[MAX_N], d, m = _mm512_setzero_ps(), head_d = m, head_m = m;
    UNROLL for (int r = 0; r < n; r++) acc[r] = _mm512_setzero_ps();
    const int blocks = x->K / SD_QBLOCK;
    for (int b = 0; b < blocks; b++) {
        const size_t at = sd_act_at(x, n0, b);
        if (f.super && b % 8 == 0) {
            head_d = half16(p);
            if (f.min) head_m = half16(p + 32);
            p += f.head;
        }
        d = f.super ? head_d : half16(p);
        if (f.min) m = f.super ? _mm512_mul_ps(head_m, u8x16(p + 16)) : half16(p + 32);
        if (f.super && f.min) d = _mm512_mul_ps(d, u8x16(p));
        const uint8_t *high = p + f.scales, *code = high + f.high;
        for (int i = 0; i < f.block; i += 64) // beyond the ends of tiles and pages too
            _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
        UNROLL for (int part = 0; part < parts; part++) {
            __m512i dot[MAX_N], even[MAX_N];
            UNROLL for (int r = 0; r < n; r++) {
                int32_t s = parts == 2 ? x->isum16[2 * (at + r) + part] : x->isum[at + r];
                dot[r] = centre ? _mm512_set1_epi32(-centre * s) : _mm512_setzero_si512();
                even[r] = _mm512_setzero_si512();
            }
            UNROLL for (int i = 0; i < 8 / parts; i++) {
                int g = part * 4 + i;
                __m512i q = codes(code, high, g, t);
                UNROLL for (int r = 0; r < n; r++) {
                    __m512i a = word(x->q + (at + r) * SD_QBLOCK + 4 * g);
                    if (n <= 4 && i % 2) // few rows: a second chain hides the latency
                        even[r] = _mm512_dpbusd_epi32(even[r], q, a);
                    else
                        dot[r] = _mm512_dpbusd_epi32(dot[r], q, a);
                }
            }
            __m512 dp = parts == 2 ? _mm512_mul_ps(d, s8x16(p + 16 * part)) : d;
            UNROLL for (int r = 0; r < n; r++) {
                __m512i v = n <= 4 ? _mm512_add_epi32(dot[r], even[r]) : dot[r];
                __m512 k = _mm512_mul_ps(dp, _mm512_set1_ps(x->scale[at + r]));
                acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), k, acc[r]);
                if (!f.min) continue;
                __m512 sum = _mm512_set1_ps(x->sum[at + r]);
                acc[r] =
                    f.super ? _mm512_fnmadd_ps(m, sum, acc[r]) : _mm512_fmadd_ps(m, sum, acc[r]);
            }
        }
        p += f.block;
    }
    UNROLL for (int r = 0; r < n; r++)
        _mm512_mask_storeu_ps(y + (size_t)r * ldy, outputs(rows), acc[r]);
}

#define TILE(t, n)                                                                                 \
    static __attribute__((noinline)) void tile_##t##_##n(float *y, int ldy, const uint8_t *p,      \
                                                         const sd_act *x, int n0, int rows) {      \
        tile_int8(y, ldy, p, x, n0, rows, n, SD_##t);                                              \
    }
#define TILES(t)                                                                                   \
    TILE(t, 1) TILE(t, 2) TILE(t, 3) TILE(t, 4) TILE(t, 5) TILE(t, 6) TILE(t, 7) TILE(t, 8)
SD_EACH_QUANTISED(TILES)

#define ROW(t)                                                                                     \
    [SD_##t] = {tile_##t##_1, tile_##t##_2, tile_##t##_3, tile_##t##_4,                            \
                tile_##t##_5, tile_##t##_6, tile_##t##_7, tile_##t##_8},
static const sd_tile_fn tile_of[SD_IQ4_NL + 1][MAX_N] = {SD_EACH_QUANTISED(ROW)};

// ---- quantised weights, activations in fp32

// out [32][16] <- the block's values at p, bit-identical to the stored ones.
INLINE void write_block(float *out, const uint8_t *p, const uint8_t *head, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const uint8_t *high = p + f.scales, *code = high + f.high;
    __m512 d = half16(f.super ? head : p), m = _mm512_setzero_ps(), d0 = d;
    if (f.super && f.min) d = _mm512_mul_ps(d0, u8x16(p));
    if (f.min) m = f.super ? _mm512_mul_ps(half16(head + 32), u8x16(p + 16)) : half16(p + 32);
    UNROLL for (int g = 0; g < 8; g++) {
        if (t == SD_Q6_K) d = _mm512_mul_ps(d0, s8x16(p + 16 * (g / 4)));
        __m512i q = _mm512_sub_epi8(codes(code, high, g, t), _mm512_set1_epi8((char)centre_of(t)));
        UNROLL for (int j = 0; j < 4; j++) {
            __m512i v = _mm512_srai_epi32(_mm512_slli_epi32(q, (unsigned)(24 - 8 * j) & 31), 24);
            __m512 x = _mm512_mul_ps(d, _mm512_cvtepi32_ps(v));
            if (f.min) x = f.super ? _mm512_sub_ps(x, m) : _mm512_add_ps(x, m);
            _mm512_storeu_ps(out + (4 * g + j) * SD_TILE_M, x);
        }
    }
}

static void write_values(float *out, const uint8_t *p, const uint8_t *head, sd_dtype t) {
#define CASE(type)                                                                                 \
    case SD_##type:                                                                                \
        write_block(out, p, head, SD_##type);                                                      \
        break;
    switch (t) {
        SD_EACH_QUANTISED(CASE)
    default:
        break;
    }
}

// acc [n][16] += w [32][16] times rows of x.
INLINE void fma_rows(float *acc, const float *w, const float *x, int K, int n) {
    __m512 s[MAX_N];
    UNROLL for (int r = 0; r < n; r++) s[r] = _mm512_loadu_ps(acc + r * SD_TILE_M);
    for (int k = 0; k < SD_QBLOCK; k++) {
        __m512 a = _mm512_loadu_ps(w + k * SD_TILE_M);
        UNROLL for (int r = 0; r < n; r++) s[r] =
            _mm512_fmadd_ps(a, _mm512_set1_ps(x[(size_t)r * K + k]), s[r]);
    }
    UNROLL for (int r = 0; r < n; r++) _mm512_storeu_ps(acc + r * SD_TILE_M, s[r]);
}

static void fma_block(float *acc, const float *w, const float *x, int K, int N) {
    int n = 0;
    for (; n + MAX_N <= N; n += MAX_N)
        fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, MAX_N);
    for (; n + 2 <= N; n += 2) fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, 2);
    if (n < N) fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, 1);
}

// ---- weights of floats

INLINE __m512 float16(const uint8_t *p, sd_dtype t) {
    if (t == SD_F32) return _mm512_loadu_ps((const void *)p);
    if (t == SD_F16) return half16(p);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

// y [n][rows] <- or += one packed tile and n rows of x. Even and odd k are summed apart: one chain
// alone would wait for itself.
INLINE void float_rows(float *y, int ldy, const uint8_t *p, const float *x, int K, int rows,
                       bool add, sd_dtype t, int n) {
    const size_t step = SD_TILE_M * (t == SD_F32 ? 4 : 2);
    __m512 s[FLOAT_N][2];
    UNROLL for (int r = 0; r < n; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
    for (int k = 0; k < K; k += 2, p += 2 * step) {
        UNROLL for (int c = 0; c < 2; c++) {
            if (c == 1 && k + 1 == K) break;
            __m512 a = float16(p + c * step, t);
            UNROLL for (int r = 0; r < n; r++) s[r][c] =
                _mm512_fmadd_ps(a, _mm512_set1_ps(x[(size_t)r * K + k + c]), s[r][c]);
        }
    }
    UNROLL for (int r = 0; r < n; r++) {
        _Alignas(64) float sum[SD_TILE_M];
        float *to = y + (size_t)r * ldy;
        _mm512_storeu_ps(sum, _mm512_add_ps(s[r][0], s[r][1]));
        for (int i = 0; i < rows; i++) to[i] = add ? to[i] + sum[i] : sum[i];
    }
}

// Stores (add 0) or adds (1).
#define FLOAT(t, n, add)                                                                           \
    static void float_##t##_##n##_##add(float *y, int ldy, const uint8_t *p, const sd_act *x,      \
                                        int n0, int rows) {                                        \
        float_rows(y, ldy, p, x->x + (size_t)n0 * x->K, x->K, rows, add, SD_##t, n);               \
    }
#define FLOATS(t, add) FLOAT(t, 1, add) FLOAT(t, 2, add) FLOAT(t, 3, add) FLOAT(t, 4, add)
FLOATS(F32, 0)
FLOATS(F16, 0)
FLOATS(BF16, 0)
FLOATS(F32, 1)
FLOATS(F16, 1)
FLOATS(BF16, 1)
#define FLOAT_ROW(t, add)                                                                          \
    { float_##t##_1_##add, float_##t##_2_##add, float_##t##_3_##add, float_##t##_4_##add }
static const sd_tile_fn float_of[2][3][FLOAT_N] = {
    {FLOAT_ROW(F32, 0), FLOAT_ROW(F16, 0), FLOAT_ROW(BF16, 0)},
    {FLOAT_ROW(F32, 1), FLOAT_ROW(F16, 1), FLOAT_ROW(BF16, 1)}};

static const sd_tile_fn *floats_of(sd_dtype t, int add) {
    return float_of[add][t == SD_F32 ? 0 : t == SD_F16 ? 1 : 2];
}

void sd_matmul_avx512(float *y, int ldy, const sd_packed *w, const sd_act *x, int N, int m0,
                      int m1) {
    if (!sd_dtype_quantised(w->w.dtype))
        sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 0), FLOAT_N);
    else if (w->compute == SD_COMPUTE_AUTO)
        sd_tiles_run(y, ldy, w, x, N, m0, m1, tile_of[w->w.dtype], MAX_N);
    else
        sd_tiles_fp32(y, ldy, w, x, N, m0, m1, &(sd_block_fns){write_values, fma_block});
}

void sd_matmul_add_avx512(float *y, int ldy, const sd_packed *w, const sd_act *x, int N, int m0,
                          int m1) {
    sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 1), FLOAT_N);
}
