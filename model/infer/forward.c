// One step of inference. A layer is five parallel regions over columns or heads:
//
//   norm + quantise | QKV + bias + LoRA | QK-norm + RoPE + KV write | attention | quantise |
//   O + LoRA + residual | norm + quantise | gate, up + LoRA + SwiGLU | quantise | down + LoRA +
//   residual
//
// The parts by row (norm, quantise, RoPE) are microseconds when few rows run, less than waking a
// thread costs: then each thread norms and quantises for itself what its columns read, RoPE runs on
// the calling thread, and all become regions only in a prefill. Each row's activations are
// quantised once for all matrices that read them. In the last layer only rows
// that want logits go on after their keys and values are written.
//
// Nothing here reduces over rows or splits an inner product, so a row's bits are those that the
// kernels give it (kernels/ops.h), whatever else runs in the step.
#include "model/infer/private.h"

#include "base/memory.h"
#include "model/infer/weight_cache/row_sums.h"

#include <math.h>
#include <sched.h>
#include <string.h>

// A row range is worth a region of its own from this many values on.
enum { REGION_VALUES = 16 * 1024, TASKS_PER_THREAD = 2, SHRINK_ROWS = 32 };

// ---- regions

typedef void (*row_part)(sd_context *cx, int n0, int n1);
typedef struct {
    sd_context *cx;
    row_part part;
    int n, tasks;
} row_job;

static void run_row_task(void *ctx, int task, int worker) {
    (void)worker;
    row_job *j = ctx;
    int64_t n = j->n;
    j->part(j->cx, (int)(n * task / j->tasks), (int)(n * (task + 1) / j->tasks));
}

// part over all rows; values: what one row costs.
static void by_rows(sd_context *cx, row_part part, int values) {
    int tasks = sd_pool_threads(cx->pool) * TASKS_PER_THREAD;
    if (tasks > cx->n) tasks = cx->n;
    if ((int64_t)cx->n * values < REGION_VALUES) tasks = 1;
    row_job j = {cx, part, cx->n, tasks};
    sd_pool_run(cx->pool, tasks, run_row_task, &j);
}

// ---- LoRA, not merged: u = A x for rows of one adapter, then y += B u on the columns of a task

// Neighbouring rows of one adapter go together.
static sd_status find_runs(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    cx->runs = 0;
    for (int n = 0; n < cx->n; n++) {
        const sd_adapter *a = cx->row[n].adapter;
        if (!a) continue;
        if (n > 0 && cx->row[n - 1].adapter == a) {
            cx->run[cx->runs - 1].n++;
            continue;
        }
        sd_lora_run *run = &cx->run[cx->runs];
        *run = (sd_lora_run){.n0 = n, .n = 1};
        SD_TRY(sd_lora_table_get(&run->weights, cx->lora, a, cx->model, err));
        cx->runs++;
    }
out:
    return st;
}

// Where A x of the run's rows begins: they stand r apart.
static float *lora_u(const sd_context *cx, const sd_lora_run *run, sd_proj p) {
    return cx->u + ((size_t)p * cx->max_rows + run->n0) * cx->cap_r;
}

// u of projection p for the rows [n0, n1).
static void shrink(sd_context *cx, const sd_ready *in, sd_proj p, int n0, int n1) {
    const float *x = cx->in.norm ? in->xn : cx->in.x;
    const int K = cx->in.K;
    for (int i = 0; i < cx->runs; i++) {
        const sd_lora_run *run = &cx->run[i];
        int first = run->n0 > n0 ? run->n0 : n0,
            end = run->n0 + run->n < n1 ? run->n0 + run->n : n1;
        if (first >= end) continue;
        const sd_lora_packed *l = &run->weights->of[cx->l * SD_PROJ_COUNT + p];
        sd_act rows = {.compute = SD_COMPUTE_FP32, .K = K, .x = x + (size_t)first * K};
        if (l->r)
            cx->ops->matmul(lora_u(cx, run, p) + (size_t)(first - run->n0) * l->r, l->r, &l->A,
                            &rows, end - first, 0, l->r);
    }
}

// The first tasks of a region over columns are the shrinks of what it reads, so that threads share
// them; whoever is to expand waits for those still running.
static void wait_for_shrinks(sd_context *cx) {
    for (int i = 0; atomic_load_explicit(&cx->shrinks_left, memory_order_acquire) > 0; i++)
        if ((i & 1023) == 1023) sched_yield();
}

