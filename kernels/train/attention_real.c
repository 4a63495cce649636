// Causal attention of one segment by blocks of queries: the scores of a block against all keys up
// to its last row fit in L2, the softmax is exact over the whole row, and only its log-sum is kept;
// the backward pass makes the probabilities again from it. A packed row is several calls, one per
// segment: what would be masked is never computed. Under a window a block meets the keys from the
// first that its first row sees.
#include "kernels/train/ops.h"

#include "kernels/train/simd_reduce.h"

enum { BLOCK = 64 }; // queries of a block

size_t sd_causal_scratch(int T, int D) {
    (void)D;
    return 2 * (size_t)BLOCK * T;
}

// Rows [q0, q0 + n) and the keys [k0, k0 + keys) that some of them see.
typedef struct {
    int q0, n, k0, keys, window;
} block;

static int first_seen(int row, int window) {
    return window > 0 && row >= window ? row + 1 - window : 0;
}

static block block_at(int q0, int T, const sd_causal *a) {
    int n = T - q0 < BLOCK ? T - q0 : BLOCK, k0 = first_seen(q0, a->window);
    return (block){q0, n, k0, q0 + n - k0, a->window};
}

// Row i of the block sees its keys [*from, *to).
SD_INLINE void keys_of(const block *b, int i, int *from, int *to) {
    *from = first_seen(b->q0 + i, b->window) - b->k0;
    *to = b->q0 + i + 1 - b->k0;
}

SD_INLINE void zero_the_rest(real *S, int from, int to, int keys) {
    for (int k = 0; k < from; k++) S[k] = 0;
    for (int k = to; k < keys; k++) S[k] = 0;
}

// One block's scores to probabilities; what a row does not see is 0.
SD_CLONES static void softmax_block(real *S, real *lse, const block *b, int ld_lse) {
    for (int i = 0; i < b->n; i++, S += b->keys) {
        int from, to;
        keys_of(b, i, &from, &to);
        real max = sd_max_lanes(S + from, to - from);
        for (int k = from; k < to; k++) S[k] = sd_exp(S[k] - max);
        real sum = sd_sum_lanes(S + from, to - from), inverse = 1 / sum;
        for (int k = from; k < to; k++) S[k] *= inverse;
        zero_the_rest(S, from, to, b->keys);
        lse[(size_t)i * ld_lse] = max + (real)log((double)sum);
    }
}

void sd_causal_forward(real *out, real *lse, const real *qkv, int T, int h0, int h1,
                       const sd_causal *a, real *scratch) {
    int D = a->D, ld = (a->H + 2 * a->G) * D;
    for (int h = h0; h < h1; h++) {
        int g = h / (a->H / a->G);
        const real *q = qkv + h * D, *k = qkv + (a->H + g) * D, *v = qkv + (a->H + a->G + g) * D;
        for (int q0 = 0; q0 < T; q0 += BLOCK) {
            const block b = block_at(q0, T, a);
            const size_t from = (size_t)b.k0 * ld;
            sd_gemm(false, true, b.n, b.keys, D, a->scale, q + (size_t)q0 * ld, ld, k + from, ld, 0,
                    scratch, b.keys);
            softmax_block(scratch, lse + (size_t)q0 * a->H + h, &b, a->H);
            sd_gemm(false, false, b.n, D, b.keys, 1, scratch, b.keys, v + from, ld, 0,
                    out + ((size_t)q0 * a->H + h) * D, a->H * D);
        }
    }
}

// P <- exp(S - lse) where the row sees the key, 0 elsewhere.
SD_CLONES static void probabilities(real *S, const real *lse, const block *b, int ld_lse) {
    for (int i = 0; i < b->n; i++, S += b->keys) {
        int from, to;
        keys_of(b, i, &from, &to);
        real shift = lse[(size_t)i * ld_lse];
        for (int k = from; k < to; k++) S[k] = sd_exp(S[k] - shift);
        zero_the_rest(S, from, to, b->keys);
    }
}

// dS <- P (dP - delta), delta_i = dout_i . out_i = sum over k of P dP.
SD_CLONES static void score_gradient(real *dP, const real *P, const real *dout, const real *out,
                                     int n, int keys, int D, int ld_out) {
    for (int i = 0; i < n; i++, dP += keys, P += keys, dout += ld_out, out += ld_out) {
        real delta = sd_dot_lanes(dout, out, D);
        SD_ELEMENTWISE
        for (int k = 0; k < keys; k++) dP[k] = P[k] * (dP[k] - delta);
    }
}

void sd_causal_backward(real *dqkv, const real *dout, const real *out, const real *lse,
                        const real *qkv, int T, int g, const sd_causal *a, real *scratch) {
    int D = a->D, ld = (a->H + 2 * a->G) * D, per = a->H / a->G, ld_out = a->H * D;
    size_t at_k = (size_t)(a->H + g) * D, at_v = (size_t)(a->H + a->G + g) * D;
    const real *k = qkv + at_k, *v = qkv + at_v;
    real *dk = dqkv + at_k, *dv = dqkv + at_v;
    for (int t = 0; t < T; t++) {
        memset(dk + (size_t)t * ld, 0, sizeof(real) * (size_t)D);
        memset(dv + (size_t)t * ld, 0, sizeof(real) * (size_t)D);
    }
    real *P = scratch, *dP = scratch + (size_t)BLOCK * T;
    for (int h = g * per; h < (g + 1) * per; h++) {
        for (int q0 = 0; q0 < T; q0 += BLOCK) {
            const block b = block_at(q0, T, a);
            const int n = b.n, keys = b.keys;
            const real *q = qkv + (size_t)q0 * ld + h * D;
            size_t at = ((size_t)q0 * a->H + h) * D, from = (size_t)b.k0 * ld;
            sd_gemm(false, true, n, keys, D, a->scale, q, ld, k + from, ld, 0, P, keys);
            probabilities(P, lse + (size_t)q0 * a->H + h, &b, a->H);
            sd_gemm(true, false, keys, D, n, 1, P, keys, dout + at, ld_out, 1, dv + from, ld);
            sd_gemm(false, true, n, keys, D, 1, dout + at, ld_out, v + from, ld, 0, dP, keys);
            score_gradient(dP, P, dout + at, out + at, n, keys, D, ld_out);
            sd_gemm(false, false, n, D, keys, a->scale, dP, keys, k + from, ld, 0,
                    dqkv + (size_t)q0 * ld + h * D, ld);
            sd_gemm(true, false, keys, D, n, a->scale, dP, keys, q, ld, 1, dk + from, ld);
        }
    }
}
