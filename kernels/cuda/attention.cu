// Attention of decoding and verification over paged keys and values (flash decoding: arXiv:2205.14135, and its split
// over positions). Keys and values are the bytes to move, each once: the query heads of one kv head, and the rows of
// one sequence, go together as the 16 side of mma.m16n8k16.
//
// A block has a split of 512 positions, a kv head and a tile of rows. Its warps have 16 positions of every KEYS each,
// and everything of these is theirs alone: they copy keys and values into their own part of shared memory (cp.async,
// the next ones while these are computed), keep their own running maximum and sums, and wait for nobody. At the end
// of the split the warps' sums are merged in ascending order, and a second kernel merges the splits.
//
// Where pages hold int8 codes, a warp has one stage of values, which it fills from a part of shared memory to which the next
// codes are already on their way. Codes are exact in bf16: a key's scale is a factor of its score, a value's one of its weight
// (as on the CPU, kernels/cpu/attention_body.h).
//
// A position that a row does not see has the score minus infinity: it adds zeros to the sums, so a row is what it
// is alone. Positions beyond the longest row, whose memory nobody wrote, come as zeros.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/flash.cuh"

struct attention_args {
    sd_cuda_attention a;
    int splits, heads, head_tiles, rows_of_a_tile; // heads: of a kv head that go together
};

// What an instance keeps in shared memory: q, and of each warp STAGES times 16 keys and 16 values.
template <class T, int MOST_D, int WARPS, int STAGES, bool CODES> struct Plan {
    enum {
        LD = MOST_D + Fragments<T>::PAD,
        KEYS = SIDE * WARPS,
        STAGE = 2 * SIDE * LD, // values of T
        WARP = STAGES * STAGE, // as well the room for a warp's sums: SIDE * MOST_D floats
        VALUES = (SIDE * LD + WARPS * WARP) * (int)sizeof(T),
        RAW = CODES ? 2 * SIDE * (MOST_D + 4)
                    : 0, // bytes of 16 keys and values, then of their scales
        BYTES = VALUES + WARPS * RAW
    };
    static_assert(WARP * sizeof(T) >= SIDE * MOST_D * 4, "a warp's sums must fit");
};

// The row and head of line i of the 16 side; false: there is none.
struct line {
    int row, head;
    int from, to; // positions that it sees
};
SD_DEVICE bool line_of(line *l, const attention_args &x, sd_cuda_row_tile tile, int g,
                       int head_tile, int i) {
    const int row = i / x.heads, head = head_tile * SIDE + i % x.heads, group = x.a.H / x.a.G;
    l->from = l->to = 0, l->row = tile.first, l->head = 0;
    if (row >= tile.rows || row >= x.rows_of_a_tile || head >= group) return false;
    l->row = tile.first + row, l->head = g * group + head;
    l->to = x.a.pos[l->row] + 1;
    l->from = x.a.window > 0 && l->to > x.a.window ? l->to - x.a.window : 0;
    return true;
}

// 16 keys and values from position p0 on, those in [from, to): the others zero.
template <class T, int MOST_D, int LD>
SD_DEVICE void copy_stage(T *stage, const attention_args &x, const int32_t *table, int g, int p0,
                          int from, int to, int lane) {
    constexpr int chunk = 16 / sizeof(T), chunks = MOST_D / chunk;
    const char *layer = (const char *)x.a.kv.layer;
    for (int c = lane; c < SIDE * chunks; c += 32) {
        const int r = c / chunks, col = c % chunks * chunk, p = p0 + r;
        const bool take = p >= from && p < to && col < x.a.D;
        const char *page =
            take ? layer + (size_t)table[p / SD_CUDA_PAGE] * x.a.kv.page_bytes : layer;
        const size_t at =
            take ? (((size_t)g * SD_CUDA_PAGE + p % SD_CUDA_PAGE) * x.a.D + col) * sizeof(T) : 0;
        sd_copy_async(stage + r * LD + col, page + (take ? x.a.kv.k : 0) + at, take);
        sd_copy_async(stage + (SIDE + r) * LD + col, page + (take ? x.a.kv.v : 0) + at, take);
    }
    sd_copy_commit();
}

// ---- int8 codes