static void expand(sd_context *cx, sd_proj p, float *y, int M, int m0, int m1) {
    if (cx->runs) wait_for_shrinks(cx);
    for (int i = 0; i < cx->runs; i++) {
        const sd_lora_run *run = &cx->run[i];
        const sd_lora_packed *l = &run->weights->of[cx->l * SD_PROJ_COUNT + p];
        sd_act u = {.compute = SD_COMPUTE_FP32, .K = l->r, .x = lora_u(cx, run, p)};
        if (l->r) cx->ops->matmul_add(y + (size_t)run->n0 * M, M, &l->B, &u, run->n, m0, m1);
    }
}

// ---- what a region over columns reads

static void get_ready(sd_context *cx, sd_ready *to, int n0, int n1) {
    const sd_input *in = &cx->in;
    const size_t at = (size_t)n0 * in->K;
    if (in->norm)
        cx->ops->rmsnorm(to->xn + at, in->x + at, in->norm, n1 - n0, in->K, cx->model->hp.eps);
    cx->ops->act_rows(&to->act, in->norm ? to->xn : in->x, n0, n1);
}
static void ready_rows(sd_context *cx, int n0, int n1) {
    get_ready(cx, &cx->shared, n0, n1);
}

// The region reads `in` from now on.
static void read_from(sd_context *cx, sd_input in) {
    cx->in = in;
    cx->region++;
    if (cx->n <= cx->own_rows) return; // each thread with its first task
    sd_act_shape(&cx->shared.act, cx->n, in.K, in.group);
    by_rows(cx, ready_rows, in.K);
}

static const sd_ready *ready_of(sd_context *cx, int worker) {
    sd_ready *own = &cx->own[worker];
    if (cx->n > cx->own_rows) return &cx->shared;
    if (own->region != cx->region) {
        sd_act_shape(&own->act, cx->n, cx->in.K, cx->in.group);
        get_ready(cx, own, 0, cx->n);
        own->region = cx->region;
    }
    return own;
}

// ---- regions over columns

typedef void (*col_part)(sd_context *cx, const sd_act *x, int which, int m0, int m1);
typedef struct {
    sd_context *cx;
    col_part part;
    int shrinks;    // tasks before those of columns
    int width;      // tiles of columns of a task
    int columns[3]; // of each matrix of the group; 0: fewer matrices
} col_job;

static int tiles_of(int columns) {
    return (columns + SD_TILE_M - 1) / SD_TILE_M;
}

static void run_shrink(col_job *j, const sd_ready *in, int task) {
    int of_rows = (j->cx->n + SHRINK_ROWS - 1) / SHRINK_ROWS, n0 = task % of_rows * SHRINK_ROWS;
    int n1 = n0 + SHRINK_ROWS < j->cx->n ? n0 + SHRINK_ROWS : j->cx->n;
    shrink(j->cx, in, (sd_proj)((int)j->cx->in.from + task / of_rows), n0, n1);
    atomic_fetch_sub_explicit(&j->cx->shrinks_left, 1, memory_order_release);
}

static void run_col_task(void *ctx, int task, int worker) {
    col_job *j = ctx;
    const sd_ready *in = ready_of(j->cx, worker);
    if (task < j->shrinks) {
        run_shrink(j, in, task);
        return;
    }
    // The tiles of the matrices stand in one row, and a task may end in another one than it began.
    int from = (task - j->shrinks) * j->width, end = from + j->width;
    for (int i = 0; i < 3; i++) {
        const int tiles = tiles_of(j->columns[i]), t0 = from > 0 ? from : 0;
        const int t1 = end < tiles ? end : tiles, m1 = t1 * SD_TILE_M;
        if (t0 < t1)
            j->part(j->cx, &in->act, i, t0 * SD_TILE_M, m1 < j->columns[i] ? m1 : j->columns[i]);
        from -= tiles, end -= tiles;
    }
}

