// Matrix products on AVX2. The load: a decode step streams every weight once from memory for
// N = 1..8 rows, a prefill reuses a tile for hundreds.
//
// Integer path, per tile of 16 outputs and block of 32 k: a plane is unpacked once (and, shift) and
// meets all rows. maddubs multiplies unsigned codes with the rows' int8 and sums pairs into 16
// bits: 8 groups of 4-bit codes reach 8 * 2 * 15 * 127 = 30480, 4 of 5-bit 31496, 2 of 6-bit 32004,
// all below 32768, so only then the sums are widened. Q8_0 is signed: |w| times x with w's sign
// (128 * 127 * 2 = 32512), widened at once; so are the values of IQ4_NL's table. The float part of
// a block is one multiplication and one FMA per output, ascending in k, the same for every n: n
// only repeats it.
//
// Activations in fp32 (parity checks): a block is written out as floats once (L1), then rows come
// by sixes. Weights of floats (whole models, adapters): rows by threes, all sums in registers.
#include "kernels/cpu/tile_avx2.h"

enum { MAX_N = 4, UNPACKED_N = 12, FP32_N = 6, FLOAT_N = 3 };

// dot [n][HALVES] <- integer sums of 16 k (part of Q6_K) or of a block.
SD_INLINE void dots(__m256i dot[][HALVES], const uint8_t *high, const uint8_t *code,
                    const int8_t *q, int n, int g0, int g1, int bits) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int span = bits == 4 ? 8 : bits == 5 ? 4 : 2; // groups that fit 16 bits
    __m256i s[MAX_N][HALVES], a[HALVES], b[HALVES];
    SD_UNROLL for (int g = g0; g < g1; g += 2) {
        SD_UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i plane = load(code + g / 2 * SD_PLANE + 32 * h);
            a[h] = codes(plane, high, h, g, bits);
            b[h] = codes(plane, high, h, g + 1, bits);
        }
        SD_UNROLL for (int r = 0; r < n; r++) {
            __m256i xa = word(q + r * SD_QPAIR + 4 * g), xb = word(q + r * SD_QPAIR + 4 * g + 4);
            SD_UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i t = _mm256_maddubs_epi16(a[h], xa);
                s[r][h] = g % span ? _mm256_add_epi16(s[r][h], t) : t;
                SETTLE(s[r][h]);
                s[r][h] = _mm256_add_epi16(s[r][h], _mm256_maddubs_epi16(b[h], xb));
                SETTLE(s[r][h]);
                if (g % span != span - 2) continue;
                t = _mm256_madd_epi16(s[r][h], ones);
                dot[r][h] = g - g0 < span ? t : _mm256_add_epi32(dot[r][h], t);
            }
        }
    }
}

SD_INLINE void dots_signed(__m256i dot[][HALVES], const uint8_t *code, const int8_t *q, int n,
                           sd_dtype t) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i w[HALVES], a[HALVES];
    SD_UNROLL for (int g = 0; g < 8; g++) {
        SD_UNROLL for (int h = 0; h < HALVES; h++) {
            w[h] = t == SD_Q8_0
                       ? load(code + g * SD_PLANE + 32 * h)
                       : table_values(codes(load(code + g / 2 * SD_PLANE + 32 * h), code, h, g, 4));
            a[h] = _mm256_abs_epi8(w[h]);
        }
        SD_UNROLL for (int r = 0; r < n; r++) {
            __m256i xg = word(q + r * SD_QPAIR + 4 * g);
            SD_UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i v = _mm256_maddubs_epi16(a[h], _mm256_sign_epi8(xg, w[h]));
                v = _mm256_madd_epi16(v, ones);
                dot[r][h] = g ? _mm256_add_epi32(dot[r][h], v) : v;
                SETTLE(dot[r][h]);
            }
        }
    }
}

