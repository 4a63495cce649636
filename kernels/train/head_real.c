// The loss head over chunks of the vocabulary. The head is a fifth of a small model's work and its
// logits would be its largest array (tokens x 49152-152k); here each chunk's logits live for one
// softmax step and one product, and each weight is dequantised once per micro-batch.
#include "kernels/train/ops.h"

#include "kernels/train/simd_reduce.h"

void sd_head_begin(const sd_head_rows *s, int N, int C) {
    for (int n = 0; n < N; n++) {
        s->max[n] = -INFINITY;
        s->sum[n] = 0;
        s->target[n] = 0;
    }
    if (s->acc) memset(s->acc, 0, sizeof(real) * (size_t)N * (size_t)C);
}

// One row: logits [n_v] become exp(l - max); max and sum move on; acc is rescaled when max grew.
SD_CLONES static void online_softmax(real *logits, int n_v, double *max, double *sum, real *acc,
                                     int C) {
    double top = (double)sd_max_lanes(logits, n_v);
    if (top > *max) {
        double shrink = exp(*max - top); // 0 at the first chunk
        *sum *= shrink;
        if (acc)
            for (int c = 0; c < C; c++) acc[c] *= (real)shrink;
        *max = top;
    }
    real shift = (real)*max;
    for (int v = 0; v < n_v; v++) logits[v] = sd_exp(logits[v] - shift);
    *sum += (double)sd_sum_lanes(logits, n_v);
}

void sd_head_chunk(const sd_head_rows *s, const real *h, const int32_t *label, int N, int C,
                   const sd_frozen *W, int v0, int n_v, real *logits) {
    sd_frozen_rows(logits, n_v, h, C, N, W, n_v, C, false);
    for (int n = 0; n < N; n++) {
        real *row = logits + (size_t)n * n_v;
        int v = label[n] - v0;
        if (v >= 0 && v < n_v) s->target[n] = (double)row[v];
        online_softmax(row, n_v, &s->max[n], &s->sum[n], s->acc ? s->acc + (size_t)n * C : NULL, C);
    }
    if (s->acc) sd_frozen_columns(s->acc, C, logits, n_v, N, W, n_v, C, true);
}

double sd_head_finish(const sd_head_rows *s, int N, int C) {
    double loss = 0;
    for (int n = 0; n < N; n++) {
        loss += s->max[n] + log(s->sum[n]) - s->target[n];
        if (!s->acc) continue;
        real inverse = (real)(1 / s->sum[n]);
        const real *acc = s->acc + (size_t)n * C;
        real *dh = s->dh + (size_t)n * C;
        for (int c = 0; c < C; c++) dh[c] = acc[c] * inverse - dh[c];
    }
    return loss;
}
