// The operations of inference, as one table chosen at run time: plain C (the reference), AVX2,
// AVX-512, AMX, NEON.
//
// Row invariance is part of every contract here: the bits of a row of a result depend on that row's
// inputs alone, never on N, on the other rows, on the number of threads or on how the work was cut
// into tasks. Hence: activations are quantised row by row; integer dots inside a block, then fp32
// FMA over blocks in ascending K; one fixed reduction shape per row; threads split M, never K.
// Different instruction sets may differ from each other in the last bits; one machine never differs
// from itself.
//
// All functions are serial over the range they are given and may run at the same time on disjoint
// ranges; the caller (model/infer/cpu/forward.c) composes them into parallel regions with sd_pool_run.
//
//     const sd_ops *ops = sd_ops_best();
//     ops->quantize_rows(&rows, x, 0, N);         // once for every matmul that reads x
//     ops->matmul(y, M, &packed, &rows, N, 0, M);
#pragma once

#include "base/status.h"
#include "kernels/tensor.h"

#include <stdatomic.h>

/// Output columns are handed out in groups of SD_TILE_M: the interleave of the packed forms.
/// K types have scales of their own for blocks of 32 below one for SD_QSUPER.
enum { SD_TILE_M = 16, SD_QBLOCK = 32, SD_QSUPER = 256 };

typedef enum {
    SD_COMPUTE_AUTO, // activations int8 against quantised weights, a scale for each 32 k or, where
                     // K types read them, 256; fp32 against F32, F16, BF16
    SD_COMPUTE_FP32  // activations stay fp32; weights at the values the file gives
} sd_compute;

/// A weight laid out for the table's kernels. Values are bit-identical to the stored ones.
typedef struct {
    sd_weight w; // the stored form it came from
    sd_compute compute;
    int layout;                  // the table's own
    void *data;                  // the table's own; NULL: the stored form is used in place
    size_t bytes;                // of data
    struct sd_huge_arena *arena; // where data stands
} sd_packed_weight;

/// Activations ready for matmul: N rows of K. Blocks of k come first, rows within them, so that a
/// kernel that holds a block of weights walks all rows in one stream. Two blocks of codes stand
/// together: 64 bytes are a row of a matrix unit's operand.
typedef struct {
    sd_compute compute;
    int K, ld;       // ld: rows from a block to the next
    int group;       // k that share a scale: SD_QBLOCK, or SD_QSUPER as K types need
    const float *x;  // [N, K] the rows themselves (fp32 paths read these)
    int8_t *q;       // [pairs of blocks, ld, 64], and SD_QUANT_ROWS_SPARE rows that may be read
    float *scale;    // [blocks, ld]
    float *sum;      // [blocks, ld]           scale * sum of q, for types with a minimum
    int16_t *isum;   // [pairs of blocks, ld, 2]  sum of q
    int16_t *isum16; // [blocks, ld, 2]        the same by 16
    uint32_t *bsum;  // [blocks / 8, ld, 16]   isum16 as the sum of two bf16, for matrix units;
                     // and SD_QUANT_ROWS_SPARE rows
} sd_quant_rows;
enum {
    SD_QPAIR = 2 * SD_QBLOCK, // codes from a row to the next
    SD_QUANT_ROWS_SPARE = 16
};

/// Buffers for up to cap_n rows of up to K inputs, shaped for just these.
sd_status sd_quant_rows_init(sd_quant_rows *a, int cap_n, int K, sd_compute compute, sd_error *err);
/// Bytes of these buffers; SIZE_MAX where they cannot be counted.
size_t sd_quant_rows_bytes(int cap_n, int K, sd_compute compute);
/// Before quantize_rows: the same buffers for N rows of K, neither more than at init. group: the largest
/// that a weight which reads the rows asks for (sd_quant_rows_group).
void sd_quant_rows_shape(sd_quant_rows *a, int N, int K, int group);
/// The k that must share a scale for weights of type t.
int sd_quant_rows_group(sd_dtype t);
void sd_quant_rows_free(sd_quant_rows *a);
/// Where block b of row n stands.
static inline size_t sd_quant_rows_at(const sd_quant_rows *a, int n, int b) {
    return (size_t)b * (size_t)a->ld + (size_t)n;
}
/// Its codes; those of the next row are SD_QPAIR further.
static inline int8_t *sd_quant_rows_codes(const sd_quant_rows *a, int n, int b) {
    return a->q + sd_quant_rows_at(a, n, b / 2) * SD_QPAIR + b % 2 * SD_QBLOCK;
}
/// Its sum; that of the next row is 2 further.
static inline int16_t *sd_quant_rows_isum(const sd_quant_rows *a, int n, int b) {
    return a->isum + 2 * sd_quant_rows_at(a, n, b / 2) + b % 2;
}

