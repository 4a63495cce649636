// Opening, the regions of work, and the order of a pass: embed, blocks upwards, head, blocks
// downwards to the lowest adapted one.
//
// A step of a small model is 2000 tokens; nothing in it is worth less than a few milliseconds, so a
// region's tasks are tiles of tokens (their size depends on N and the kernel) and what is
// independent of them runs beside them: the next stack's dequantisation, the parameter gradients.
#include "trainer/pass/state.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

// ---- weights

static const sd_proj stack_first[SD_STACKS + 1] = {SD_WQ, SD_WO, SD_WGATE, SD_WDOWN, SD_PROJ_COUNT};

void sd_train_dequantise(real *y, const sd_weight *w, int m, float *room) {
    const char *stored = (const char *)w->data + (size_t)m * sd_row_bytes(w->dtype, w->cols);
#if SD_REAL_IS_DOUBLE
    sd_dequantise(room, w->dtype, stored, w->cols);
    for (int k = 0; k < w->cols; k++) y[k] = (real)room[k];
#else
    (void)room;
    sd_dequantise(y, w->dtype, stored, w->cols);
#endif
}

void sd_train_pack(const sd_train *t, int worker, void *forward, void *backward, int m0, int count,
                   int M, int K) {
    const float *rows = t->mem.worker[worker].rows;
#if SD_REAL_IS_DOUBLE
    (void)backward, (void)M;
    real *to = (real *)forward + (size_t)m0 * (size_t)K;
    for (size_t i = 0; i < (size_t)count * (size_t)K; i++) to[i] = (real)rows[i];
#else
    if (forward) sd_panels_pack_forward(t->panels, forward, rows, m0, count, M, K);
    if (backward) sd_panels_pack_backward(t->panels, backward, rows, m0, count, M, K);
#endif
}

sd_linear sd_train_stack(const sd_train *t, int layer, int stack, int worker) {
    const sd_lora_slot *slot = t->lay.slot + layer * SD_PROJ_COUNT;
    const sd_layer *y = &t->m->layer[layer];
    void *W = t->mem.W[stack & 1];
    sd_linear l = {.in = y->w[stack_first[stack]].cols};
#if SD_REAL_IS_DOUBLE
    (void)worker;
    l.W.rows = W;
#else
    bool back = t->in_W[stack & 1].back;
    l.W = (sd_frozen){.by_rows = back ? NULL : W,
                      .by_columns = back ? W : NULL,
                      .panels = t->panels,
                      .scratch = t->mem.worker[worker].panels};
#endif
    for (int p = (int)stack_first[stack]; p < (int)stack_first[stack + 1]; p++) {
        const sd_lora_slot *s = &slot[p];
        if (s->r > 0 && !l.A) l.A = t->theta + s->a;
        l.part[l.n_parts++] = (sd_linear_part){.row = l.out,
                                               .rows = y->w[p].rows,
                                               .r = s->r,
                                               .u = l.R,
                                               .s = (real)s->scale,
                                               .B = t->theta + s->b};
        l.out += y->w[p].rows;
        l.R += s->r;
    }
    return l;
}

static int stack_rows(const sd_train *t, sd_stack_id id) {
    int n = 0;
    for (int p = (int)stack_first[id.stack]; p < (int)stack_first[id.stack + 1]; p++)
        n += t->m->layer[id.layer].w[p].rows;
    return n;
}

static int dequant_tasks(const sd_train *t, sd_stack_id id) {
    return id.layer < 0 ? 0 : (stack_rows(t, id) + SD_PANEL_ROWS - 1) / SD_PANEL_ROWS;
}

// SD_PANEL_ROWS rows of the stack, whichever of its matrices they belong to.
static void dequant_task(sd_train *t, sd_stack_id id, int task, int worker) {
    const sd_weight *w = &t->m->layer[id.layer].w[stack_first[id.stack]];
    int M = stack_rows(t, id), K = w->cols, m0 = task * SD_PANEL_ROWS, first = 0;
    int count = M - m0 < SD_PANEL_ROWS ? M - m0 : SD_PANEL_ROWS;
    for (int i = 0; i < count; i++) {
        while (m0 + i - first >= w->rows) first += w++->rows;
        sd_dequantise(t->mem.worker[worker].rows + (size_t)i * K, w->dtype,
                      (const char *)w->data + (size_t)(m0 + i - first) * sd_row_bytes(w->dtype, K),
                      K);
    }
    void *W = t->mem.W[id.stack & 1];
    bool rows = SD_REAL_IS_DOUBLE || !id.back;
    sd_train_pack(t, worker, rows ? W : NULL, rows ? NULL : W, m0, count, M, K);
}