static void by_columns(sd_context *cx, col_part part, sd_input in, int a, int b, int c) {
    col_job j = {.cx = cx, .part = part, .columns = {a, b, c}};
    read_from(cx, in);
    int of_rows = (cx->n + SHRINK_ROWS - 1) / SHRINK_ROWS;
    if (cx->runs) j.shrinks = ((int)in.to - (int)in.from + 1) * of_rows;
    atomic_store_explicit(&cx->shrinks_left, j.shrinks, memory_order_relaxed);
    const int tiles = tiles_of(a) + tiles_of(b) + tiles_of(c);
    const int parts = sd_pool_threads(cx->pool) * TASKS_PER_THREAD;
    j.width = (tiles + parts - 1) / parts;
    sd_pool_run(cx->pool, j.shrinks + (tiles + j.width - 1) / j.width, run_col_task, &j);
}

// y [N, M] columns [m0, m1) <- W x + bias + s B A x
static void project(sd_context *cx, const sd_act *x, sd_proj p, float *y, int M, const float *bias,
                    int m0, int m1) {
    const sd_packed *w = &cx->w[cx->l * SD_PROJ_COUNT + p];
    cx->ops->matmul(y, M, w, x, cx->n, m0, m1);
    for (int n = 0; bias && n < cx->n; n++)
        cx->ops->add(y + (size_t)n * M + m0, bias + m0, m1 - m0);
    expand(cx, p, y, M, m0, m1);
}

static void add_residual(sd_context *cx, int m0, int m1) {
    int C = cx->model->hp.C;
    for (int n = 0; n < cx->n; n++)
        cx->ops->add(cx->x + (size_t)n * C + m0, cx->y + (size_t)n * C + m0, m1 - m0);
}

// ---- the parts of a layer

static void embed(sd_context *cx, int n0, int n1) {
    const sd_weight *e = &cx->model->embedding;
    const sd_hparams *hp = &cx->model->hp;
    size_t stride = sd_row_bytes(e->dtype, e->cols);
    int half = hp->rope_dim / 2;
    for (int n = n0; n < n1; n++) {
        const sd_row *r = &cx->row[n];
        const void *row = (const char *)e->data + (size_t)r->token * stride;
        void *copy = cx->y + (size_t)n * hp->C; // no type has more than four bytes a value
        if (cx->embedding && !(sd_map_read(copy, cx->embedding, row, stride) &&
                               sd_row_sum(copy, stride) == cx->row_sum[r->token]))
            atomic_store_explicit(&cx->lost, true, memory_order_relaxed);
        sd_dequantise(cx->x + (size_t)n * hp->C, e->dtype, cx->embedding ? copy : row, hp->C);
        float *c = cx->cos_n + (size_t)n * half, *s = cx->sin_n + (size_t)n * half;
        for (int i = 0; i < half; i++) {
            double angle = r->pos * cx->inv[i];
            c[i] = (float)(cos(angle) * cx->attn_scale);
            s[i] = (float)(sin(angle) * cx->attn_scale);
        }
    }
}

static void qkv(sd_context *cx, const sd_act *x, int which, int m0, int m1) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_layer *layer = &cx->model->layer[cx->l];
    float *const y[] = {cx->q, cx->k, cx->v};
    const float *const bias[] = {layer->bq, layer->bk, layer->bv};
    project(cx, x, (sd_proj)(SD_WQ + which), y[which], (which == 0 ? hp->H : hp->G) * hp->D,
            bias[which], m0, m1);
}

static void rotate_and_store(sd_context *cx, int n0, int n1) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_layer *layer = &cx->model->layer[cx->l];
    int D = hp->D, half = hp->rope_dim / 2;
    for (int n = n0; n < n1; n++) {
        const sd_row *r = &cx->row[n];
        float *q = cx->q + (size_t)n * hp->H * D, *k = cx->k + (size_t)n * hp->G * D,
              *v = cx->v + (size_t)n * hp->G * D;
        const float *c = cx->cos_n + (size_t)n * half, *s = cx->sin_n + (size_t)n * half;
        if (hp->qk_norm) {
            cx->ops->rmsnorm(q, q, layer->q_norm, hp->H, D, hp->eps);
            cx->ops->rmsnorm(k, k, layer->k_norm, hp->G, D, hp->eps);
        }
        for (int h = 0; h < hp->H; h++)
            cx->ops->rope(q + (size_t)h * D, c, s, D, hp->rope_dim, hp->rope_interleaved);
        for (int g = 0; g < hp->G; g++)
            cx->ops->rope(k + (size_t)g * D, c, s, D, hp->rope_dim, hp->rope_interleaved);
        if (cx->key_size) sd_kv_level_keys(cx, q, k);
        for (int g = 0; g < hp->G; g++) {
            sd_kv_store(cx, r, 0, g, k + (size_t)g * D);
            sd_kv_store(cx, r, 1, g, v + (size_t)g * D);
        }
    }
}

