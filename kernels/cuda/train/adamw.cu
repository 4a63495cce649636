// The gradient's sum and norm, and AdamW. All are bound by bandwidth: 12 bytes of a parameter for a sum of two, 4 for the norm, 28 for the step. The
// arithmetic between load and store is double, as the CPU's is (trainer/optim/adamw.c says why), and the same term by
// term, so a step gives the same bits as there. A double's rate, 1/64 of fp32's on some cards, still leaves a few million
// parameters of an adapter under a millisecond.
//
// The norm's sum: a block has 16384 elements, thread i those at i, i + 256, ...; one block adds the partial sums in the
// same way. No atomics: the order is a matter of n.
#include "kernels/cuda/scalar.cuh"
#include "kernels/cuda/train/train.h"

enum { THREADS = 256, CHUNK = 1 << 14 };

// ---- the sum: a thread for a parameter, the parts one after the other, as a host that is given them in turn would add them

SD_KERNEL(THREADS)
sd_gradient_add_f32(float *sum, const float *parts, size_t n, size_t stride, int count,
                    int begins) {
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    float v = begins ? 0.0f : sum[i];
    for (int k = 0; k < count; k++) v += parts[k * stride + i];
    sum[i] = v;
}

extern "C" int sd_cuda_gradient_add(float *sum, const float *parts, size_t n, size_t stride,
                                    int count, bool begins, sd_cuda_stream *s) {
    const size_t blocks = (n + THREADS - 1) / THREADS;
    if (!sum || !parts || n < 1 || blocks > 0x7fffffff || count < 1 || (count > 1 && stride < n))
        return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_gradient_add_f32, dim3((unsigned)blocks), THREADS, 0, s, sum, parts, n,
                     stride, count, (int)begins);
}

// ---- the norm

// The sum over a block, in thread 0.
SD_DEVICE double sum_of_block(double v, double *part) {
    SD_UNROLL
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(SD_ALL_LANES, v, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < THREADS / 32; w++) total += part[w];
    return total;
}

SD_KERNEL(THREADS) sd_grad_squares_f32(double *partial, const float *grad, size_t n, double scale) {
    SD_SHARED(double, part, THREADS / 32);
    const size_t begin = (size_t)blockIdx.x * CHUNK, end = begin + CHUNK < n ? begin + CHUNK : n;
    double sum = 0;
    for (size_t i = begin + threadIdx.x; i < end; i += THREADS) {
        const double g = scale * (double)grad[i];
        sum += g * g;
    }
    sum = sum_of_block(sum, part);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

SD_KERNEL(THREADS)
sd_grad_clip(double *norm, double *factor, const double *partial, size_t n, double scale,
             double max_norm) {
    SD_SHARED(double, part, THREADS / 32);
    double sum = 0;
    for (size_t i = threadIdx.x; i < n; i += THREADS) sum += partial[i];
    sum = sum_of_block(sum, part);
    if (threadIdx.x != 0) return;
    const double length = sqrt(sum), clip = max_norm / (length + 1e-6);
    *norm = length;
    *factor = max_norm != 0 && clip < 1 ? scale * clip : scale;
}

extern "C" size_t sd_cuda_grad_partials(size_t n) {
    return (n + CHUNK - 1) / CHUNK;
}

extern "C" int sd_cuda_grad_norm(double *norm, double *factor, double *partial, const float *grad,
                                 size_t n, double scale, double max_norm, sd_cuda_stream *s) {
    const size_t chunks = sd_cuda_grad_partials(n);
    if (!norm || !factor || !partial || !grad || n < 1 || chunks > 0x7fffffff || !(max_norm >= 0))
        return SD_CUDA_EINVAL;
    const int status = SD_LAUNCH(sd_grad_squares_f32, dim3((unsigned)chunks), THREADS, 0, s,
                                 partial, grad, n, scale);
    if (status) return status;
    return SD_LAUNCH(sd_grad_clip, dim3(1), THREADS, 0, s, norm, factor, (const double *)partial,
                     chunks, scale, max_norm);
}

// ---- the step: a thread for a parameter

struct step_args {
    float *theta, *m, *v;
    const float *grad;
    const double *factor;
    size_t n;
    double keep, beta1, beta2, step_size, root2, epsilon;
};
SD_KERNEL(THREADS) sd_adamw_f32(step_args a) {
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.n) return;
    const double g = a.factor[0] * (double)a.grad[i];
    const double m = (double)a.m[i] + (1 - a.beta1) * (g - (double)a.m[i]);
    const double v = a.beta2 * (double)a.v[i] + (1 - a.beta2) * g * g;
    const double update = a.step_size * m / (sqrt(v) / a.root2 + a.epsilon);
    a.m[i] = (float)m;
    a.v[i] = (float)v;
    a.theta[i] = (float)(a.keep * (double)a.theta[i] - update);
}

extern "C" int sd_cuda_adamw(float *theta, float *m, float *v, const float *grad, size_t n,
                             const double *factor, double lr, int64_t step,
                             const sd_cuda_adamw_options *o, sd_cuda_stream *s) {
    const size_t blocks = (n + THREADS - 1) / THREADS;
    if (!theta || !m || !v || !grad || !factor || n < 1 || blocks > 0x7fffffff || step < 1)
        return SD_CUDA_EINVAL;
    const double t = (double)step;
    const step_args a = {theta,
                         m,
                         v,
                         grad,
                         factor,
                         n,
                         1 - lr * o->weight_decay,
                         o->beta1,
                         o->beta2,
                         lr / (1 - pow(o->beta1, t)),
                         sqrt(1 - pow(o->beta2, t)),
                         o->epsilon};
    return SD_LAUNCH(sd_adamw_f32, dim3((unsigned)blocks), THREADS, 0, s, a);
}
