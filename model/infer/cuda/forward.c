// One step of inference: its rows' arrays go to the device (step.c), then a layer after the other is queued on the
// context's stream, and at the end the host waits once.
//
//   norm | q, k, v (+ bias, LoRA) | QK-norm, RoPE, KV write | attention | o (+ LoRA) onto the residual stream |
//   norm | gate, up (+ LoRA) | their product | down (+ LoRA) onto the residual stream
//
// Every launch keeps a row's bits to itself (kernels/cuda/cuda.h), and none depends on how many rows there are but by
// the number of its blocks. In the last layer only rows that want logits or a token go on behind the KV write.
#include "model/infer/cuda/private.h"

// ---- products

typedef struct {
    sd_proj first, last; // matrices that read x, whose outputs lie side by side
    const void *x;       // [n, K]
    int K;
    float *y; // [n, ld]
    int ld;
    bool add;
} product;

// The largest rank of linear map i among the step's adapters.
static int rank_of(const sd_context *cx, int i) {
    int r = 0;
    for (int k = 0; k < cx->n_used; k++)
        if (cx->used[k]->r[i] > r) r = cx->used[k]->r[i];
    return r;
}

static sd_status add_lora(sd_context *cx, const sd_cuda_rows *rows, int i, const product *p,
                          float *y, sd_error *err) {
    sd_status st = SD_OK;
    const int r = rank_of(cx, i);
    const sd_cuda_lora *of = sd_cuda_adapters_of(cx->adapters, i);
    float *u = cx->products.device;
    if (!rows->which || !r) goto out;
    CUDA_TRY(cx->dev->lora_shrink(u, cx->cap_r, of, rows->which, p->x, rows->n, p->K, r, cx->real,
                                  cx->stream),
             "an adapter's product");
    CUDA_TRY(cx->dev->lora_expand(y, p->ld, of, rows->which, u, cx->cap_r, rows->n,
                                  cx->model->linear[i].w.rows, cx->stream),
             "an adapter's product");
out:
    return st;
}

static sd_status multiply(sd_context *cx, const sd_cuda_rows *rows, int l, const product *p,
                          sd_error *err) {
    sd_status st = SD_OK;
    float *y = p->y, *of[SD_PROJ_COUNT] = {0};
    for (int k = (int)p->first; k <= (int)p->last; k++) {
        const sd_cuda_weight *w = &cx->weights.layer[l].w[k];
        CUDA_TRY(cx->dev->matmul(y, p->ld, w, p->x, rows->n, cx->weights.layer[l].bias[k], p->add,
                                 cx->real, cx->stream),
                 "a matrix product");
        of[k] = y;
        y += w->M;
    }
    for (int i = l * cx->linears; i < (l + 1) * cx->linears; i++) {
        const sd_proj k = cx->model->linear[i].kind->first;
        if (k >= p->first && k <= p->last) SD_TRY(add_lora(cx, rows, i, p, of[k], err));
    }
out:
    return st;
}

// x += the product, or its norm where the block has one.
static sd_status add_to_stream(sd_context *cx, const sd_cuda_rows *rows, int l, sd_proj which,
                               int K, const float *post_norm, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const product p = {.first = which,
                       .last = which,
                       .x = cx->h,
                       .K = K,
                       .y = post_norm ? cx->d : rows->x,
                       .ld = hp->C,
                       .add = !post_norm};
    SD_TRY(multiply(cx, rows, l, &p, err));
    if (post_norm)
        CUDA_TRY(
            cx->dev->rmsnorm_add(rows->x, cx->d, post_norm, rows->n, hp->C, hp->eps, cx->stream),
            "a norm");
out:
    return st;
}

static sd_status norm(sd_context *cx, const sd_cuda_rows *rows, const float *w, sd_error *err) {
    const sd_hparams *hp = &cx->model->hp;
    return sd_cuda_status(
        cx->dev, cx->dev->rmsnorm(cx->h, rows->x, w, rows->n, hp->C, hp->eps, cx->real, cx->stream),
        "a norm", err);
}

// ---- pages

