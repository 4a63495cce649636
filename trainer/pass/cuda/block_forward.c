// A transformer block forward (trainer/pass/block_real.c has its picture): norms, gates and rotation write what the next product reads, rounded to T.
#include "trainer/pass/cuda/private.h"

sd_cuda_turn sd_cuda_block_turn(const sd_cuda_train *t, int layer) {
    const sd_hparams *hp = &t->m->hp;
    const size_t table =
        (size_t)t->m->layer[layer].rope * (size_t)t->o.max_tokens * (size_t)(hp->rope_dim / 2);
    return (sd_cuda_turn){.N = t->rows.N,
                          .H = hp->H,
                          .G = hp->G,
                          .D = hp->D,
                          .q_norm = t->weights.layer[layer].q_norm,
                          .k_norm = t->weights.layer[layer].k_norm,
                          .eps = hp->eps,
                          .cos = t->mem.cosine + table,
                          .sin = t->mem.sine + table,
                          .rot = hp->rope_dim,
                          .interleaved = hp->rope_interleaved,
                          .pos = t->mem.there[t->at].pos,
                          .type = t->type};
}

sd_cuda_flash sd_cuda_block_attention(const sd_cuda_train *t, int layer) {
    const sd_hparams *hp = &t->m->hp;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    return (sd_cuda_flash){.N = t->rows.N,
                           .H = hp->H,
                           .G = hp->G,
                           .D = hp->D,
                           .scale = (float)sd_attention_scale(hp),
                           .window = t->m->layer[layer].window,
                           .tile = t->mem.there[t->at].tile,
                           .tiles = t->tiles,
                           .qkv = a->qkv,
                           .out = a->att,
                           .lse = a->lse,
                           .type = t->type};
}

sd_status sd_cuda_block_norm(sd_cuda_train *t, void *y, const float *x, const float *w,
                             sd_error *err) {
    const sd_hparams *hp = &t->m->hp;
    return sd_cuda_status(t->dev,
                          t->dev->rmsnorm(y, x, w, t->rows.N, hp->C, hp->eps, t->type, t->stream),
                          "a norm", err);
}

sd_status sd_cuda_block_gate(sd_cuda_train *t, const float *gu, sd_error *err) {
    const sd_hparams *hp = &t->m->hp;
    return sd_cuda_status(t->dev,
                          t->dev->glu(t->mem.act, gu, gu + hp->F, t->rows.N, hp->F, 2 * hp->F,
                                      hp->act == SD_ACT_GELU_TANH, t->type, t->stream),
                          "a gate", err);
}

static sd_status forward_attention(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    const sd_cuda_layer *w = &t->weights.layer[layer];
    const sd_cuda_stack l = sd_cuda_stack_of(t, layer, SD_STACK_QKV);
    const sd_cuda_turn turn = sd_cuda_block_turn(t, layer);
    const sd_cuda_flash flash = sd_cuda_block_attention(t, layer);
    float *of = a->raw;
    SD_TRY(sd_cuda_block_norm(t, t->mem.n, a->x, w->attn_norm, err));
    SD_TRY(sd_cuda_stack_forward(t, &l, a->raw, a->u[SD_STACK_QKV], t->mem.n, false, err));
    for (int p = SD_WQ; p <= SD_WV; of += w->w[p++].M)
        if (w->bias[p])
            CUDA_TRY(t->dev->bias(of, l.out, w->bias[p], t->rows.N, w->w[p].M, t->stream),
                     "a bias");
    CUDA_TRY(t->dev->turn_forward(a->qkv, a->raw, &turn, t->stream), "rotation");
    CUDA_TRY(t->dev->flash_forward(&flash, t->stream), "attention");
out:
    return st;
}

// to <- x + maps of stack l of `in`, or their norm where the block has one, which `added` keeps.
static sd_status add_stack(sd_cuda_train *t, const sd_cuda_stack *l, float *to, const float *x,
                           const void *in, void *u, float *added, const float *post_norm,
                           sd_error *err) {
    sd_status st = SD_OK;
    const int N = t->rows.N, C = t->m->hp.C;
    CUDA_TRY(t->dev->copy(to, x, (size_t)N * (size_t)C * sizeof *to, t->stream), "a copy");
    SD_TRY(sd_cuda_stack_forward(t, l, added ? added : to, u, in, !added, err));
    if (added)
        CUDA_TRY(t->dev->rmsnorm_add(to, added, post_norm, N, C, t->m->hp.eps, t->stream),
                 "a norm");
out:
    return st;
}

static sd_status forward_mlp_in(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    const sd_cuda_layer *w = &t->weights.layer[layer];
    const sd_cuda_stack o = sd_cuda_stack_of(t, layer, SD_STACK_O),
                        gu = sd_cuda_stack_of(t, layer, SD_STACK_GU);
    SD_TRY(add_stack(t, &o, a->x2, a->x, a->att, a->u[SD_STACK_O], a->o, w->post_attn_norm, err));
    SD_TRY(sd_cuda_block_norm(t, t->mem.n, a->x2, w->ffn_norm, err));
    SD_TRY(sd_cuda_stack_forward(t, &gu, a->gu, a->u[SD_STACK_GU], t->mem.n, false, err));
out:
    return st;
}

static sd_status forward_mlp_out(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    const sd_cuda_stack down = sd_cuda_stack_of(t, layer, SD_STACK_DOWN);
    SD_TRY(sd_cuda_block_gate(t, a->gu, err));
    SD_TRY(add_stack(t, &down, a[1].x, a->x2, t->mem.act, a->u[SD_STACK_DOWN], a->down,
                     t->weights.layer[layer].post_ffn_norm, err));
out:
    return st;
}

sd_status sd_cuda_block_forward(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(forward_attention(t, layer, err));
    SD_TRY(forward_mlp_in(t, layer, err));
    SD_TRY(forward_mlp_out(t, layer, err));
out:
    return st;
}

sd_status sd_cuda_block_recompute(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    // The topmost layer's are the last that the forward pass wrote.
    if (t->recompute == SD_RECOMPUTE_NONE || layer == t->m->hp.L - 1) goto out;
    SD_TRY(forward_attention(t, layer, err));
    if (t->recompute != SD_RECOMPUTE_BLOCK) goto out;
    SD_TRY(forward_mlp_in(t, layer, err));
    // The last norm's backward pass reads its input.
    if (t->mem.acts[layer].down) SD_TRY(forward_mlp_out(t, layer, err));
out:
    return st;
}