// y rows [n0, n0 + n) <- one tile. rows: outputs that exist. t and n are constants where this is
// inlined.
SD_INLINE void tile_int8(float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead,
                         const sd_quant_rows *x, int n0, int rows, int n, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int blocks = x->K / SD_QBLOCK;
    __m256 acc[MAX_N][HALVES], d[HALVES], m[HALVES];
    const uint8_t *head = p;
    SD_UNROLL for (int r = 0; r < n; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int b = 0; b < blocks; b++) {
        const size_t at = sd_quant_rows_at(x, n0, b);
        const int8_t *q = sd_quant_rows_codes(x, n0, b);
        const int16_t *isum = sd_quant_rows_isum(x, n0, b);
        if (f.super && b % 8 == 0) head = p, p += f.head;
        SD_UNROLL for (int h = 0; h < HALVES; h++) scales(&d[h], &m[h], p, head, h, t);
        const uint8_t *high = p + f.scales, *code = high + f.high;
        sd_tile_ask(ahead, p, f.block);
        for (int part = 0; part < (t == SD_Q6_K ? 2 : 1); part++) {
            __m256i dot[MAX_N][HALVES];
            if (t == SD_Q8_0 || t == SD_IQ4_NL)
                dots_signed(dot, code, q, n, t);
            else if (t == SD_Q6_K && part == 0)
                dots(dot, high, code, q, n, 0, 4, f.bits);
            else
                dots(dot, high, code, q, n, t == SD_Q6_K ? 4 : 0, 8, f.bits);
            SD_UNROLL for (int h = 0; h < HALVES; h++) {
                __m256 dh = d[h];
                if (t == SD_Q6_K) dh = _mm256_mul_ps(dh, s8x8(p + 16 * part + 8 * h));
                SD_UNROLL for (int r = 0; r < n; r++) {
                    __m256i v = dot[r][h];
                    if (f.centre) {
                        int32_t s = t == SD_Q6_K ? x->isum16[2 * (at + r) + part] : isum[2 * r];
                        v = _mm256_sub_epi32(v, _mm256_set1_epi32(s * f.centre));
                    }
                    acc[r][h] =
                        add_block(acc[r][h], v, dh, m[h], x->scale + at + r, x->sum + at + r, t);
                }
            }
        }
        p += f.block;
    }
    SD_UNROLL for (int r = 0; r < n; r++) {
        float *to = y + (size_t)r * ldy, v[SD_TILE_M];
        if (rows == SD_TILE_M) {
            _mm256_storeu_ps(to, acc[r][0]);
            _mm256_storeu_ps(to + 8, acc[r][1]);
            continue;
        }
        _mm256_storeu_ps(v, acc[r][0]);
        _mm256_storeu_ps(v + 8, acc[r][1]);
        memcpy(to, v, (size_t)rows * sizeof *v);
    }
}