// ---- regions

// Sixteen tiles, of whole runs of the rows that a kernel takes.
int sd_train_tile_rows(const sd_train *t, int N) {
    int step = t->panels->rows, least = (36 + step - 1) / step * step;
    int rows = ((N + 15) / 16 + step - 1) / step * step;
    return rows < least ? least : rows > SD_TRAIN_TILE ? SD_TRAIN_TILE : rows;
}

static void region_task(void *ctx, int task, int worker) {
    const sd_train_work *w = ctx;
    if (task < w->tiles) {
        int n0 = task * w->tile_rows, n1 = n0 + w->tile_rows;
        w->tile(w->t, w->layer, n0, n1 < w->t->mem.rows.N ? n1 : w->t->mem.rows.N, worker);
    } else if (task - w->tiles < w->n_extra) {
        w->extra(w->t, w->layer, task - w->tiles, worker);
    } else {
        dequant_task(w->t, w->next, task - w->tiles - w->n_extra, worker);
    }
}

static bool is_in_buffer(const sd_train *t, sd_stack_id id) {
    sd_stack_id in = t->in_W[id.stack & 1];
    return in.layer == id.layer && in.stack == id.stack &&
           (in.back == id.back || SD_REAL_IS_DOUBLE);
}

void sd_train_run(sd_train_work *w) {
    sd_train *t = w->t;
    w->tile_rows = sd_train_tile_rows(t, t->mem.rows.N);
    w->tiles = w->tile ? (t->mem.rows.N + w->tile_rows - 1) / w->tile_rows : 0;
    if (w->next.layer >= 0 && is_in_buffer(t, w->next)) w->next.layer = -1;
    if (w->next.layer >= 0) t->in_W[w->next.stack & 1] = w->next;
    sd_pool_run(t->pool, w->tiles + w->n_extra + dequant_tasks(t, w->next), region_task, w);
}

void sd_train_need(sd_train *t, sd_stack_id id) {
    sd_train_run(&(sd_train_work){.t = t, .layer = id.layer, .next = id});
}

// ---- open and close

static int lowest_adapted(const sd_lora_layout *lay) {
    for (int i = 0; i < lay->L * SD_PROJ_COUNT; i++)
        if (lay->slot[i].r > 0) return i / SD_PROJ_COUNT;
    return lay->L;
}

static void rope_tables(sd_train *t, double *inverse) {
    const sd_hparams *hp = &t->m->hp;
    int half = hp->rope_dim / 2;
    double scale = 1;
    sd_rope_frequencies(hp, inverse, &scale);
    for (int p = 0; p < t->o.max_tokens; p++) {
        for (int i = 0; i < half; i++) {
            t->mem.cosine[(size_t)p * half + i] = (real)(cos(p * inverse[i]) * scale);
            t->mem.sine[(size_t)p * half + i] = (real)(sin(p * inverse[i]) * scale);
        }
    }
}

static sd_status copy_layout(sd_lora_layout *to, const sd_lora_layout *from, const sd_hparams *hp,
                             sd_error *err) {
    sd_status st = SD_OK;
    size_t n = (size_t)from->L * SD_PROJ_COUNT;
    SD_CHECK(from->L == hp->L, err, SD_EINVAL,
             "the adapter's layout is of %d layers, the model has %d", from->L, hp->L);
    *to = (sd_lora_layout){from->L, sd_alloc(n, sizeof *to->slot), from->n_params};
    SD_CHECK_ALLOC(to->slot, err);
    memcpy(to->slot, from->slot, n * sizeof *to->slot);
out:
    return st;
}

