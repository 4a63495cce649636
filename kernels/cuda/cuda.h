// The CUDA kernels' launchers: operations over memory of the device, which know no model.
//
//     // 0, or CUDA's error number (1: an argument is wrong)
//     sd_cuda_rmsnorm(y, x, w, N, C, eps, SD_CUDA_BF16, stream);
//
// All pointers are to the device's memory unless they say otherwise. A launcher queues its work on the stream
// and returns; nothing is allocated. Activations that enter a matrix product are bf16 or fp32 (sd_cuda_real);
// everything else is fp32. N is the number of rows, tokens in flight.
//
// Row invariance holds as on the CPU (kernels/ops.h): the bits of a row of a result depend on that row's
// inputs alone. So sums have one fixed order each, K is split by K alone, and no atomics add floats.
//
// kernels/cuda/README.md says of each kernel how threads map to data, what it moves and how long it must take.
#pragma once

#include "kernels/cuda/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sd_cuda_stream sd_cuda_stream; // a cudaStream_t
typedef enum { SD_CUDA_BF16, SD_CUDA_F32 } sd_cuda_real;
enum { SD_CUDA_OK = 0, SD_CUDA_EINVAL = 1 };
enum { SD_CUDA_PAGE = 64 }; // positions of a page of keys and values: SD_KV_PAGE
static inline size_t sd_cuda_real_bytes(sd_cuda_real t) {
    return t == SD_CUDA_BF16 ? 2 : 4;
}

// ---- rows (rows.cu)

/// y [N, C] of `type` <- x / sqrt(mean(x^2) + eps) * w. x [N, C], w [C] fp32.
int sd_cuda_rmsnorm(void *y, const float *x, const float *w, int N, int C, float eps,
                    sd_cuda_real type, sd_cuda_stream *s);
/// x [N, C] += the same norm of d [N, C]: what a block adds where its sum is normed first. fp32.
int sd_cuda_rmsnorm_add(float *x, const float *d, const float *w, int N, int C, float eps,
                        sd_cuda_stream *s);
/// y [N, F] of `type` <- act(gate) * up, each [N, F] fp32 in rows of ld floats. gelu: tanh form
/// (arXiv:1606.08415), else SiLU.
int sd_cuda_glu(void *y, const float *gate, const float *up, int N, int F, int ld, bool gelu,
                sd_cuda_real type, sd_cuda_stream *s);
/// x [n] += d.
int sd_cuda_add(float *x, const float *d, size_t n, sd_cuda_stream *s);
/// q [N, K] int8 <- x / scale to the nearest, ties to even; scale [N, K / group] <- max |x| / 127 of each group of
/// K: 0 below 1e-30, NaN where an x is not finite (all codes 0 then). K a multiple of group, group of 32.
int sd_cuda_quantize(int8_t *q, float *scale, const float *x, int N, int K, int group,
                     sd_cuda_stream *s);

/// Where a layer's keys and values lie. A page has keys and values [G, SD_CUDA_PAGE, D] each, of an operation's `type`, or int8 codes, each
/// position and head with a scale: value = scale * code.
typedef struct {
    void *layer;       // its pages
    size_t page_bytes; // from a page to the next
    size_t k, v;       // how far into a page its keys and values begin
    bool
        codes; // they are; then k, v, and the scales [G, SD_CUDA_PAGE] fp32 begin at multiples of 16
    size_t k_scale, v_scale;
} sd_cuda_kv;
/// Whether its parts lie within a page, where heads of D values have G kv heads.
static inline bool sd_kv_holds(sd_cuda_kv kv, int G, int D, sd_cuda_real type) {
    const size_t rows = (size_t)G * SD_CUDA_PAGE,
                 all = rows * (size_t)D * (kv.codes ? 1 : sd_cuda_real_bytes(type)),
                 scales = kv.codes ? rows * sizeof(float) : 0;
    if (!kv.layer || kv.k + all > kv.page_bytes || kv.v + all > kv.page_bytes) return false;
    return !kv.codes ||
           (kv.k_scale + scales <= kv.page_bytes && kv.v_scale + scales <= kv.page_bytes &&
            (kv.page_bytes | kv.k | kv.v | kv.k_scale | kv.v_scale) % 16 == 0);
}

// ---- rotary embedding (rope.cu)

/// Rows of heads behind the product with Wq, Wk and Wv, and where they go.
typedef struct {
    const float *qkv; // [N, (H + 2 G) * D] fp32: q of all heads, then k, then v
    int N, H, G, D;
    const float *q_norm, *k_norm; // [D] of each head, before it turns (QK-norm); NULL: none
    float eps;
    // [positions, rot / 2] fp32: every scaling of the frequencies stands in them (sd_rope_frequencies). The
    // first rot values of a head turn: as pairs (2 i, 2 i + 1) where interleaved, else (i, i + rot / 2).
    const float *cos, *sin;
    int rot;
    bool interleaved;
    const int32_t *pos; // [N]
    const int32_t
        *table; // [N, table_ld]: the page of position p of row n is table[n, p / SD_CUDA_PAGE]
    int table_ld;
    sd_cuda_kv kv;
    // [G, D] powers of two: the channels of a kv head's keys are divided by them, those of its queries multiplied, behind the
    // rotation; NULL: nothing is. They level keys that become codes.
    const float *key_scale;
    void *q; // [N, H, D] of `type`
    sd_cuda_real type;
} sd_cuda_rope;
/// q <- the rotated queries; the pages <- the rotated keys, and the values as they are, or the codes of both.
int sd_cuda_rope_store(const sd_cuda_rope *a, sd_cuda_stream *s);

