// Attention of training over packed segments, backward. The probabilities are made again from lse:
//
//     P = exp(scale q k - lse)   dV = P^T dO   dS = P (dO V^T - delta), delta = dO . O   dQ = scale dS K   dK = scale dS^T Q
//
// Twice over, so that no sum is shared between blocks: once with queries that stay and keys that stream past (dQ), once with
// keys that stay and queries that stream past, of all heads of the kv head in ascending order (dK, dV). Scores are
// computed two times instead of once, and nothing adds atomically.
//
// Both are one code: rows that stay are A of the tensor core, what streams is B. A lane's four values of a block of 16 x 8
// are rows g, g + 8 of what stays and columns 2 t, 2 t + 1 of what streams.
#include "kernels/cuda/train/flash_tiles.cuh"

struct gradient_args {
    sd_cuda_flash a;
    const void *dout; // [N, H D] of T
    const float *delta;
    float *dqkv;
};

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
    const int w_first = rows.first + warp * SIDE,
              w_to = w_first + SIDE < rows.end ? w_first + SIDE : rows.end,
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
        for (int i = 0; i < P::STEP; i += SIDE) {
            if (w_first >= rows.end || k0 + i >= w_to || k0 + i + SIDE <= w_from) continue;
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

// ---- dK and dV: keys stay. Where both do not fit into registers, a block has one of them.

// Of rows [first, first + STEP) of a head: lse in units of log2, and delta.
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
    const int w_first = rows.first + warp * SIDE;
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
        for (int i = 0; i < P::STEP; i += SIDE) {
            // No key of the warp is seen by these: they come before it, or beyond its window.
            if (q0 + i + SIDE <= w_first || w_first >= rows.end || q0 + i >= last ||
                (a.window > 0 && q0 + i >= w_first + SIDE - 1 + a.window))
                continue;
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

#define QUERIES_KERNEL(name, Plan)                                                                 \
    SD_KERNEL(Plan::THREADS) sd_flash_dq_##name(gradient_args x) {                                 \
        gradient_of_queries<Plan>(x);                                                              \
    }
FLASH_INSTANCES(QUERIES_KERNEL)
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

// A kernel over all tiles, `heads` and parts; leaves where it was refused.
#define BACKWARD_LAUNCH(kernel, Plan, heads)                                                       \
    do {                                                                                           \
        int status = SD_ALLOW_SHARED(kernel, Plan::BACKWARD_BYTES);                                \
        if (!status)                                                                               \
            status = SD_LAUNCH(kernel, dim3(x.a.tiles * Plan::BLOCKS, (heads), Plan::PARTS),       \
                               Plan::THREADS, Plan::BACKWARD_BYTES, s, x);                         \
        if (status) return status;                                                                 \
    } while (0)
#define BACKWARD_BOTH(name, Plan)                                                                  \
    if (sizeof(Plan::Real) == sd_cuda_real_bytes(x.a.type) && x.a.D <= Plan::MOST_D) {             \
        BACKWARD_LAUNCH(sd_flash_dq_##name, Plan, x.a.H);                                          \
        BACKWARD_LAUNCH(sd_flash_dkv_##name, Plan, x.a.G);                                         \
        return SD_CUDA_OK;                                                                         \
    }
#define BACKWARD_EACH(name, Plan)                                                                  \
    if (sizeof(Plan::Real) == sd_cuda_real_bytes(x.a.type) && x.a.D <= Plan::MOST_D) {             \
        BACKWARD_LAUNCH(sd_flash_dq_##name, Plan, x.a.H);                                          \
        BACKWARD_LAUNCH(sd_flash_dk_##name, Plan, x.a.G);                                          \
        BACKWARD_LAUNCH(sd_flash_dv_##name, Plan, x.a.G);                                          \
        return SD_CUDA_OK;                                                                         \
    }

static int launch_gradients(const gradient_args &x, sd_cuda_stream *s) {
    BACKWARD_BOTH(64_bf16, Flash64Bf16)
    BACKWARD_BOTH(128_bf16, Flash128Bf16)
    BACKWARD_BOTH(64_f32, Flash64F32)
    BACKWARD_EACH(256_bf16, Flash256Bf16)
    BACKWARD_EACH(128_f32, Flash128F32)
    BACKWARD_EACH(256_f32, Flash256F32)
    return SD_CUDA_EINVAL;
}

extern "C" int sd_cuda_flash_backward(float *dqkv, const float *dout, void *rounded, float *delta,
                                      const sd_cuda_flash *a, sd_cuda_stream *s) {
    if (!dqkv || !dout || !rounded || !delta || !flash_usable(a)) return SD_CUDA_EINVAL;
    const int status = launch_delta(delta, rounded, dout, a, s);
    if (status) return status;
    const gradient_args x = {*a, rounded, delta, dqkv};
    return launch_gradients(x, s);
}
