// Operations on rows beside training's passes: rounding to what enters a product, a bias, rows by their numbers. Each is one reading and one
// writing, bound by bandwidth.
#include "kernels/cuda/scalar.cuh"
#include "kernels/cuda/train/train.h"

enum { THREADS = 256 };

// ---- y <- x, a thread for two elements: it writes four bytes

SD_KERNEL(THREADS) sd_round_bf16(bf16 *y, const float *x, size_t n) {
    const size_t i = 2 * ((size_t)blockIdx.x * THREADS + threadIdx.x);
    if (i + 1 < n)
        *(uint32_t *)(y + i) = sd_pack_bf16(x[i], x[i + 1]);
    else if (i < n)
        sd_store(y + i, x[i]);
}
extern "C" int sd_cuda_round(void *y, const float *x, size_t n, sd_cuda_stream *s) {
    if (!y || !x || n < 1 || n > (size_t)2147483647 * 2 * THREADS) return SD_CUDA_EINVAL;
    const dim3 grid((unsigned)((n + 2 * THREADS - 1) / (2 * THREADS)));
    return SD_LAUNCH(sd_round_bf16, grid, THREADS, 0, s, (bf16 *)y, x, n);
}

// ---- y [N, ldy] += b [M]: a thread for an element

SD_KERNEL(THREADS) sd_bias_f32(float *y, int ldy, const float *b, int M) {
    const int m = blockIdx.x * THREADS + threadIdx.x;
    if (m < M) y[(size_t)blockIdx.y * ldy + m] += b[m];
}
extern "C" int sd_cuda_bias(float *y, int ldy, const float *b, int N, int M, sd_cuda_stream *s) {
    if (!y || !b || N < 1 || N > 65535 || M < 1 || ldy < M) return SD_CUDA_EINVAL;
    const dim3 grid((M + THREADS - 1) / THREADS, N);
    return SD_LAUNCH(sd_bias_f32, grid, THREADS, 0, s, y, ldy, b, M);
}

// ---- rows by their numbers: a block a row

SD_KERNEL(THREADS) sd_take_rows_f32(float *y, const float *x, const int32_t *row, int C) {
    const int from = row[blockIdx.x];
    y += (size_t)blockIdx.x * C;
    for (int c = threadIdx.x; c < C; c += THREADS) y[c] = from < 0 ? 0.0f : x[(size_t)from * C + c];
}
extern "C" int sd_cuda_take_rows(float *y, const float *x, const int32_t *row, int N, int C,
                                 sd_cuda_stream *s) {
    if (!y || !x || !row || N < 1 || C < 1 || y == x) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_take_rows_f32, dim3(N), THREADS, 0, s, y, x, row, C);
}
