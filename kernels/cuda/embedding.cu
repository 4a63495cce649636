// Rows of a weight by their numbers: a token's embedding. A row is a few kB scattered over its tiles; a block has a
// row, and thread i the values i, i + 256, ... of it. What it gives are the bits of sd_dequantise.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/scalar.cuh"

#define SD_PLACE_FUNCTION SD_DEVICE
#include "kernels/cuda/weight_place.h"

enum { THREADS = 256 };

struct embedding_args {
    const unsigned char *codes, *scales, *supers;
    sd_cuda_format format;
    int M, K;
    const int32_t *id;
    float *x;
    float scale;
};

SD_DEVICE float half_at(const unsigned char *p) {
    return sd_half_value(*(const uint16_t *)p);
}

SD_DEVICE int code_at(const embedding_args &a, size_t tile, sd_place p) {
    const bool centred = a.format == SD_CUDA_Q4;
    if (a.format != SD_CUDA_Q4 && a.format != SD_CUDA_Q4M && a.format != SD_CUDA_Q4K)
        return (int8_t)a.codes[tile * 1024 + sd_place_byte(8, p)];
    const uint32_t word = ((const uint32_t *)(a.codes + tile * 512))[sd_place_word(p)];
    return (int)(word >> sd_place_shift(p) & 15) - (centred ? 8 : 0);
}

// Value (r, k) of a tile.
SD_DEVICE float value_at(const embedding_args &a, size_t tile, int r, int k) {
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
    const int n = blockIdx.x, m = a.id[n];
    const bool known = m >= 0 && m < a.M;
    const size_t tiles_k = (a.K + SD_CUDA_TILE_K - 1) / SD_CUDA_TILE_K;
    for (int k = threadIdx.x; k < a.K; k += THREADS) {
        const size_t tile = m / SD_CUDA_TILE_M * tiles_k + k / SD_CUDA_TILE_K;
        const float v = known ? value_at(a, tile, m % SD_CUDA_TILE_M, k % SD_CUDA_TILE_K) : 0.0f;
        a.x[(size_t)n * a.K + k] = v * a.scale;
    }
}

extern "C" int sd_cuda_embedding(float *x, const sd_cuda_weight *w, const int32_t *id, int N,
                                 float scale, sd_cuda_stream *s) {
    if (!x || !w->data || !id || N < 1 || w->M < 1 || w->K < 1) return SD_CUDA_EINVAL;
    const unsigned char *data = (const unsigned char *)w->data;
    const embedding_args a = {
        data, data + w->codes, data + w->codes + w->scales, w->format, w->M, w->K, id, x, scale};
    return SD_LAUNCH(sd_embedding_f32, dim3(N), THREADS, 0, s, a);
}
