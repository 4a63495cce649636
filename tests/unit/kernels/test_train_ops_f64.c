// Each operation's backward pass against central differences in double (h = 1e-4, 32 directions).
// Their own error is about h^2 = 1e-8 times third derivatives of order one: 1e-6 leaves no room for
// a wrong factor and ten times room for curvature. Losses are fixed random combinations of outputs.
#define SD_REAL_DOUBLE
#include "kernels/train/ops.h"

#include "tests/unit/trainer/support_gradcheck.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define TOLERANCE 1e-6

static double weighted(const double *c, const double *y, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += c[i] * y[i];
    return s;
}

// ---- norms

enum { N = 5, C = 37 };
static float norm_w[C];
static double norm_c[N * C];

static double norm_loss(const double *x, void *ctx) {
    (void)ctx;
    double y[N * C];
    sd_rmsnorm(y, NULL, x, norm_w, N, C, 1e-5);
    return weighted(norm_c, y, N * C);
}

Test(rmsnorm, gradient_equals_central_differences) {
    double x[N * C], y[N * C], rstd[N], dx[N * C] = {0};
    gradcheck_fill(x, N * C, 1, 1);
    gradcheck_fill(norm_c, N * C, 2, 1);
    gradcheck_fill_f32(norm_w, C, 3, 1, 0.5);
    sd_rmsnorm(y, rstd, x, norm_w, N, C, 1e-5);
    sd_rmsnorm_backward(dx, norm_c, x, norm_w, rstd, N, C);
    cr_assert_leq(gradcheck_error(x, dx, N * C, norm_loss, NULL), TOLERANCE);
}

Test(rmsnorm, gradient_is_added_to_what_is_there) {
    double x[N * C], y[N * C], rstd[N], once[N * C] = {0}, onto[N * C];
    gradcheck_fill(x, N * C, 1, 1);
    gradcheck_fill(norm_c, N * C, 2, 1);
    gradcheck_fill_f32(norm_w, C, 3, 1, 0.5);
    sd_rmsnorm(y, rstd, x, norm_w, N, C, 1e-5);
    sd_rmsnorm_backward(once, norm_c, x, norm_w, rstd, N, C);
    for (int i = 0; i < N * C; i++) onto[i] = 3;
    sd_rmsnorm_backward(onto, norm_c, x, norm_w, rstd, N, C);
    for (int i = 0; i < N * C; i++) cr_assert_float_eq(onto[i], once[i] + 3, 1e-12);
}

enum { HEADS = 3, HD = 8, LD = 40 }; // three heads inside wider rows
static double head_loss(const double *x, void *ctx) {
    (void)ctx;
    double y[N * LD], rstd[N * HEADS], s = 0;
    memcpy(y, x, sizeof y);
    sd_headnorm(y, LD, rstd, HEADS, norm_w, N, HEADS, HD, 1e-6);
    for (int n = 0; n < N; n++) s += weighted(norm_c + n * C, y + n * LD, HEADS * HD);
    return s;
}

Test(headnorm, gradient_equals_central_differences) {
    double x[N * LD], y[N * LD], rstd[N * HEADS], dx[N * LD] = {0};
    gradcheck_fill(x, N * LD, 4, 1);
    gradcheck_fill(norm_c, N * C, 5, 1);
    gradcheck_fill_f32(norm_w, C, 6, 1, 0.5);
    memcpy(y, x, sizeof y);
    sd_headnorm(y, LD, rstd, HEADS, norm_w, N, HEADS, HD, 1e-6);
    for (int n = 0; n < N; n++) memcpy(dx + n * LD, norm_c + n * C, HEADS * HD * sizeof(double));
    sd_headnorm_backward(dx, LD, x, LD, rstd, HEADS, norm_w, N, HEADS, HD);
    cr_assert_leq(gradcheck_error(x, dx, N * LD, head_loss, NULL), TOLERANCE);
}

// ---- RoPE

enum { ROT = 6, POSITIONS = 9 };
static double cosine[POSITIONS * ROT / 2], sine[POSITIONS * ROT / 2], rope_c[N * LD];
static const int32_t rope_pos[N] = {0, 1, 8, 3, 3};