// ---- matrix products of few rows (matmul.cu)

/// y [N, ldy], its first M of a row, <- W x + bias, or += where add. x [N, K] of `type`, K a multiple of 4; bias [M],
/// NULL: none. Under SD_CUDA_BF16 the weights have the values of the file, and sums are fp32; under SD_CUDA_F32 x does
/// not lose anything either.
int sd_cuda_matmul(float *y, int ldy, const sd_cuda_weight *w, const void *x, int N,
                   const float *bias, bool add, sd_cuda_real type, sd_cuda_stream *s);
/// x [N, K] <- rows id[n] of W, times scale. An id outside [0, M) gives zeros.
int sd_cuda_embedding(float *x, const sd_cuda_weight *w, const int32_t *id, int N, float scale,
                      sd_cuda_stream *s);
/// y [rows, K] of `type` <- rows [m0, m0 + rows) of W, for products of many rows. m0 a multiple of SD_CUDA_TILE_M.
int sd_cuda_dequantise(void *y, const sd_cuda_weight *w, int m0, int rows, sd_cuda_real type,
                       sd_cuda_stream *s);

// ---- LoRA (lora.cu)

/// An adapter's factors of one linear map.
typedef struct {
    const float *A; // [r, K]
    const float *B; // [M, r]
    int r;
    float scale;
} sd_cuda_lora;
/// u [N, ldu], its first r of a row, <- scale * A x of adapter which[n]; rows with which[n] < 0 are left as they are.
/// adapters: in device memory; x [N, K] of `type`; most_r: the largest r among them.
int sd_cuda_lora_shrink(float *u, int ldu, const sd_cuda_lora *adapters, const int32_t *which,
                        const void *x, int N, int K, int most_r, sd_cuda_real type,
                        sd_cuda_stream *s);
/// y [N, ldy], its first M of a row, += B u of adapter which[n].
int sd_cuda_lora_expand(float *y, int ldy, const sd_cuda_lora *adapters, const int32_t *which,
                        const float *u, int ldu, int N, int M, sd_cuda_stream *s);

// ---- attention over pages (attention.cu)

enum {
    SD_CUDA_SPLIT = 512, // positions that a block of threads covers: SD_KV_SPLIT
    SD_CUDA_MOST_D = 256
};
/// Query rows of one sequence that go together, rows with ascending positions. Up to sd_cuda_attention_rows of them.
typedef struct {
    int32_t first, rows;
} sd_cuda_row_tile;
typedef struct {
    void *y;        // [N, H, D] of `type`
    const void *q;  // [N, H, D] of `type`
    int N, H, G, D; // H a multiple of G; D a multiple of 8, at most SD_CUDA_MOST_D
    float scale;    // of the scores
    int window;     // positions that a row sees, its own included; 0: all below it
    const float
        *sinks; // [H] a score for each head that takes weight and gives no value; NULL: none
    const int32_t *pos; // [N]
    const int32_t
        *table; // as in sd_cuda_rope; pages of which no row sees a position are never looked at
    int table_ld;
    sd_cuda_kv kv;
    const sd_cuda_row_tile
        *tile; // [tiles] in device memory; every row stands in one, and some may have none
    int tiles;
    int longest;    // positions that some row may see, at most
    float *partial; // [sd_cuda_attention_floats] scratch
    sd_cuda_real type;
} sd_cuda_attention;
/// Rows of one sequence that may share a tile.
int sd_cuda_attention_rows(int H, int G);
size_t sd_cuda_attention_floats(int N, int H, int D, int longest);
/// y <- softmax(scale * q k) v over the positions that each row sees. Splits of positions are counted from 0, so a
/// row's bits do not depend on its company.
int sd_cuda_attend(const sd_cuda_attention *a, sd_cuda_stream *s);

// ---- tokens (sample.cu)

/// How a row's token is picked (sd_sampling, and what of sd_shaping is a set). In device memory.
typedef struct {
    float temperature; // 0: greedy
    int top_k;         // 0: off
    float top_p;       // 1: off
    bool has_min_p;
    double log_min_p; // temperature * log(min_p), by the host
    uint64_t seed;
    uint32_t choice;
    uint32_t position;                      // of the token that is picked
    const uint32_t *allowed, *also_allowed; // [(V + 31) / 32] bits; NULL: all
} sd_cuda_pick;
/// token [N] <- of logits [N, V]: those that sd_sample picks; -1 where the logits are no law, or none is allowed.
int sd_cuda_sample(int32_t *token, const float *logits, const sd_cuda_pick *pick, int N, int V,
                   sd_cuda_stream *s);
/// accepted [n] <- how many drafted tokens of each sequence are the picked ones. Its rows stand together: the row of
/// its last token, then a row for each drafted one. token: what the rows hold, picked: what was picked behind them.
int sd_cuda_accept(int32_t *accepted, const int32_t *picked, const int32_t *token,
                   const sd_cuda_row_tile *rows, int n, sd_cuda_stream *s);

#ifdef __cplusplus
}
#endif