// 16 positions of a head are one piece of memory, D times 16 bytes; p0 is a multiple of 16.
template <int MOST_D>
SD_DEVICE void copy_codes(char *raw, const attention_args &x, const int32_t *table, int g, int p0,
                          int from, int to, int lane) {
    const bool take = p0 < to && p0 + SIDE > from;
    const char *page = (const char *)x.a.kv.layer;
    if (take) page += (size_t)table[p0 / SD_CUDA_PAGE] * x.a.kv.page_bytes;
    const size_t row = take ? (size_t)g * SD_CUDA_PAGE + p0 % SD_CUDA_PAGE : 0;
    char *scales = raw + 2 * SIDE * MOST_D;
    for (int c = lane; c < x.a.D; c += 32) {
        const size_t at = take ? row * x.a.D + c * 16 : 0;
        sd_copy_async(raw + c * 16, page + (take ? x.a.kv.k : 0) + at, take);
        sd_copy_async(raw + SIDE * MOST_D + c * 16, page + (take ? x.a.kv.v : 0) + at, take);
    }
    if (lane < 8) {
        const size_t at = take ? (lane < 4 ? x.a.kv.k_scale : x.a.kv.v_scale) + row * 4 : 0;
        sd_copy_async(scales + lane * 16, page + at + (take ? lane % 4 * 16 : 0), take);
    }
    sd_copy_commit();
}

SD_DEVICE void put_four(bf16 *to, float a, float b, float c, float d) {
    *(uint2 *)(void *)to = {sd_pack_bf16(a, b), sd_pack_bf16(c, d)};
}
SD_DEVICE void put_four(float *to, float a, float b, float c, float d) {
    *(float4 *)(void *)to = {a, b, c, d};
}

// A stage from codes: those of positions in [from, to), the others zero.
template <class T, int MOST_D, int LD>
SD_DEVICE void expand(T *stage, const char *raw, int D, int p0, int from, int to, int lane) {
    for (int c = lane; c < 2 * SIDE * (MOST_D / 4); c += 32) {
        const int r = c / (MOST_D / 4), col = c % (MOST_D / 4) * 4, p = p0 + r % SIDE;
        const bool is = p >= from && p < to && col < D;
        const char *of = raw + r / SIDE * SIDE * MOST_D + r % SIDE * D + col;
        const uint32_t four = is ? *(const uint32_t *)(const void *)of : 0;
        put_four(stage + r * LD + col, (float)(int8_t)four, (float)(int8_t)(four >> 8),
                 (float)(int8_t)(four >> 16), (float)(int8_t)(four >> 24));
    }
}

// A lane's positions of 16: h * 8 + lane % 4 * 2 + i, as in scores.
struct position_scales {
    float k[2][2], v[2][2];
};
template <int MOST_D>
SD_DEVICE void read_scales(position_scales *s, const char *raw, int p0, int from, int to,
                           int lane) {
    const float *all = (const float *)(const void *)(raw + 2 * SIDE * MOST_D);
    SD_UNROLL
    for (int h = 0; h < 2; h++) {
        SD_UNROLL
        for (int i = 0; i < 2; i++) {
            const int r = h * 8 + lane % 4 * 2 + i;
            const bool is = p0 + r >= from && p0 + r < to;
            s->k[h][i] = is ? all[r] : 1.0f, s->v[h][i] = is ? all[SIDE + r] : 1.0f;
        }
    }
}
// Scores and weights of positions that a line does not see stay what they are, whatever those positions' scales are.
SD_DEVICE void scale_scores(float (&s)[2][4], const float (&k)[2][2]) {
    SD_UNROLL
    for (int h = 0; h < 2; h++) {
        SD_UNROLL
        for (int i = 0; i < 4; i++)
            s[h][i] = s[h][i] == -INFINITY ? s[h][i] : s[h][i] * k[h][i % 2];
    }
}
SD_DEVICE void scale_weights(float (&s)[2][4], const float (&v)[2][2]) {
    SD_UNROLL
    for (int h = 0; h < 2; h++) {
        SD_UNROLL
        for (int i = 0; i < 4; i++) s[h][i] = s[h][i] == 0.0f ? 0.0f : s[h][i] * v[h][i % 2];
    }
}

