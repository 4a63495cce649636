// y = W x for few rows x: decoding (N = 1), a batch, the verification of a draft. The weights' bytes are the cost, so
// they are read once, by whole 16 bytes a lane, and go from registers into the tensor core.
//
// W's 16 rows are the side of 16 of mma.m16n8k16, the rows of x its side of 8: up to eight of them cost what one
// does. One kernel serves all N from 1 to 16 (and tiles of 16 beyond): a column of the tensor core's result comes
// from that column alone, so a row's bits depend on nothing but the row.
//
// A warp has every eighth tile (weight.h) of 16 rows; the eight partial sums are added in ascending order. So the
// order of a sum over k is a matter of K. Codes are integers that bf16 holds exactly: their products with x are
// summed by the tensor core over a block, then scaled in fp32. A minimum m adds m * sum(x), and the sum over a block
// comes from the tensor core too, with a matrix of ones for W: in the very registers where it is wanted.
//
// fp32 activations go in as three terms of bf16 (8 bits each, exact), fp32 weights as three, fp16 weights as two:
// the same kernel at fp32's precision, less the products of two small terms (2^-24 of the whole).
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/terms.cuh"

enum {
    SPLIT = 8,
    MOST_GROUPS = 2,
    THREADS = 32 * SPLIT * MOST_GROUPS,
    STEPS = SD_CUDA_TILE_K / 16
};
enum { COLS = 16, TILE_OUT = SD_CUDA_TILE_M * COLS };

struct matmul_args {
    const uint4 *codes;
    const void *scales, *supers;
    const void *x; // [N, K]
    float *y;      // [N, ldy]
    const float *bias;
    int M, K, N, ldy;
    bool add;
};

// ---- x: four values of row n from k on, and the two registers of B they are

struct RealBf16 {
    enum { TERMS = 1 };
    typedef uint2 Four;
    SD_DEVICE Four load(const void *x, size_t at) { return *(const uint2 *)((const bf16 *)x + at); }
    SD_DEVICE Four zero() { return uint2{0, 0}; }
    SD_DEVICE void split(uint32_t (&b)[TERMS][2], Four v) { b[0][0] = v.x, b[0][1] = v.y; }
};
struct RealF32 {
    enum { TERMS = 3 };
    typedef float4 Four;
    SD_DEVICE Four load(const void *x, size_t at) {
        return *(const float4 *)((const float *)x + at);
    }
    SD_DEVICE Four zero() { return float4{0, 0, 0, 0}; }
    SD_DEVICE void split(uint32_t (&b)[TERMS][2], Four v) {
        sd_split_terms<TERMS>(&b[0][0], 2, v.x, v.y);
        sd_split_terms<TERMS>(&b[0][1], 2, v.z, v.w);
    }
};

// ---- codes: the four registers of A of step j of a tile, from UNITS times 16 bytes of a lane

template <int centre> struct Code4 {
    enum { UNITS = 1, TERMS = 1, AHEAD = 2 };
    // 0x4300 is 128 as bf16, whose last bit is worth 1: 128 + q stands there once q is put in.
    SD_DEVICE void unpack(uint32_t (&a)[TERMS][4], const uint4 (&raw)[UNITS], int j) {
        const uint32_t u = j == 0 ? raw[0].x : j == 1 ? raw[0].y : j == 2 ? raw[0].z : raw[0].w;
        const uint32_t less = centre ? 0xc308c308u : 0xc300c300u; // -136, -128
        SD_UNROLL
        for (int i = 0; i < 4; i++)
            a[0][i] = sd_add_bf16x2((u >> (4 * i) & 0x000f000fu) | 0x43004300u, less);
    }
};
struct Code8 {
    enum { UNITS = 2, TERMS = 1, AHEAD = 2 };
    // The low seven bits give 128 + (q mod 128); 128 or, where the sign is set, 256 goes off.
    SD_DEVICE uint32_t pair(uint32_t u) {
        return sd_add_bf16x2((u & 0x007f007fu) | 0x43004300u, (u & 0x00800080u) | 0xc300c300u);
    }
    SD_DEVICE void unpack(uint32_t (&a)[TERMS][4], const uint4 (&raw)[UNITS], int j) {
        const uint4 v = raw[j / 2];
        const uint32_t first = j % 2 ? v.z : v.x, second = j % 2 ? v.w : v.y;
        a[0][0] = pair(first), a[0][1] = pair(first >> 8);
        a[0][2] = pair(second), a[0][3] = pair(second >> 8);
    }
};
struct CodeBf16 {
    enum { UNITS = 4, TERMS = 1, AHEAD = 1 };
    SD_DEVICE void unpack(uint32_t (&a)[TERMS][4], const uint4 (&raw)[UNITS], int j) {
        a[0][0] = raw[j].x, a[0][1] = raw[j].y, a[0][2] = raw[j].z, a[0][3] = raw[j].w;
    }
};
struct CodeF16 {
    enum { UNITS = 4, TERMS = 2, AHEAD = 1 };
    SD_DEVICE void unpack(uint32_t (&a)[TERMS][4], const uint4 (&raw)[UNITS], int j) {
        const uint32_t u[4] = {raw[j].x, raw[j].y, raw[j].z, raw[j].w};
        SD_UNROLL
        for (int i = 0; i < 4; i++)
            sd_split_terms<TERMS>(&a[0][i], 4, sd_half_value((uint16_t)u[i]),
                                  sd_half_value((uint16_t)(u[i] >> 16)));
    }
};
struct CodeF32 {
    enum { UNITS = 8, TERMS = 3, AHEAD = 1 };
    SD_DEVICE void unpack(uint32_t (&a)[TERMS][4], const uint4 (&raw)[UNITS], int j) {
        SD_UNROLL
        for (int h = 0; h < 2; h++) {
            const uint4 v = raw[2 * j + h];
            sd_split_terms<TERMS>(&a[0][2 * h], 4, sd_bits_float(v.x), sd_bits_float(v.y));
            sd_split_terms<TERMS>(&a[0][2 * h + 1], 4, sd_bits_float(v.z), sd_bits_float(v.w));
        }
    }
};