static void output(sd_context *cx, const sd_act *x, int which, int m0, int m1) {
    (void)which;
    project(cx, x, SD_WO, cx->y, cx->model->hp.C, NULL, m0, m1);
    add_residual(cx, m0, m1);
}

static void gate_up(sd_context *cx, const sd_act *x, int which, int m0, int m1) {
    (void)which;
    int F = cx->model->hp.F;
    project(cx, x, SD_WGATE, cx->gate, F, NULL, m0, m1);
    project(cx, x, SD_WUP, cx->up, F, NULL, m0, m1);
    for (int n = 0; n < cx->n; n++) {
        size_t at = (size_t)n * F + m0;
        cx->ops->swiglu(cx->gate + at, cx->gate + at, cx->up + at, m1 - m0);
    }
}
static void down(sd_context *cx, const sd_act *x, int which, int m0, int m1) {
    (void)which;
    project(cx, x, SD_WDOWN, cx->y, cx->model->hp.C, NULL, m0, m1);
    add_residual(cx, m0, m1);
}

typedef struct {
    sd_context *cx;
    float *logits;
    int width;
} head_job;
static void head_task(void *ctx, int task, int worker) {
    head_job *j = ctx;
    int V = j->cx->model->hp.V, m0 = task * j->width, m1 = m0 + j->width;
    j->cx->ops->matmul(j->logits, V, &j->cx->packs[0], &ready_of(j->cx, worker)->act, j->cx->n, m0,
                       m1 < V ? m1 : V);
}

// Rows that want no logits are done once their keys and values are written.
static void keep_wanted(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    size_t C = (size_t)hp->C, Q = (size_t)hp->H * hp->D;
    int kept = 0;
    for (int n = 0; n < cx->n; n++) {
        if (!cx->row[n].want_logits) continue;
        if (kept != n) {
            cx->row[kept] = cx->row[n];
            memcpy(cx->x + kept * C, cx->x + n * C, C * sizeof(float));
            memcpy(cx->q + kept * Q, cx->q + n * Q, Q * sizeof(float));
        }
        kept++;
    }
    cx->n = kept;
    (void)find_runs(cx, NULL); // the adapters are packed since the step began
    sd_attention_replan(cx);
}

// x [N, K] as the projections [from, to] of the layer read it.
static sd_input input_of(const sd_context *cx, const float *x, const float *norm, int K,
                         sd_proj from, sd_proj to) {
    sd_input in = {x, norm, K, SD_QBLOCK, from, to};
    for (sd_proj p = from; p <= to; p++) {
        int group = sd_act_group(cx->w[cx->l * SD_PROJ_COUNT + p].w.dtype);
        if (group > in.group) in.group = group;
    }
    return in;
}

static void run_layer(sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    const int Q = hp->H * hp->D;
    const sd_layer *layer = &cx->model->layer[cx->l];
    by_columns(cx, qkv, input_of(cx, cx->x, layer->attn_norm, hp->C, SD_WQ, SD_WV), Q,
               hp->G * hp->D, hp->G * hp->D);
    by_rows(cx, rotate_and_store, (hp->H + 2 * hp->G) * hp->D);
    if (cx->l == hp->L - 1) keep_wanted(cx);
    if (cx->n == 0) return;
    sd_attention_run(cx);
    by_columns(cx, output, input_of(cx, cx->att, NULL, Q, SD_WO, SD_WO), hp->C, 0, 0);
    by_columns(cx, gate_up, input_of(cx, cx->x, layer->ffn_norm, hp->C, SD_WGATE, SD_WUP), hp->F, 0,
               0);
    by_columns(cx, down, input_of(cx, cx->gate, NULL, hp->F, SD_WDOWN, SD_WDOWN), hp->C, 0, 0);
}

