// Exact softmax by blocks of 16 keys (flash attention: arXiv:2205.14135), with the tensor core's 16 side for queries: what a
// warp needs of it, for decoding (attention.cu) and training (train/flash_*.cu).
#pragma once

#include "kernels/cuda/terms.cuh"

enum { SIDE = 16 };

// ---- fragments out of shared memory. LD: values from a row to the next

template <class T> struct Fragments;

template <> struct Fragments<bf16> {
    enum { TERMS = 1, PAD = 8 };
    /// Rows 0..15, columns c..c + 15 of q.
    template <int LD>
    SD_DEVICE void query(uint32_t (&a)[TERMS][4], const bf16 *q, int c, int lane) {
        sd_ldmatrix(a[0], q + lane % 16 * LD + c + lane / 16 * 8);
    }
    /// B of both halves of 16 keys: column g is key g, rows are columns c..c + 15 of k.
    template <int LD>
    SD_DEVICE void keys(uint32_t (&b)[2][TERMS][2], const bf16 *k, int c, int lane) {
        uint32_t r[4];
        sd_ldmatrix(r, k + (lane / 16 * 8 + lane % 8) * LD + c + lane / 8 % 2 * 8);
        b[0][0][0] = r[0], b[0][0][1] = r[1], b[1][0][0] = r[2], b[1][0][1] = r[3];
    }
    /// B of columns c..c + 7 and c + 8..c + 15 of v: rows are the 16 keys.
    template <int LD>
    SD_DEVICE void values(uint32_t (&b)[2][TERMS][2], const bf16 *v, int c, int lane) {
        uint32_t r[4];
        sd_ldmatrix_transposed(r, v + lane % 16 * LD + c + lane / 16 * 8);
        b[0][0][0] = r[0], b[0][0][1] = r[1], b[1][0][0] = r[2], b[1][0][1] = r[3];
    }
    SD_DEVICE void weights(uint32_t (&a)[TERMS][4], const float (&p)[2][4]) {
        a[0][0] = sd_pack_bf16(p[0][0], p[0][1]), a[0][1] = sd_pack_bf16(p[0][2], p[0][3]);
        a[0][2] = sd_pack_bf16(p[1][0], p[1][1]), a[0][3] = sd_pack_bf16(p[1][2], p[1][3]);
    }
};

template <> struct Fragments<float> {
    enum { TERMS = 3, PAD = 4 };
    template <int LD>
    SD_DEVICE void query(uint32_t (&a)[TERMS][4], const float *q, int c, int lane) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) {
            const float *x = q + (lane / 4 + i % 2 * 8) * LD + c + lane % 4 * 2 + i / 2 * 8;
            sd_split_terms<TERMS>(&a[0][i], 4, x[0], x[1]);
        }
    }
    template <int LD>
    SD_DEVICE void keys(uint32_t (&b)[2][TERMS][2], const float *k, int c, int lane) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) {
            const float *x = k + (lane / 4 + i / 2 * 8) * LD + c + lane % 4 * 2 + i % 2 * 8;
            sd_split_terms<TERMS>(&b[i / 2][0][i % 2], 2, x[0], x[1]);
        }
    }
    template <int LD>
    SD_DEVICE void values(uint32_t (&b)[2][TERMS][2], const float *v, int c, int lane) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) {
            const float *x = v + (lane % 4 * 2 + i % 2 * 8) * LD + c + lane / 4 + i / 2 * 8;
            sd_split_terms<TERMS>(&b[i / 2][0][i % 2], 2, x[0], x[LD]);
        }
    }
    SD_DEVICE void weights(uint32_t (&a)[TERMS][4], const float (&p)[2][4]) {
        SD_UNROLL
        for (int i = 0; i < 4; i++)
            sd_split_terms<TERMS>(&a[0][i], 4, p[i / 2][i % 2 * 2], p[i / 2][i % 2 * 2 + 1]);
    }
};