/// The rows from n0 on: a view of the same buffers.
static inline sd_quant_rows sd_quant_rows_from(const sd_quant_rows *a, int n0) {
    sd_quant_rows v = *a;
    const size_t n = (size_t)n0;
    v.x = a->x ? a->x + n * (size_t)a->K : NULL;
    if (!a->q) return v;
    v.q += n * SD_QPAIR, v.scale += n, v.sum += n;
    v.isum += 2 * n, v.isum16 += 2 * n, v.bsum += 16 * n;
    return v;
}

/// How keys and values are kept. auto: what the table reads fastest (its `kv`). int8: codes of
/// [-127, 127], one scale for the D values of a position and kv head, so that a position's bits are
/// its own.
typedef enum { SD_KV_AUTO, SD_KV_F16, SD_KV_BF16, SD_KV_INT8, SD_KV_F32, SD_KV_TYPES } sd_kv_type;
#define SD_KV_CHOICES "auto|f16|bf16|int8"
const char *sd_kv_name(sd_kv_type t);
static inline size_t sd_kv_value_bytes(sd_kv_type t) {
    return t == SD_KV_F32 ? 4 : t == SD_KV_INT8 ? 1 : 2;
}

typedef struct {
    int H, G, D; // query heads, kv heads, head size; H a multiple of G
    float scale; // of the scores: 1/sqrt(D) as a rule
    sd_kv_type kv;
    int window; // positions that a row sees, its own included; 0: all below it
} sd_attention_shape;

/// The first position that a row of len positions sees under a window.
static inline int sd_attention_first(int window, int len) {
    return window > 0 && len > window ? len - window : 0;
}

/// Positions that one call of attention covers. Long contexts are split into these, so that a single
/// row gives work to many threads (flash-decoding's split of keys and values). A row's result is the
/// merge of its splits in ascending order, whichever threads computed them.
enum { SD_KV_SPLIT = 512 };

/// Keys and values of a sequence lie in pages of so many positions, in any order in memory. It is
/// the block of keys that attention works by, so that pages change no arithmetic.
enum { SD_KV_PAGE = 64 };

/// Query rows of one sequence and the kv head whose heads are computed.
typedef struct {
    const float *q; // [N, H * D]
    const int *len; // [N] positions that each row sees, ascending
    int N;
    int g; // the kv head
    const char *layer;
    size_t page_bytes;       // page number i is looked for at layer + i * page_bytes
    const int32_t *page;     // the sequence's pages, [ceil(len / SD_KV_PAGE)] for the largest len;
                             // those of which no row sees a position are never looked at
    size_t k, v;             // how far behind that the head's [SD_KV_PAGE, D] begin, in bytes
    size_t k_scale, v_scale; // likewise its float [SD_KV_PAGE], under SD_KV_INT8
} sd_attention_rows;

/// The page of position t0.
static inline const char *sd_attention_page(const sd_attention_rows *r, int t0) {
    return r->layer + (size_t)r->page[t0 / SD_KV_PAGE] * r->page_bytes;
}

typedef void (*sd_matmul_fn)(float *y, int ldy, const sd_packed_weight *w, const sd_quant_rows *x,
                             int N, int m0, int m1);