static void rope_tables(void) {
    for (int p = 0; p < POSITIONS; p++) {
        for (int i = 0; i < ROT / 2; i++) {
            double angle = p * pow(100, -2.0 * i / ROT);
            cosine[p * ROT / 2 + i] = 1.1 * cos(angle); // 1.1: a YaRN factor
            sine[p * ROT / 2 + i] = 1.1 * sin(angle);
        }
    }
}

static double rope_loss(const double *x, void *interleaved) {
    double y[N * LD];
    memcpy(y, x, sizeof y);
    sd_rope(y, LD, cosine, sine, rope_pos, N, HEADS, HD, ROT, *(bool *)interleaved);
    return weighted(rope_c, y, N * LD);
}

Test(rope, gradient_of_both_layouts_equals_central_differences) {
    rope_tables();
    for (int k = 0; k < 2; k++) {
        bool interleaved = k == 1;
        double x[N * LD], dx[N * LD];
        gradcheck_fill(x, N * LD, 7, 1);
        gradcheck_fill(rope_c, N * LD, 8, 1);
        memcpy(dx, rope_c, sizeof dx);
        sd_rope_backward(dx, LD, cosine, sine, rope_pos, N, HEADS, HD, ROT, interleaved);
        cr_assert_leq(gradcheck_error(x, dx, N * LD, rope_loss, &interleaved), TOLERANCE);
    }
}

Test(rope, scores_depend_on_the_distance_alone) {
    rope_tables();
    for (int k = 0; k < 2; k++) {
        double q[2 * HD], v[2 * HD];
        gradcheck_fill(q, HD, 9, 1);
        gradcheck_fill(v, HD, 10, 1);
        memcpy(q + HD, q, HD * sizeof(double));
        memcpy(v + HD, v, HD * sizeof(double));
        const int32_t at_q[2] = {3, 8}, at_k[2] = {1, 6};
        sd_rope(q, HD, cosine, sine, at_q, 2, 1, HD, ROT, k == 1);
        sd_rope(v, HD, cosine, sine, at_k, 2, 1, HD, ROT, k == 1);
        cr_assert_float_eq(weighted(q, v, HD), weighted(q + HD, v + HD, HD), 1e-12);
    }
}

// ---- SwiGLU

enum { F = 19 };
static double glu_c[N * F];
static double glu_loss(const double *x, void *ctx) {
    (void)ctx;
    double y[N * F];
    sd_swiglu(y, x, N, F);
    return weighted(glu_c, y, N * F);
}

Test(swiglu, gradient_equals_central_differences) {
    double x[N * 2 * F], y[N * F], again[N * F], dx[N * 2 * F];
    gradcheck_fill(x, N * 2 * F, 11, 3);
    gradcheck_fill(glu_c, N * F, 12, 1);
    sd_swiglu(y, x, N, F);
    sd_swiglu_backward(dx, again, glu_c, x, N, F);
    cr_assert_leq(gradcheck_error(x, dx, N * 2 * F, glu_loss, NULL), TOLERANCE);
    for (int i = 0; i < N * F; i++) cr_assert_float_eq(y[i], again[i], 1e-12);
}

static double geglu_loss(const double *x, void *ctx) {
    (void)ctx;
    double y[N * F];
    sd_geglu(y, x, N, F);
    return weighted(glu_c, y, N * F);
}

Test(geglu, gradient_equals_central_differences) {
    double x[N * 2 * F], y[N * F], again[N * F], dx[N * 2 * F];
    gradcheck_fill(x, N * 2 * F, 11, 3);
    gradcheck_fill(glu_c, N * F, 12, 1);
    sd_geglu(y, x, N, F);
    sd_geglu_backward(dx, again, glu_c, x, N, F);
    cr_assert_leq(gradcheck_error(x, dx, N * 2 * F, geglu_loss, NULL), TOLERANCE);
    for (int i = 0; i < N * F; i++) {
        double g = x[i / F * 2 * F + i % F], up = x[i / F * 2 * F + F + i % F];
        double want = g / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (g + 0.044715 * g * g * g))) * up;
        cr_assert_float_eq(y[i], want, 1e-12);
        cr_assert_float_eq(again[i], want, 1e-12);
    }
}

// ---- attention