// ---- a split

// The positions [begin, end) of the split that some line sees.
SD_DEVICE void range_of(int *begin, int *end, const attention_args &x, sd_cuda_row_tile tile,
                        int split) {
    const int last = x.a.pos[tile.first + tile.rows - 1] + 1, first = x.a.pos[tile.first] + 1;
    *begin = split * SD_CUDA_SPLIT;
    *end = last < *begin + SD_CUDA_SPLIT ? last : *begin + SD_CUDA_SPLIT;
    if (x.a.window > 0 && first - x.a.window > *begin) *begin = first - x.a.window;
}

template <class T, int MOST_D, int WARPS, int STAGES, bool CODES>
SD_DEVICE void attend(const attention_args &x) {
    typedef Plan<T, MOST_D, WARPS, STAGES, CODES> P;
    SD_DYNAMIC_SHARED(raw);
    SD_SHARED(float, tops, WARPS *SIDE);
    SD_SHARED(float, totals, WARPS *SIDE);
    T *q = (T *)raw;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, split = blockIdx.x;
    const int g = blockIdx.y / x.head_tiles, head_tile = blockIdx.y % x.head_tiles;
    const sd_cuda_row_tile tile = x.a.tile[blockIdx.z];
    if (!tile.rows) return;
    T *stages = q + SIDE * P::LD + warp * P::WARP;
    char *codes = (char *)(void *)q + P::VALUES + warp * P::RAW;
    int begin, end;
    range_of(&begin, &end, x, tile, split);
    if (begin >= end) return; // the whole block; nobody reads what it would have written

    for (int c = threadIdx.x; c < SIDE * MOST_D; c += 32 * WARPS) {
        const int i = c / MOST_D, d = c % MOST_D;
        line l;
        const bool is = line_of(&l, x, tile, g, head_tile, i) && d < x.a.D;
        const T *from = (const T *)x.a.q + ((size_t)l.row * x.a.H + l.head) * x.a.D + d;
        sd_store(q + i * P::LD + d, is ? sd_value(*from) : 0.0f);
    }
    __syncthreads();

    int from[2], to[2];
    SD_UNROLL
    for (int i = 0; i < 2; i++) {
        line l;
        line_of(&l, x, tile, g, head_tile, lane / 4 + 8 * i);
        from[i] = l.from, to[i] = l.to;
    }
    sums<MOST_D> o = {};
    o.top[0] = o.top[1] = -INFINITY;
    const int32_t *table = x.a.table + (size_t)tile.first * x.a.table_ld;
    const float scale = x.a.scale * 1.44269504f; // log2(e)
    const int p_begin = begin / P::KEYS * P::KEYS + warp * SIDE;
    if (CODES)
        copy_codes<MOST_D>(codes, x, table, g, p_begin, begin, end, lane);
    else if (STAGES > 1)
        copy_stage<T, MOST_D, P::LD>(stages, x, table, g, p_begin, begin, end, lane);
    int stage = 0;
    for (int p0 = p_begin; p0 < end; p0 += P::KEYS) {
        const int ahead = CODES || STAGES > 1 ? p0 + P::KEYS : p0;
        const int into = STAGES > 1 ? 1 - stage : 0;
        position_scales scales;
        if (CODES) {
            sd_copy_wait<0>();
            __syncwarp();
            expand<T, MOST_D, P::LD>(stages, codes, x.a.D, p0, begin, end, lane);
            read_scales<MOST_D>(&scales, codes, p0, begin, end, lane);
            __syncwarp(); // before the next codes go there
            copy_codes<MOST_D>(codes, x, table, g, ahead, begin, end, lane);
        } else {
            copy_stage<T, MOST_D, P::LD>(stages + into * P::STAGE, x, table, g, ahead, begin, end,
                                         lane);
            sd_copy_wait<STAGES - 1>();
            __syncwarp();
        }
        const T *k = stages + stage * P::STAGE, *v = k + SIDE * P::LD;
        float s[2][4];
        scores<T, MOST_D, P::LD>(s, q, k, from, to, p0, scale, lane);
        if (CODES) scale_scores(s, scales.k);
        softmax(&o, s);
        if (CODES) scale_weights(s, scales.v);
        add_values<T, MOST_D, P::LD>(&o, s, v, lane);
        __syncwarp(); // before the next copy goes there
        if (STAGES > 1) stage = into;
    }
    sd_copy_wait<0>();
    __syncwarp();

    float *mine = (float *)(void *)stages; // [SIDE, MOST_D]
    SD_UNROLL
    for (int l = 0; l < 2; l++) {
        o.total[l] += __shfl_xor_sync(SD_ALL_LANES, o.total[l], 1);
        o.total[l] += __shfl_xor_sync(SD_ALL_LANES, o.total[l], 2);
        const int i = lane / 4 + 8 * l;
        SD_UNROLL
        for (int d = 0; d < MOST_D / 8; d++) {
            mine[i * MOST_D + d * 8 + lane % 4 * 2] = o.out[d][2 * l];
            mine[i * MOST_D + d * 8 + lane % 4 * 2 + 1] = o.out[d][2 * l + 1];
        }
        if (lane % 4 == 0) tops[warp * SIDE + i] = o.top[l], totals[warp * SIDE + i] = o.total[l];
    }
    __syncthreads();

    // The warps' sums, in ascending order. A line's partial: D values, their weight, their maximum.
    for (int c = threadIdx.x; c < SIDE * (x.a.D + 1); c += 32 * WARPS) {
        const int i = c / (x.a.D + 1), d = c % (x.a.D + 1);
        line l;
        if (!line_of(&l, x, tile, g, head_tile, i)) continue;
        float top = -INFINITY, total = 0;
        SD_UNROLL
        for (int w = 0; w < WARPS; w++) top = fmaxf(top, tops[w * SIDE + i]);
        const float base = top == -INFINITY ? 0.0f : top;
        SD_UNROLL
        for (int w = 0; w < WARPS; w++) {
            const float *of = (const float *)(void *)(q + SIDE * P::LD + w * P::WARP);
            const float v = d < x.a.D ? of[i * MOST_D + d] : totals[w * SIDE + i];
            total = fmaf(v, sd_exp2(tops[w * SIDE + i] - base), total);
        }
        float *to_partial =
            x.a.partial + (((size_t)l.row * x.a.H + l.head) * x.splits + split) * (x.a.D + 2);
        to_partial[d] = total;
        if (d == x.a.D) to_partial[d + 1] = top;
    }
}

