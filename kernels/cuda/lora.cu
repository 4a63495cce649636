// LoRA of many adapters in one batch: y_n += s B (A x_n) with the A, B and s of row n's adapter (Punica's BGMV,
// arXiv:2310.18547). Two launches: shrink to R values a row, expand to M. Factors stay fp32, as they were trained.
//
// A row's sums have one order each, and rows do not meet, so a row's bits are those it has alone.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/scalar.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

// ---- shrink: a warp for one of the R values of a row. Lane l has k = l, l + 32, ...

template <class T>
SD_DEVICE void shrink(float *u, int ldu, const sd_cuda_lora *adapters, const int32_t *which,
                      const T *x, int K) {
    const int n = blockIdx.y, r = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (which[n] < 0) return;
    const sd_cuda_lora a = adapters[which[n]];
    if (r >= a.r) return; // a whole warp
    const float *row = a.A + (size_t)r * K;
    x += (size_t)n * K;
    float sum = 0;
    for (int k = lane; k < K; k += 32) sum = fmaf(row[k], sd_value(x[k]), sum);
    sum = sd_warp_sum(sum);
    if (lane == 0) u[(size_t)n * ldu + r] = a.scale * sum;
}
SD_KERNEL(THREADS)
sd_lora_shrink_bf16(float *u, int ldu, const sd_cuda_lora *adapters, const int32_t *which,
                    const bf16 *x, int K) {
    shrink(u, ldu, adapters, which, x, K);
}
SD_KERNEL(THREADS)
sd_lora_shrink_f32(float *u, int ldu, const sd_cuda_lora *adapters, const int32_t *which,
                   const float *x, int K) {
    shrink(u, ldu, adapters, which, x, K);
}

extern "C" int sd_cuda_lora_shrink(float *u, int ldu, const sd_cuda_lora *adapters,
                                   const int32_t *which, const void *x, int N, int K, int most_r,
                                   sd_cuda_real type, sd_cuda_stream *s) {
    if (!u || !adapters || !which || !x || N < 1 || N > 65535 || K < 1 || most_r < 1 ||
        ldu < most_r)
        return SD_CUDA_EINVAL;
    const dim3 grid((most_r + WARPS - 1) / WARPS, N);
    if (type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_lora_shrink_bf16, grid, THREADS, 0, s, u, ldu, adapters, which,
                         (const bf16 *)x, K);
    return SD_LAUNCH(sd_lora_shrink_f32, grid, THREADS, 0, s, u, ldu, adapters, which,
                     (const float *)x, K);
}

// ---- expand: a thread for an output of a row; its sum goes over r in ascending order.

SD_KERNEL(THREADS)
sd_lora_expand_f32(float *y, int ldy, const sd_cuda_lora *adapters, const int32_t *which,
                   const float *u, int ldu, int M) {
    const int n = blockIdx.y, m = blockIdx.x * THREADS + threadIdx.x;
    if (m >= M || which[n] < 0) return;
    const sd_cuda_lora a = adapters[which[n]];
    if (a.r == 0)
        return; // not even a zero is added: the row has the bits of one without an adapter
    const float *row = a.B + (size_t)m * a.r;
    u += (size_t)n * ldu;
    float sum = 0;
    for (int r = 0; r < a.r; r++) sum = fmaf(row[r], u[r], sum);
    y[(size_t)n * ldy + m] += sum;
}

extern "C" int sd_cuda_lora_expand(float *y, int ldy, const sd_cuda_lora *adapters,
                                   const int32_t *which, const float *u, int ldu, int N, int M,
                                   sd_cuda_stream *s) {
    if (!y || !adapters || !which || !u || N < 1 || N > 65535 || M < 1 || ldy < M)
        return SD_CUDA_EINVAL;
    const dim3 grid((M + THREADS - 1) / THREADS, N);
    return SD_LAUNCH(sd_lora_expand_f32, grid, THREADS, 0, s, y, ldy, adapters, which, u, ldu, M);
}