enum { T = 71, H = 4, G = 2, D = 6, W = (H + 2 * G) * D }; // more than one block of queries
static const sd_causal shape = {.H = H, .G = G, .D = D, .scale = 0.4};
static double att_c[T * H * D], att_scratch[2 * 64 * T];

static double attention_loss(const double *qkv, void *ctx) {
    (void)ctx;
    static double out[T * H * D], lse[T * H];
    sd_causal_forward(out, lse, qkv, T, 0, H, &shape, att_scratch);
    return weighted(att_c, out, T * H * D);
}

Test(attention, gradient_equals_central_differences) {
    static double qkv[T * W], out[T * H * D], lse[T * H], dqkv[T * W];
    cr_assert_leq(sd_causal_scratch(T, D), sizeof att_scratch / sizeof(double));
    gradcheck_fill(qkv, T * W, 13, 1.5);
    gradcheck_fill(att_c, T * H * D, 14, 1);
    sd_causal_forward(out, lse, qkv, T, 0, H, &shape, att_scratch);
    for (int g = 0; g < G; g++)
        sd_causal_backward(dqkv, att_c, out, lse, qkv, T, g, &shape, att_scratch);
    cr_assert_leq(gradcheck_error(qkv, dqkv, T * W, attention_loss, NULL), TOLERANCE);
}

// Windows whose ends fall into a block of queries and behind one, and one of a single row.
static const int windows[] = {0, 1, 2, 7, 64, 65, 70};
enum { WINDOWS = sizeof windows / sizeof windows[0] };

static double windowed_loss(const double *qkv, void *ctx) {
    static double out[T * H * D], lse[T * H];
    sd_causal_forward(out, lse, qkv, T, 0, H, ctx, att_scratch);
    return weighted(att_c, out, T * H * D);
}

Test(attention, gradient_in_a_window_equals_central_differences) {
    static double qkv[T * W], out[T * H * D], lse[T * H], dqkv[T * W];
    gradcheck_fill(qkv, T * W, 13, 1.5);
    gradcheck_fill(att_c, T * H * D, 14, 1);
    for (int w = 1; w < WINDOWS; w++) {
        sd_causal a = shape;
        a.window = windows[w];
        sd_causal_forward(out, lse, qkv, T, 0, H, &a, att_scratch);
        for (int g = 0; g < G; g++)
            sd_causal_backward(dqkv, att_c, out, lse, qkv, T, g, &a, att_scratch);
        cr_assert_leq(gradcheck_error(qkv, dqkv, T * W, windowed_loss, &a), TOLERANCE, "window %d",
                      windows[w]);
    }
}

Test(attention, a_window_of_all_rows_changes_no_bit) {
    static double qkv[T * W], out[2][T * H * D], lse[2][T * H], dqkv[2][T * W];
    gradcheck_fill(qkv, T * W, 13, 1.5);
    gradcheck_fill(att_c, T * H * D, 14, 1);
    for (int k = 0; k < 2; k++) {
        sd_causal a = shape;
        a.window = k ? T : 0;
        sd_causal_forward(out[k], lse[k], qkv, T, 0, H, &a, att_scratch);
        for (int g = 0; g < G; g++)
            sd_causal_backward(dqkv[k], att_c, out[k], lse[k], qkv, T, g, &a, att_scratch);
    }
    cr_assert_eq(memcmp(out[0], out[1], sizeof out[0]), 0);
    cr_assert_eq(memcmp(lse[0], lse[1], sizeof lse[0]), 0);
    cr_assert_eq(memcmp(dqkv[0], dqkv[1], sizeof dqkv[0]), 0);
}

// The rows of the second block see nothing of the first ones: they are not read.
Test(attention, what_lies_before_the_window_of_a_block_is_not_read) {
    static double qkv[T * W], out[T * H * D], lse[T * H], dqkv[T * W];
    enum { FROM = 64, WINDOW = 5, SEEN = FROM + 1 - WINDOW };
    sd_causal a = shape;
    a.window = WINDOW;
    gradcheck_fill(qkv, T * W, 13, 1.5);
    gradcheck_fill(att_c, T * H * D, 14, 1);
    for (int i = 0; i < SEEN * W; i++) qkv[i] = NAN;
    sd_causal_forward(out, lse, qkv, T, 0, H, &a, att_scratch);
    for (int i = FROM * H * D; i < T * H * D; i++) cr_assert(isfinite(out[i]));
    for (int g = 0; g < G; g++)
        sd_causal_backward(dqkv, att_c, out, lse, qkv, T, g, &a, att_scratch);
    for (int i = FROM * W; i < T * W; i++) cr_assert(isfinite(dqkv[i]));
}