typedef struct sd_ops {
    const char *name; // "plain", "avx2", "avx512", "amx", "neon"

    int layout; // of the packed form, and its version: what is kept on disk is bound to it; 0: the
                // stored form is used in place
    sd_kv_type kv; // f16 or bf16: the one of two bytes a value that its attention reads faster
    /// Bytes of w's packed form; 0 when it has none.
    size_t (*pack_bytes)(const sd_weight *w);
    /// Lays w out for `compute`. Freed with sd_packed_weight_free. Serial; thread-safe on different
    /// weights. SD_EINTERRUPTED soon after *stop is set; stop may be NULL.
    sd_status (*pack)(sd_packed_weight *out, const sd_weight *w, sd_compute compute,
                      const atomic_bool *stop, sd_error *err);

    /// a->q, scale, sum rows [n0, n1) <- x [N, a->K]; also sets a->x = x. Under fp32 only a->x is
    /// set.
    void (*quantize_rows)(sd_quant_rows *a, const float *x, int n0, int n1);

    /// y[n*ldy + m] <- sum_k x_n[k] w_m[k] for n < N, m0 <= m < m1. m0 is a multiple of SD_TILE_M;
    /// m1 too, or the number of rows.
    sd_matmul_fn matmul;
    /// The same added to y. w of F32, F16 or BF16.
    sd_matmul_fn matmul_add;

    /// y [N, C] <- x / sqrt(mean(x^2) + eps) * w. y may be x.
    void (*rmsnorm)(float *y, const float *x, const float *w, int N, int C, float eps);

    /// x [D] <- rotated by position. cos, sin: [rot/2] of that position. interleaved: pairs (2i,
    /// 2i+1), else (i, i + rot/2).
    void (*rope)(float *x, const float *cos, const float *sin, int D, int rot, bool interleaved);

    /// y [n] <- silu(gate) * up. y may be gate. Any cut of the range gives the same bits.
    void (*swiglu)(float *y, const float *gate, const float *up, int n);
    /// y [n] <- gelu(gate) * up with gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the
    /// tanh form of arXiv:1606.08415. y may be gate. Any cut of the range gives the same bits.
    void (*geglu)(float *y, const float *gate, const float *up, int n);

    /// y [n] += x.
    void (*add)(float *y, const float *x, int n);

    /// partial [N, H/G, sd_attention_partial(shape)] <- partial attention of rows r over split number
    /// `split`: SD_KV_SPLIT positions, or those of them that a row sees; the caller gives only rows
    /// that see some. A head's partial holds the sum of e^(score - top) v [D], the sum of
    /// e^(score - top), and top. Key blocks are counted from position 0 and follow each other in
    /// ascending order; what lies before a row's window is never read. scratch:
    /// attention_scratch(shape, N) floats.
    void (*attention)(float *partial, const sd_attention_rows *r, int split,
                      const sd_attention_shape *shape, float *scratch);
    /// Floats of scratch for N rows.
    size_t (*attention_scratch)(const sd_attention_shape *shape, int N);

    /// y [n] <- x in fp16 or bf16, to the nearest, ties to even.
    void (*to_f16)(uint16_t *y, const float *x, int n);
    void (*to_bf16)(uint16_t *y, const float *x, int n);

    /// q [n] <- x / scale to the nearest, ties to even; returns scale = max|x| / 127. All zero
    /// below 1e-30; a scale of NaN where x is not finite.
    float (*quantize_i8)(int8_t *q, const float *x, int n);
} sd_ops;

/// The fastest table this processor runs. SPECDEC_ISA=plain|avx2|avx512|amx|neon in the environment
/// forces one (for tests); NULL never.
const sd_ops *sd_ops_best(void);
/// By name; NULL when this processor or build lacks it.
const sd_ops *sd_ops_named(const char *name);

void sd_packed_weight_free(sd_packed_weight *p);
size_t sd_attention_partial(const sd_attention_shape *shape); // floats of one head
int sd_attention_splits(int len);                             // that a row of len sees
/// total <- total and partial together: both of one head, partial from later positions.
void sd_attention_merge(float *total, const float *partial, int D);
/// out [D] <- the weighted mean.
void sd_attention_finish(float *out, const float *total, int D);
