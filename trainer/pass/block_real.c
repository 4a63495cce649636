// A transformer block forward and backward, as tiles of tokens and the tasks between them.
//
//     n1 = norm(x)   qkv = rope(qk_norm(n1 Wqkv + bias))  att = attention(qkv)  x2 = x + att Wo
//     n2 = norm(x2)  gu = n2 Wgu                          act = act(g) u        x' = x2 + act Wdown
//
// Where the model norms what is added, o = att Wo and down = act Wdown are kept too.
// Kept: x, qkv, att, x2, gu and the adapters' u; the norms' outputs and the activation are cheaper
// to make again than to read back. The backward pass walks the four stacks downwards; each stack is
// one region for its input gradient and one for its adapter's gradients, and stops below the lowest
// adapted stack.
#include "trainer/pass/state.h"

#include <string.h>

enum { GRAD_COLUMNS = 192, GRAD_ROWS = 256 }; // of one task's share of dA and of dB

static int qkv_width(const sd_hparams *hp) {
    return (hp->H + 2 * hp->G) * hp->D;
}

// Where the angles of the layer's rotation begin.
static size_t rope_table(const sd_train *t, int layer) {
    return (size_t)t->m->layer[layer].rope * (size_t)t->o.max_tokens *
           (size_t)(t->m->hp.rope_dim / 2);
}

// ---- forward

static void qkv_tile(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_hparams *hp = &t->m->hp;
    const sd_layer *y = &t->m->layer[layer];
    const sd_train_acts *a = &t->mem.acts[layer];
    sd_linear_stack l = sd_train_stack(t, layer, SD_STACK_QKV, worker);
    int N = n1 - n0, D = hp->D, q = hp->H * D, k = hp->G * D, ld = qkv_width(hp);
    real *n = t->mem.n + (size_t)n0 * hp->C, *out = a->qkv + (size_t)n0 * ld;
    sd_rmsnorm(n, a->rstd1 + n0, a->x + (size_t)n0 * hp->C, y->attn_norm, N, hp->C, (real)hp->eps);
    sd_linear_forward(out, ld, a->u[SD_STACK_QKV] + (size_t)n0 * l.R, n, N, &l, false);
    if (y->bias[SD_WQ]) sd_bias(out, ld, y->bias[SD_WQ], N, q);
    if (y->bias[SD_WK]) sd_bias(out + q, ld, y->bias[SD_WK], N, k);
    if (y->bias[SD_WV]) sd_bias(out + q + k, ld, y->bias[SD_WV], N, k);
    if (hp->qk_norm) {
        int heads = hp->H + hp->G;
        real *rstd = a->rstd_qk + (size_t)n0 * heads;
        for (int i = 0; i < N; i++)
            memcpy(a->raw + (size_t)(n0 + i) * heads * D, out + (size_t)i * ld,
                   sizeof(real) * (size_t)heads * D);
        sd_headnorm(out, ld, rstd, heads, y->q_norm, N, hp->H, D, (real)hp->eps);
        sd_headnorm(out + q, ld, rstd + hp->H, heads, y->k_norm, N, hp->G, D, (real)hp->eps);
    }
    sd_rope(out, ld, t->mem.cosine + rope_table(t, layer), t->mem.sine + rope_table(t, layer),
            t->mem.rows.pos + n0, N, hp->H + hp->G, D, hp->rope_dim, hp->rope_interleaved);
}

static sd_causal causal_of(const sd_train *t, int layer) {
    sd_causal c = t->causal;
    c.window = t->m->layer[layer].window;
    return c;
}

// Tasks: segments x query heads.
static void attention_task(sd_train *t, int layer, int i, int worker) {
    const sd_train_acts *a = &t->mem.acts[layer];
    const sd_causal causal = causal_of(t, layer);
    const sd_train_segment *s = &t->mem.rows.segment[i / t->causal.H];
    int h = i % t->causal.H;
    sd_causal_forward(a->att + (size_t)s->start * t->causal.H * t->causal.D,
                      a->lse + (size_t)s->start * t->causal.H,
                      a->qkv + (size_t)s->start * qkv_width(&t->m->hp), s->len, h, h + 1, &causal,
                      t->mem.worker[worker].attention);
}