// X(name, type, MOST_D, WARPS, STAGES, CODES): what 99 KB of shared memory hold.
#define ATTENTION_INSTANCES(X)                                                                     \
    X(sd_attention_64_bf16, bf16, 64, 4, 2, false)                                                 \
    X(sd_attention_128_bf16, bf16, 128, 4, 2, false)                                               \
    X(sd_attention_256_bf16, bf16, 256, 4, 1, false)                                               \
    X(sd_attention_64_f32, float, 64, 4, 2, false)                                                 \
    X(sd_attention_128_f32, float, 128, 4, 1, false)                                               \
    X(sd_attention_256_f32, float, 256, 2, 1, false)                                               \
    X(sd_attention_64_bf16_i8, bf16, 64, 4, 1, true)                                               \
    X(sd_attention_128_bf16_i8, bf16, 128, 4, 1, true)                                             \
    X(sd_attention_256_bf16_i8, bf16, 256, 2, 1, true)                                             \
    X(sd_attention_64_f32_i8, float, 64, 4, 1, true)                                               \
    X(sd_attention_128_f32_i8, float, 128, 4, 1, true)                                             \
    X(sd_attention_256_f32_i8, float, 256, 2, 1, true)

#define ATTENTION_KERNEL(name, T, MOST_D, WARPS, STAGES, CODES)                                    \
    SD_KERNEL(32 * WARPS) name(attention_args x) {                                                 \
        attend<T, MOST_D, WARPS, STAGES, CODES>(x);                                                \
    }
ATTENTION_INSTANCES(ATTENTION_KERNEL)

// ---- the splits of a row and head, in ascending order: a block for each, thread i the values i, i + 64, ...

enum { MERGE_THREADS = 64 };