static void equals_the_definition(int window) {
    static double qkv[T * W], out[T * H * D], lse[T * H];
    sd_causal a = shape;
    a.window = window;
    gradcheck_fill(qkv, T * W, 15, 1.5);
    sd_causal_forward(out, lse, qkv, T, 0, H, &a, att_scratch);
    for (int t = 0; t < T; t++) {
        int first = window && t >= window ? t - window + 1 : 0;
        for (int h = 0; h < H; h++) {
            double p[T], sum = 0, want[D] = {0};
            for (int s = first; s <= t; s++) {
                p[s] = exp(0.4 * weighted(qkv + t * W + h * D, qkv + s * W + (H + h / 2) * D, D));
                sum += p[s];
            }
            for (int s = first; s <= t; s++)
                for (int d = 0; d < D; d++)
                    want[d] += p[s] / sum * qkv[s * W + (H + G + h / 2) * D + d];
            for (int d = 0; d < D; d++)
                cr_assert_float_eq(out[(t * H + h) * D + d], want[d], 1e-12);
            cr_assert_float_eq(lse[t * H + h], log(sum), 1e-12);
        }
    }
}
Test(attention, equals_the_definition_row_by_row) {
    for (int w = 0; w < WINDOWS; w++) equals_the_definition(windows[w]);
}

// ---- linear with LoRA: two maps with different ranks stacked, and one without adapter between

enum { IN = 11, M0 = 7, M1 = 3, M2 = 5, OUT = M0 + M1 + M2, R0 = 2, R2 = 4, RR = R0 + R2, LY = 17 };
enum { AT_A = N * IN, AT_B0 = AT_A + RR * IN, AT_B2 = AT_B0 + M0 * R0, AT_END = AT_B2 + M2 * R2 };
static double lin_W[OUT * IN], lin_c[N * LY];

static sd_linear_stack linear_of(const double *theta) {
    return (sd_linear_stack){.in = IN,
                             .out = OUT,
                             .W = {.rows = lin_W},
                             .A = theta + AT_A,
                             .R = RR,
                             .n_parts = 3,
                             .part = {{0, M0, R0, 0, 0.7, theta + AT_B0},
                                      {M0, M1, 0, R0, 0, NULL},
                                      {M0 + M1, M2, R2, R0, -1.3, theta + AT_B2}}};
}

static double linear_loss(const double *theta, void *ctx) {
    (void)ctx;
    double y[N * LY], u[N * RR], s = 0;
    sd_linear_stack l = linear_of(theta);
    sd_linear_forward(y, LY, u, theta, N, &l, false);
    for (int n = 0; n < N; n++) s += weighted(lin_c + n * LY, y + n * LY, OUT);
    return s;
}

Test(linear, gradients_of_input_a_and_b_equal_central_differences) {
    double x[AT_END], grad[AT_END] = {0}, y[N * LY], u[N * RR], du[N * RR];
    gradcheck_fill(x, AT_END, 16, 1);
    gradcheck_fill(lin_W, OUT * IN, 17, 1);
    gradcheck_fill(lin_c, N * LY, 18, 1);
    sd_linear_stack l = linear_of(x);
    sd_linear_forward(y, LY, u, x, N, &l, false);
    sd_linear_down(du, lin_c, LY, N, &l);
    sd_linear_backward(grad, lin_c, LY, du, N, &l);
    sd_linear_grad_a(grad + AT_A, du, x, N, &l, 0, 4); // cut by columns
    sd_linear_grad_a(grad + AT_A, du, x, N, &l, 4, IN);
    sd_linear_grad_b(grad + AT_B0, lin_c, LY, u, N, &l, 0, 0, M0);
    sd_linear_grad_b(grad + AT_B2, lin_c, LY, u, N, &l, 2, 0, 2); // cut by rows
    sd_linear_grad_b(grad + AT_B2, lin_c, LY, u, N, &l, 2, 2, M2);
    cr_assert_leq(gradcheck_error(x, grad, AT_END, linear_loss, NULL), TOLERANCE);
}