// out <- x + norm(y); all [N, C].
static void add_normed(const sd_train *t, real *out, const real *x, const real *y, real *rstd,
                       const float *w, int N) {
    const int C = t->m->hp.C;
    sd_rmsnorm(out, rstd, y, w, N, C, (real)t->m->hp.eps);
    for (size_t i = 0; i < (size_t)N * (size_t)C; i++) out[i] += x[i];
}

static void out_tile(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_train_acts *a = &t->mem.acts[layer];
    sd_linear_stack l = sd_train_stack(t, layer, SD_STACK_O, worker);
    size_t at = (size_t)n0 * (size_t)l.out;
    real *u = a->u[SD_STACK_O] + (size_t)n0 * l.R;
    const real *att = a->att + (size_t)n0 * l.in;
    if (a->o) {
        sd_linear_forward(a->o + at, l.out, u, att, n1 - n0, &l, false);
        add_normed(t, a->x2 + at, a->x + at, a->o + at, a->rstd_o + n0,
                   t->m->layer[layer].post_attn_norm, n1 - n0);
        return;
    }
    memcpy(a->x2 + at, a->x + at, sizeof(real) * (size_t)(n1 - n0) * (size_t)l.out);
    sd_linear_forward(a->x2 + at, l.out, u, att, n1 - n0, &l, true);
}

static void gu_tile(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_hparams *hp = &t->m->hp;
    const sd_train_acts *a = &t->mem.acts[layer];
    sd_linear_stack l = sd_train_stack(t, layer, SD_STACK_GU, worker);
    real *n = t->mem.n + (size_t)n0 * hp->C;
    sd_rmsnorm(n, a->rstd2 + n0, a->x2 + (size_t)n0 * hp->C, t->m->layer[layer].ffn_norm, n1 - n0,
               hp->C, (real)hp->eps);
    sd_linear_forward(a->gu + (size_t)n0 * l.out, l.out, a->u[SD_STACK_GU] + (size_t)n0 * l.R, n,
                      n1 - n0, &l, false);
}

// y [N, F] <- act(gate) * up.
static void activate(const sd_train *t, real *y, const real *gu, int N) {
    if (t->m->hp.act == SD_ACT_GELU_TANH)
        sd_geglu(y, gu, N, t->m->hp.F);
    else
        sd_swiglu(y, gu, N, t->m->hp.F);
}

static void down_tile(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_train_acts *a = &t->mem.acts[layer];
    sd_linear_stack l = sd_train_stack(t, layer, SD_STACK_DOWN, worker);
    size_t at = (size_t)n0 * (size_t)l.out;
    real *act = t->mem.mid + (size_t)n0 * l.in, *x = t->mem.acts[layer + 1].x + at;
    real *u = a->u[SD_STACK_DOWN] + (size_t)n0 * l.R;
    activate(t, act, a->gu + (size_t)n0 * 2 * l.in, n1 - n0);
    if (a->down) {
        sd_linear_forward(a->down + at, l.out, u, act, n1 - n0, &l, false);
        add_normed(t, x, a->x2 + at, a->down + at, a->rstd_down + n0,
                   t->m->layer[layer].post_ffn_norm, n1 - n0);
        return;
    }
    memcpy(x, a->x2 + at, sizeof(real) * (size_t)(n1 - n0) * (size_t)l.out);
    sd_linear_forward(x, l.out, u, act, n1 - n0, &l, true);
}

static void forward_attention(sd_train *t, int layer) {
    sd_train_need(t, (sd_stack_id){layer, SD_STACK_QKV, false});
    sd_train_run(&(sd_train_work){
        .t = t, .layer = layer, .tile = qkv_tile, .next = {layer, SD_STACK_O, false}});
    sd_train_run(&(sd_train_work){.t = t,
                                  .layer = layer,
                                  .n_extra = t->mem.rows.n_segments * t->causal.H,
                                  .extra = attention_task,
                                  .next = {-1, 0, false}});
}