// A function of its own for the only pass: with the question within, its sums spill (4 %).
#define AVX2_TILE(t, n)                                                                            \
    static __attribute__((noinline)) void only_##t##_##n(                                          \
        float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int n0, int rows) {           \
        tile_int8(y, ldy, p, NULL, x, n0, rows, n, SD_##t);                                        \
    }                                                                                              \
    static __attribute__((noinline)) void tile_##t##_##n(                                          \
        float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead, const sd_quant_rows *x, int n0, \
        int rows) {                                                                                \
        if (ahead)                                                                                 \
            tile_int8(y, ldy, p, ahead, x, n0, rows, n, SD_##t);                                   \
        else                                                                                       \
            only_##t##_##n(y, ldy, p, x, n0, rows);                                                \
    }
#define AVX2_TILES(t) AVX2_TILE(t, 1) AVX2_TILE(t, 2) AVX2_TILE(t, 3) AVX2_TILE(t, 4)
SD_EACH_QUANTISED(AVX2_TILES)

#define AVX2_ROW(t) [SD_##t] = {tile_##t##_1, tile_##t##_2, tile_##t##_3, tile_##t##_4},
static const sd_tile_fn tile_of[SD_IQ4_NL + 1][MAX_N] = {SD_EACH_QUANTISED(AVX2_ROW)};

static void matmul_int8(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                        int m0, int m1) {
    const sd_dtype t = w->w.dtype;
    const sd_tile_form f = sd_tile_form_of(t);
    if (N < UNPACKED_N || (f.bits != 5 && f.bits != 6)) {
        sd_tiles_run(y, ldy, w, x, N, m0, m1, tile_of[t], MAX_N);
        return;
    }
    size_t tile = sd_tile_bytes(t, w->w.cols);
    for (int m = m0; m < m1; m += SD_TILE_M) {
        const uint8_t *p = (const uint8_t *)w->data + (size_t)(m / SD_TILE_M) * tile;
        sd_matmul_many_avx2(y + m, ldy, p, x, N, m1 - m < SD_TILE_M ? m1 - m : SD_TILE_M, t);
    }
}

// ---- quantised weights, activations in fp32

// out [32][16] <- the block's values at p, bit-identical to the stored ones.
SD_INLINE void write_block(float *out, const uint8_t *p, const uint8_t *head, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const uint8_t *high = p + f.scales, *code = high + f.high;
    for (int h = 0; h < HALVES; h++) {
        __m256 d = half8((f.super ? head : p) + 16 * h), m = _mm256_setzero_ps(), d0 = d;
        if (f.super && t != SD_Q6_K) d = _mm256_mul_ps(d0, u8x8(p + 8 * h));
        if (f.min) m = half8((f.super ? head : p) + 32 + 16 * h);
        if (f.min && f.super) m = _mm256_mul_ps(m, u8x8(p + 16 + 8 * h));
        SD_UNROLL for (int g = 0; g < 8; g++) {
            __m256i q;
            if (t == SD_Q6_K) d = _mm256_mul_ps(d0, s8x8(p + 16 * (g / 4) + 8 * h));
            if (f.bits == 8) {
                q = load(code + g * SD_PLANE + 32 * h);
            } else {
                q = codes(load(code + g / 2 * SD_PLANE + 32 * h), high, h, g, f.bits);
                if (t == SD_IQ4_NL) q = table_values(q);
                q = _mm256_sub_epi8(q, _mm256_set1_epi8((char)f.centre));
            }
            SD_UNROLL for (int j = 0; j < 4; j++) {
                __m256i v = _mm256_srai_epi32(_mm256_slli_epi32(q, 24 - 8 * j), 24);
                __m256 x = _mm256_mul_ps(d, _mm256_cvtepi32_ps(v));
                if (f.min) x = f.super ? _mm256_sub_ps(x, m) : _mm256_add_ps(x, m);
                _mm256_storeu_ps(out + (4 * g + j) * SD_TILE_M + 8 * h, x);
            }
        }
    }
}

static void write_values(float *out, const uint8_t *p, const uint8_t *head, sd_dtype t) {
#define AVX2_CASE(type)                                                                            \
    case SD_##type:                                                                                \
        write_block(out, p, head, SD_##type);                                                      \
        break;
    switch (t) {
        SD_EACH_QUANTISED(AVX2_CASE)
    default:
        break;
    }
}

// acc [n][16] += w [32][16] times rows of x.
SD_INLINE void fma_rows(float *acc, const float *w, const float *x, int K, int n) {
    __m256 s[FP32_N][HALVES];
    SD_UNROLL for (int r = 0; r < n; r++) {
        s[r][0] = _mm256_loadu_ps(acc + r * SD_TILE_M);
        s[r][1] = _mm256_loadu_ps(acc + r * SD_TILE_M + 8);
    }
    for (int k = 0; k < SD_QBLOCK; k++) {
        __m256 a = _mm256_loadu_ps(w + k * SD_TILE_M), b = _mm256_loadu_ps(w + k * SD_TILE_M + 8);
        SD_UNROLL for (int r = 0; r < n; r++) {
            __m256 v = _mm256_set1_ps(x[(size_t)r * K + k]);
            s[r][0] = _mm256_fmadd_ps(a, v, s[r][0]);
            s[r][1] = _mm256_fmadd_ps(b, v, s[r][1]);
        }
    }
    SD_UNROLL for (int r = 0; r < n; r++) {
        _mm256_storeu_ps(acc + r * SD_TILE_M, s[r][0]);
        _mm256_storeu_ps(acc + r * SD_TILE_M + 8, s[r][1]);
    }
}

static void fma_block(float *acc, const float *w, const float *x, int K, int N) {
    int n = 0;
    for (; n + FP32_N <= N; n += FP32_N)
        fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, FP32_N);
    acc += n * SD_TILE_M, x += (size_t)n * K;
    switch (N - n) {
    case 1:
        fma_rows(acc, w, x, K, 1);
        break;
    case 2:
        fma_rows(acc, w, x, K, 2);
        break;
    case 3:
        fma_rows(acc, w, x, K, 3);
        break;
    case 4:
        fma_rows(acc, w, x, K, 4);
        break;
    case 5:
        fma_rows(acc, w, x, K, 5);
        break;
    default:
        break;
    }
}

// ---- weights of floats

SD_INLINE __m256 float8(const uint8_t *p, sd_dtype t) {
    if (t == SD_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    if (t == SD_F16) return half8(p);
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(b), 16));
}