// ---- scales of rows g and g + 8 in block b of a tile. BLOCK: steps of a block; 0: values have none

struct ScaleNone {
    enum { BLOCK = 0, MIN = 0 };
    SD_DEVICE void load(ScaleNone *, const matmul_args &, size_t, int) {}
    SD_DEVICE void get(float (&d)[2], float (&)[2], const ScaleNone &, int) { d[0] = d[1] = 1; }
};
struct ScaleFlat {
    enum { BLOCK = 2, MIN = 0 };
    uint2 r;
    SD_DEVICE void load(ScaleFlat *s, const matmul_args &a, size_t tile, int g) {
        s->r = ((const uint2 *)a.scales)[tile * 8 + g];
    }
    SD_DEVICE void get(float (&d)[2], float (&)[2], const ScaleFlat &s, int b) {
        const uint32_t u = b ? s.r.y : s.r.x;
        d[0] = sd_half_value((uint16_t)u), d[1] = sd_half_value((uint16_t)(u >> 16));
    }
};
struct ScaleFlatMin {
    enum { BLOCK = 2, MIN = 1 };
    uint4 r;
    SD_DEVICE void load(ScaleFlatMin *s, const matmul_args &a, size_t tile, int g) {
        s->r = ((const uint4 *)a.scales)[tile * 8 + g];
    }
    SD_DEVICE void get(float (&d)[2], float (&m)[2], const ScaleFlatMin &s, int b) {
        const uint32_t u = b ? s.r.z : s.r.x, v = b ? s.r.w : s.r.y;
        d[0] = sd_half_value((uint16_t)u), m[0] = sd_half_value((uint16_t)(u >> 16));
        d[1] = sd_half_value((uint16_t)v), m[1] = sd_half_value((uint16_t)(v >> 16));
    }
};
struct ScaleNestedMin {
    enum { BLOCK = 2, MIN = 1 };
    uint2 r, super;
    SD_DEVICE void load(ScaleNestedMin *s, const matmul_args &a, size_t tile, int g) {
        s->r = ((const uint2 *)a.scales)[tile * 8 + g];
        s->super = ((const uint2 *)a.supers)[tile / SD_CUDA_SUPER_TILES * 8 + g];
    }
    SD_DEVICE void get(float (&d)[2], float (&m)[2], const ScaleNestedMin &s, int b) {
        const uint32_t u = b ? s.r.y : s.r.x;
        d[0] = sd_half_value((uint16_t)s.super.x) * (float)(u & 255);
        m[0] = -(sd_half_value((uint16_t)(s.super.x >> 16)) * (float)(u >> 8 & 255));
        d[1] = sd_half_value((uint16_t)s.super.y) * (float)(u >> 16 & 255);
        m[1] = -(sd_half_value((uint16_t)(s.super.y >> 16)) * (float)(u >> 24));
    }
};
struct ScaleNested16 {
    enum { BLOCK = 1, MIN = 0 };
    uint2 r, super;
    SD_DEVICE void load(ScaleNested16 *s, const matmul_args &a, size_t tile, int g) {
        s->r = ((const uint2 *)a.scales)[tile * 8 + g];
        s->super = ((const uint2 *)a.supers)[tile / SD_CUDA_SUPER_TILES * 8 + g];
    }
    SD_DEVICE void get(float (&d)[2], float (&)[2], const ScaleNested16 &s, int b) {
        const uint32_t u = (b / 2 ? s.r.y : s.r.x) >> (16 * (b % 2));
        d[0] = sd_half_value((uint16_t)s.super.x) * (float)(int8_t)u;
        d[1] = sd_half_value((uint16_t)s.super.y) * (float)(int8_t)(u >> 8);
    }
};

