// Attention of training, backward, for keys and values: they stay, and the queries of all heads of the kv head stream past,
// in ascending order. Where the sums of both do not fit into registers, a block has one of them.
#include "kernels/cuda/train/flash_gradient.cuh"

// to <- lse in units of log2, and delta, of rows [first, first + STEP) of a head.
template <class P>
SD_DEVICE void copy_statistics(float *to, const gradient_args &x, int head, int first, int end) {
    for (int i = threadIdx.x; i < 2 * P::STEP; i += P::THREADS) {
        const int row = first + i % P::STEP;
        const size_t line = (size_t)row * x.a.H + head;
        to[i] = row >= end ? 0.0f : i < P::STEP ? x.a.lse[line] * 1.44269504f : x.delta[line];
    }
}

template <class P, bool OF_K, bool OF_V> SD_DEVICE void gradient_of_keys(const gradient_args &x) {
    typedef typename P::Real T;
    SD_DYNAMIC_SHARED(raw);
    SD_SHARED(float, statistics, 2 * P::STAGES * P::STEP);
    T *k = (T *)raw, *v = k + P::STILL, *stream = v + P::STILL;
    const sd_cuda_flash &a = x.a;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = blockIdx.y, per = a.H / a.G;
    const flash_rows rows = rows_of_block<P>(a);
    if (rows.first >= rows.end) return; // the whole block
    // The queries that some key of the block is seen by: [rows.first, end), `steps` times STEP of them for each head.
    const int last =
        a.window > 0 && rows.end - 1 + a.window < rows.whole ? rows.end - 1 + a.window : rows.whole;
    const int steps = (last - rows.first + P::STEP - 1) / P::STEP;
    int row[2];
    SD_UNROLL
    for (int l = 0; l < 2; l++) row[l] = rows.first + warp * SIDE + lane / 4 + 8 * l;
    const int w_first = rows.first + warp * SIDE, // who sees the warp's keys: [w_first, w_to)
        w_end = a.window > 0 && w_first + SIDE - 1 + a.window < last ? w_first + SIDE - 1 + a.window
                                                                     : last,
              w_to = w_first < rows.end ? w_end : 0;
    const float scale = a.scale * 1.44269504f;
    float dk[P::COLUMNS / 8][4] = {}, dv[P::COLUMNS / 8][4] = {};

    copy_rows<P>(k, head_of_qkv<T>(a, a.H + g), rows.first, P::ROWS, rows.end, a.D);
    copy_rows<P>(v, head_of_qkv<T>(a, a.H + a.G + g), rows.first, P::ROWS, rows.end, a.D);
    int stage = 0;
    for (int it = P::STAGES > 1 ? -1 : 0; it < per * steps; it++) {
        const int into = P::STAGES > 1 ? (it + 1) % 2 : 0, ahead = P::STAGES > 1 ? it + 1 : it;
        if (ahead < per * steps) {
            const int head = g * per + ahead / steps, first = rows.first + ahead % steps * P::STEP;
            T *next = stream + into * 2 * P::STREAM;
            copy_rows<P>(next, head_of_qkv<T>(a, head), first, P::STEP, last, a.D);
            copy_rows<P>(next + P::STREAM, head_of_dout<T>(x, head), first, P::STEP, last, a.D);
            copy_statistics<P>(statistics + into * 2 * P::STEP, x, head, first, last);
        }
        sd_copy_commit();
        if (it < 0) continue;
        sd_copy_wait<P::STAGES - 1>();
        __syncthreads();
        stage = P::STAGES > 1 ? it % 2 : 0;
        const T *q = stream + stage * 2 * P::STREAM, *dout = q + P::STREAM;
        const float *lse = statistics + stage * 2 * P::STEP, *delta = lse + P::STEP;
        const int q0 = rows.first + it % steps * P::STEP;
        const flash_range seeing = range_in_step<P>(q0, w_first, w_to);
        for (int i = seeing.first; i < seeing.end; i += SIDE) {
            float s[2][4], ds[2][4];
            product<P>(s, k + warp * SIDE * P::LD, q + i * P::LD, lane);
            if (OF_K) product<P>(ds, v + warp * SIDE * P::LD, dout + i * P::LD, lane);
            SD_UNROLL
            for (int h = 0; h < 2; h++) {
                SD_UNROLL
                for (int j = 0; j < 4; j++) {
                    const int at = i + h * 8 + lane % 4 * 2 + j % 2, query = q0 + at,
                              key = row[j / 2];
                    const bool sees = key <= query && query < last && key < rows.end &&
                                      key >= first_seen(query, rows.begin, a.window);
                    probability<OF_K>(&s[h][j], &ds[h][j], s[h][j], lse[at], delta[at], sees,
                                      scale);
                }
            }
            if (OF_V) add_product<P>(dv, s, dout + i * P::LD, lane);
            if (OF_K) add_product<P>(dk, ds, q + i * P::LD, lane);
        }
        __syncthreads(); // before the next copy goes there
    }
    sd_copy_wait<0>();
    if (OF_K) put_rows<P>(x, a.H + g, dk, row, rows.end, a.scale, lane);
    if (OF_V) put_rows<P>(x, a.H + a.G + g, dv, row, rows.end, 1.0f, lane);
}

