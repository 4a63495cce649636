// The loss head: softmax cross-entropy over V classes from the last hidden states, and their gradient, without the logits
// [N, V] in memory. The head's weights come in chunks of classes (they are dequantised just before).
//
//     1. sd_head_statistics   a tile of logits, 64 rows by 64 classes, goes from the tensor core into each row's running
//                             maximum, sum of exp and label's logit; a block has 1024 classes, another kernel adds them up
//     2. sd_head_slopes       the same tile again, now as weight (softmax - onehot) of one chunk, [N, n_v] of T
//     3. sd_head_gradient     dh += slopes W
//
// The logits are computed twice, three products in all instead of two; for that the sums are exact before anything is
// multiplied by them, and neither a row's maximum nor its gradient is rescaled on the way. Every sum is in ascending
// order of classes: of 64 in a tile, tiles of a block, blocks, chunks.
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/train/train.h"

enum { WARPS = 4, THREADS = 32 * WARPS, ROWS = SIDE * WARPS, CLASSES = 64, STAGES = 2 };

SD_DEVICE float exp_of(float x) {
    return sd_exp2(x * 1.44269504f); // log2(e)
}

// Columns of a product's step: 128 bytes.
template <class T> struct HeadPlan {
    enum {
        K = 128 / (int)sizeof(T),
        LD = K + Fragments<T>::PAD,
        STAGE = (ROWS + CLASSES) * LD, // of h, and of W
        BYTES = STAGES * STAGE * (int)sizeof(T),
        WIDE = 128, // columns of dh that a block has
        LD_WIDE = WIDE + Fragments<T>::PAD,
        STAGE_GRADIENT = ROWS * LD + K * LD_WIDE,
        BYTES_GRADIENT = STAGES * STAGE_GRADIENT * (int)sizeof(T)
    };
};

struct head_args {
    sd_cuda_head a;
    const void *W;
    int v0, n_v, splits; // splits: of this chunk
    void *p;             // [N, ld_p]
    int ld_p;
    float *dh;
};

// s [16 rows of the warp, 64 classes] <- h W^T. Classes [v, v + 64) of the chunk; all threads of the block.
template <class T>
SD_DEVICE void logits_tile(float (&s)[CLASSES / 8][4], T *stages, const head_args &x, int row0,
                           int v) {
    typedef HeadPlan<T> P;
    typedef Fragments<T> F;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = x.a.C;
    SD_UNROLL
    for (int t = 0; t < CLASSES / 8; t++) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) s[t][i] = 0;
    }
    for (int c0 = -(int)P::K, stage = 1; c0 < C; c0 += P::K, stage = 1 - stage) {
        T *next = stages + (1 - stage) * P::STAGE;
        sd_copy_tile<P::K, P::LD, THREADS>(next, (const T *)x.a.h, C, row0, ROWS, x.a.N, c0 + P::K,
                                           C);
        sd_copy_tile<P::K, P::LD, THREADS>(next + ROWS * P::LD, (const T *)x.W, C, v, CLASSES,
                                           x.n_v, c0 + P::K, C);
        sd_copy_commit();
        if (c0 < 0) continue;
        sd_copy_wait<1>();
        __syncthreads();
        const T *h = stages + stage * P::STAGE + warp * SIDE * P::LD,
                *W = stages + stage * P::STAGE + ROWS * P::LD;
        SD_UNROLL
        for (int k = 0; k < P::K; k += 16) {
            uint32_t a[F::TERMS][4], b[2][F::TERMS][2];
            F::template query<P::LD>(a, h, k, lane);
            SD_UNROLL
            for (int t = 0; t < CLASSES / 8; t += 2) {
                F::template keys<P::LD>(b, W + t * 8 * P::LD, k, lane);
                sd_mma_terms(s[t], a, b[0]);
                sd_mma_terms(s[t + 1], a, b[1]);
            }
        }
        __syncthreads(); // before the next copy goes there
    }
    sd_copy_wait<0>();
    __syncthreads();
}

// The class of value i of tile t of a lane, within 64.
SD_DEVICE int class_of(int t, int i, int lane) {
    return t * 8 + lane % 4 * 2 + i % 2;
}

