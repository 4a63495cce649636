// Matrix products on NEON with the dot product of ARMv8.2: the tiles of packed.h, a quarter of a
// tile (four outputs) to a register. A plane's quarter is unpacked once and meets all rows; sdot
// sums four products in 32 bits, so nothing can saturate. A centred type starts its sum at -centre
// * (sum of the row's codes). The float part of a block is the same for every n.
//
// The file also compiles over SIMDe (its includer provides the intrinsics), where the tests run it
// on other processors.
#ifndef SPECDEC_SIMDE
#include <arm_neon.h>
#endif

#include "kernels/cpu/inline.h"
#include "kernels/cpu/neon.h"
#include "kernels/cpu/packed.h"

#include <string.h>

enum { MAX_N = 4, FLOAT_N = 4, QUARTERS = 4, GROUPS = 8 };

SD_INLINE float32x4_t half4(const uint8_t *p) {
#ifndef SPECDEC_SIMDE
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
#else
    float v[4];
    for (int i = 0; i < 4; i++) v[i] = sd_half_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
    return vld1q_f32(v);
#endif
}

SD_INLINE float32x4_t bf16x4(const uint8_t *p) {
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(h), 16));
}

// Four small scales.
SD_INLINE float32x4_t scales4(const uint8_t *p, bool is_signed) {
    float v[4];
    for (int i = 0; i < 4; i++) v[i] = is_signed ? (float)(int8_t)p[i] : (float)p[i];
    return vld1q_f32(v);
}

// What sdot multiplies: codes of quarter v and group g; unsigned ones stay below 64.
SD_INLINE int8x16_t codes(const uint8_t *code, const uint8_t *high, int v, int g, sd_dtype t) {
    const int bits = sd_tile_form_of(t).bits;
    if (bits == 8) return vreinterpretq_s8_u8(vld1q_u8(code + g * SD_PLANE + 16 * v));
    uint8x16_t q = vld1q_u8(code + g / 2 * SD_PLANE + 16 * v);
    q = g % 2 ? vshrq_n_u8(q, 4) : vandq_u8(q, vdupq_n_u8(15));
    if (t == SD_IQ4_NL) return vqtbl1q_s8(vld1q_s8(sd_iq4_value), q);
    if (bits == 5) {
        uint8x16_t set = vtstq_u8(vld1q_u8(high + 16 * v), vdupq_n_u8((uint8_t)(1 << g)));
        q = vorrq_u8(q, vandq_u8(set, vdupq_n_u8(16)));
    } else if (bits == 6) {
        uint8x16_t b = vld1q_u8(high + g / 4 * SD_PLANE + 16 * v);
        b = vshlq_u8(b, vdupq_n_s8((int8_t)(-2 * (g % 4))));
        q = vorrq_u8(q, vshlq_n_u8(vandq_u8(b, vdupq_n_u8(3)), 4));
    }
    return vreinterpretq_s8_u8(q);
}