static void forward_mlp_in(sd_train *t, int layer) {
    sd_train_need(t, (sd_stack_id){layer, SD_STACK_O, false});
    sd_train_run(&(sd_train_work){
        .t = t, .layer = layer, .tile = out_tile, .next = {layer, SD_STACK_GU, false}});
    sd_train_run(&(sd_train_work){
        .t = t, .layer = layer, .tile = gu_tile, .next = {layer, SD_STACK_DOWN, false}});
}

// above: the layer whose weights are wanted next; -1: none.
static void forward_mlp_out(sd_train *t, int layer, int above) {
    sd_train_need(t, (sd_stack_id){layer, SD_STACK_DOWN, false});
    sd_train_run(&(sd_train_work){
        .t = t, .layer = layer, .tile = down_tile, .next = {above, SD_STACK_QKV, false}});
}

void sd_train_forward(sd_train *t, int layer) {
    forward_attention(t, layer);
    forward_mlp_in(t, layer);
    forward_mlp_out(t, layer, layer + 1 < t->m->hp.L ? layer + 1 : -1);
}

void sd_train_recompute(sd_train *t, int layer) {
    // The topmost layer's are the last that the forward pass wrote.
    if (t->recompute == SD_RECOMPUTE_NONE || layer == t->m->hp.L - 1) return;
    forward_attention(t, layer);
    if (t->recompute == SD_RECOMPUTE_BLOCK) forward_mlp_in(t, layer);
    // The last norm's backward pass reads its input.
    if (t->recompute == SD_RECOMPUTE_BLOCK && t->mem.acts[layer].down)
        forward_mlp_out(t, layer, -1);
}

// ---- backward

// Something adapted lies below this stack. Otherwise its input needs no gradient.
static bool input_needs_gradient(const sd_train *t, int layer, int stack) {
    if (layer > t->lowest) return true;
    for (int s = 0; s < stack; s++)
        if (sd_train_stack(t, layer, s, 0).R > 0) return true;
    return false;
}

// The gradient of what a half of the block adds, rows [n0, n1): that of the residual stream, taken
// back through the norm of y where there is one.
static const real *added_back(const sd_train *t, const real *y, const real *rstd, const float *w,
                              int n0, int n1) {
    const int C = t->m->hp.C;
    const size_t at = (size_t)n0 * (size_t)C;
    if (!y) return t->mem.dx + at;
    memset(t->mem.dy + at, 0, sizeof(real) * (size_t)(n1 - n0) * (size_t)C);
    sd_rmsnorm_backward(t->mem.dy + at, t->mem.dx + at, y + at, w, rstd + n0, n1 - n0, C);
    return t->mem.dy + at;
}

// The same, of the whole micro-batch, once added_back ran.
static const real *added_gradient(const sd_train *t, const real *y) {
    return y ? t->mem.dy : t->mem.dx;
}

static void down_back(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_train_acts *a = &t->mem.acts[layer];
    sd_linear_stack l = sd_train_stack(t, layer, SD_STACK_DOWN, worker);
    const real *gu = a->gu + (size_t)n0 * 2 * l.in,
               *dy = added_back(t, a->down, a->rstd_down, t->m->layer[layer].post_ffn_norm, n0, n1);
    real *mid = t->mem.mid + (size_t)n0 * l.in, *du = t->mem.du + (size_t)n0 * l.R;
    sd_linear_down(du, dy, l.out, n1 - n0, &l);
    if (input_needs_gradient(t, layer, SD_STACK_DOWN)) {
        real *dgu = t->mem.wide + (size_t)n0 * 2 * l.in;
        sd_linear_backward(mid, dy, l.out, du, n1 - n0, &l);
        if (t->m->hp.act == SD_ACT_GELU_TANH)
            sd_geglu_backward(dgu, mid, mid, gu, n1 - n0, l.in);
        else
            sd_swiglu_backward(dgu, mid, mid, gu, n1 - n0, l.in);
    } else {
        activate(t, mid, gu, n1 - n0);
    }
}

