// The rotary embedding, fused with what stands around it: QK-norm before, the write into the pages of keys and
// values behind, as they are or as int8 codes. One pass over qkv, a warp for a head of a row. Lane l has the pairs l, l + 32, ... and then the
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

// put(i, value) of each value of a head of q or k that this lane has, at a position's cos and sin. factor: of its norm.
template <class Put>
SD_DEVICE void turn(const float *x, const float *norm, float factor, const sd_cuda_rope &a, int pos,
                    int lane, Put put) {
    const int half = a.rot / 2;
    const float *cos = a.cos + (size_t)pos * half, *sin = a.sin + (size_t)pos * half;
    for (int i = lane; i < half; i += 32) {
        const int first = a.interleaved ? 2 * i : i, second = a.interleaved ? first + 1 : i + half;
        const float u = normed(x, norm, factor, first), v = normed(x, norm, factor, second);
        put(first, u * cos[i] - v * sin[i]);
        put(second, u * sin[i] + v * cos[i]);
    }
    for (int i = a.rot + lane; i < a.D; i += 32) put(i, normed(x, norm, factor, i));
}

// What enters a page: a key as it turns, over its channels' scales, or a value as it is.
template <class Put>
SD_DEVICE void stored(const float *x, float factor, const sd_cuda_rope &a, bool is_key, int g,
                      int pos, int lane, Put put) {
    const float *size = a.key_scale ? a.key_scale + (size_t)g * a.D : nullptr;
    if (is_key)
        turn(x, a.k_norm, factor, a, pos, lane,
             [=](int i, float v) { put(i, size ? v / size[i] : v); });
    else
        for (int i = lane; i < a.D; i += 32) put(i, x[i]);
}

// The largest magnitude is needed before the first code: values are computed twice, which keeps none of them.
template <class T, bool CODES> SD_DEVICE void rope(const sd_cuda_rope &a) {
    const int n = blockIdx.y, lane = threadIdx.x % 32;
    const int head = blockIdx.x * HEADS_OF_A_BLOCK + threadIdx.x / 32, heads = a.H + 2 * a.G;
    if (head >= heads) return; // a whole warp
    const float *x = a.qkv + ((size_t)n * heads + head) * a.D;
    const int pos = a.pos[n];
    if (head < a.H) {
        T *y = (T *)a.q + ((size_t)n * a.H + head) * a.D;
        const float *size =
            a.key_scale ? a.key_scale + (size_t)(head / (a.H / a.G)) * a.D : nullptr;
        turn(x, a.q_norm, head_factor(x, a.q_norm, a.D, a.eps, lane), a, pos, lane,
             [=](int i, float v) { sd_store(y + i, size ? v * size[i] : v); });
        return;
    }
    const bool is_key = head < a.H + a.G;
    const int g = (head - a.H) % a.G;
    const int32_t page = a.table[(size_t)n * a.table_ld + pos / SD_CUDA_PAGE];
    const size_t row = (size_t)g * SD_CUDA_PAGE + pos % SD_CUDA_PAGE;
    char *at = (char *)a.kv.layer + (size_t)page * a.kv.page_bytes;
    char *begin = at + (is_key ? a.kv.k : a.kv.v);
    const float factor = is_key ? head_factor(x, a.k_norm, a.D, a.eps, lane) : 1.0f;
    if (CODES) {
        int8_t *y = (int8_t *)begin + row * a.D;
        uint32_t top = 0;
        stored(x, factor, a, is_key, g, pos, lane, [&](int, float v) {
            const uint32_t u = sd_magnitude(v);
            top = u > top ? u : top;
        });
        const sd_code_scale c = sd_warp_code_scale(top);
        stored(x, factor, a, is_key, g, pos, lane,
               [=](int i, float v) { y[i] = sd_code_of(v, c.inverse); });
        if (lane == 0)
            ((float *)(void *)(at + (is_key ? a.kv.k_scale : a.kv.v_scale)))[row] = c.scale;
    } else {
        T *y = (T *)begin + row * a.D;
        stored(x, factor, a, is_key, g, pos, lane, [=](int i, float v) { sd_store(y + i, v); });
    }
}
#define ROPE_KERNEL(name, T, CODES)                                                                \
    SD_KERNEL(THREADS) name(sd_cuda_rope a) {                                                      \
        rope<T, CODES>(a);                                                                         \
    }
ROPE_KERNEL(sd_rope_bf16, bf16, false)
ROPE_KERNEL(sd_rope_f32, float, false)
ROPE_KERNEL(sd_rope_bf16_i8, bf16, true)
ROPE_KERNEL(sd_rope_f32_i8, float, true)

extern "C" int sd_cuda_rope_store(const sd_cuda_rope *a, sd_cuda_stream *s) {
    if (!a->qkv || !a->cos || !a->sin || !a->pos || !a->table || !a->q || a->N < 1 ||
        a->N > 65535 || a->H < 1 || a->G < 1 || a->H % a->G || a->D < 1 || a->rot < 0 ||
        a->rot > a->D || a->rot % 2 || a->table_ld < 1 || !sd_kv_holds(a->kv, a->G, a->D, a->type))
        return SD_CUDA_EINVAL;
    const dim3 grid((a->H + 2 * a->G + HEADS_OF_A_BLOCK - 1) / HEADS_OF_A_BLOCK, a->N);
    if (a->kv.codes)
        return a->type == SD_CUDA_BF16 ? SD_LAUNCH(sd_rope_bf16_i8, grid, THREADS, 0, s, *a)
                                       : SD_LAUNCH(sd_rope_f32_i8, grid, THREADS, 0, s, *a);
    if (a->type == SD_CUDA_BF16) return SD_LAUNCH(sd_rope_bf16, grid, THREADS, 0, s, *a);
    return SD_LAUNCH(sd_rope_f32, grid, THREADS, 0, s, *a);
}