SD_INLINE int8x16_t word(const int8_t *p) { // 4 activations in every lane
    int32_t v;
    memcpy(&v, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

SD_INLINE void store(float *to, const float32x4_t *acc, int rows, bool add) {
    float v[SD_TILE_M];
    for (int i = 0; i < QUARTERS; i++) vst1q_f32(v + 4 * i, acc[i]);
    for (int i = 0; i < rows; i++) to[i] = add ? to[i] + v[i] : v[i];
}

// y rows [n] <- one tile. t and n are constants where this is inlined.
SD_INLINE void tile_int8(float *y, int ldy, const uint8_t *p, const sd_quant_rows *x, int n0,
                         int rows, int n, sd_dtype t) {
    const sd_tile_form f = sd_tile_form_of(t);
    const int parts = t == SD_Q6_K ? 2 : 1, blocks = x->K / SD_QBLOCK;
    const uint8_t *head = p;
    float32x4_t acc[MAX_N][QUARTERS];
    SD_UNROLL for (int r = 0; r < n; r++) {
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) acc[r][v] = vdupq_n_f32(0);
    }
    for (int b = 0; b < blocks; b++) {
        const size_t at = sd_quant_rows_at(x, n0, b);
        const int8_t *q0 = sd_quant_rows_codes(x, n0, b);
        const int16_t *isum = sd_quant_rows_isum(x, n0, b);
        if (f.super && b % 8 == 0) head = p, p += f.head;
        const uint8_t *high = p + f.scales, *code = high + f.high;
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) {
            float32x4_t d = half4((f.super ? head : p) + 8 * v), m = vdupq_n_f32(0);
            if (f.min) m = half4((f.super ? head : p) + 32 + 8 * v);
            if (f.super && f.min) {
                d = vmulq_f32(d, scales4(p + 4 * v, false));
                m = vnegq_f32(vmulq_f32(m, scales4(p + 16 + 4 * v, false)));
            }
            SD_UNROLL for (int part = 0; part < parts; part++) {
                int32x4_t dot[MAX_N];
                SD_UNROLL for (int r = 0; r < n; r++) {
                    int32_t s = parts == 2 ? x->isum16[2 * (at + r) + part] : isum[2 * r];
                    dot[r] = vdupq_n_s32(-f.centre * s);
                }
                SD_UNROLL for (int i = 0; i < GROUPS / parts; i++) {
                    const int g = part * 4 + i;
                    int8x16_t q = codes(code, high, v, g, t);
                    SD_UNROLL for (int r = 0; r < n; r++) dot[r] =
                        vdotq_s32(dot[r], q, word(q0 + r * SD_QPAIR + 4 * g));
                }
                float32x4_t dp = d;
                if (parts == 2) dp = vmulq_f32(d, scales4(p + 16 * part + 4 * v, true));
                SD_UNROLL for (int r = 0; r < n; r++) {
                    if (f.min) acc[r][v] = vfmaq_f32(acc[r][v], m, vdupq_n_f32(x->sum[at + r]));
                    float32x4_t k = vmulq_f32(dp, vdupq_n_f32(x->scale[at + r]));
                    acc[r][v] = vfmaq_f32(acc[r][v], vcvtq_f32_s32(dot[r]), k);
                }
            }
        }
        p += f.block;
    }
    SD_UNROLL for (int r = 0; r < n; r++) store(y + (size_t)r * ldy, acc[r], rows, false);
}

#define NEON_TILE(t, n)                                                                            \
    static __attribute__((noinline)) void tile_##t##_##n(                                          \
        float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead, const sd_quant_rows *x, int n0, \
        int rows) {                                                                                \
        (void)ahead; /* its cores fetch ahead by themselves */                                     \
        tile_int8(y, ldy, p, x, n0, rows, n, SD_##t);                                              \
    }
#define NEON_TILES(t) NEON_TILE(t, 1) NEON_TILE(t, 2) NEON_TILE(t, 3) NEON_TILE(t, 4)
SD_EACH_QUANTISED(NEON_TILES)
#define NEON_ROW(t) [SD_##t] = {tile_##t##_1, tile_##t##_2, tile_##t##_3, tile_##t##_4},
static const sd_tile_fn tile_of[SD_IQ4_NL + 1][MAX_N] = {SD_EACH_QUANTISED(NEON_ROW)};

// ---- activations in fp32

// s [n][QUARTERS] += 16 outputs' weights at one k times rows of x.
SD_INLINE void fma_k(float32x4_t s[][QUARTERS], const float32x4_t *w, const float *x, int K,
                     int n) {
    SD_UNROLL for (int r = 0; r < n; r++) {
        float32x4_t a = vdupq_n_f32(x[(size_t)r * K]);
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) s[r][v] = vfmaq_f32(s[r][v], w[v], a);
    }
}

SD_INLINE void fma_rows(float *acc, const float *w, const float *x, int K, int n) {
    float32x4_t s[MAX_N][QUARTERS], a[QUARTERS];
    SD_UNROLL for (int r = 0; r < n; r++) {
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) s[r][v] =
            vld1q_f32(acc + r * SD_TILE_M + 4 * v);
    }
    for (int k = 0; k < SD_QBLOCK; k++) {
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) a[v] = vld1q_f32(w + k * SD_TILE_M + 4 * v);
        fma_k(s, a, x + k, K, n);
    }
    SD_UNROLL for (int r = 0; r < n; r++) {
        SD_UNROLL for (int v = 0; v < QUARTERS; v++)
            vst1q_f32(acc + r * SD_TILE_M + 4 * v, s[r][v]);
    }
}

