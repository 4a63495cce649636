// One layer of a step, in five parallel regions over columns or heads:
//
//   norm + quantise | QKV + bias + LoRA | QK-norm + RoPE + KV write | attention | quantise |
//   O + LoRA + residual | norm + quantise | gate, up + LoRA + their product | quantise | down + LoRA +
//   residual
//
// The parts by row (norm, quantise, RoPE) are microseconds when few rows run, less than waking a
// thread costs: then each thread norms and quantises for itself what its columns read, RoPE runs on
// the calling thread, and all become regions only in a prefill. Each row's activations are
// quantised once for all matrices that read them. In the last layer only rows
// that want logits or a token go on after their keys and values are written.
#include "model/infer/cpu/private.h"

#include <string.h>

// y [N, M] columns [m0, m1) <- W x + bias + s B A x
static void project(sd_context *cx, const sd_quant_rows *x, sd_proj p, float *y, int M, int m0,
                    int m1) {
    const float *bias = cx->model->layer[cx->l].bias[p];
    const sd_packed_weight *w = &cx->w[cx->l * SD_PROJ_COUNT + p];
    cx->ops->matmul(y, M, w, x, cx->n, m0, m1);
    for (int n = 0; bias && n < cx->n; n++)
        cx->ops->add(y + (size_t)n * M + m0, bias + m0, m1 - m0);
    sd_lora_b(cx, p, y, M, m0, m1);
}

// Columns of y, unless they are normed as whole rows first (add_normed).
static void add_residual(sd_context *cx, const float *post_norm, int m0, int m1) {
    int C = cx->model->hp.C;
    for (int n = 0; !post_norm && n < cx->n; n++)
        cx->ops->add(cx->x + (size_t)n * C + m0, cx->y + (size_t)n * C + m0, m1 - m0);
}

static void add_normed(sd_context *cx, const float *post_norm, int n0, int n1) {
    const sd_hparams *hp = &cx->model->hp;
    const size_t at = (size_t)n0 * hp->C;
    cx->ops->rmsnorm(cx->y + at, cx->y + at, post_norm, n1 - n0, hp->C, hp->eps);
    cx->ops->add(cx->x + at, cx->y + at, (n1 - n0) * hp->C);
}
static void add_attention(sd_context *cx, int n0, int n1) {
    add_normed(cx, cx->model->layer[cx->l].post_attn_norm, n0, n1);
}
static void add_ffn(sd_context *cx, int n0, int n1) {
    add_normed(cx, cx->model->layer[cx->l].post_ffn_norm, n0, n1);
}

static void qkv(sd_context *cx, const sd_quant_rows *x, int which, int m0, int m1) {
    const sd_hparams *hp = &cx->model->hp;
    float *const y[] = {cx->q, cx->k, cx->v};
    project(cx, x, (sd_proj)(SD_WQ + which), y[which], (which == 0 ? hp->H : hp->G) * hp->D, m0,
            m1);
}

static void rotate_and_store(sd_context *cx, int n0, int n1) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_layer *layer = &cx->model->layer[cx->l];
    int D = hp->D, half = hp->rope_dim / 2;
    for (int n = n0; n < n1; n++) {
        const sd_row *r = &cx->row[n];
        float *q = cx->q + (size_t)n * hp->H * D, *k = cx->k + (size_t)n * hp->G * D,
              *v = cx->v + (size_t)n * hp->G * D;
        const size_t at = ((size_t)layer->rope * cx->max_rows + n) * half;
        const float *c = cx->cos_n + at, *s = cx->sin_n + at;
        if (hp->qk_norm) {
            cx->ops->rmsnorm(q, q, layer->q_norm, hp->H, D, hp->eps);
            cx->ops->rmsnorm(k, k, layer->k_norm, hp->G, D, hp->eps);
        }
        for (int h = 0; h < hp->H; h++)
            cx->ops->rope(q + (size_t)h * D, c, s, D, hp->rope_dim, hp->rope_interleaved);
        for (int g = 0; g < hp->G; g++)
            cx->ops->rope(k + (size_t)g * D, c, s, D, hp->rope_dim, hp->rope_interleaved);
        if (cx->key_scale) sd_kv_scale_keys(cx, q, k);
        sd_kv_store(cx, r, k, v);
    }
}

