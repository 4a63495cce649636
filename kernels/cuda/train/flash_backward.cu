// Attention of training over packed segments, backward. The probabilities are made again from lse:
//
//     P = exp(scale q k - lse)   dV = P^T dO   dS = P (dO V^T - delta), delta = dO . O   dQ = scale dS K   dK = scale dS^T Q
//
// Twice over, so that no sum is shared between blocks: once with queries that stay and keys that stream past (dQ), once with
// keys that stay and queries that stream past, of all heads of the kv head in ascending order (dK, dV). Scores are
// computed two times instead of once, and nothing adds atomically.
#include "kernels/cuda/train/flash_gradient.cuh"

// ---- delta [N, H] = dout . out of each head, and dout as the products take it: a warp for a head of a row

enum { DELTA_THREADS = 128 };
template <class T>
SD_DEVICE void delta_of(float *delta, T *rounded, const float *dout, const T *out, size_t heads,
                        int D) {
    const size_t head = (size_t)blockIdx.x * (DELTA_THREADS / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (head >= heads) return; // a whole warp
    rounded += head * D, dout += head * D, out += head * D;
    float sum = 0;
    for (int d = lane; d < D; d += 32) {
        sd_store(rounded + d, dout[d]);
        sum = fmaf(sd_value(rounded[d]), sd_value(out[d]), sum);
    }
    sum = sd_warp_sum(sum);
    if (lane == 0) delta[head] = sum;
}
SD_KERNEL(DELTA_THREADS)
sd_flash_delta_bf16(float *delta, bf16 *rounded, const float *dout, const bf16 *out, size_t heads,
                    int D) {
    delta_of(delta, rounded, dout, out, heads, D);
}
SD_KERNEL(DELTA_THREADS)
sd_flash_delta_f32(float *delta, float *rounded, const float *dout, const float *out, size_t heads,
                   int D) {
    delta_of(delta, rounded, dout, out, heads, D);
}

// ---- dQ: queries stay

template <class P> SD_DEVICE void gradient_of_queries(const gradient_args &x) {
    typedef typename P::Real T;
    SD_DYNAMIC_SHARED(raw);
    T *q = (T *)raw, *dout = q + P::STILL, *stream = dout + P::STILL;
    const sd_cuda_flash &a = x.a;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y,
              g = head / (a.H / a.G);
    const flash_rows rows = rows_of_block<P>(a);
    if (rows.first >= rows.end) return; // the whole block
    const flash_matrix<T> keys = head_of_qkv<T>(a, a.H + g),
                          values = head_of_qkv<T>(a, a.H + a.G + g);

    int row[2], from[2];
    float lse[2], delta[2];
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        row[l] = rows.first + warp * SIDE + lane / 4 + 8 * l;
        from[l] = first_seen(row[l], rows.begin, a.window);
        const bool is = row[l] < rows.end;
        const size_t line = (size_t)(is ? row[l] : rows.first) * a.H + head;
        lse[l] = a.lse[line] * 1.44269504f, delta[l] = x.delta[line];
    }
    const int w_first = rows.first + warp * SIDE, w_to = end_of_warp(w_first, rows.end),
              w_from = first_seen(w_first, rows.begin, a.window);
    const float scale = a.scale * 1.44269504f;
    const int seen = first_seen(rows.first, rows.begin, a.window) - rows.begin,
              begin = rows.begin + seen / P::STEP * P::STEP;
    float dq[P::COLUMNS / 8][4] = {};

    copy_rows<P>(q, head_of_qkv<T>(a, head), rows.first, P::ROWS, rows.end, a.D);
    copy_rows<P>(dout, head_of_dout<T>(x, head), rows.first, P::ROWS, rows.end, a.D);
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
            float s[2][4], ds[2][4];
            product<P>(s, q + warp * SIDE * P::LD, k + i * P::LD, lane);
            product<P>(ds, dout + warp * SIDE * P::LD, v + i * P::LD, lane);
            SD_UNROLL
            for (int h = 0; h < 2; h++) {
                SD_UNROLL
                for (int j = 0; j < 4; j++) {
                    const int key = k0 + i + h * 8 + lane % 4 * 2 + j % 2, l = j / 2;
                    const bool sees = key >= from[l] && key <= row[l] && row[l] < rows.end;
                    probability<true>(&s[h][j], &ds[h][j], s[h][j], lse[l], delta[l], sees, scale);
                }
            }
            add_product<P>(dq, ds, k + i * P::LD, lane);
        }
        __syncthreads(); // before the next copy goes there
        if (P::STAGES > 1) stage = into;
    }
    sd_copy_wait<0>();
    put_rows<P>(x, head, dq, row, rows.end, a.scale, lane);
}

#define QUERIES_KERNEL(name, Plan)                                                                 \
    SD_KERNEL(Plan::THREADS) sd_flash_dq_##name(gradient_args x) {                                 \
        gradient_of_queries<Plan>(x);                                                              \
    }
FLASH_INSTANCES(QUERIES_KERNEL)

static int launch_delta(float *delta, void *rounded, const float *dout, const sd_cuda_flash *a,
                        sd_cuda_stream *s) {
    const size_t heads = (size_t)a->N * a->H, warps = DELTA_THREADS / 32,
                 blocks = (heads + warps - 1) / warps;
    if (blocks > 0x7fffffff) return SD_CUDA_EINVAL;
    if (a->type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_flash_delta_bf16, dim3((unsigned)blocks), DELTA_THREADS, 0, s, delta,
                         (bf16 *)rounded, dout, (const bf16 *)a->out, heads, a->D);
    return SD_LAUNCH(sd_flash_delta_f32, dim3((unsigned)blocks), DELTA_THREADS, 0, s, delta,
                     (float *)rounded, dout, (const float *)a->out, heads, a->D);
}

#define QUERIES_LAUNCH(name, Plan)                                                                 \
    if (sizeof(Plan::Real) == sd_cuda_real_bytes(x.a.type) && x.a.D <= Plan::MOST_D) {             \
        BACKWARD_LAUNCH(sd_flash_dq_##name, Plan, x.a.H);                                          \
        return SD_CUDA_OK;                                                                         \
    }
static int launch_queries(const gradient_args &x, sd_cuda_stream *s) {
    FLASH_INSTANCES(QUERIES_LAUNCH)
    return SD_CUDA_EINVAL;
}

extern "C" int sd_cuda_flash_backward(float *dqkv, const float *dout, void *rounded, float *delta,
                                      const sd_cuda_flash *a, sd_cuda_stream *s) {
    if (!dqkv || !dout || !rounded || !delta || !flash_usable(a)) return SD_CUDA_EINVAL;
    const gradient_args x = {flash_within(a), rounded, delta, dqkv};
    int status = launch_delta(delta, rounded, dout, a, s);
    if (!status) status = launch_queries(x, s);
    return status ? status : flash_launch_keys(x, s);
}
