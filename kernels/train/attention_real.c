// Causal attention of one segment by blocks of queries: the scores of a block against all keys up
// to its last row fit in L2, the softmax is exact over the whole row, and only its log-sum is kept;
// the backward pass makes the probabilities again from it. A packed row is several calls, one per
// segment: what would be masked is never computed.
#include "kernels/train/ops.h"

#include "kernels/train/simd_reduce.h"

enum { BLOCK = 64 }; // queries of a block

size_t sd_causal_scratch(int T, int D) {
    (void)D;
    return 2 * (size_t)BLOCK * T;
}

// One block's scores to probabilities: row i sees keys [0, q0 + i], the rest of the block is 0.
SD_CLONES static void softmax_block(real *S, real *lse, int n, int keys, int q0, int ld_lse) {
    for (int i = 0; i < n; i++, S += keys) {
        int seen = q0 + i + 1;
        real max = sd_max_lanes(S, seen);
        for (int k = 0; k < seen; k++) S[k] = sd_exp(S[k] - max);
        real sum = sd_sum_lanes(S, seen), inverse = 1 / sum;
        for (int k = 0; k < seen; k++) S[k] *= inverse;
        for (int k = seen; k < keys; k++) S[k] = 0;
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
            int n = T - q0 < BLOCK ? T - q0 : BLOCK, keys = q0 + n;
            sd_gemm(false, true, n, keys, D, a->scale, q + (size_t)q0 * ld, ld, k, ld, 0, scratch,
                    keys);
            softmax_block(scratch, lse + (size_t)q0 * a->H + h, n, keys, q0, a->H);
            sd_gemm(false, false, n, D, keys, 1, scratch, keys, v, ld, 0,
                    out + ((size_t)q0 * a->H + h) * D, a->H * D);
        }
    }
}

// P <- exp(S - lse) inside the causal triangle, 0 outside.
SD_CLONES static void probabilities(real *S, const real *lse, int n, int keys, int q0, int ld_lse) {
    for (int i = 0; i < n; i++, S += keys) {
        int seen = q0 + i + 1;
        real shift = lse[(size_t)i * ld_lse];
        for (int k = 0; k < seen; k++) S[k] = sd_exp(S[k] - shift);
        for (int k = seen; k < keys; k++) S[k] = 0;
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
            int n = T - q0 < BLOCK ? T - q0 : BLOCK, keys = q0 + n;
            const real *q = qkv + (size_t)q0 * ld + h * D;
            size_t at = ((size_t)q0 * a->H + h) * D;
            sd_gemm(false, true, n, keys, D, a->scale, q, ld, k, ld, 0, P, keys);
            probabilities(P, lse + (size_t)q0 * a->H + h, n, keys, q0, a->H);
            sd_gemm(true, false, keys, D, n, 1, P, keys, dout + at, ld_out, 1, dv, ld);
            sd_gemm(false, true, n, keys, D, 1, dout + at, ld_out, v, ld, 0, dP, keys);
            score_gradient(dP, P, dout + at, out + at, n, keys, D, ld_out);
            sd_gemm(false, false, n, D, keys, a->scale, dP, keys, k, ld, 0,
                    dqkv + (size_t)q0 * ld + h * D, ld);
            sd_gemm(true, false, keys, D, n, a->scale, dP, keys, q, ld, 1, dk, ld);
        }
    }
}
