// Rows of a weight by their numbers: a token's embedding, or many for a product that wants them as bf16 or fp32. A row is a few kB scattered over its tiles; a block has a
// row, and thread i the values i, i + 256, ... of it. What it gives are the bits of sd_dequantise.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/scalar.cuh"

#define SD_PLACE_FUNCTION SD_DEVICE
#include "kernels/cuda/weight_place.h"

enum { THREADS = 256 };

struct stored_weight {
    const unsigned char *codes, *scales, *supers;
    sd_cuda_format format;
    int M, K;
};
struct embedding_args {
    stored_weight w;
    const int32_t *id;
    float *x;
    float scale;
};

SD_DEVICE float half_at(const unsigned char *p) {
    return sd_half_value(*(const uint16_t *)p);
}

SD_DEVICE int code_at(const stored_weight &a, size_t tile, sd_place p) {
    const bool centred = a.format == SD_CUDA_Q4;
    if (a.format != SD_CUDA_Q4 && a.format != SD_CUDA_Q4M && a.format != SD_CUDA_Q4K)
        return (int8_t)a.codes[tile * 1024 + sd_place_byte(8, p)];
    const uint32_t word = ((const uint32_t *)(a.codes + tile * 512))[sd_place_word(p)];
    return (int)(word >> sd_place_shift(p) & 15) - (centred ? 8 : 0);
}

// Value (r, k) of a tile.
SD_DEVICE float value_at(const stored_weight &a, size_t tile, int r, int k) {
    const sd_place p = sd_place_of(r, k);
    if (a.format == SD_CUDA_W_F32)
        return *(const float *)(a.codes + tile * 4096 + sd_place_byte(32, p));
    if (a.format == SD_CUDA_W_F16) return half_at(a.codes + tile * 2048 + sd_place_byte(16, p));
    if (a.format == SD_CUDA_W_BF16)
        return sd_value(*(const bf16 *)(a.codes + tile * 2048 + sd_place_byte(16, p)));
    const float q = (float)code_at(a, tile, p);
    const int at = k / 32 * 2 + r / 8, g = r % 8;
    const unsigned char *super = a.supers + tile / SD_CUDA_SUPER_TILES * 64 + g * 8 + r / 8 * 4;
    switch (a.format) {
    case SD_CUDA_Q4:
    case SD_CUDA_Q8:
        return half_at(a.scales + tile * 64 + g * 8 + 2 * at) * q;
    case SD_CUDA_Q4M:
    case SD_CUDA_Q8M: {
        const unsigned char *s = a.scales + tile * 128 + g * 16 + 4 * at;
        return half_at(s) * q + half_at(s + 2);
    }
    case SD_CUDA_Q4K:
    case SD_CUDA_Q8K: {
        const unsigned char *s = a.scales + tile * 64 + g * 8 + 2 * at;
        return half_at(super) * (float)s[0] * q - half_at(super + 2) * (float)s[1];
    }
    default:
        return half_at(super) * (float)(int8_t)a.scales[tile * 64 + g * 8 + k / 16 * 2 + r / 8] * q;
    }
}

SD_KERNEL(THREADS) sd_embedding_f32(embedding_args a) {
    const int n = blockIdx.x, m = a.id[n], K = a.w.K;
    const bool known = m >= 0 && m < a.w.M;
    const size_t tiles_k = (K + SD_CUDA_TILE_K - 1) / SD_CUDA_TILE_K;
    for (int k = threadIdx.x; k < K; k += THREADS) {
        const size_t tile = m / SD_CUDA_TILE_M * tiles_k + k / SD_CUDA_TILE_K;
        const float v = known ? value_at(a.w, tile, m % SD_CUDA_TILE_M, k % SD_CUDA_TILE_K) : 0.0f;
        a.x[(size_t)n * K + k] = v * a.scale;
    }
}

static stored_weight stored_of(const sd_cuda_weight *w) {
    const unsigned char *data = (const unsigned char *)w->data;
    return {data, data + w->codes, data + w->codes + w->scales, w->format, w->M, w->K};
}

extern "C" int sd_cuda_embedding(float *x, const sd_cuda_weight *w, const int32_t *id, int N,
                                 float scale, sd_cuda_stream *s) {
    if (!x || !w->data || !id || N < 1 || w->M < 1 || w->K < 1) return SD_CUDA_EINVAL;
    const embedding_args a = {stored_of(w), id, x, scale};
    return SD_LAUNCH(sd_embedding_f32, dim3(N), THREADS, 0, s, a);
}

// ---- rows as a product of many of them takes them: a block has a tile, a thread four values of a row, so that a row of the
// tile is written as 128 bytes of bf16.

template <class T> SD_DEVICE void dequantise(T *y, const stored_weight &w, int m0, int rows) {
    const int r = threadIdx.x / 16, k0 = threadIdx.x % 16 * 4;
    const int row = blockIdx.x * SD_CUDA_TILE_M + r, first = blockIdx.y * SD_CUDA_TILE_K;
    const size_t tile = (size_t)((m0 + row) / SD_CUDA_TILE_M) * gridDim.y + blockIdx.y;
    if (row >= rows) return;
    SD_UNROLL
    for (int i = 0; i < 4; i++) {
        const int k = first + k0 + i;
        if (k < w.K) sd_store(y + (size_t)row * w.K + k, value_at(w, tile, r, k0 + i));
    }
}
SD_KERNEL(THREADS) sd_dequantise_bf16(bf16 *y, stored_weight w, int m0, int rows) {
    dequantise(y, w, m0, rows);
}
SD_KERNEL(THREADS) sd_dequantise_f32(float *y, stored_weight w, int m0, int rows) {
    dequantise(y, w, m0, rows);
}

extern "C" int sd_cuda_dequantise(void *y, const sd_cuda_weight *w, int m0, int rows,
                                  sd_cuda_real type, sd_cuda_stream *s) {
    if (!y || !w->data || w->K < 1 || m0 < 0 || m0 % SD_CUDA_TILE_M || rows < 1 ||
        rows > w->M - m0 || w->K > 65535 * SD_CUDA_TILE_K)
        return SD_CUDA_EINVAL;
    const dim3 grid((rows + SD_CUDA_TILE_M - 1) / SD_CUDA_TILE_M,
                    (w->K + SD_CUDA_TILE_K - 1) / SD_CUDA_TILE_K);
    if (type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_dequantise_bf16, grid, THREADS, 0, s, (bf16 *)y, stored_of(w), m0,
                         rows);
    return SD_LAUNCH(sd_dequantise_f32, grid, THREADS, 0, s, (float *)y, stored_of(w), m0, rows);
}
