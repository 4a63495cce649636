// What attention's two backward kernels share: products of 16 rows that stay with 16 that stream past.
//
// Rows that stay are A of the tensor core, what streams is B. A lane's four values of a block of 16 x 8 are rows g, g + 8 of
// what stays and columns 2 t, 2 t + 1 of what streams.
#pragma once

#include "kernels/cuda/train/flash_tiles.cuh"

struct gradient_args {
    sd_cuda_flash a;
    const void *dout; // [N, H D] of T
    const float *delta;
    float *dqkv;
};

// ---- products of 16 rows that stay with 16 that stream

// s [16, 16] <- x y^T
template <class P, class T>
SD_DEVICE void product(float (&s)[2][4], const T *x, const T *y, int lane) {
    typedef Fragments<T> F;
    SD_UNROLL
    for (int h = 0; h < 2; h++) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) s[h][i] = 0;
    }
    SD_UNROLL
    for (int c = 0; c < P::MOST_D; c += 16) {
        uint32_t f[F::TERMS][4], b[2][F::TERMS][2];
        F::template query<P::LD>(f, x, c, lane);
        F::template keys<P::LD>(b, y, c, lane);
        sd_mma_terms(s[0], f, b[0]);
        sd_mma_terms(s[1], f, b[1]);
    }
}
// The first column of the block's part.
template <class P> SD_DEVICE int first_column() {
    return P::PARTS > 1 ? blockIdx.z * P::COLUMNS : 0;
}

// sum [16, COLUMNS] += w [16, 16] y, whose first column is the block's part's
template <class P, class T>
SD_DEVICE void add_product(float (&sum)[P::COLUMNS / 8][4], const float (&w)[2][4], const T *y,
                           int lane) {
    typedef Fragments<T> F;
    uint32_t f[F::TERMS][4];
    F::weights(f, w);
    SD_UNROLL
    for (int d = 0; d < P::COLUMNS / 8; d += 2) {
        uint32_t b[2][F::TERMS][2];
        F::template values<P::LD>(b, y, first_column<P>() + d * 8, lane);
        sd_mma_terms(sum[d], f, b[0]);
        sd_mma_terms(sum[d + 1], f, b[1]);
    }
}

// dqkv, columns of `head` <- factor * sum, a lane's two rows.
template <class P>
SD_DEVICE void put_rows(const gradient_args &x, int head, const float (&sum)[P::COLUMNS / 8][4],
                        const int (&row)[2], int end, float factor, int lane) {
    const size_t ld = (size_t)(x.a.H + 2 * x.a.G) * x.a.D;
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        if (row[l] >= end) continue;
        float *to = x.dqkv + row[l] * ld + (size_t)head * x.a.D + lane % 4 * 2;
        SD_UNROLL
        for (int d = 0; d < P::COLUMNS / 8; d++) {
            const int c = first_column<P>() + d * 8;
            if (c >= x.a.D) continue;
            to[c] = factor * sum[d][2 * l], to[c + 1] = factor * sum[d][2 * l + 1];
        }
    }
}

template <class T> SD_DEVICE flash_matrix<T> head_of_dout(const gradient_args &x, int head) {
    return {(const T *)x.dout + (size_t)head * x.a.D, (size_t)x.a.H * x.a.D};
}

// p <- the probabilities, ds <- dS / scale; s holds scores, ds dO V^T. Without `slopes` ds is not touched.
template <bool slopes>
SD_DEVICE void probability(float *p, float *ds, float s, float lse, float delta, bool sees,
                           float scale) {
    *p = sees ? sd_exp2(fmaf(s, scale, -lse)) : 0.0f;
    if (slopes) *ds = sees ? *p * (*ds - delta) : 0.0f;
}

// A kernel over all tiles, `heads` and parts; leaves where it was refused.
#define BACKWARD_LAUNCH(kernel, Plan, heads)                                                       \
    do {                                                                                           \
        int status = SD_ALLOW_SHARED(kernel, Plan::BACKWARD_BYTES);                                \
        if (!status)                                                                               \
            status = SD_LAUNCH(kernel, dim3(x.a.tiles * Plan::BLOCKS, (heads), Plan::PARTS),       \
                               Plan::THREADS, Plan::BACKWARD_BYTES, s, x);                         \
        if (status) return status;                                                                 \
    } while (0)

/// dK and dV (flash_backward_keys.cu). 0, or CUDA's error number.
int flash_launch_keys(const gradient_args &x, sd_cuda_stream *s);
