// Operations on rows: norm, gated activation, sum, quantisation. All of them move little beside a matrix
// product and are bound by latency in decoding, so each is one launch with a block for a row (or for a strip of
// elements), and what follows a sum is fused behind it.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/scalar.cuh"

enum { NORM_THREADS = 256, STRIP_THREADS = 256 };

// ---- RMSNorm: a block a row

template <class T> SD_DEVICE void rmsnorm(T *y, const float *x, const float *w, int C, float eps) {
    SD_SHARED(float, part, NORM_THREADS / 32);
    x += (size_t)blockIdx.x * C, y += (size_t)blockIdx.x * C;
    const float r = sd_row_factor<NORM_THREADS>(x, C, eps, part);
    for (int c = threadIdx.x; c < C; c += NORM_THREADS) sd_store(y + c, x[c] * r * w[c]);
}
SD_KERNEL(NORM_THREADS)
sd_rmsnorm_bf16(bf16 *y, const float *x, const float *w, int C, float eps) {
    rmsnorm(y, x, w, C, eps);
}
SD_KERNEL(NORM_THREADS)
sd_rmsnorm_f32(float *y, const float *x, const float *w, int C, float eps) {
    rmsnorm(y, x, w, C, eps);
}

SD_KERNEL(NORM_THREADS)
sd_rmsnorm_add_f32(float *x, const float *d, const float *w, int C, float eps) {
    SD_SHARED(float, part, NORM_THREADS / 32);
    x += (size_t)blockIdx.x * C, d += (size_t)blockIdx.x * C;
    const float r = sd_row_factor<NORM_THREADS>(d, C, eps, part);
    for (int c = threadIdx.x; c < C; c += NORM_THREADS) x[c] += d[c] * r * w[c];
}

extern "C" int sd_cuda_rmsnorm(void *y, const float *x, const float *w, int N, int C, float eps,
                               sd_cuda_real type, sd_cuda_stream *s) {
    if (!y || !x || !w || N < 1 || C < 1) return SD_CUDA_EINVAL;
    if (type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_rmsnorm_bf16, dim3(N), NORM_THREADS, 0, s, (bf16 *)y, x, w, C, eps);
    return SD_LAUNCH(sd_rmsnorm_f32, dim3(N), NORM_THREADS, 0, s, (float *)y, x, w, C, eps);
}

extern "C" int sd_cuda_rmsnorm_add(float *x, const float *d, const float *w, int N, int C,
                                   float eps, sd_cuda_stream *s) {
    if (!x || !d || !w || N < 1 || C < 1) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_rmsnorm_add_f32, dim3(N), NORM_THREADS, 0, s, x, d, w, C, eps);
}

// ---- the gate. Its exponential is that of the language, not the fast one: a gate's value is multiplied by
// weights, and the fp32 instance is held against the CPU.

SD_DEVICE float silu(float g) {
    return g / (1.0f + expf(-g));
}
// x / 2 (1 + tanh(u)) = x / (1 + e^-2u), which loses nothing where tanh is near -1.
SD_DEVICE float gelu_tanh(float g) {
    const float linear = 1.5957691216057308f,
                cubic = 0.07135481627159882f; // 2 sqrt(2 / pi), * 0.044715
    return g / (1.0f + expf(-(g * fmaf(cubic, g * g, linear))));
}

template <class T, bool gelu>
SD_DEVICE void glu(T *y, const float *gate, const float *up, int F, int ld) {
    const int f = blockIdx.x * STRIP_THREADS + threadIdx.x;
    if (f >= F) return;
    const size_t at = (size_t)blockIdx.y * ld + f;
    const float g = gate[at];
    sd_store(y + (size_t)blockIdx.y * F + f, (gelu ? gelu_tanh(g) : silu(g)) * up[at]);
}
#define GLU_KERNEL(name, T, gelu)                                                                  \
    SD_KERNEL(STRIP_THREADS) name(T *y, const float *gate, const float *up, int F, int ld) {       \
        glu<T, gelu>(y, gate, up, F, ld);                                                          \
    }
GLU_KERNEL(sd_swiglu_bf16, bf16, false)
GLU_KERNEL(sd_swiglu_f32, float, false)
GLU_KERNEL(sd_geglu_bf16, bf16, true)
GLU_KERNEL(sd_geglu_f32, float, true)

extern "C" int sd_cuda_glu(void *y, const float *gate, const float *up, int N, int F, int ld,
                           bool gelu, sd_cuda_real type, sd_cuda_stream *s) {
    if (!y || !gate || !up || N < 1 || N > 65535 || F < 1 || ld < F) return SD_CUDA_EINVAL;
    const dim3 grid((F + STRIP_THREADS - 1) / STRIP_THREADS, N);
    if (type == SD_CUDA_BF16)
        return gelu
                   ? SD_LAUNCH(sd_geglu_bf16, grid, STRIP_THREADS, 0, s, (bf16 *)y, gate, up, F, ld)
                   : SD_LAUNCH(sd_swiglu_bf16, grid, STRIP_THREADS, 0, s, (bf16 *)y, gate, up, F,
                               ld);
    return gelu ? SD_LAUNCH(sd_geglu_f32, grid, STRIP_THREADS, 0, s, (float *)y, gate, up, F, ld)
                : SD_LAUNCH(sd_swiglu_f32, grid, STRIP_THREADS, 0, s, (float *)y, gate, up, F, ld);
}

SD_KERNEL(STRIP_THREADS) sd_add_f32(float *x, const float *d, size_t n) {
    const size_t i = (size_t)blockIdx.x * STRIP_THREADS + threadIdx.x;
    if (i < n) x[i] += d[i];
}

extern "C" int sd_cuda_add(float *x, const float *d, size_t n, sd_cuda_stream *s) {
    const size_t blocks = (n + STRIP_THREADS - 1) / STRIP_THREADS;
    if (!x || !d || n < 1 || blocks > 0x7fffffff) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_add_f32, dim3((unsigned)blocks), STRIP_THREADS, 0, s, x, d, n);
}

// ---- int8 codes: a warp for a group of one row

SD_KERNEL(STRIP_THREADS)
sd_quantize_i8(int8_t *q, float *scale, const float *x, size_t groups, int group) {
    const size_t g = (size_t)blockIdx.x * (STRIP_THREADS / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (g >= groups) return; // a whole warp
    x += g * group, q += g * group;
    uint32_t top = 0;
    for (int i = lane; i < group; i += 32) {
        const uint32_t u = sd_magnitude(x[i]);
        top = u > top ? u : top;
    }
    const sd_code_scale c = sd_warp_code_scale(top);
    for (int i = lane; i < group; i += 32) q[i] = sd_code_of(x[i], c.inverse);
    if (lane == 0) scale[g] = c.scale;
}

extern "C" int sd_cuda_quantize(int8_t *q, float *scale, const float *x, int N, int K, int group,
                                sd_cuda_stream *s) {
    if (!q || !scale || !x || N < 1 || K < 1 || group < 32 || group % 32 || K % group)
        return SD_CUDA_EINVAL;
    const size_t groups = (size_t)N * (K / group), warps = STRIP_THREADS / 32;
    const size_t blocks = (groups + warps - 1) / warps;
    if (blocks > 0x7fffffff) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_quantize_i8, dim3((unsigned)blocks), STRIP_THREADS, 0, s, q, scale, x,
                     groups, group);
}