/// A block's threads start copies of rows [first, first + rows), columns [col, col + COLS) of a matrix of stride ld into [rows, LD]. Rows from
/// row_end on and columns from col_end on come as zeros. Strides and columns are multiples of 16 bytes.
template <int COLS, int LD, int THREADS, class T>
SD_DEVICE void sd_copy_tile(T *to, const T *from, size_t ld, int first, int rows, int row_end,
                            int col, int col_end) {
    constexpr int chunk = 16 / sizeof(T), chunks = COLS / chunk;
    for (int c = threadIdx.x; c < rows * chunks; c += THREADS) {
        const int r = c / chunks, at = c % chunks * chunk;
        const bool take = first + r < row_end && col + at < col_end;
        sd_copy_async(to + r * LD + at, from + (take ? (size_t)(first + r) * ld + col + at : 0),
                      take);
    }
}

// A lane has two lines of the 16 side, g and g + 8.
template <int MOST_D> struct sums {
    float out[MOST_D / 8][4];
    float top[2], total[2]; // total: of this lane's positions
};

// s <- the scores of 16 keys, in units of log2, minus infinity where a line does not see the position.
template <class T, int MOST_D, int LD>
SD_DEVICE void scores(float (&s)[2][4], const T *q, const T *k, const int (&from)[2],
                      const int (&to)[2], int p0, float scale, int lane) {
    typedef Fragments<T> F;
    SD_UNROLL
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 4; i++) s[h][i] = 0;
    SD_UNROLL
    for (int c = 0; c < MOST_D; c += 16) {
        uint32_t a[F::TERMS][4], b[2][F::TERMS][2];
        F::template query<LD>(a, q, c, lane);
        F::template keys<LD>(b, k, c, lane);
        sd_mma_terms(s[0], a, b[0]);
        sd_mma_terms(s[1], a, b[1]);
    }
    SD_UNROLL
    for (int h = 0; h < 2; h++) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) {
            const int p = p0 + h * 8 + lane % 4 * 2 + i % 2;
            s[h][i] = p >= from[i / 2] && p < to[i / 2] ? s[h][i] * scale : -INFINITY;
        }
    }
}

// s <- the weights; the sums are brought to the new maximum.
template <int MOST_D> SD_DEVICE void softmax(sums<MOST_D> *o, float (&s)[2][4]) {
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        float top = fmaxf(fmaxf(s[0][2 * l], s[0][2 * l + 1]), fmaxf(s[1][2 * l], s[1][2 * l + 1]));
        top = fmaxf(top, __shfl_xor_sync(SD_ALL_LANES, top, 1));
        top = fmaxf(top, __shfl_xor_sync(SD_ALL_LANES, top, 2));
        top = fmaxf(top, o->top[l]);
        const float base = top == -INFINITY ? 0.0f : top, keep = sd_exp2(o->top[l] - base);
        float total = 0;
        SD_UNROLL
        for (int h = 0; h < 2; h++) {
            SD_UNROLL
            for (int i = 2 * l; i < 2 * l + 2; i++) {
                s[h][i] = sd_exp2(s[h][i] - base);
                total += s[h][i];
            }
        }
        o->total[l] = fmaf(o->total[l], keep, total);
        o->top[l] = top;
        SD_UNROLL
        for (int d = 0; d < MOST_D / 8; d++) o->out[d][2 * l] *= keep, o->out[d][2 * l + 1] *= keep;
    }
}

template <class T, int MOST_D, int LD>
SD_DEVICE void add_values(sums<MOST_D> *o, const float (&p)[2][4], const T *v, int lane) {
    typedef Fragments<T> F;
    uint32_t a[F::TERMS][4];
    F::weights(a, p);
    SD_UNROLL
    for (int d = 0; d < MOST_D / 8; d += 2) {
        uint32_t b[2][F::TERMS][2];
        F::template values<LD>(b, v, d * 8, lane);
        sd_mma_terms(o->out[d], a, b[0]);
        sd_mma_terms(o->out[d + 1], a, b[1]);
    }
}