// ---- the kernel

template <class Code, class Scale> struct raw_tile {
    uint4 code[Code::UNITS];
    Scale scale;
};

template <class Code, class Scale>
SD_DEVICE void load_tile(raw_tile<Code, Scale> *r, const matmul_args &a, size_t tile, int lane) {
    SD_UNROLL
    for (int i = 0; i < Code::UNITS; i++)
        r->code[i] = sd_load_once(a.codes + (tile * Code::UNITS + i) * 32 + lane);
    Scale::load(&r->scale, a, tile, lane / 4);
}

// acc += a block's sums under its scales. C's registers 0, 1 are of row g, 2, 3 of row g + 8.
template <class Scale>
SD_DEVICE void scale_block(float (&acc)[4], const float (&part)[4], const float (&sum)[4],
                           const float (&d)[2], const float (&m)[2]) {
    SD_UNROLL
    for (int i = 0; i < 4; i++) {
        acc[i] = fmaf(d[i / 2], part[i], acc[i]);
        if (Scale::MIN) acc[i] = fmaf(m[i / 2], sum[i], acc[i]);
    }
}

// acc [2 times 8 columns] += a tile's part. n0: the first row of x; tiles: how many times 8 of them there are.
template <class Code, class Scale, class Real>
SD_DEVICE void add_tile(float (&acc)[2][4], const raw_tile<Code, Scale> &r, const matmul_args &a,
                        int k0, int n0, int tiles, int lane) {
    const int g = lane / 4, t = lane % 4;
    constexpr bool scaled = Scale::BLOCK > 0;
    constexpr int steps = scaled ? (int)Scale::BLOCK : (int)STEPS;
    const uint32_t ones[1][4] = {{0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u}};
    SD_UNROLL
    for (int block = 0; block < STEPS / steps; block++) {
        float part[2][4] = {}, sum[2][4] = {}, d[2], m[2] = {0, 0};
        SD_UNROLL
        for (int s = 0; s < steps; s++) {
            const int j = block * steps + s, k = k0 + 16 * j + 4 * t;
            uint32_t fa[Code::TERMS][4], fb[Real::TERMS][2];
            Code::unpack(fa, r.code, j);
            SD_UNROLL
            for (int i = 0; i < 2; i++) {
                if (i >= tiles) continue; // the same for the whole grid
                const int n = n0 + 8 * i + g;
                Real::split(fb, n < a.N && k < a.K ? Real::load(a.x, (size_t)n * a.K + k)
                                                   : Real::zero());
                sd_mma_terms(scaled ? part[i] : acc[i], fa, fb);
                if (Scale::MIN) sd_mma_terms(sum[i], ones, fb);
            }
        }
        if (!scaled) continue;
        Scale::get(d, m, r.scale, block);
        SD_UNROLL
        for (int i = 0; i < 2; i++) scale_block<Scale>(acc[i], part[i], sum[i], d, m);
    }
}