static void run_head(sd_context *cx, float *logits) {
    const sd_hparams *hp = &cx->model->hp;
    read_from(cx, (sd_input){.x = cx->x,
                             .norm = cx->model->out_norm,
                             .K = hp->C,
                             .group = sd_act_group(cx->packs[0].w.dtype)});
    int parts = sd_pool_threads(cx->pool) * TASKS_PER_THREAD * 4;
    int width = ((hp->V + parts - 1) / parts + SD_TILE_M - 1) / SD_TILE_M * SD_TILE_M;
    head_job j = {cx, logits, width};
    sd_pool_run(cx->pool, (hp->V + width - 1) / width, head_task, &j);
}

// ---- the step

static sd_status check_row(const sd_context *cx, const sd_row *rows, int n, sd_error *err) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_row *r = &rows[n];
    if (r->token < 0 || r->token >= hp->V)
        return sd_fail(err, SD_EINVAL, "token %d is not in the vocabulary of %d", r->token, hp->V);
    if (!r->kv || r->kv->type != cx->kv ||
        r->kv->bytes != sd_kv_bytes_per_position(cx) * (size_t)r->kv->ctx)
        return sd_fail(err, SD_EINVAL, "row %d: its cache was not made for this model", n);
    if (r->pos < 0 || r->pos >= r->kv->ctx)
        return sd_fail(err, SD_EINVAL, "position %d is outside the context of %d; use a larger one",
                       r->pos, r->kv->ctx);
    if (n > 0 && rows[n - 1].kv == r->kv && rows[n - 1].pos >= r->pos)
        return sd_fail(err, SD_EINVAL, "row %d: positions of a cache must ascend", n);
    if (r->adapter && (r->adapter->L != hp->L || r->adapter->max_r > SD_MAX_RANK))
        return sd_fail(err, SD_EINVAL, "adapter '%s' was not made for this model",
                       r->adapter->name ? r->adapter->name : "");
    return SD_OK;
}

static sd_status reserve_rank(sd_context *cx, int r, sd_error *err) {
    if (r <= cx->cap_r) return SD_OK;
    float *p = sd_alloc((size_t)cx->max_rows * SD_PROJ_COUNT * r, sizeof *p);
    if (!p) return sd_fail(err, SD_ENOMEM, "out of memory for an adapter of rank %d", r);
    free(cx->u);
    cx->u = p;
    cx->cap_r = r;
    return SD_OK;
}

// Grows what depends on the rows: both only ever grow, so a steady state allocates nothing.
static sd_status reserve(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < cx->runs && st == SD_OK; i++)
        st = reserve_rank(cx, cx->row[cx->run[i].n0].adapter->max_r, err);
    return st == SD_OK ? sd_attention_reserve(cx, err) : st;
}

sd_status sd_context_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    const sd_lora_weights *weights;
    sd_status st = sd_lora_table_get(&weights, cx->lora, a, cx->model, err);
    return st == SD_OK ? reserve_rank(cx, a->max_r, err) : st;
}

sd_status sd_forward(sd_context *cx, const sd_row *rows, int n, float *logits, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    bool wanted = false;
    SD_CHECK(n > 0 && n <= cx->max_rows, err, SD_EINVAL, "%d rows in a step, 1 to %d are possible",
             n, cx->max_rows);
    for (int i = 0; i < n; i++) {
        SD_TRY(check_row(cx, rows, i, err));
        wanted |= rows[i].want_logits;
    }
    SD_CHECK(logits || !wanted, err, SD_EINVAL, "rows want logits, but there is no place for them");
    memcpy(cx->row, rows, (size_t)n * sizeof *rows);
    cx->n = n;
    sd_attention_plan(cx);
    SD_TRY(find_runs(cx, err));
    SD_TRY(reserve(cx, err));
    atomic_store_explicit(&cx->lost, false, memory_order_relaxed);
    by_rows(cx, embed, hp->C);
    SD_CHECK(
        !atomic_load_explicit(&cx->lost, memory_order_relaxed), err, SD_EIO,
        "%s: its embedding cannot be read any more, or is not what was loaded; restore the file "
        "or start again with what it is now",
        cx->model->path);
    const atomic_bool *stop = cx->stop;
    for (cx->l = 0; cx->l < hp->L; cx->l++) {
        SD_CHECK(!stop || !atomic_load_explicit(stop, memory_order_relaxed), err, SD_EINTERRUPTED,
                 "interrupted");
        run_layer(cx);
    }
    if (cx->n) run_head(cx, logits);
out:
    return st;
}
