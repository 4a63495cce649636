// The operations of training, forward and backward, over `real` (kernels/train/real.h): float in the
// library, double where gradients are checked against central differences.
//
// Each is serial over the rows, columns or heads it is given and may run at the same time on
// disjoint ones; the caller cuts the work into tasks that do not depend on the number of threads.
// Inside a row every sum has one fixed order. Frozen weights have no gradient; `dx +=` accumulates.
//
// RMSNorm: arXiv:1910.07467. RoPE: arXiv:2104.09864. SwiGLU, GeGLU: arXiv:2002.05202. Attention by blocks
// with the row's log-sum kept: arXiv:2205.14135. LoRA: arXiv:2106.09685.
#pragma once

#include "kernels/train/gemm.h"
#include "kernels/train/gemm_packed.h"

#include <stddef.h>

#define sd_rmsnorm SD_REAL(sd_rmsnorm)
#define sd_rmsnorm_backward SD_REAL(sd_rmsnorm_backward)
#define sd_headnorm SD_REAL(sd_headnorm)
#define sd_headnorm_backward SD_REAL(sd_headnorm_backward)
#define sd_bias SD_REAL(sd_bias)
#define sd_rope SD_REAL(sd_rope)
#define sd_rope_backward SD_REAL(sd_rope_backward)
#define sd_swiglu SD_REAL(sd_swiglu)
#define sd_swiglu_backward SD_REAL(sd_swiglu_backward)
#define sd_geglu SD_REAL(sd_geglu)
#define sd_geglu_backward SD_REAL(sd_geglu_backward)
#define sd_causal SD_REAL(sd_causal)
#define sd_causal_forward SD_REAL(sd_causal_forward)
#define sd_causal_backward SD_REAL(sd_causal_backward)
#define sd_causal_scratch SD_REAL(sd_causal_scratch)
#define sd_frozen SD_REAL(sd_frozen)
#define sd_frozen_rows SD_REAL(sd_frozen_rows)
#define sd_frozen_columns SD_REAL(sd_frozen_columns)
#define sd_linear_stack SD_REAL(sd_linear_stack)
#define sd_linear_part SD_REAL(sd_linear_part)
#define sd_linear_forward SD_REAL(sd_linear_forward)
#define sd_linear_backward SD_REAL(sd_linear_backward)
#define sd_linear_down SD_REAL(sd_linear_down)
#define sd_linear_grad_a SD_REAL(sd_linear_grad_a)
#define sd_linear_grad_b SD_REAL(sd_linear_grad_b)
#define sd_head_rows SD_REAL(sd_head_rows)
#define sd_head_begin SD_REAL(sd_head_begin)
#define sd_head_chunk SD_REAL(sd_head_chunk)
#define sd_head_finish SD_REAL(sd_head_finish)
#define sd_exp_rows SD_REAL(sd_exp_rows)

// ---- rows

/// y [N, C] <- x rstd w with rstd_n = 1/sqrt(mean(x_n^2) + eps), w [C]. y may be x. rstd [N] is
/// kept for the backward pass; NULL: not wanted.
void sd_rmsnorm(real *y, real *rstd, const real *x, const float *w, int N, int C, real eps);
/// dx [N, C] += the gradient through the norm.
void sd_rmsnorm_backward(real *dx, const real *dy, const real *x, const float *w, const real *rstd,
                         int N, int C);

/// QK-norm, in place: RMSNorm of each of the `heads` vectors of D that stand side by side in a row
/// of stride ld; w [D]. rstd: `heads` of each row, stride ld_rstd.
void sd_headnorm(real *x, int ld, real *rstd, int ld_rstd, const float *w, int N, int heads, int D,
                 real eps);
/// d <- the gradient of the norm's input, in place of the output's (stride ld). x: that input, of
/// stride ld_x.
void sd_headnorm_backward(real *d, int ld, const real *x, int ld_x, const real *rstd, int ld_rstd,
                          const float *w, int N, int heads, int D);

/// x [N, M] of stride ld += b [M].
void sd_bias(real *x, int ld, const float *b, int N, int M);

/// Rotates the first `rot` of each head's D by the row's position: x [N, heads*D] of stride ld;
/// cosine, sine [positions, rot/2]; interleaved: pairs (2i, 2i+1), else (i, i + rot/2).
void sd_rope(real *x, int ld, const real *cosine, const real *sine, const int32_t *pos, int N,
             int heads, int D, int rot, bool interleaved);
/// The transpose of it, on the gradient.
void sd_rope_backward(real *dx, int ld, const real *cosine, const real *sine, const int32_t *pos,
                      int N, int heads, int D, int rot, bool interleaved);

/// y [N, F] <- silu(gate) * up; gu [N, 2F] holds gate, then up, in each row.
void sd_swiglu(real *y, const real *gu, int N, int F);
/// dgu [N, 2F] <- the gradient; y [N, F] <- the activation again (its adapter's gradient needs it);
/// dy may be y.
void sd_swiglu_backward(real *dgu, real *y, const real *dy, const real *gu, int N, int F);