static sd_status rotate_and_store(sd_context *cx, const sd_cuda_rows *rows, int l, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const size_t width = (size_t)(hp->H + 2 * hp->G) * (size_t)hp->D,
                 q = (size_t)hp->H * (size_t)hp->D * sd_cuda_real_bytes(cx->real),
                 table = (size_t)cx->turn_positions * ((size_t)hp->rope_dim / 2),
                 kv = (size_t)hp->G * (size_t)hp->D;
    for (int i = 0; i < rows->chunks; i++) {
        const sd_cuda_chunk *c = &rows->chunk[i];
        const float *cosines = (const float *)cx->turn.device +
                               (size_t)sd_cuda_turn_table(cx, l, c->beyond) * 2 * table;
        const sd_cuda_rope a = {.qkv = cx->wide + (size_t)c->n0 * width,
                                .N = c->n,
                                .H = hp->H,
                                .G = hp->G,
                                .D = hp->D,
                                .q_norm = cx->weights.layer[l].q_norm,
                                .k_norm = cx->weights.layer[l].k_norm,
                                .eps = hp->eps,
                                .cos = cosines,
                                .sin = cosines + table,
                                .rot = hp->rope_dim,
                                .interleaved = hp->rope_interleaved,
                                .pos = rows->pos + c->n0,
                                .table = rows->table[cx->window_of[l]] +
                                         (size_t)c->n0 * (size_t)rows->table_ld,
                                .table_ld = rows->table_ld,
                                .kv = sd_cuda_kv_of(c->pages, l),
                                .key_scale = cx->key_scale ? cx->key_scale + (size_t)l * kv : NULL,
                                .q = (char *)rows->q + (size_t)c->n0 * q,
                                .type = cx->real};
        SD_TRY(sd_cuda_status(cx->dev, c->pages->failed, "copying a page", err));
        CUDA_TRY(cx->dev->rope_store(&a, cx->stream), "rotation");
    }
out:
    return st;
}

// h [n, H, D] <- attention of the rows' queries.
static sd_status attend(sd_context *cx, const sd_cuda_rows *rows, int l, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const size_t q = (size_t)hp->H * (size_t)hp->D * sd_cuda_real_bytes(cx->real);
    for (int i = 0; i < rows->chunks; i++) {
        const sd_cuda_chunk *c = &rows->chunk[i];
        const sd_cuda_attention a = {.y = (char *)cx->h + (size_t)c->n0 * q,
                                     .q = (const char *)rows->q + (size_t)c->n0 * q,
                                     .N = c->n,
                                     .H = hp->H,
                                     .G = hp->G,
                                     .D = hp->D,
                                     .scale = (float)sd_attention_scale(hp),
                                     .window = cx->model->layer[l].window,
                                     .pos = rows->pos + c->n0,
                                     .table = rows->table[cx->window_of[l]] +
                                              (size_t)c->n0 * (size_t)rows->table_ld,
                                     .table_ld = rows->table_ld,
                                     .kv = sd_cuda_kv_of(c->pages, l),
                                     .tile = rows->tile + c->tile0,
                                     .tiles = c->tiles,
                                     .longest = c->longest,
                                     .partial = cx->partial.device,
                                     .type = cx->real};
        CUDA_TRY(cx->dev->attend(&a, cx->stream), "attention");
    }
out:
    return st;
}

// The residual stream and the queries of the rows that go on, side by side: neighbours in one copy.
static sd_status gather_kept(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const size_t x = (size_t)hp->C * sizeof(float),
                 q = (size_t)hp->H * (size_t)hp->D * sd_cuda_real_bytes(cx->real);
    for (int k = 0, n; k < cx->kept.n; k += n) {
        const size_t from = (size_t)(cx->kept_row[k] - cx->row[0]);
        for (n = 1; k + n < cx->kept.n && cx->kept_row[k + n] == cx->kept_row[k] + n;) n++;
        CUDA_TRY(cx->dev->copy((char *)cx->kept.x + (size_t)k * x, (char *)cx->all.x + from * x,
                               (size_t)n * x, cx->stream),
                 "a copy");
        CUDA_TRY(cx->dev->copy((char *)cx->kept.q + (size_t)k * q, (char *)cx->all.q + from * q,
                               (size_t)n * q, cx->stream),
                 "a copy");
    }
out:
    return st;
}

// ---- a layer, all of them

static sd_status feed_forward(sd_context *cx, const sd_cuda_rows *rows, int l, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const product p = {
        .first = SD_WGATE, .last = SD_WUP, .x = cx->h, .K = hp->C, .y = cx->wide, .ld = 2 * hp->F};
    SD_TRY(norm(cx, rows, cx->weights.layer[l].ffn_norm, err));
    SD_TRY(multiply(cx, rows, l, &p, err));
    CUDA_TRY(cx->dev->glu(cx->h, cx->wide, cx->wide + hp->F, rows->n, hp->F, 2 * hp->F,
                          hp->act == SD_ACT_GELU_TANH, cx->real, cx->stream),
             "a gate");
    SD_TRY(add_to_stream(cx, rows, l, SD_WDOWN, hp->F, cx->weights.layer[l].post_ffn_norm, err));
out:
    return st;
}

