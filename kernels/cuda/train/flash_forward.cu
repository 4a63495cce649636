// Attention of training over packed segments, forward (flash attention: arXiv:2205.14135). A block has 64 queries of a head
// (32 where a head is wide), a warp 16 of them; keys and values of the segment stream past in shared memory, the next
// ones on their way while these are computed. Keys are counted from the segment's begin, so that a segment's bits do
// not depend on where in the batch it lies. What a warp's rows do not see is not computed.
#include "kernels/cuda/train/flash_tiles.cuh"

template <class P> SD_DEVICE void flash_forward(const sd_cuda_flash &a) {
    typedef typename P::Real T;
    SD_DYNAMIC_SHARED(raw);
    T *q = (T *)raw, *stream = q + P::STILL;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y,
              g = head / (a.H / a.G);
    const flash_rows rows = rows_of_block<P>(a);
    if (rows.first >= rows.end) return; // the whole block
    const flash_matrix<T> keys = head_of_qkv<T>(a, a.H + g),
                          values = head_of_qkv<T>(a, a.H + a.G + g);

    int from[2], to[2];
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        const int row = rows.first + warp * SIDE + lane / 4 + 8 * l;
        from[l] = first_seen(row, rows.begin, a.window);
        to[l] = row < rows.end ? row + 1 : 0;
    }
    const int w_first = rows.first + warp * SIDE, // what the warp's rows see: [w_from, w_to)
        w_to = end_of_warp(w_first, rows.end), w_from = first_seen(w_first, rows.begin, a.window);
    sums<P::MOST_D> o = {};
    o.top[0] = o.top[1] = -INFINITY;
    const float scale = a.scale * 1.44269504f; // log2(e)
    const int seen = first_seen(rows.first, rows.begin, a.window) - rows.begin,
              begin = rows.begin + seen / P::STEP * P::STEP;

    copy_rows<P>(q, head_of_qkv<T>(a, head), rows.first, P::ROWS, rows.end, a.D);
    if (P::STAGES > 1) {
        copy_rows<P>(stream, keys, begin, P::STEP, rows.end, a.D);
        copy_rows<P>(stream + P::STREAM, values, begin, P::STEP, rows.end, a.D);
        sd_copy_commit();
    }
    int stage = 0;
    for (int k0 = begin; k0 < rows.end; k0 += P::STEP) {
        const int into = P::STAGES > 1 ? 1 - stage : 0, ahead = P::STAGES > 1 ? k0 + P::STEP : k0;
        T *next = stream + into * 2 * P::STREAM;
        copy_rows<P>(next, keys, ahead, P::STEP, rows.end, a.D);
        copy_rows<P>(next + P::STREAM, values, ahead, P::STEP, rows.end, a.D);
        sd_copy_commit();
        sd_copy_wait<P::STAGES - 1>();
        __syncthreads();
        const T *k = stream + stage * 2 * P::STREAM, *v = k + P::STREAM;
        const flash_range seen_by_warp = range_in_step<P>(k0, w_from, w_to);
        for (int i = seen_by_warp.first; i < seen_by_warp.end; i += SIDE) {
            float s[2][4];
            scores<T, P::MOST_D, P::LD>(s, q + warp * SIDE * P::LD, k + i * P::LD, from, to, k0 + i,
                                        scale, lane);
            softmax(&o, s);
            add_values<T, P::MOST_D, P::LD>(&o, s, v + i * P::LD, lane);
        }
        __syncthreads(); // before the next copy goes there
        if (P::STAGES > 1) stage = into;
    }
    sd_copy_wait<0>();

    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        o.total[l] += __shfl_xor_sync(SD_ALL_LANES, o.total[l], 1);
        o.total[l] += __shfl_xor_sync(SD_ALL_LANES, o.total[l], 2);
        const int row = rows.first + warp * SIDE + lane / 4 + 8 * l;
        if (row >= rows.end) continue;
        const size_t line = (size_t)row * a.H + head;
        T *out = (T *)a.out + line * a.D;
        const float inverse = 1.0f / o.total[l];
        SD_UNROLL
        for (int d = 0; d < P::MOST_D / 8; d++) {
            if (d * 8 >= a.D) continue;
            sd_store(out + d * 8 + lane % 4 * 2, o.out[d][2 * l] * inverse);
            sd_store(out + d * 8 + lane % 4 * 2 + 1, o.out[d][2 * l + 1] * inverse);
        }
        if (lane % 4 == 0) a.lse[line] = fmaf(o.top[l], 0.69314718f, logf(o.total[l]));
    }
}

#define FORWARD_KERNEL(name, Plan)                                                                 \
    SD_KERNEL(Plan::THREADS) sd_flash_##name(sd_cuda_flash a) {                                    \
        flash_forward<Plan>(a);                                                                    \
    }
FLASH_INSTANCES(FORWARD_KERNEL)

extern "C" int sd_cuda_flash_tiles(sd_cuda_flash_tile *tile, int begin, int len) {
    int n = 0;
    for (int at = 0; at < len; at += SD_CUDA_FLASH_ROWS, n++) {
        const int left = len - at;
        tile[n].first = begin + at;
        tile[n].rows = left < SD_CUDA_FLASH_ROWS ? left : (int)SD_CUDA_FLASH_ROWS;
        tile[n].begin = begin, tile[n].end = begin + len;
    }
    return n;
}

extern "C" int sd_cuda_flash_forward(const sd_cuda_flash *a, sd_cuda_stream *s) {
    if (!flash_usable(a)) return SD_CUDA_EINVAL;
    const sd_cuda_flash within = flash_within(a);
#define FORWARD_LAUNCH(name, Plan)                                                                 \
    if (sizeof(Plan::Real) == sd_cuda_real_bytes(a->type) && a->D <= Plan::MOST_D) {               \
        const int status = SD_ALLOW_SHARED(sd_flash_##name, Plan::FORWARD_BYTES);                  \
        return status ? status                                                                     \
                      : SD_LAUNCH(sd_flash_##name, dim3(a->tiles * Plan::BLOCKS, a->H),            \
                                  Plan::THREADS, Plan::FORWARD_BYTES, s, within);                  \
    }
    FLASH_INSTANCES(FORWARD_LAUNCH)
    return SD_CUDA_EINVAL;
}
