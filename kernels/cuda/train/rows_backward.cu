// Backward passes of norm and gate. Each is one pass over what a product gave, bound by bandwidth: a block for a row of
// a norm, a thread for an element of a gate. The norm's factor comes from x again, by the forward pass's own sum
// (rows.cu), beside the sum that the gradient needs: two sums in one reading instead of a kept array.
#include "kernels/cuda/scalar.cuh"
#include "kernels/cuda/train/train.h"

enum { NORM_THREADS = 256, STRIP_THREADS = 256 };

// ---- RMSNorm: dx = r w dy - r^3 / C (sum of dy x w) x

SD_DEVICE void put(float *p, float v, bool add) {
    *p = add ? *p + v : v;
}
SD_DEVICE void put(bf16 *p, float v, bool) {
    sd_store(p, v);
}

template <class T, bool add>
SD_DEVICE void rmsnorm_backward(T *dx, const float *dy, const float *x, const float *w, int C,
                                float eps) {
    SD_SHARED(float, part, NORM_THREADS / 32);
    SD_SHARED(float, part_dot, NORM_THREADS / 32);
    const size_t at = (size_t)blockIdx.x * C;
    dx += at, dy += at, x += at;
    float dot = 0;
    for (int c = threadIdx.x; c < C; c += NORM_THREADS) dot = fmaf(dy[c] * w[c], x[c], dot);
    const float r = sd_row_factor<NORM_THREADS>(x, C, eps, part);
    dot = sd_block_sum<NORM_THREADS>(dot, part_dot);
    const float pull = r * r * r * dot / (float)C;
    for (int c = threadIdx.x; c < C; c += NORM_THREADS)
        put(dx + c, fmaf(r * w[c], dy[c], -(pull * x[c])), add);
}
#define NORM_KERNEL(name, T, add)                                                                  \
    SD_KERNEL(NORM_THREADS)                                                                        \
    name(T *dx, const float *dy, const float *x, const float *w, int C, float eps) {               \
        rmsnorm_backward<T, add>(dx, dy, x, w, C, eps);                                            \
    }
NORM_KERNEL(sd_rmsnorm_backward_bf16, bf16, false)
NORM_KERNEL(sd_rmsnorm_backward_f32, float, false)
NORM_KERNEL(sd_rmsnorm_backward_add_f32, float, true)

extern "C" int sd_cuda_rmsnorm_backward(void *dx, const float *dy, const float *x, const float *w,
                                        int N, int C, float eps, bool add, sd_cuda_real type,
                                        sd_cuda_stream *s) {
    if (!dx || !dy || !x || !w || N < 1 || C < 1 || dx == (const void *)dy || dx == (const void *)x)
        return SD_CUDA_EINVAL;
    if (add)
        return SD_LAUNCH(sd_rmsnorm_backward_add_f32, dim3(N), NORM_THREADS, 0, s, (float *)dx, dy,
                         x, w, C, eps);
    if (type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_rmsnorm_backward_bf16, dim3(N), NORM_THREADS, 0, s, (bf16 *)dx, dy, x,
                         w, C, eps);
    return SD_LAUNCH(sd_rmsnorm_backward_f32, dim3(N), NORM_THREADS, 0, s, (float *)dx, dy, x, w, C,
                     eps);
}

// ---- the gate: y = act(g) u, act(g) = g sigmoid(v(g)), v = g for SiLU and g (linear + cubic g^2) for GELU's tanh form

template <class T, bool gelu>
SD_DEVICE void glu_backward(T *dgu, T *y, const float *dy, const float *gu, int F) {
    const int f = blockIdx.x * STRIP_THREADS + threadIdx.x;
    if (f >= F) return;
    const float linear = 1.5957691216057308f, cubic = 0.07135481627159882f; // as in rows.cu
    const size_t row = (size_t)blockIdx.y * F, at = 2 * row + f;
    const float g = gu[at], u = gu[at + F], d = dy[row + f];
    const float third = cubic * (g * g);
    const float v = gelu ? g * (linear + third) : g;
    const float slope = gelu ? fmaf(3.0f, third, linear) : 1.0f; // of v
    // 1 - sigmoid loses what is left of it near 1: it is 1 / (1 + e^v). Beyond some 88 an exponential is infinite and its
    // sigmoid 0, exactly what fp32 holds there.
    const float on = 1.0f / (1.0f + expf(-v)), off = 1.0f / (1.0f + expf(v));
    const float act = g * on;
    sd_store(dgu + at, d * u * fmaf(act * off, slope, on));
    sd_store(dgu + at + F, d * act);
    sd_store(y + row + f, act * u);
}
#define GLU_KERNEL(name, T, gelu)                                                                  \
    SD_KERNEL(STRIP_THREADS) name(T *dgu, T *y, const float *dy, const float *gu, int F) {         \
        glu_backward<T, gelu>(dgu, y, dy, gu, F);                                                  \
    }
GLU_KERNEL(sd_swiglu_backward_bf16, bf16, false)
GLU_KERNEL(sd_swiglu_backward_f32, float, false)
GLU_KERNEL(sd_geglu_backward_bf16, bf16, true)
GLU_KERNEL(sd_geglu_backward_f32, float, true)

extern "C" int sd_cuda_glu_backward(void *dgu, void *y, const float *dy, const float *gu, int N,
                                    int F, bool gelu, sd_cuda_real type, sd_cuda_stream *s) {
    if (!dgu || !y || !dy || !gu || N < 1 || N > 65535 || F < 1) return SD_CUDA_EINVAL;
    const dim3 grid((F + STRIP_THREADS - 1) / STRIP_THREADS, N);
#define GLU_LAUNCH(name, T)                                                                        \
    return SD_LAUNCH(name, grid, STRIP_THREADS, 0, s, (T *)dgu, (T *)y, dy, gu, F)
    if (type == SD_CUDA_BF16 && gelu) GLU_LAUNCH(sd_geglu_backward_bf16, bf16);
    if (type == SD_CUDA_BF16) GLU_LAUNCH(sd_swiglu_backward_bf16, bf16);
    if (gelu) GLU_LAUNCH(sd_geglu_backward_f32, float);
    GLU_LAUNCH(sd_swiglu_backward_f32, float);
}
