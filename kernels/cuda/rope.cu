// The rotary embedding, fused with what stands around it: QK-norm before, the write into the pages of keys and
// values behind. One pass over qkv, a warp for a head of a row. Lane l has the pairs l, l + 32, ... and then the
// values l, l + 32, ... of those that do not turn.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/scalar.cuh"

enum { HEADS_OF_A_BLOCK = 4, THREADS = 32 * HEADS_OF_A_BLOCK };

// The factor of a head's norm, 1 without.
SD_DEVICE float head_factor(const float *x, const float *norm, int D, float eps, int lane) {
    if (!norm) return 1.0f;
    float sum = 0;
    for (int i = lane; i < D; i += 32) sum = fmaf(x[i], x[i], sum);
    return 1.0f / sqrtf(sd_warp_sum(sum) / (float)D + eps);
}

SD_DEVICE float normed(const float *x, const float *norm, float factor, int i) {
    return norm ? x[i] * factor * norm[i] : x[i];
}

// y <- a head of q or k, at a position's cos and sin.
template <class T>
SD_DEVICE void turn(T *y, const float *x, const float *norm, const sd_cuda_rope &a, int pos,
                    int lane) {
    const int half = a.rot / 2;
    const float *cos = a.cos + (size_t)pos * half, *sin = a.sin + (size_t)pos * half;
    const float factor = head_factor(x, norm, a.D, a.eps, lane);
    for (int i = lane; i < half; i += 32) {
        const int first = a.interleaved ? 2 * i : i, second = a.interleaved ? first + 1 : i + half;
        const float u = normed(x, norm, factor, first), v = normed(x, norm, factor, second);
        sd_store(y + first, u * cos[i] - v * sin[i]);
        sd_store(y + second, u * sin[i] + v * cos[i]);
    }
    for (int i = a.rot + lane; i < a.D; i += 32) sd_store(y + i, normed(x, norm, factor, i));
}

template <class T> SD_DEVICE void rope(const sd_cuda_rope &a) {
    const int n = blockIdx.y, lane = threadIdx.x % 32;
    const int head = blockIdx.x * HEADS_OF_A_BLOCK + threadIdx.x / 32, heads = a.H + 2 * a.G;
    if (head >= heads) return; // a whole warp
    const float *x = a.qkv + ((size_t)n * heads + head) * a.D;
    const int pos = a.pos[n];
    if (head < a.H) {
        turn((T *)a.q + ((size_t)n * a.H + head) * a.D, x, a.q_norm, a, pos, lane);
        return;
    }
    const bool is_key = head < a.H + a.G;
    const int g = (head - a.H) % a.G;
    const int32_t page = a.table[(size_t)n * a.table_ld + pos / SD_CUDA_PAGE];
    char *begin = (char *)a.layer + (size_t)page * a.page_bytes + (is_key ? a.k : a.v);
    T *y = (T *)begin + ((size_t)g * SD_CUDA_PAGE + pos % SD_CUDA_PAGE) * a.D;
    if (is_key)
        turn(y, x, a.k_norm, a, pos, lane);
    else
        for (int i = lane; i < a.D; i += 32) sd_store(y + i, x[i]);
}
SD_KERNEL(THREADS) sd_rope_bf16(sd_cuda_rope a) {
    rope<bf16>(a);
}
SD_KERNEL(THREADS) sd_rope_f32(sd_cuda_rope a) {
    rope<float>(a);
}

extern "C" int sd_cuda_rope_store(const sd_cuda_rope *a, sd_cuda_stream *s) {
    const size_t kv = (size_t)a->G * SD_CUDA_PAGE * a->D * sd_cuda_real_bytes(a->type);
    if (!a->qkv || !a->cos || !a->sin || !a->pos || !a->table || !a->layer || !a->q || a->N < 1 ||
        a->N > 65535 || a->H < 1 || a->G < 1 || a->H % a->G || a->D < 1 || a->rot < 0 ||
        a->rot > a->D || a->rot % 2 || a->table_ld < 1 || a->k + kv > a->page_bytes ||
        a->v + kv > a->page_bytes)
        return SD_CUDA_EINVAL;
    const dim3 grid((a->H + 2 * a->G + HEADS_OF_A_BLOCK - 1) / HEADS_OF_A_BLOCK, a->N);
    if (a->type == SD_CUDA_BF16) return SD_LAUNCH(sd_rope_bf16, grid, THREADS, 0, s, *a);
    return SD_LAUNCH(sd_rope_f32, grid, THREADS, 0, s, *a);
}