template <class Code, class Scale, class Real> SD_DEVICE void matmul(const matmul_args &a) {
    SD_SHARED(float, partial, MOST_GROUPS *SPLIT *TILE_OUT);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % SPLIT,
              group = threadIdx.x / (32 * SPLIT);
    const int tiles_k = (a.K + SD_CUDA_TILE_K - 1) / SD_CUDA_TILE_K;
    const int groups = blockDim.x / (32 * SPLIT), tile_m = blockIdx.x * groups + group;
    const int n0 = blockIdx.y * COLS, tiles = a.N - n0 > 8 ? 2 : 1;
    const bool inside = tile_m * SD_CUDA_TILE_M < a.M;
    const size_t first = (size_t)tile_m * tiles_k;
    constexpr int AHEAD = Code::AHEAD;
    raw_tile<Code, Scale> ring[AHEAD];
    float acc[2][4] = {};
    SD_UNROLL
    for (int i = 0; i < AHEAD; i++)
        if (inside && warp + i * SPLIT < tiles_k)
            load_tile(&ring[i], a, first + warp + i * SPLIT, lane);
    for (int k = warp; inside && k < tiles_k; k += SPLIT * AHEAD) {
        SD_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            const int tile = k + i * SPLIT, next = tile + SPLIT * AHEAD;
            if (tile >= tiles_k) continue; // a whole warp
            const raw_tile<Code, Scale> now = ring[i];
            if (next < tiles_k) load_tile(&ring[i], a, first + next, lane);
            add_tile<Code, Scale, Real>(acc, now, a, tile * SD_CUDA_TILE_K, n0, tiles, lane);
        }
    }
    float *mine = partial + (group * SPLIT + warp) * TILE_OUT;
    SD_UNROLL
    for (int i = 0; i < 8; i++)
        mine[(i / 4 * 8 + lane % 4 * 2 + i % 2) * SD_CUDA_TILE_M + lane / 4 + i / 2 % 2 * 8] =
            acc[i / 4][i % 4];
    __syncthreads();
    const int out = threadIdx.x % (32 * SPLIT), n = n0 + out / SD_CUDA_TILE_M;
    const int m = tile_m * SD_CUDA_TILE_M + out % SD_CUDA_TILE_M;
    if (m >= a.M || n >= a.N) return;
    float y = a.bias ? a.bias[m] : 0.0f;
    SD_UNROLL
    for (int w = 0; w < SPLIT; w++) y += partial[(group * SPLIT + w) * TILE_OUT + out];
    float *to = a.y + (size_t)n * a.ldy + m;
    *to = a.add ? *to + y : y;
}

// One row a format: its codes, its scales.
#define MATMUL_FORMATS(X)                                                                          \
    X(q4, SD_CUDA_Q4, Code4<8>, ScaleFlat)                                                         \
    X(q4m, SD_CUDA_Q4M, Code4<0>, ScaleFlatMin)                                                    \
    X(q4k, SD_CUDA_Q4K, Code4<0>, ScaleNestedMin)                                                  \
    X(q8, SD_CUDA_Q8, Code8, ScaleFlat)                                                            \
    X(q8m, SD_CUDA_Q8M, Code8, ScaleFlatMin)                                                       \
    X(q8k, SD_CUDA_Q8K, Code8, ScaleNestedMin)                                                     \
    X(q8s, SD_CUDA_Q8S, Code8, ScaleNested16)                                                      \
    X(wbf16, SD_CUDA_W_BF16, CodeBf16, ScaleNone)                                                  \
    X(wf16, SD_CUDA_W_F16, CodeF16, ScaleNone)                                                     \
    X(wf32, SD_CUDA_W_F32, CodeF32, ScaleNone)

#define MATMUL_KERNELS(name, format, Code, Scale)                                                  \
    SD_KERNEL(THREADS) sd_matmul_##name##_bf16(matmul_args a) {                                    \
        matmul<Code, Scale, RealBf16>(a);                                                          \
    }                                                                                              \
    SD_KERNEL(THREADS) sd_matmul_##name##_f32(matmul_args a) {                                     \
        matmul<Code, Scale, RealF32>(a);                                                           \
    }
MATMUL_FORMATS(MATMUL_KERNELS)

extern "C" int sd_cuda_matmul(float *y, int ldy, const sd_cuda_weight *w, const void *x, int N,
                              const float *bias, bool add, sd_cuda_real type, sd_cuda_stream *s) {
    enum { WIDE = 4096 }; // rows of W from which two tiles share a block, and its reads of x
    if (!y || !w->data || !x || N < 1 || w->M < 1 || w->K < 4 || w->K % 4 || ldy < w->M ||
        N > 65535 * COLS)
        return SD_CUDA_EINVAL;
    const char *data = (const char *)w->data;
    const matmul_args a = {(const uint4 *)data,
                           data + w->codes,
                           data + w->codes + w->scales,
                           x,
                           y,
                           bias,
                           w->M,
                           w->K,
                           N,
                           ldy,
                           add};
    const int groups = w->M < WIDE ? 1 : MOST_GROUPS, rows = groups * SD_CUDA_TILE_M;
    const dim3 grid((w->M + rows - 1) / rows, (N + COLS - 1) / COLS);
    const dim3 block(32 * SPLIT * groups);
#define MATMUL_LAUNCH(name, format, Code, Scale)                                                   \
    case format:                                                                                   \
        return type == SD_CUDA_BF16 ? SD_LAUNCH(sd_matmul_##name##_bf16, grid, block, 0, s, a)     \
                                    : SD_LAUNCH(sd_matmul_##name##_f32, grid, block, 0, s, a);
    switch (w->format) { MATMUL_FORMATS(MATMUL_LAUNCH) }
    return SD_CUDA_EINVAL;
}