static void fma_block(float *acc, const float *w, const float *x, int K, int N) {
    int n = 0;
    for (; n + MAX_N <= N; n += MAX_N)
        fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, MAX_N);
    for (; n < N; n++) fma_rows(acc + n * SD_TILE_M, w, x + (size_t)n * K, K, 1);
}

SD_INLINE float32x4_t float4(const uint8_t *p, sd_dtype t) {
    if (t == SD_F32) return vld1q_f32((const float *)(const void *)p);
    return t == SD_F16 ? half4(p) : bf16x4(p);
}

// y [n][rows] <- or += one packed tile of floats and n rows of x.
SD_INLINE void float_rows(float *y, int ldy, const uint8_t *p, const float *x, int K, int rows,
                          bool add, sd_dtype t, int n) {
    const size_t size = t == SD_F32 ? 4 : 2;
    float32x4_t s[MAX_N][QUARTERS], w[QUARTERS];
    SD_UNROLL for (int r = 0; r < n; r++) {
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) s[r][v] = vdupq_n_f32(0);
    }
    for (int k = 0; k < K; k++, p += SD_TILE_M * size) {
        SD_UNROLL for (int v = 0; v < QUARTERS; v++) w[v] = float4(p + 4 * (size_t)v * size, t);
        fma_k(s, w, x + k, K, n);
    }
    SD_UNROLL for (int r = 0; r < n; r++) store(y + (size_t)r * ldy, s[r], rows, add);
}

// Stores (add 0) or adds (1).
#define NEON_FLOAT(t, n, add)                                                                      \
    static void float_##t##_##n##_##add(float *y, int ldy, const uint8_t *p, sd_tile_ahead *ahead, \
                                        const sd_quant_rows *x, int n0, int rows) {                \
        (void)ahead;                                                                               \
        float_rows(y, ldy, p, x->x + (size_t)n0 * x->K, x->K, rows, add, SD_##t, n);               \
    }
#define NEON_FLOATS(t, add)                                                                        \
    NEON_FLOAT(t, 1, add) NEON_FLOAT(t, 2, add) NEON_FLOAT(t, 3, add) NEON_FLOAT(t, 4, add)
NEON_FLOATS(F32, 0)
NEON_FLOATS(F16, 0)
NEON_FLOATS(BF16, 0)
NEON_FLOATS(F32, 1)
NEON_FLOATS(F16, 1)
NEON_FLOATS(BF16, 1)
#define NEON_FLOAT_ROW(t, add)                                                                     \
    { float_##t##_1_##add, float_##t##_2_##add, float_##t##_3_##add, float_##t##_4_##add }
static const sd_tile_fn float_of[2][3][FLOAT_N] = {
    {NEON_FLOAT_ROW(F32, 0), NEON_FLOAT_ROW(F16, 0), NEON_FLOAT_ROW(BF16, 0)},
    {NEON_FLOAT_ROW(F32, 1), NEON_FLOAT_ROW(F16, 1), NEON_FLOAT_ROW(BF16, 1)}};

static const sd_tile_fn *floats_of(sd_dtype t, int add) {
    return float_of[add][t == SD_F32 ? 0 : t == SD_F16 ? 1 : 2];
}

void sd_matmul_neon(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                    int m0, int m1) {
    if (!sd_dtype_quantised(w->w.dtype))
        sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 0), FLOAT_N);
    else if (w->compute == SD_COMPUTE_AUTO)
        sd_tiles_run(y, ldy, w, x, N, m0, m1, tile_of[w->w.dtype], MAX_N);
    else
        sd_tiles_fp32(y, ldy, w, x, N, m0, m1, &(sd_block_fns){sd_tile_values, fma_block});
}

void sd_matmul_add_neon(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x, int N,
                        int m0, int m1) {
    sd_tiles_run(y, ldy, w, x, N, m0, m1, floats_of(w->w.dtype, 1), FLOAT_N);
}