static void output(sd_context *cx, const sd_quant_rows *x, int which, int m0, int m1) {
    (void)which;
    project(cx, x, SD_WO, cx->y, cx->model->hp.C, m0, m1);
    add_residual(cx, cx->model->layer[cx->l].post_attn_norm, m0, m1);
}

static void gate_up(sd_context *cx, const sd_quant_rows *x, int which, int m0, int m1) {
    (void)which;
    int F = cx->model->hp.F;
    void (*act)(float *, const float *, const float *, int) =
        cx->model->hp.act == SD_ACT_GELU_TANH ? cx->ops->geglu : cx->ops->swiglu;
    project(cx, x, SD_WGATE, cx->gate, F, m0, m1);
    project(cx, x, SD_WUP, cx->up, F, m0, m1);
    for (int n = 0; n < cx->n; n++) {
        size_t at = (size_t)n * F + m0;
        act(cx->gate + at, cx->gate + at, cx->up + at, m1 - m0);
    }
}
static void down(sd_context *cx, const sd_quant_rows *x, int which, int m0, int m1) {
    (void)which;
    project(cx, x, SD_WDOWN, cx->y, cx->model->hp.C, m0, m1);
    add_residual(cx, cx->model->layer[cx->l].post_ffn_norm, m0, m1);
}

// Rows that want neither logits nor a token, nor themselves, are done once their keys and values are written.
static void keep_wanted(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    size_t C = (size_t)hp->C, Q = (size_t)hp->H * hp->D;
    int kept = 0;
    for (int n = 0; n < cx->n; n++) {
        if (!cx->row[n].want_logits && !cx->row[n].pick && !cx->row[n].hidden) continue;
        if (kept != n) {
            cx->row[kept] = cx->row[n];
            memcpy(cx->x + kept * C, cx->x + n * C, C * sizeof(float));
            memcpy(cx->q + kept * Q, cx->q + n * Q, Q * sizeof(float));
        }
        kept++;
    }
    cx->n = kept;
    (void)sd_lora_segments(cx, NULL); // the adapters are packed since the step began
    sd_attention_replan(cx);
}

// x [N, K] as the projections [from, to] of the layer read it.
static sd_input prepared_from(const sd_context *cx, const float *x, const float *norm, int K,
                              sd_proj from, sd_proj to) {
    sd_input in = {x, norm, K, SD_QBLOCK, from, to};
    for (sd_proj p = from; p <= to; p++) {
        int group = sd_quant_rows_group(cx->w[cx->l * SD_PROJ_COUNT + p].w.dtype);
        if (group > in.group) in.group = group;
    }
    return in;
}

void sd_run_layer(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    const int Q = hp->H * hp->D;
    const sd_layer *layer = &cx->model->layer[cx->l];
    sd_by_columns(cx, qkv, prepared_from(cx, cx->x, layer->attn_norm, hp->C, SD_WQ, SD_WV), Q,
                  hp->G * hp->D, hp->G * hp->D);
    sd_by_rows(cx, rotate_and_store, (hp->H + 2 * hp->G) * hp->D);
    if (cx->l == hp->L - 1) keep_wanted(cx);
    if (cx->n == 0) return;
    sd_attention_run(cx);
    sd_by_columns(cx, output, prepared_from(cx, cx->att, NULL, Q, SD_WO, SD_WO), hp->C, 0, 0);
    if (layer->post_attn_norm) sd_by_rows(cx, add_attention, hp->C);
    sd_by_columns(cx, gate_up, prepared_from(cx, cx->x, layer->ffn_norm, hp->C, SD_WGATE, SD_WUP),
                  hp->F, 0, 0);
    sd_by_columns(cx, down, prepared_from(cx, cx->gate, NULL, hp->F, SD_WDOWN, SD_WDOWN), hp->C, 0,
                  0);
    if (layer->post_ffn_norm) sd_by_rows(cx, add_ffn, hp->C);
}
