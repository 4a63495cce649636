// Row operations and linear maps of training. A row is 576-8192 values and stays in L1 between its
// reduction and its use; the linear maps are calls of sd_gemm on the caller's tile, so that the
// LoRA terms find the tile still in cache.
#include "kernels/train/ops.h"

#include "kernels/train/simd_reduce.h"

// ---- RMSNorm

SD_CLONES void sd_rmsnorm(real *y, real *rstd, const real *x, const float *w, int N, int C,
                          real eps) {
    for (int n = 0; n < N; n++, x += C, y += C) {
        real r = 1 / (real)sqrt((double)(sd_dot_lanes(x, x, C) / (real)C + eps));
        SD_ELEMENTWISE
        for (int c = 0; c < C; c++) y[c] = x[c] * r * (real)w[c];
        if (rstd) rstd[n] = r;
    }
}

// sum of a_c b_c w_c
SD_INLINE real dot3(const real *a, const real *b, const float *w, int n) {
    real lane[SD_LANES] = {0};
    int i = 0;
    for (; i + SD_LANES <= n; i += SD_LANES)
        for (int j = 0; j < SD_LANES; j++) lane[j] += a[i + j] * b[i + j] * (real)w[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += a[i] * b[i] * (real)w[i];
    return sd_fold_lanes(lane);
}

SD_CLONES void sd_rmsnorm_backward(real *dx, const real *dy, const real *x, const float *w,
                                   const real *rstd, int N, int C) {
    for (int n = 0; n < N; n++, dx += C, dy += C, x += C) {
        real r = rstd[n];
        real pull = r * r * r * dot3(dy, x, w, C) / (real)C;
        SD_ELEMENTWISE
        for (int c = 0; c < C; c++) dx[c] += r * (real)w[c] * dy[c] - pull * x[c];
    }
}

SD_CLONES void sd_headnorm(real *x, int ld, real *rstd, int ld_rstd, const float *w, int N,
                           int heads, int D, real eps) {
    for (int n = 0; n < N; n++) {
        for (int h = 0; h < heads; h++) {
            real *v = x + (size_t)n * ld + h * D;
            real r = 1 / (real)sqrt((double)(sd_dot_lanes(v, v, D) / (real)D + eps));
            for (int d = 0; d < D; d++) v[d] = v[d] * r * (real)w[d];
            rstd[(size_t)n * ld_rstd + h] = r;
        }
    }
}

SD_CLONES void sd_headnorm_backward(real *d, int ld, const real *x, int ld_x, const real *rstd,
                                    int ld_rstd, const float *w, int N, int heads, int D) {
    for (int n = 0; n < N; n++) {
        for (int h = 0; h < heads; h++) {
            const real *in = x + (size_t)n * ld_x + h * D;
            real *v = d + (size_t)n * ld + h * D, r = rstd[(size_t)n * ld_rstd + h];
            real pull = r * r * r * dot3(v, in, w, D) / (real)D;
            for (int i = 0; i < D; i++) v[i] = r * (real)w[i] * v[i] - pull * in[i];
        }
    }
}

SD_CLONES void sd_bias(real *x, int ld, const float *b, int N, int M) {
    for (int n = 0; n < N; n++, x += ld) SD_ELEMENTWISE
    for (int m = 0; m < M; m++) x[m] += (real)b[m];
}

// ---- RoPE

// sign -1 is the transpose: the rotation by the opposite angle (times the same YaRN factor).
SD_INLINE void rotate(real *x, int ld, const real *cosine, const real *sine, const int32_t *pos,
                      int N, int heads, int D, int rot, bool interleaved, real sign) {
    int half = rot / 2, step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
    for (int n = 0; n < N; n++, x += ld) {
        const real *c = cosine + (size_t)pos[n] * half, *s = sine + (size_t)pos[n] * half;
        for (int h = 0; h < heads; h++) {
            real *v = x + h * D;
            for (int i = 0; i < half; i++) {
                real a = v[i * step], b = v[i * step + other];
                v[i * step] = a * c[i] - sign * b * s[i];
                v[i * step + other] = b * c[i] + sign * a * s[i];
            }
        }
    }
}

SD_CLONES void sd_rope(real *x, int ld, const real *cosine, const real *sine, const int32_t *pos,
                       int N, int heads, int D, int rot, bool interleaved) {
    rotate(x, ld, cosine, sine, pos, N, heads, D, rot, interleaved, 1);
}

SD_CLONES void sd_rope_backward(real *dx, int ld, const real *cosine, const real *sine,
                                const int32_t *pos, int N, int heads, int D, int rot,
                                bool interleaved) {
    rotate(dx, ld, cosine, sine, pos, N, heads, D, rot, interleaved, -1);
}

// ---- SwiGLU

SD_CLONES void sd_swiglu(real *y, const real *gu, int N, int F) {
    for (int n = 0; n < N; n++, y += F, gu += 2 * (size_t)F) {
        const real *g = gu, *u = gu + F;
        SD_ELEMENTWISE
        for (int f = 0; f < F; f++) y[f] = g[f] / (1 + sd_exp(-g[f])) * u[f];
    }
}

SD_CLONES void sd_swiglu_backward(real *dgu, real *y, const real *dy, const real *gu, int N,
                                  int F) {
    for (int n = 0; n < N; n++, y += F, dy += F, gu += 2 * (size_t)F, dgu += 2 * (size_t)F) {
        const real *g = gu, *u = gu + F;
        real *dg = dgu, *du = dgu + F;
        SD_ELEMENTWISE
        for (int f = 0; f < F; f++) {
            real sigmoid = 1 / (1 + sd_exp(-g[f])), silu = g[f] * sigmoid, d = dy[f];
            dg[f] = d * u[f] * (sigmoid + silu * (1 - sigmoid));
            du[f] = d * silu;
            y[f] = silu * u[f];
        }
    }
}

// ---- GeGLU: gelu(g) = g / (1 + e^-v), v = g (LINEAR + CUBIC g^2), as 1 + tanh(u) = 2 / (1 + e^-2u)

static const real GELU_LINEAR = (real)1.5957691216057307117597842397375; // 2 sqrt(2 / pi)
static const real GELU_CUBIC = (real)0.071354816272600247294179157240;   // 0.044715 times it

SD_CLONES void sd_geglu(real *y, const real *gu, int N, int F) {
    for (int n = 0; n < N; n++, y += F, gu += 2 * (size_t)F) {
        const real *g = gu, *u = gu + F;
        SD_ELEMENTWISE
        for (int f = 0; f < F; f++) {
            real v = g[f] * (GELU_LINEAR + GELU_CUBIC * (g[f] * g[f]));
            y[f] = g[f] / (1 + sd_exp(-v)) * u[f];
        }
    }
}

SD_CLONES void sd_geglu_backward(real *dgu, real *y, const real *dy, const real *gu, int N, int F) {
    for (int n = 0; n < N; n++, y += F, dy += F, gu += 2 * (size_t)F, dgu += 2 * (size_t)F) {
        const real *g = gu, *u = gu + F;
        real *dg = dgu, *du = dgu + F;
        SD_ELEMENTWISE
        for (int f = 0; f < F; f++) {
            real cubic = GELU_CUBIC * (g[f] * g[f]);
            real slope = GELU_LINEAR + 3 * cubic; // of v
            real sigmoid = 1 / (1 + sd_exp(-g[f] * (GELU_LINEAR + cubic))), gelu = g[f] * sigmoid;
            real d = dy[f];
            dg[f] = d * u[f] * (sigmoid + gelu * (1 - sigmoid) * slope);
            du[f] = d * gelu;
            y[f] = gelu * u[f];
        }
    }
}

SD_CLONES void sd_exp_rows(real *y, const real *x, real shift, int n) {
    SD_ELEMENTWISE
    for (int i = 0; i < n; i++) y[i] = sd_exp(x[i] - shift);
}

// ---- linear maps

void sd_frozen_rows(real *y, int ldy, const real *x, int ldx, int N, const sd_frozen *W, int M,
                    int K, bool add) {
#if !SD_REAL_IS_DOUBLE
    if (W->by_rows) {
        W->gemm->matmul(y, ldy, x, ldx, W->by_rows, N, M, K, add, W->scratch);
        return;
    }
#endif
    sd_gemm(false, true, N, M, K, 1, x, ldx, W->rows, K, add ? 1 : 0, y, ldy);
}

void sd_frozen_columns(real *y, int ldy, const real *x, int ldx, int N, const sd_frozen *W, int M,
                       int K, bool add) {
#if !SD_REAL_IS_DOUBLE
    if (W->by_columns) {
        W->gemm->matmul(y, ldy, x, ldx, W->by_columns, N, K, M, add, W->scratch);
        return;
    }
#endif
    sd_gemm(false, false, N, K, M, 1, x, ldx, W->rows, K, add ? 1 : 0, y, ldy);
}

void sd_linear_forward(real *y, int ldy, real *u, const real *x, int N, const sd_linear_stack *l,
                       bool add) {
    sd_frozen_rows(y, ldy, x, l->in, N, &l->W, l->out, l->in, add);
    if (l->R == 0) return;
    sd_gemm(false, true, N, l->R, l->in, 1, x, l->in, l->A, l->in, 0, u, l->R);
    for (int i = 0; i < l->n_parts; i++) {
        const sd_linear_part *p = &l->part[i];
        if (p->r > 0)
            sd_gemm(false, true, N, p->rows, p->r, p->s, u + p->u, l->R, p->B, p->r, 1, y + p->row,
                    ldy);
    }
}

void sd_linear_down(real *du, const real *dy, int ldy, int N, const sd_linear_stack *l) {
    for (int i = 0; i < l->n_parts; i++) {
        const sd_linear_part *p = &l->part[i];
        if (p->r > 0)
            sd_gemm(false, false, N, p->r, p->rows, p->s, dy + p->row, ldy, p->B, p->r, 0,
                    du + p->u, l->R);
    }
}

void sd_linear_backward(real *dx, const real *dy, int ldy, const real *du, int N,
                        const sd_linear_stack *l) {
    sd_frozen_columns(dx, l->in, dy, ldy, N, &l->W, l->out, l->in, false);
    if (l->R > 0) sd_gemm(false, false, N, l->in, l->R, 1, du, l->R, l->A, l->in, 1, dx, l->in);
}

void sd_linear_grad_a(real *dA, const real *du, const real *x, int N, const sd_linear_stack *l,
                      int k0, int k1) {
    sd_gemm(true, false, l->R, k1 - k0, N, 1, du, l->R, x + k0, l->in, 1, dA + k0, l->in);
}

void sd_linear_grad_b(real *dB, const real *dy, int ldy, const real *u, int N,
                      const sd_linear_stack *l, int p, int m0, int m1) {
    const sd_linear_part *q = &l->part[p];
    sd_gemm(true, false, m1 - m0, q->r, N, q->s, dy + q->row + m0, ldy, u + q->u, l->R, 1,
            dB + (size_t)m0 * q->r, q->r);
}