// ---- 1. statistics

template <class T> SD_DEVICE void statistics(const head_args &x) {
    SD_DYNAMIC_SHARED(raw);
    const int lane = threadIdx.x % 32, row0 = blockIdx.x * ROWS,
              first = row0 + threadIdx.x / 32 * SIDE + lane / 4;
    const int begin = blockIdx.y * SD_CUDA_HEAD_SPLIT,
              end = begin + SD_CUDA_HEAD_SPLIT < x.n_v ? begin + SD_CUDA_HEAD_SPLIT : x.n_v;
    float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, target[2] = {0, 0};
    int label[2];
    SD_UNROLL
    for (int l = 0; l < 2; l++)
        label[l] = first + 8 * l < x.a.N ? x.a.label[first + 8 * l] - x.v0 : -1;
    for (int v = begin; v < end; v += CLASSES) {
        float s[CLASSES / 8][4];
        logits_tile<T>(s, (T *)raw, x, row0, v);
        SD_UNROLL
        for (int l = 0; l < 2; l++) {
            float most = top[l];
            SD_UNROLL
            for (int t = 0; t < CLASSES / 8; t++) {
                SD_UNROLL
                for (int i = 2 * l; i < 2 * l + 2; i++) {
                    const int at = v + class_of(t, i, lane);
                    if (at >= end) s[t][i] = -INFINITY;
                    if (at == label[l]) target[l] = s[t][i];
                    most = fmaxf(most, s[t][i]);
                }
            }
            most = fmaxf(most, __shfl_xor_sync(SD_ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(SD_ALL_LANES, most, 2));
            float sum = 0;
            SD_UNROLL
            for (int t = 0; t < CLASSES / 8; t++) {
                SD_UNROLL
                for (int i = 2 * l; i < 2 * l + 2; i++) sum += exp_of(s[t][i] - most);
            }
            total[l] = fmaf(total[l], exp_of(top[l] - most), sum);
            top[l] = most;
        }
    }
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        total[l] += __shfl_xor_sync(SD_ALL_LANES, total[l], 1);
        total[l] += __shfl_xor_sync(SD_ALL_LANES, total[l], 2);
        target[l] += __shfl_xor_sync(SD_ALL_LANES, target[l], 1); // zeros but for one
        target[l] += __shfl_xor_sync(SD_ALL_LANES, target[l], 2);
        const int row = first + 8 * l;
        if (lane % 4 != 0 || row >= x.a.N) continue;
        float *to = x.a.partial + ((size_t)row * x.splits + blockIdx.y) * 3;
        to[0] = top[l], to[1] = total[l], to[2] = target[l];
    }
}
SD_KERNEL(THREADS) sd_head_statistics_bf16(head_args x) {
    statistics<bf16>(x);
}
SD_KERNEL(THREADS) sd_head_statistics_f32(head_args x) {
    statistics<float>(x);
}

// The splits of a chunk behind those before it: a thread for a row.
SD_KERNEL(THREADS) sd_head_merge(head_args x) {
    const int row = blockIdx.x * THREADS + threadIdx.x;
    if (row >= x.a.N) return;
    float top = x.v0 ? x.a.max[row] : -INFINITY, total = x.v0 ? x.a.sum[row] : 0.0f;
    const int label = x.a.label[row] - x.v0;
    const float *of = x.a.partial + (size_t)row * x.splits * 3;
    for (int i = 0; i < x.splits; i++) {
        const float most = fmaxf(top, of[3 * i]);
        total = fmaf(total, exp_of(top - most), of[3 * i + 1] * exp_of(of[3 * i] - most));
        top = most;
    }
    x.a.max[row] = top, x.a.sum[row] = total;
    if (label >= 0 && label < x.n_v) x.a.target[row] = of[3 * (label / SD_CUDA_HEAD_SPLIT) + 2];
}

// ---- the loss: one block; thread i has rows i, i + 128, ...

SD_KERNEL(THREADS) sd_head_loss(sd_cuda_head a) {
    SD_SHARED(double, part, WARPS);
    double sum = 0;
    for (int row = threadIdx.x; row < a.N; row += THREADS) {
        const double loss = (double)a.max[row] + log((double)a.sum[row]) - (double)a.target[row];
        a.loss[row] = (float)loss;
        sum += loss;
    }
    SD_UNROLL
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(SD_ALL_LANES, sum, d);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0;
    for (int w = 0; w < WARPS; w++) sum += part[w];
    *a.total = sum;
}