template <class T> SD_DEVICE void merge(const attention_args &x) {
    const int n = blockIdx.y, head = blockIdx.x, D = x.a.D;
    const int to = x.a.pos[n] + 1, from = x.a.window > 0 && to > x.a.window ? to - x.a.window : 0;
    const int first = from / SD_CUDA_SPLIT, last = (to - 1) / SD_CUDA_SPLIT;
    const size_t line = (size_t)n * x.a.H + head;
    const float *partial = x.a.partial + line * x.splits * (D + 2);
    float top = x.a.sinks ? x.a.sinks[head] * 1.44269504f : -INFINITY, total = 0;
    const float sink = top;
    for (int i = first; i <= last; i++) top = fmaxf(top, partial[(size_t)i * (D + 2) + D + 1]);
    if (x.a.sinks) total = sd_exp2(sink - top);
    for (int i = first; i <= last; i++) {
        const float *p = partial + (size_t)i * (D + 2);
        total = fmaf(p[D], sd_exp2(p[D + 1] - top), total);
    }
    for (int d = threadIdx.x; d < D; d += MERGE_THREADS) {
        float sum = 0;
        for (int i = first; i <= last; i++) {
            const float *p = partial + (size_t)i * (D + 2);
            sum = fmaf(p[d], sd_exp2(p[D + 1] - top), sum);
        }
        sd_store((T *)x.a.y + line * D + d, sum / total);
    }
}
SD_KERNEL(MERGE_THREADS) sd_attention_merge_bf16(attention_args x) {
    merge<bf16>(x);
}
SD_KERNEL(MERGE_THREADS) sd_attention_merge_f32(attention_args x) {
    merge<float>(x);
}

extern "C" int sd_cuda_attention_rows(int H, int G) {
    const int heads = H / G < SIDE ? H / G : (int)SIDE;
    return SIDE / heads;
}

static int splits_of(int longest) {
    return (longest + SD_CUDA_SPLIT - 1) / SD_CUDA_SPLIT;
}

extern "C" size_t sd_cuda_attention_floats(int N, int H, int D, int longest) {
    return (size_t)N * H * splits_of(longest) * (D + 2);
}

static int launch_attend(const attention_args &x, sd_cuda_stream *s) {
    const sd_cuda_attention &a = x.a;
    const dim3 grid(x.splits, a.G * x.head_tiles, a.tiles);
#define ATTENTION_LAUNCH(name, T, MOST_D, WARPS, STAGES, CODES)                                    \
    if (sizeof(T) == sd_cuda_real_bytes(a.type) && a.D <= MOST_D && a.kv.codes == CODES) {         \
        const int bytes = Plan<T, MOST_D, WARPS, STAGES, CODES>::BYTES;                            \
        const int status = SD_ALLOW_SHARED(name, bytes);                                           \
        return status ? status : SD_LAUNCH(name, grid, 32 * WARPS, bytes, s, x);                   \
    }
    ATTENTION_INSTANCES(ATTENTION_LAUNCH)
    return SD_CUDA_EINVAL;
}

extern "C" int sd_cuda_attend(const sd_cuda_attention *a, sd_cuda_stream *s) {
    if (!a->y || !a->q || !a->pos || !a->table || !a->tile || !a->partial || a->N < 1 ||
        a->N > 65535 || a->H < 1 || a->G < 1 || a->H % a->G || a->D < 8 || a->D % 8 ||
        a->D > SD_CUDA_MOST_D || a->window < 0 || a->table_ld < 1 || a->tiles < 1 ||
        a->tiles > 65535 || a->longest < 1 || !sd_kv_holds(a->kv, a->G, a->D, a->type))
        return SD_CUDA_EINVAL;
    const int group = a->H / a->G, heads = group < SIDE ? group : (int)SIDE;
    const attention_args x = {*a, splits_of(a->longest), heads, (group + SIDE - 1) / SIDE,
                              SIDE / heads};
    const int status = launch_attend(x, s);
    if (status) return status;
    const dim3 grid(a->H, a->N);
    if (a->type == SD_CUDA_BF16)
        return SD_LAUNCH(sd_attention_merge_bf16, grid, MERGE_THREADS, 0, s, x);
    return SD_LAUNCH(sd_attention_merge_f32, grid, MERGE_THREADS, 0, s, x);
}