static sd_status run_layer(sd_context *cx, int l, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const sd_cuda_rows *rows = &cx->all;
    const product qkv = {.first = SD_WQ,
                         .last = SD_WV,
                         .x = cx->h,
                         .K = hp->C,
                         .y = cx->wide,
                         .ld = (hp->H + 2 * hp->G) * hp->D};
    SD_TRY(norm(cx, rows, cx->weights.layer[l].attn_norm, err));
    SD_TRY(multiply(cx, rows, l, &qkv, err));
    SD_TRY(rotate_and_store(cx, rows, l, err));
    if (l == hp->L - 1) {
        if (!cx->kept.n) goto out;
        if (cx->kept.n < cx->all.n) SD_TRY(gather_kept(cx, err));
        rows = &cx->kept;
    }
    SD_TRY(attend(cx, rows, l, err));
    SD_TRY(
        add_to_stream(cx, rows, l, SD_WO, hp->H * hp->D, cx->weights.layer[l].post_attn_norm, err));
    SD_TRY(feed_forward(cx, rows, l, err));
out:
    return st;
}

static sd_status check_picks(const sd_context *cx, const sd_row *rows, int n, sd_error *err) {
    int wanted = 0, picks = 0;
    for (int i = 0; i < n; i++) {
        if (rows[i].hidden)
            return sd_fail(err, SD_EINVAL,
                           "this device gives no rows themselves, as embeddings want them; use "
                           "--device cpu");
        picks += rows[i].pick != NULL;
        wanted += rows[i].pick || rows[i].want_logits;
    }
    if (picks == 0 || wanted <= cx->max_picked) return SD_OK;
    return sd_fail(err, SD_EINVAL, "%d rows want logits or tokens, this context was opened for %d",
                   wanted, cx->max_picked);
}

static bool stops(const sd_context *cx) {
    return cx->stop && atomic_load_explicit(cx->stop, memory_order_relaxed);
}

// From tokens to the normed rows that the head reads.
static sd_status queue_layers(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    const float scale = hp->embedding_scale != 0 ? hp->embedding_scale : 1;
    CUDA_TRY(cx->dev->embedding(cx->x, &cx->weights.embedding, cx->all.token, cx->all.n, scale,
                                cx->stream),
             "the embedding");
    for (int l = 0; l < hp->L; l++) {
        SD_CHECK(!stops(cx), err, SD_EINTERRUPTED, "interrupted");
        SD_TRY(run_layer(cx, l, err));
    }
    if (cx->kept.n) SD_TRY(norm(cx, &cx->kept, cx->weights.out_norm, err));
out:
    return st;
}

sd_status sd_cuda_queue_picked(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(queue_layers(cx, err));
    SD_TRY(sd_cuda_queue_head(cx, 0, cx->kept.n, err));
out:
    return st;
}

static sd_status run(sd_context *cx, float *logits, sd_picked *picked, sd_error *err) {
    sd_status st = SD_OK;
    if (cx->steady) {
        SD_CHECK(!stops(cx), err, SD_EINTERRUPTED, "interrupted");
        SD_TRY(sd_cuda_run_steady(cx, err));
        CUDA_TRY(cx->dev->stream_wait(cx->stream), "a step");
        for (int i = 0; i < cx->kept.n; i++) picked[i] = (sd_picked){.token = cx->token_host[i]};
        goto out;
    }
    SD_TRY(queue_layers(cx, err));
    if (cx->kept.n) SD_TRY(sd_cuda_finish(cx, logits, picked, err));
out:
    return st;
}

sd_status sd_cuda_forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                          sd_picked *picked, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(check_picks(cx, rows, n, err));
    CUDA_TRY(cx->dev->choose(cx->device), "choosing the device");
    SD_TRY(sd_cuda_plan_step(cx, rows, n, err));
    SD_TRY(run(cx, logits, picked, err));
out:
    // Whatever was queued is over: the rows' arrays may be written again, and others may read the pages.
    if (st != SD_OK)
        (void)cx->dev->stream_wait(cx->stream);
    else
        st = sd_cuda_status(cx->dev, cx->dev->stream_wait(cx->stream), "a step", err);
    return st;
}
