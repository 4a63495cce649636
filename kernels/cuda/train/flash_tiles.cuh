// What attention's passes of training share: the rows of a tile, and rows of q, k, v and of out's gradient on their way into
// shared memory.
#pragma once

#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/train/train.h"

// A block has WARPS times 16 rows that stay (queries, or keys), and STEP rows at a time of what streams past them, STAGES of
// those in shared memory. MOST_D: columns; a smaller head's are zeros beyond it. PARTS: how many blocks share the columns of a
// gradient, where a warp's registers hold no more.
template <class T, int MOST_D_, int WARPS_, int STEP_, int STAGES_, int PARTS_> struct FlashPlan {
    typedef T Real;
    enum {
        MOST_D = MOST_D_,
        WARPS = WARPS_,
        STEP = STEP_,
        STAGES = STAGES_,
        PARTS = PARTS_,
        COLUMNS = MOST_D / PARTS,
        THREADS = 32 * WARPS,
        ROWS = SIDE * WARPS,
        LD = MOST_D + Fragments<T>::PAD,
        STILL = ROWS * LD,                  // values of T
        STREAM = STEP * LD,                 // of one of the two that stream
        BLOCKS = SD_CUDA_FLASH_ROWS / ROWS, // of a tile
        FORWARD_BYTES = (STILL + STAGES * 2 * STREAM) * (int)sizeof(T),
        BACKWARD_BYTES = (2 * STILL + STAGES * 2 * STREAM) * (int)sizeof(T)
    };
    static_assert(SD_CUDA_FLASH_ROWS % ROWS == 0, "a tile is whole blocks");
};
// What 99 KB of shared memory hold.
typedef FlashPlan<bf16, 64, 4, 64, 2, 1> Flash64Bf16;
typedef FlashPlan<bf16, 128, 4, 32, 2, 1> Flash128Bf16;
typedef FlashPlan<bf16, 256, 4, 16, 1, 1> Flash256Bf16;
typedef FlashPlan<float, 64, 4, 32, 2, 1> Flash64F32;
typedef FlashPlan<float, 128, 4, 16, 1, 1> Flash128F32;
typedef FlashPlan<float, 256, 2, 16, 1, 2> Flash256F32;

/// The rows [first, end) of a block, of the segment [begin, whole).
struct flash_rows {
    int first, end, begin, whole;
};
template <class P> SD_DEVICE flash_rows rows_of_block(const sd_cuda_flash &a) {
    const sd_cuda_flash_tile t = a.tile[blockIdx.x / P::BLOCKS];
    const int first = t.first + blockIdx.x % P::BLOCKS * P::ROWS, last = t.first + t.rows;
    return {first, first + P::ROWS < last ? first + P::ROWS : last, t.begin, t.end};
}

/// The first row that a row sees.
SD_DEVICE int first_seen(int row, int begin, int window) {
    return window > 0 && row + 1 - window > begin ? row + 1 - window : begin;
}

/// Where the 16 rows of a warp end; 0: it has none.
SD_DEVICE int end_of_warp(int first, int end) {
    return first >= end ? 0 : first + SIDE < end ? first + SIDE : end;
}

/// The groups of 16 among STEP rows from `at` on that lie in [from, to): the first, and where they end. At run time, so that nobody unrolls the loop.
struct flash_range {
    int first, end;
};
template <class P> SD_DEVICE flash_range range_in_step(int at, int from, int to) {
    return {from > at ? (from - at) / SIDE * SIDE : 0, to - at < P::STEP ? to - at : (int)P::STEP};
}

/// A matrix of rows of D values, ld from one to the next.
template <class T> struct flash_matrix {
    const T *p;
    size_t ld;
};
template <class T> SD_DEVICE flash_matrix<T> head_of_qkv(const sd_cuda_flash &a, int head) {
    return {(const T *)a.qkv + (size_t)head * a.D, (size_t)(a.H + 2 * a.G) * a.D};
}

/// Starts copies of rows [first, first + rows) into [rows, LD]; those from `end` on come as zeros.
template <class P, class T>
SD_DEVICE void copy_rows(T *to, flash_matrix<T> m, int first, int rows, int end, int D) {
    sd_copy_tile<P::MOST_D, P::LD, P::THREADS>(to, m.p, m.ld, first, rows, end, 0, D);
}

/// X(name, plan) for each instance.
#define FLASH_INSTANCES(X)                                                                         \
    X(64_bf16, Flash64Bf16)                                                                        \
    X(128_bf16, Flash128Bf16)                                                                      \
    X(256_bf16, Flash256Bf16)                                                                      \
    X(64_f32, Flash64F32)                                                                          \
    X(128_f32, Flash128F32)                                                                        \
    X(256_f32, Flash256F32)

/// Whether the launchers can do it.
static inline bool flash_usable(const sd_cuda_flash *a) {
    return a->qkv && a->out && a->lse && a->tile && a->tiles >= 1 && a->N >= 1 && a->H >= 1 &&
           a->H <= 65535 && a->G >= 1 && a->H % a->G == 0 && a->D >= 8 && a->D % 8 == 0 &&
           a->D <= SD_CUDA_MOST_D && a->window >= 0;
}
/// The same, without a window that is wider than everything: kernels add to it.
static inline sd_cuda_flash flash_within(const sd_cuda_flash *a) {
    sd_cuda_flash b = *a;
    if (b.window >= b.N) b.window = 0;
    return b;
}
