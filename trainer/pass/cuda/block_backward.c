// A transformer block backward: the four stacks downwards, each with the gradient of its factors and, while something adapted lies below it, that of
// its input. dx is the gradient of the residual stream, fp32 from the head to the lowest adapted layer.
#include "trainer/pass/cuda/private.h"

// Something adapted lies below this stack. Otherwise its input needs no gradient.
static bool input_needs_gradient(const sd_cuda_train *t, int layer, int stack) {
    if (layer > t->lowest) return true;
    for (int s = 0; s < stack; s++)
        if (sd_cuda_stack_of(t, layer, s).R > 0) return true;
    return false;
}

// *dy [N, C] T <- the gradient of what a half of the block adds: that of the residual stream, taken back through the norm of y where there is one.
static sd_status added_back(sd_cuda_train *t, const void **dy, const float *y, const float *w,
                            sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const int N = t->rows.N;
    *dy = t->mem.dy;
    if (y)
        CUDA_TRY(t->dev->rmsnorm_backward(t->mem.dy, t->mem.dx, y, w, N, hp->C, hp->eps, false,
                                          t->type, t->stream),
                 "a norm");
    else if (t->type == SD_CUDA_BF16)
        CUDA_TRY(t->dev->round(t->mem.dy, t->mem.dx, (size_t)N * (size_t)hp->C, t->stream),
                 "rounding");
    else
        *dy = t->mem.dx;
out:
    return st;
}

static sd_status down_back(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    const sd_cuda_stack l = sd_cuda_stack_of(t, layer, SD_STACK_DOWN);
    const void *dy;
    SD_TRY(added_back(t, &dy, a->down, t->weights.layer[layer].post_ffn_norm, err));
    SD_TRY(sd_cuda_stack_down(t, &l, dy, err));
    if (input_needs_gradient(t, layer, SD_STACK_DOWN)) {
        SD_TRY(sd_cuda_stack_backward(t, &l, t->mem.mid, dy, err));
        CUDA_TRY(t->dev->glu_backward(t->mem.dwide, t->mem.act, t->mem.mid, a->gu, t->rows.N, hp->F,
                                      hp->act == SD_ACT_GELU_TANH, t->type, t->stream),
                 "a gate");
    } else if (l.R > 0) {
        SD_TRY(sd_cuda_block_gate(t, a->gu, err));
    }
    SD_TRY(sd_cuda_stack_grads(t, &l, dy, t->mem.act, a->u[SD_STACK_DOWN], err));
out:
    return st;
}

// The two stacks that read a norm of x: its output again for dA, then the gradient back through it onto the residual stream.
static sd_status norm_back(sd_cuda_train *t, const sd_cuda_stack *l, const float *x, const float *w,
                           sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const void *dy = t->mem.dwide;
    SD_TRY(sd_cuda_stack_down(t, l, dy, err));
    if (l->R > 0) SD_TRY(sd_cuda_block_norm(t, t->mem.n, x, w, err));
    if (input_needs_gradient(t, l->layer, l->stack)) {
        SD_TRY(sd_cuda_stack_backward(t, l, t->mem.mid, dy, err));
        CUDA_TRY(t->dev->rmsnorm_backward(t->mem.dx, t->mem.mid, x, w, t->rows.N, hp->C, hp->eps,
                                          true, t->type, t->stream),
                 "a norm");
    }
    SD_TRY(sd_cuda_stack_grads(t, l, dy, t->mem.n, t->mem.acts[l->layer].u[l->stack], err));
out:
    return st;
}

static sd_status out_back(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    const sd_cuda_stack l = sd_cuda_stack_of(t, layer, SD_STACK_O);
    const sd_cuda_flash flash = sd_cuda_block_attention(t, layer);
    const void *dy;
    SD_TRY(added_back(t, &dy, a->o, t->weights.layer[layer].post_attn_norm, err));
    SD_TRY(sd_cuda_stack_down(t, &l, dy, err));
    SD_TRY(sd_cuda_stack_grads(t, &l, dy, a->att, a->u[SD_STACK_O], err));
    if (!input_needs_gradient(t, layer, SD_STACK_O)) goto out;
    SD_TRY(sd_cuda_stack_backward(t, &l, t->mem.mid, dy, err));
    CUDA_TRY(t->dev->flash_backward(t->mem.wide, t->mem.mid, t->mem.rounded, t->mem.delta, &flash,
                                    t->stream),
             "attention");
out:
    return st;
}

static sd_status qkv_back(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_acts *a = &t->mem.acts[layer];
    const sd_cuda_stack l = sd_cuda_stack_of(t, layer, SD_STACK_QKV);
    const sd_cuda_turn turn = sd_cuda_block_turn(t, layer);
    CUDA_TRY(t->dev->turn_backward(t->mem.dwide, t->mem.wide, a->raw, &turn, t->stream),
             "rotation");
    SD_TRY(norm_back(t, &l, a->x, t->weights.layer[layer].attn_norm, err));
out:
    return st;
}

sd_status sd_cuda_block_backward(sd_cuda_train *t, int layer, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_stack gu = sd_cuda_stack_of(t, layer, SD_STACK_GU);
    SD_TRY(down_back(t, layer, err));
    if (!input_needs_gradient(t, layer, SD_STACK_DOWN)) goto out;
    SD_TRY(norm_back(t, &gu, t->mem.acts[layer].x2, t->weights.layer[layer].ffn_norm, err));
    if (!input_needs_gradient(t, layer, SD_STACK_GU)) goto out;
    SD_TRY(out_back(t, layer, err));
    if (!input_needs_gradient(t, layer, SD_STACK_O)) goto out;
    SD_TRY(qkv_back(t, layer, err));
out:
    return st;
}