// ---- 2. slopes: the gradient by the logits of a chunk. Columns beyond n_v are zeros.

template <class T> SD_DEVICE void slopes(const head_args &x) {
    SD_DYNAMIC_SHARED(raw);
    const int lane = threadIdx.x % 32, row0 = blockIdx.x * ROWS, v = blockIdx.y * CLASSES;
    float s[CLASSES / 8][4];
    logits_tile<T>(s, (T *)raw, x, row0, v);
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        const int row = row0 + threadIdx.x / 32 * SIDE + lane / 4 + 8 * l;
        if (row >= x.a.N) continue;
        const int label = x.a.label[row] - x.v0;
        const float most = x.a.max[row], inverse = 1.0f / x.a.sum[row],
                    weight = x.a.weight ? x.a.weight[row] : 1.0f;
        T *to = (T *)x.p + (size_t)row * x.ld_p;
        SD_UNROLL
        for (int t = 0; t < CLASSES / 8; t++) {
            SD_UNROLL
            for (int i = 2 * l; i < 2 * l + 2; i++) {
                const int at = v + class_of(t, i, lane);
                const float p = exp_of(s[t][i] - most) * inverse;
                const float slope = at < x.n_v ? weight * (at == label ? p - 1.0f : p) : 0.0f;
                if (at < x.ld_p) sd_store(to + at, slope);
            }
        }
    }
}
SD_KERNEL(THREADS) sd_head_slopes_bf16(head_args x) {
    slopes<bf16>(x);
}
SD_KERNEL(THREADS) sd_head_slopes_f32(head_args x) {
    slopes<float>(x);
}

// ---- 3. dh [64 rows, 128 columns of a block] += slopes W, in steps of K classes

template <class T> SD_DEVICE void gradient(const head_args &x) {
    typedef HeadPlan<T> P;
    typedef Fragments<T> F;
    SD_DYNAMIC_SHARED(raw);
    T *stages = (T *)raw;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = blockIdx.x * ROWS,
              c0 = blockIdx.y * P::WIDE, C = x.a.C;
    float sum[P::WIDE / 8][4] = {};
    for (int v = -(int)P::K, stage = 1; v < x.n_v; v += P::K, stage = 1 - stage) {
        T *next = stages + (1 - stage) * P::STAGE_GRADIENT;
        sd_copy_tile<P::K, P::LD, THREADS>(next, (const T *)x.p, x.ld_p, row0, ROWS, x.a.N,
                                           v + P::K, x.ld_p);
        sd_copy_tile<P::WIDE, P::LD_WIDE, THREADS>(next + ROWS * P::LD, (const T *)x.W, C, v + P::K,
                                                   P::K, x.n_v, c0, C);
        sd_copy_commit();
        if (v < 0) continue;
        sd_copy_wait<1>();
        __syncthreads();
        const T *p = stages + stage * P::STAGE_GRADIENT + warp * SIDE * P::LD,
                *W = stages + stage * P::STAGE_GRADIENT + ROWS * P::LD;
        SD_UNROLL
        for (int k = 0; k < P::K; k += 16) {
            uint32_t a[F::TERMS][4], b[2][F::TERMS][2];
            F::template query<P::LD>(a, p, k, lane);
            SD_UNROLL
            for (int d = 0; d < P::WIDE / 8; d += 2) {
                F::template values<P::LD_WIDE>(b, W + k * P::LD_WIDE, d * 8, lane);
                sd_mma_terms(sum[d], a, b[0]);
                sd_mma_terms(sum[d + 1], a, b[1]);
            }
        }
        __syncthreads(); // before the next copy goes there
    }
    sd_copy_wait<0>();
    SD_UNROLL
    for (int i = 0; i < P::WIDE / 2; i++) {
        const int row = row0 + warp * SIDE + lane / 4 + i / 2 % 2 * 8,
                  c = c0 + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (row >= x.a.N || c >= C) continue;
        float *to = x.dh + (size_t)row * C + c;
        *to = x.v0 ? *to + sum[i / 4][i % 4] : sum[i / 4][i % 4];
    }
}
SD_KERNEL(THREADS) sd_head_gradient_bf16(head_args x) {
    gradient<bf16>(x);
}
SD_KERNEL(THREADS) sd_head_gradient_f32(head_args x) {
    gradient<float>(x);
}