// y [n][rows] <- or += one packed tile and n rows of x. Even and odd k are summed apart: one chain
// alone would wait for itself.
SD_INLINE void float_rows(float *y, int ldy, const uint8_t *p, const float *x, int K, int rows,
                          bool add, sd_dtype t, int n) {
    const size_t size = t == SD_F32 ? 4 : 2, step = SD_TILE_M * size;
    __m256 s[FLOAT_N][2][HALVES];
    SD_UNROLL for (int r = 0; r < n; r++) {
        SD_UNROLL for (int c = 0; c < 2; c++) s[r][c][0] = s[r][c][1] = _mm256_setzero_ps();
    }
    for (int k = 0; k < K; k += 2, p += 2 * step) {
        SD_UNROLL for (int c = 0; c < 2; c++) {
            if (c == 1 && k + 1 == K) break;
            __m256 a = float8(p + c * step, t), b = float8(p + c * step + 8 * size, t);
            SD_UNROLL for (int r = 0; r < n; r++) {
                __m256 v = _mm256_broadcast_ss(x + (size_t)r * K + k + c);
                s[r][c][0] = _mm256_fmadd_ps(a, v, s[r][c][0]);
                s[r][c][1] = _mm256_fmadd_ps(b, v, s[r][c][1]);
            }
        }
    }
    SD_UNROLL for (int r = 0; r < n; r++) {
        float *to = y + (size_t)r * ldy;
        float sum[SD_TILE_M];
        SD_UNROLL for (int h = 0; h < HALVES; h++) {
            __m256 v = _mm256_add_ps(s[r][0][h], s[r][1][h]);
            if (rows < SD_TILE_M)
                _mm256_storeu_ps(sum + 8 * h, v);
            else if (add)
                _mm256_storeu_ps(to + 8 * h, _mm256_add_ps(_mm256_loadu_ps(to + 8 * h), v));
            else
                _mm256_storeu_ps(to + 8 * h, v);
        }
        for (int i = 0; rows < SD_TILE_M && i < rows; i++) to[i] = add ? to[i] + sum[i] : sum[i];
    }
}

// Stores (add 0) or adds (1).
#define AVX2_FLOAT(t, n, add)                                                                      \
    static void float_##t##_##n##_##add(float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead, \
                                        const sd_quant_rows *x, int n0, int rows) {                \
        (void)ahead;                                                                               \
        float_rows(y, ldy, p, x->x + (size_t)n0 * x->K, x->K, rows, add, SD_##t, n);               \
    }
#define AVX2_FLOATS(t, add) AVX2_FLOAT(t, 1, add) AVX2_FLOAT(t, 2, add) AVX2_FLOAT(t, 3, add)
AVX2_FLOATS(F32, 0)
AVX2_FLOATS(F16, 0)
AVX2_FLOATS(BF16, 0)
AVX2_FLOATS(F32, 1)
AVX2_FLOATS(F16, 1)
AVX2_FLOATS(BF16, 1)
#define AVX2_FLOAT_ROW(t, add)                                                                     \
    { float_##t##_1_##add, float_##t##_2_##add, float_##t##_3_##add }
static const sd_tile_fn float_of[2][3][FLOAT_N] = {
    {AVX2_FLOAT_ROW(F32, 0), AVX2_FLOAT_ROW(F16, 0), AVX2_FLOAT_ROW(BF16, 0)},
    {AVX2_FLOAT_ROW(F32, 1), AVX2_FLOAT_ROW(F16, 1), AVX2_FLOAT_ROW(BF16, 1)}};

static const sd_tile_fn *floats_of(sd_dtype t, int add) {
    return float_of[add][t == SD_F32 ? 0 : t == SD_F16 ? 1 : 2];
}

void sd_matmul_avx2(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                    int m0, int m1) {
    if (!sd_dtype_quantised(w->w.dtype))
        sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 0), FLOAT_N);
    else if (w->compute == SD_COMPUTE_AUTO)
        matmul_int8(y, ldy, w, x, N, m0, m1);
    else
        sd_tiles_fp32(y, ldy, w, x, N, m0, m1, &(sd_block_fns){write_values, fma_block});
}

void sd_matmul_add_avx2(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                        int m0, int m1) {
    sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 1), FLOAT_N);
}