// The shared end of the two stacks that read a norm: the norm's output again for dA, then the
// gradient back through the norm onto the residual stream.
static void norm_back(sd_train *t, int layer, int stack, const real *dy, const real *x,
                      const real *rstd, const float *w, int n0, int n1, int worker) {
    sd_linear_stack l = sd_train_stack(t, layer, stack, worker);
    int C = l.in;
    real *du = t->mem.du + (size_t)n0 * l.R, *dn = t->mem.worker[worker].dn;
    x += (size_t)n0 * C;
    sd_linear_down(du, dy + (size_t)n0 * l.out, l.out, n1 - n0, &l);
    if (l.R > 0) sd_rmsnorm(t->mem.n + (size_t)n0 * C, NULL, x, w, n1 - n0, C, (real)t->m->hp.eps);
    if (!input_needs_gradient(t, layer, stack)) return;
    sd_linear_backward(dn, dy + (size_t)n0 * l.out, l.out, du, n1 - n0, &l);
    sd_rmsnorm_backward(t->mem.dx + (size_t)n0 * C, dn, x, w, rstd + n0, n1 - n0, C);
}

static void gu_back(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_train_acts *a = &t->mem.acts[layer];
    norm_back(t, layer, SD_STACK_GU, t->mem.wide, a->x2, a->rstd2, t->m->layer[layer].ffn_norm, n0,
              n1, worker);
}

static void out_back(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_train_acts *a = &t->mem.acts[layer];
    sd_linear_stack l = sd_train_stack(t, layer, SD_STACK_O, worker);
    const real *dy = added_back(t, a->o, a->rstd_o, t->m->layer[layer].post_attn_norm, n0, n1);
    real *du = t->mem.du + (size_t)n0 * l.R;
    sd_linear_down(du, dy, l.out, n1 - n0, &l);
    if (input_needs_gradient(t, layer, SD_STACK_O))
        sd_linear_backward(t->mem.mid + (size_t)n0 * l.in, dy, l.out, du, n1 - n0, &l);
}

static void qkv_back(sd_train *t, int layer, int n0, int n1, int worker) {
    const sd_hparams *hp = &t->m->hp;
    const sd_layer *y = &t->m->layer[layer];
    const sd_train_acts *a = &t->mem.acts[layer];
    int N = n1 - n0, D = hp->D, q = hp->H * D, ld = qkv_width(hp), heads = hp->H + hp->G;
    real *d = t->mem.wide + (size_t)n0 * ld;
    sd_rope_backward(d, ld, t->mem.cosine + rope_table(t, layer),
                     t->mem.sine + rope_table(t, layer), t->mem.rows.pos + n0, N, heads, D,
                     hp->rope_dim, hp->rope_interleaved);
    if (hp->qk_norm) {
        const real *raw = a->raw + (size_t)n0 * heads * D, *rstd = a->rstd_qk + (size_t)n0 * heads;
        sd_headnorm_backward(d, ld, raw, heads * D, rstd, heads, y->q_norm, N, hp->H, D);
        sd_headnorm_backward(d + q, ld, raw + q, heads * D, rstd + hp->H, heads, y->k_norm, N,
                             hp->G, D);
    }
    norm_back(t, layer, SD_STACK_QKV, t->mem.wide, a->x, a->rstd1, y->attn_norm, n0, n1, worker);
}

// ---- gradients of the adapters

// A stack's dA by columns, then each part's dB by rows. dy [N, out] and x [N, in] are the whole
// micro-batch's.
static int grad_tasks(const sd_linear_stack *l) {
    int n = l->R > 0 ? (l->in + GRAD_COLUMNS - 1) / GRAD_COLUMNS : 0;
    for (int p = 0; p < l->n_parts; p++)
        if (l->part[p].r > 0) n += (l->part[p].rows + GRAD_ROWS - 1) / GRAD_ROWS;
    return n;
}

static void grad_task(sd_train *t, int layer, int stack, const real *dy, const real *x, int task) {
    sd_linear_stack l = sd_train_stack(t, layer, stack, 0);
    int N = t->mem.rows.N, n = (l.in + GRAD_COLUMNS - 1) / GRAD_COLUMNS;
    const real *u = t->mem.acts[layer].u[stack];
    if (task < n) {
        int k0 = task * GRAD_COLUMNS, k1 = k0 + GRAD_COLUMNS < l.in ? k0 + GRAD_COLUMNS : l.in;
        sd_linear_grad_a(t->grad + (l.A - t->theta), t->mem.du, x, N, &l, k0, k1);
        return;
    }
    task -= n;
    for (int p = 0; p < l.n_parts; p++) {
        const sd_linear_part *part = &l.part[p];
        n = part->r > 0 ? (part->rows + GRAD_ROWS - 1) / GRAD_ROWS : 0;
        if (task < n) {
            int m0 = task * GRAD_ROWS,
                m1 = m0 + GRAD_ROWS < part->rows ? m0 + GRAD_ROWS : part->rows;
            sd_linear_grad_b(t->grad + (part->B - t->theta), dy, l.out, u, N, &l, p, m0, m1);
            return;
        }
        task -= n;
    }
}