Test(linear, equals_the_map_with_the_adapter_merged) {
    double theta[AT_END], y[N * LY] = {0}, u[N * RR];
    gradcheck_fill(theta, AT_END, 19, 1);
    gradcheck_fill(lin_W, OUT * IN, 20, 1);
    sd_linear_stack l = linear_of(theta);
    sd_linear_forward(y, LY, u, theta, N, &l, true);
    for (int n = 0; n < N; n++) {
        for (int m = 0; m < OUT; m++) {
            double want = weighted(lin_W + m * IN, theta + n * IN, IN);
            for (int p = 0; p < 3; p++) {
                const sd_linear_part *q = &l.part[p];
                if (m < q->row || m >= q->row + q->rows) continue;
                for (int r = 0; r < q->r; r++)
                    want += q->s * q->B[(m - q->row) * q->r + r] *
                            weighted(l.A + (q->u + r) * IN, theta + n * IN, IN);
            }
            cr_assert_float_eq(y[n * LY + m], want, 1e-12);
        }
    }
}

// ---- loss head

enum { V = 23, HC = 8, CHUNK = 9 };
static double head_W[V * HC];
static const int32_t labels[N] = {0, 22, 9, 8, 13}; // ends of the vocabulary and of chunks

static double run_head(double *dh, const double *h, int chunk) {
    double max[N], sum[N], target[N], acc[N * HC], logits[N * V];
    sd_head_rows s = {max, sum, target, dh ? acc : NULL, dh};
    sd_head_begin(&s, N, HC);
    for (int n = 0; n < N && dh; n++) memcpy(dh + n * HC, head_W + labels[n] * HC, HC * sizeof *dh);
    for (int v = 0; v < V; v += chunk) {
        sd_frozen W = {.rows = head_W + v * HC};
        sd_head_chunk(&s, h, labels, N, HC, &W, v, V - v < chunk ? V - v : chunk, logits);
    }
    return sd_head_finish(&s, N, HC);
}

static double head_chunks_loss(const double *h, void *ctx) {
    (void)ctx;
    return run_head(NULL, h, CHUNK);
}

Test(loss_head, gradient_equals_central_differences) {
    double h[N * HC], dh[N * HC];
    gradcheck_fill(h, N * HC, 21, 1);
    gradcheck_fill(head_W, V * HC, 22, 2);
    run_head(dh, h, CHUNK);
    cr_assert_leq(gradcheck_error(h, dh, N * HC, head_chunks_loss, NULL), TOLERANCE);
}

Test(loss_head, chunks_of_the_vocabulary_change_nothing) {
    double h[N * HC], dh[N * HC], whole[N * HC];
    gradcheck_fill(h, N * HC, 23, 1);
    gradcheck_fill(head_W, V * HC, 24, 20); // logits up to +-100: the maximum moves
    double want = run_head(whole, h, V), got = run_head(dh, h, 1);
    cr_assert_float_eq(got, want, 1e-10);
    for (int i = 0; i < N * HC; i++) cr_assert_float_eq(dh[i], whole[i], 1e-10);
}

Test(loss_head, equals_the_definition) {
    double h[N * HC], want = 0;
    gradcheck_fill(h, N * HC, 25, 1);
    gradcheck_fill(head_W, V * HC, 26, 1);
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int v = 0; v < V; v++) sum += exp(weighted(head_W + v * HC, h + n * HC, HC));
        want += log(sum) - weighted(head_W + labels[n] * HC, h + n * HC, HC);
    }
    cr_assert_float_eq(run_head(NULL, h, CHUNK), want, 1e-12);
}

// ---- the checker itself

Test(gradcheck, a_gradient_that_is_wrong_by_one_part_in_ten_thousand_fails) {
    double x[N * F * 2], y[N * F], dx[N * F * 2];
    gradcheck_fill(x, N * 2 * F, 11, 3);
    gradcheck_fill(glu_c, N * F, 12, 1);
    sd_swiglu_backward(dx, y, glu_c, x, N, F);
    for (int i = 0; i < N * 2 * F; i++) dx[i] *= 1.0001;
    cr_assert_gt(gradcheck_error(x, dx, N * 2 * F, glu_loss, NULL), 10 * TOLERANCE);
}