// ---- launchers

static bool usable(const sd_cuda_head *a) {
    return a->h && a->label && a->max && a->sum && a->target && a->N >= 1 && a->C >= 8 &&
           a->C % 8 == 0 && a->V >= 1;
}
static bool is_chunk(const sd_cuda_head *a, const void *W, int v0, int n_v) {
    return W && v0 >= 0 && v0 % SD_CUDA_HEAD_SPLIT == 0 && n_v >= 1 && n_v <= a->V - v0 &&
           n_v <= 65535 * CLASSES;
}
static int splits_of(int n_v) {
    return (n_v + SD_CUDA_HEAD_SPLIT - 1) / SD_CUDA_HEAD_SPLIT;
}
static unsigned row_tiles(const sd_cuda_head *a) {
    return (unsigned)(a->N + ROWS - 1) / ROWS;
}

extern "C" size_t sd_cuda_head_floats(int N, int n_v) {
    return (size_t)N * splits_of(n_v) * 3;
}

extern "C" int sd_cuda_head_chunk(const sd_cuda_head *a, const void *W, int v0, int n_v,
                                  sd_cuda_stream *s) {
    if (!usable(a) || !a->partial || !is_chunk(a, W, v0, n_v)) return SD_CUDA_EINVAL;
    const head_args x = {*a, W, v0, n_v, splits_of(n_v), nullptr, 0, nullptr};
    const dim3 grid(row_tiles(a), x.splits);
    const int status =
        a->type == SD_CUDA_BF16
            ? SD_LAUNCH(sd_head_statistics_bf16, grid, THREADS, HeadPlan<bf16>::BYTES, s, x)
            : SD_LAUNCH(sd_head_statistics_f32, grid, THREADS, HeadPlan<float>::BYTES, s, x);
    if (status) return status;
    return SD_LAUNCH(sd_head_merge, dim3((a->N + THREADS - 1) / THREADS), THREADS, 0, s, x);
}

extern "C" int sd_cuda_head_loss(const sd_cuda_head *a, sd_cuda_stream *s) {
    if (!usable(a) || !a->loss || !a->total) return SD_CUDA_EINVAL;
    return SD_LAUNCH(sd_head_loss, dim3(1), THREADS, 0, s, *a);
}

extern "C" int sd_cuda_head_gradient(float *dh, void *p, const sd_cuda_head *a, const void *W,
                                     int v0, int n_v, sd_cuda_stream *s) {
    if (!dh || !p || !usable(a) || !is_chunk(a, W, v0, n_v)) return SD_CUDA_EINVAL;
    const head_args x = {*a, W, v0, n_v, 0, p, (n_v + 7) / 8 * 8, dh};
    const dim3 tiles(row_tiles(a), (n_v + CLASSES - 1) / CLASSES);
#define GRADIENT_LAUNCH(T, slopes_kernel, kernel)                                                  \
    do {                                                                                           \
        const dim3 grid(row_tiles(a), (a->C + HeadPlan<T>::WIDE - 1) / HeadPlan<T>::WIDE);         \
        int status = SD_LAUNCH(slopes_kernel, tiles, THREADS, HeadPlan<T>::BYTES, s, x);           \
        if (!status) status = SD_ALLOW_SHARED(kernel, HeadPlan<T>::BYTES_GRADIENT);                \
        return status ? status                                                                     \
                      : SD_LAUNCH(kernel, grid, THREADS, HeadPlan<T>::BYTES_GRADIENT, s, x);       \
    } while (0)
    if (a->type == SD_CUDA_BF16) GRADIENT_LAUNCH(bf16, sd_head_slopes_bf16, sd_head_gradient_bf16);
    GRADIENT_LAUNCH(float, sd_head_slopes_f32, sd_head_gradient_f32);
}
