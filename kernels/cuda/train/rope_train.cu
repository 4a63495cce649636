// The rotary embedding of training, forward and backward, fused with QK-norm and with the step between fp32 and what a
// product takes. A warp for a head of a row, as in decoding (rope.cu); lane l has pairs l, l + 32, ... and then the values
// l, l + 32, ... of those that do not turn. Backward, a rotation is undone by the opposite angle, then comes the norm.
#include "kernels/cuda/scalar.cuh"
#include "kernels/cuda/train/train.h"

enum { HEADS_OF_A_BLOCK = 4, THREADS = 32 * HEADS_OF_A_BLOCK };

struct head_place {
    size_t at; // of its D values in [N, (H + 2G) D]
    int n;
    const float *norm; // NULL: none
    bool turns;
    bool is; // false: there is no such head
};
SD_DEVICE head_place place_of(const sd_cuda_turn &a) {
    const int heads = a.H + 2 * a.G, n = blockIdx.y,
              head = blockIdx.x * HEADS_OF_A_BLOCK + threadIdx.x / 32;
    const bool q = head < a.H, k = !q && head < a.H + a.G;
    return {((size_t)n * heads + head) * a.D, n,
            q   ? a.q_norm
            : k ? a.k_norm
                : nullptr,
            q || k, head < heads};
}

SD_DEVICE float head_factor(const float *x, int D, float eps, int lane) {
    float sum = 0;
    for (int i = lane; i < D; i += 32) sum = fmaf(x[i], x[i], sum);
    return 1.0f / sqrtf(sd_warp_sum(sum) / (float)D + eps);
}
SD_DEVICE float normed(const float *x, const float *norm, float factor, int i) {
    return norm ? x[i] * factor * norm[i] : x[i];
}

template <class T> SD_DEVICE void turn_forward(T *out, const float *qkv, const sd_cuda_turn &a) {
    const head_place p = place_of(a);
    if (!p.is) return; // a whole warp
    const int lane = threadIdx.x % 32, rot = p.turns ? a.rot : 0, half = rot / 2;
    const float *x = qkv + p.at, *cos = a.cos + (size_t)a.pos[p.n] * half,
                *sin = a.sin + (size_t)a.pos[p.n] * half;
    const float factor = p.norm ? head_factor(x, a.D, a.eps, lane) : 1.0f;
    out += p.at;
    for (int i = lane; i < half; i += 32) {
        const int first = a.interleaved ? 2 * i : i, second = a.interleaved ? first + 1 : i + half;
        const float u = normed(x, p.norm, factor, first), v = normed(x, p.norm, factor, second);
        sd_store(out + first, u * cos[i] - v * sin[i]);
        sd_store(out + second, u * sin[i] + v * cos[i]);
    }
    for (int i = rot + lane; i < a.D; i += 32) sd_store(out + i, normed(x, p.norm, factor, i));
}

// The gradient behind the rotation, of value i and its partner where it has one.
struct turned {
    const float *d, *cos, *sin;
    int rot;
    bool interleaved;
};
SD_DEVICE float turned_back(const turned &t, int i) {
    if (i >= t.rot) return t.d[i];
    const int half = t.rot / 2, pair = t.interleaved ? i / 2 : i % half;
    const bool second = t.interleaved ? i % 2 : i >= half;
    const int step = t.interleaved ? 1 : half;
    return second ? t.d[i] * t.cos[pair] - t.d[i - step] * t.sin[pair]
                  : t.d[i] * t.cos[pair] + t.d[i + step] * t.sin[pair];
}

template <class T>
SD_DEVICE void turn_backward(T *d, const float *dout, const float *qkv, const sd_cuda_turn &a) {
    const head_place p = place_of(a);
    if (!p.is) return; // a whole warp
    const int lane = threadIdx.x % 32, rot = p.turns ? a.rot : 0;
    const size_t angle = (size_t)a.pos[p.n] * (rot / 2);
    const turned t = {dout + p.at, a.cos + angle, a.sin + angle, rot, a.interleaved};
    d += p.at;
    if (!p.norm) { // the same in a whole warp
        for (int i = lane; i < a.D; i += 32) sd_store(d + i, turned_back(t, i));
        return;
    }
    const float *x = qkv + p.at;
    const float r = head_factor(x, a.D, a.eps, lane);
    float dot = 0;
    for (int i = lane; i < a.D; i += 32) dot = fmaf(turned_back(t, i) * p.norm[i], x[i], dot);
    const float pull = r * r * r * sd_warp_sum(dot) / (float)a.D;
    for (int i = lane; i < a.D; i += 32)
        sd_store(d + i, fmaf(r * p.norm[i], turned_back(t, i), -(pull * x[i])));
}

SD_KERNEL(THREADS) sd_turn_forward_bf16(bf16 *out, const float *qkv, sd_cuda_turn a) {
    turn_forward(out, qkv, a);
}
SD_KERNEL(THREADS) sd_turn_forward_f32(float *out, const float *qkv, sd_cuda_turn a) {
    turn_forward(out, qkv, a);
}
SD_KERNEL(THREADS)
sd_turn_backward_bf16(bf16 *d, const float *dout, const float *qkv, sd_cuda_turn a) {
    turn_backward(d, dout, qkv, a);
}
SD_KERNEL(THREADS)
sd_turn_backward_f32(float *d, const float *dout, const float *qkv, sd_cuda_turn a) {
    turn_backward(d, dout, qkv, a);
}

static bool usable(const sd_cuda_turn *a) {
    return a->cos && a->sin && a->pos && a->N >= 1 && a->N <= 65535 && a->H >= 1 && a->G >= 1 &&
           a->H % a->G == 0 && a->D >= 1 && a->rot >= 0 && a->rot <= a->D && a->rot % 2 == 0;
}
static dim3 grid_of(const sd_cuda_turn *a) {
    return dim3((a->H + 2 * a->G + HEADS_OF_A_BLOCK - 1) / HEADS_OF_A_BLOCK, a->N);
}

extern "C" int sd_cuda_turn_forward(void *out, const float *qkv, const sd_cuda_turn *a,
                                    sd_cuda_stream *s) {
    if (!out || !qkv || !usable(a)) return SD_CUDA_EINVAL;
    if (a->type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_turn_forward_bf16, grid_of(a), THREADS, 0, s, (bf16 *)out, qkv, *a);
    return SD_LAUNCH(sd_turn_forward_f32, grid_of(a), THREADS, 0, s, (float *)out, qkv, *a);
}

extern "C" int sd_cuda_turn_backward(void *d, const float *dout, const float *qkv,
                                     const sd_cuda_turn *a, sd_cuda_stream *s) {
    if (!d || !dout || !usable(a) || ((a->q_norm || a->k_norm) && !qkv)) return SD_CUDA_EINVAL;
    if (a->type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_turn_backward_bf16, grid_of(a), THREADS, 0, s, (bf16 *)d, dout, qkv,
                         *a);
    return SD_LAUNCH(sd_turn_backward_f32, grid_of(a), THREADS, 0, s, (float *)d, dout, qkv, *a);
}