#define KEYS_KERNEL(name, Plan)                                                                    \
    SD_KERNEL(Plan::THREADS) sd_flash_dk_##name(gradient_args x) {                                 \
        gradient_of_keys<Plan, true, false>(x);                                                    \
    }                                                                                              \
    SD_KERNEL(Plan::THREADS) sd_flash_dv_##name(gradient_args x) {                                 \
        gradient_of_keys<Plan, false, true>(x);                                                    \
    }
#define BOTH_KERNEL(name, Plan)                                                                    \
    SD_KERNEL(Plan::THREADS) sd_flash_dkv_##name(gradient_args x) {                                \
        gradient_of_keys<Plan, true, true>(x);                                                     \
    }
BOTH_KERNEL(64_bf16, Flash64Bf16)
BOTH_KERNEL(128_bf16, Flash128Bf16)
BOTH_KERNEL(64_f32, Flash64F32)
KEYS_KERNEL(256_bf16, Flash256Bf16)
KEYS_KERNEL(128_f32, Flash128F32)
KEYS_KERNEL(256_f32, Flash256F32)

#define BOTH_LAUNCH(name, Plan)                                                                    \
    if (sizeof(Plan::Real) == sd_cuda_real_bytes(x.a.type) && x.a.D <= Plan::MOST_D) {             \
        BACKWARD_LAUNCH(sd_flash_dkv_##name, Plan, x.a.G);                                         \
        return SD_CUDA_OK;                                                                         \
    }
#define EACH_LAUNCH(name, Plan)                                                                    \
    if (sizeof(Plan::Real) == sd_cuda_real_bytes(x.a.type) && x.a.D <= Plan::MOST_D) {             \
        BACKWARD_LAUNCH(sd_flash_dk_##name, Plan, x.a.G);                                          \
        BACKWARD_LAUNCH(sd_flash_dv_##name, Plan, x.a.G);                                          \
        return SD_CUDA_OK;                                                                         \
    }
int flash_launch_keys(const gradient_args &x, sd_cuda_stream *s) {
    BOTH_LAUNCH(64_bf16, Flash64Bf16)
    BOTH_LAUNCH(128_bf16, Flash128Bf16)
    BOTH_LAUNCH(64_f32, Flash64F32)
    EACH_LAUNCH(256_bf16, Flash256Bf16)
    EACH_LAUNCH(128_f32, Flash128F32)
    EACH_LAUNCH(256_f32, Flash256F32)
    return SD_CUDA_EINVAL;
}