sd_status sd_train_open(sd_train **out, sd_model *m, const sd_lora_layout *lay, sd_pool *pool,
                        const sd_train_options *o, sd_error *err) {
    sd_status st = SD_OK;
    double *inverse = NULL;
    sd_train *t = sd_alloc(1, sizeof *t);
    *out = NULL;
    SD_CHECK_ALLOC(t, err);
    sd_train_plan_report plan;
    int threads = sd_pool_threads(pool);
    SD_TRY(copy_layout(&t->lay, lay, &m->hp, err));
    SD_TRY(sd_train_plan(&plan, m, lay, o, threads, err));
    t->m = sd_model_acquire(m);
    t->pool = pool;
    t->o = *o;
    t->recompute = plan.recompute;
    // The double build is the reference: its products never round to bf16, whatever auto chose.
    t->panels = sd_panels_best(!SD_REAL_IS_DOUBLE && plan.compute == SD_TRAIN_BF16);
    t->lowest = lowest_adapted(lay);
    t->causal = (sd_causal){m->hp.H, m->hp.G, m->hp.D, (real)(1 / sqrt((double)m->hp.D))};
    sd_train_carve(&t->mem, NULL, &m->hp, lay, t->panels, o->max_tokens, t->recompute, t->lowest,
                   threads);
    t->block = sd_alloc(t->mem.bytes, 1);
    inverse = sd_alloc((size_t)m->hp.rope_dim / 2 + 1, sizeof *inverse);
    SD_CHECK_ALLOC(inverse, err);
    SD_CHECK(t->block, err, SD_ENOMEM,
             "%zu MiB for the training pass are not there; lower micro_batch_tokens",
             t->mem.bytes >> 20);
    sd_train_carve(&t->mem, t->block, &m->hp, lay, t->panels, o->max_tokens, t->recompute,
                   t->lowest, threads);
    rope_tables(t, inverse);
    t->in_W[0].layer = t->in_W[1].layer = -1;
    *out = t;
    t = NULL;
out:
    free(inverse);
    sd_train_close(t);
    return st;
}

void sd_train_close(sd_train *t) {
    if (!t) return;
    sd_lora_layout_free(&t->lay);
    sd_model_release(t->m);
    free(t->block);
    free(t);
}

// ---- a pass

static void embed_tile(sd_train *t, int layer, int n0, int n1, int worker) {
    int C = t->m->hp.C;
    for (int n = n0; n < n1; n++) {
        sd_train_dequantise(t->mem.acts[layer].x + (size_t)n * C, &t->m->embedding,
                            t->mem.rows.token[n], t->mem.worker[worker].rows);
    }
}

static sd_status run_pass(sd_train *t, const real *theta, real *grad, const sd_train_batch *b,
                          sd_train_sum *sum, sd_error *err) {
    sd_status st = SD_OK;
    sd_train_rows *rows = &t->mem.rows;
    SD_TRY(sd_train_compact(rows, b, t->m->hp.V, t->o.max_tokens, err));
    sum->tokens += rows->N;
    sum->supervised += rows->n_supervised;
    if (rows->n_supervised == 0) return SD_OK; // nothing to learn or to measure
    t->theta = theta;
    t->grad = grad;
    sd_train_run(&(sd_train_work){.t = t, .tile = embed_tile, .next = {0, SD_STACK_QKV, false}});
    for (int l = 0; l < t->m->hp.L; l++) sd_train_forward(t, l);
    sum->loss += sd_train_head(t);
    if (!grad) return SD_OK;
    for (int l = t->m->hp.L - 1; l >= t->lowest; l--) {
        sd_train_again(t, l);
        sd_train_backward(t, l);
    }
out:
    return st;
}

// The frozen weights are read from the model's file in every pass: what was computed counts when they
// are still those of the start.
sd_status sd_train_accumulate(sd_train *t, const real *theta, real *grad, const sd_train_batch *b,
                              sd_train_sum *sum, sd_error *err) {
    sd_status st = run_pass(t, theta, grad, b, sum, err);
    return st == SD_OK ? sd_model_check(t->m, err) : st;
}

sd_status sd_train_loss(sd_train *t, const real *theta, const sd_train_batch *b, sd_train_sum *sum,
                        sd_error *err) {
    sd_status st = run_pass(t, theta, NULL, b, sum, err);
    return st == SD_OK ? sd_model_check(t->m, err) : st;
}