/// y [N, F] <- gelu(gate) * up, gelu in its tanh form (kernels/ops.h); gu as sd_swiglu's.
void sd_geglu(real *y, const real *gu, int N, int F);
/// As sd_swiglu_backward.
void sd_geglu_backward(real *dgu, real *y, const real *dy, const real *gu, int N, int F);

/// y [n] <- exp(x [n] - shift); y may be x. Float: within 2 ulp, below -87 the result is 1.6e-38 or
/// less.
void sd_exp_rows(real *y, const real *x, real shift, int n);

// ---- causal attention of one segment

typedef struct {
    int H, G, D; // query heads, kv heads, head size; H a multiple of G
    real scale;  // of the scores: 1/sqrt(D) as a rule
    int window;  // rows that a row sees, its own included; 0: all up to it
} sd_causal;

/// The heads [h0, h1) of T rows: qkv [T, (H+2G)*D] holds q, k, v of each row; out [T, H*D] <-
/// softmax(scale q k^T) v over the rows that it sees; lse [T, H] <- log of the row's sum of exp.
/// scratch: sd_causal_scratch(T, D) reals.
void sd_causal_forward(real *out, real *lse, const real *qkv, int T, int h0, int h1,
                       const sd_causal *a, real *scratch);
/// dqkv <- the gradient of q of the heads of kv head g, and of k and v of g. Tasks may run on
/// different g.
void sd_causal_backward(real *dqkv, const real *dout, const real *out, const real *lse,
                        const real *qkv, int T, int g, const sd_causal *a, real *scratch);
size_t sd_causal_scratch(int T, int D);

// ---- frozen matrices

/// W [M, K]: as rows (the double build), or packed by kernels/train/gemm_packed.h for the products in use.
typedef struct {
    const real *rows;                 // [M, K]; NULL when packed
    const void *by_rows, *by_columns; // packed forward, packed backward; what is not used is NULL
    const sd_gemm_packed *gemm;
    void *scratch; // the worker's, SD_GEMM_SCRATCH bytes
} sd_frozen;

/// y [N, ldy] <- x [N, ldx] W^T; add: += .
void sd_frozen_rows(real *y, int ldy, const real *x, int ldx, int N, const sd_frozen *W, int M,
                    int K, bool add);
/// y [N, ldy] <- x [N, ldx] W; add: += .
void sd_frozen_columns(real *y, int ldy, const real *x, int ldx, int N, const sd_frozen *W, int M,
                       int K, bool add);

// ---- linear maps with LoRA: y = x W^T + s u B^T, u = x A^T
//
// Maps that read the same x (q, k, v; gate, up) stand stacked: W's rows below each other, A's too.

typedef struct {
    int row, rows; // its outputs inside the stack
    int r, u;      // rank (0: no adapter) and first column inside u [N, R]
    real s;        // scale
    const real *B; // [rows, r]
} sd_linear_part;

typedef struct {
    int in, out;   // of the stack
    sd_frozen W;   // [out, in]
    const real *A; // [R, in]; NULL when R is 0
    int R;         // sum of the parts' ranks
    int n_parts;
    sd_linear_part part[3];
} sd_linear_stack;

/// y [N, ldy >= out] <- x [N, in] W^T + sum of s u B^T; u [N, R] <- x A^T. add: y += instead of <-.
void sd_linear_forward(real *y, int ldy, real *u, const real *x, int N, const sd_linear_stack *l,
                       bool add);
/// du [N, R] <- s dy B.
void sd_linear_down(real *du, const real *dy, int ldy, int N, const sd_linear_stack *l);
/// dx [N, in] <- dy [N, ldy] W + du A.
void sd_linear_backward(real *dx, const real *dy, int ldy, const real *du, int N,
                        const sd_linear_stack *l);
/// dA [R, in], columns [k0, k1) += du^T x. All N rows in one sum: cut tasks by columns.
void sd_linear_grad_a(real *dA, const real *du, const real *x, int N, const sd_linear_stack *l,
                      int k0, int k1);
/// dB [rows, r] of part p, rows [m0, m1) += s dy^T u.
void sd_linear_grad_b(real *dB, const real *dy, int ldy, const real *u, int N,
                      const sd_linear_stack *l, int p, int m0, int m1);

// ---- loss head: softmax cross-entropy over V classes without [N, V] logits
//
// The vocabulary comes in chunks; each row keeps its running maximum m, sum s of exp(l - m) and acc
// = sum of exp(l - m) W_v, rescaled when m grows (as attention does over keys). Exact:
// loss = m + log s - l_label, dh = acc / s - W_label.

typedef struct {
    double *max, *sum, *target; // [N]
    real *acc;                  // [N, C]; NULL: loss only
    real *dh;                   // [N, C]; the caller puts W_label there; NULL with acc
} sd_head_rows;

void sd_head_begin(const sd_head_rows *s, int N, int C);
/// Classes [v0, v0 + n_v): W [n_v, C]. h [N, C], label [N]. logits: N * n_v reals of scratch.
void sd_head_chunk(const sd_head_rows *s, const real *h, const int32_t *label, int N, int C,
                   const sd_frozen *W, int v0, int n_v, real *logits);
/// s->dh <- d loss / d h; returns the sum of losses over the rows, in ascending order.
double sd_head_finish(const sd_head_rows *s, int N, int C);