static void down_grads(sd_train *t, int layer, int i, int worker) {
    (void)worker;
    grad_task(t, layer, SD_STACK_DOWN, added_gradient(t, t->mem.acts[layer].down), t->mem.mid, i);
}

static void gu_grads(sd_train *t, int layer, int i, int worker) {
    (void)worker;
    grad_task(t, layer, SD_STACK_GU, t->mem.wide, t->mem.n, i);
}

static void qkv_grads(sd_train *t, int layer, int i, int worker) {
    (void)worker;
    grad_task(t, layer, SD_STACK_QKV, t->mem.wide, t->mem.n, i);
}

// Attention's backward tasks (segments x kv heads) first: they are the long ones; o's gradients
// read nothing that they write.
static void attention_back(sd_train *t, int layer, int i, int worker) {
    const sd_hparams *hp = &t->m->hp;
    const sd_train_acts *a = &t->mem.acts[layer];
    int n = input_needs_gradient(t, layer, SD_STACK_O) ? t->mem.rows.n_segments * hp->G : 0;
    if (i >= n) {
        grad_task(t, layer, SD_STACK_O, added_gradient(t, a->o), a->att, i - n);
        return;
    }
    const sd_train_segment *s = &t->mem.rows.segment[i / hp->G];
    const sd_causal causal = causal_of(t, layer);
    size_t at = (size_t)s->start, row = (size_t)hp->H * hp->D, wide = (size_t)qkv_width(hp);
    sd_causal_backward(t->mem.wide + at * wide, t->mem.mid + at * row, a->att + at * row,
                       a->lse + at * hp->H, a->qkv + at * wide, s->len, i % hp->G, &causal,
                       t->mem.worker[worker].attention);
}

static void run_back(sd_train *t, int layer, int stack,
                     void (*tile)(sd_train *, int, int, int, int),
                     void (*extra)(sd_train *, int, int, int), int more_tasks) {
    sd_linear_stack l = sd_train_stack(t, layer, stack, 0);
    sd_stack_id next = {layer, stack - 1, true};
    if (stack == SD_STACK_QKV) next = (sd_stack_id){layer - 1, SD_STACK_DOWN, true};
    // Recompute starts the next layer with its first stack instead.
    if (!input_needs_gradient(t, layer, stack) ||
        (stack == SD_STACK_QKV && t->recompute != SD_RECOMPUTE_NONE))
        next.layer = -1;
    sd_train_need(t, (sd_stack_id){layer, stack, true});
    sd_train_run(&(sd_train_work){.t = t, .layer = layer, .tile = tile, .next = next});
    sd_train_run(&(sd_train_work){.t = t,
                                  .layer = layer,
                                  .n_extra = more_tasks + grad_tasks(&l),
                                  .extra = extra,
                                  .next = {-1, 0, false}});
}

void sd_train_backward(sd_train *t, int layer) {
    run_back(t, layer, SD_STACK_DOWN, down_back, down_grads, 0);
    if (!input_needs_gradient(t, layer, SD_STACK_DOWN)) return;
    run_back(t, layer, SD_STACK_GU, gu_back, gu_grads, 0);
    if (!input_needs_gradient(t, layer, SD_STACK_GU)) return;
    bool on = input_needs_gradient(t, layer, SD_STACK_O);
    run_back(t, layer, SD_STACK_O, out_back, attention_back,
             on ? t->mem.rows.n_segments * t->m->hp.G : 0);
    if (on) run_back(t, layer, SD_STACK_QKV, qkv_back, qkv_grads, 0);
}
