// What lives longer than a step: packed weights and scratch.
//
// Big buffers are anonymous mappings, not malloc: pages come when they are first written, so a
// cache of 32k positions costs what its sequence has used, and a context for 512 rows that decodes
// one costs one row.
#include "model/infer/cpu/private.h"

#include "base/log.h"
#include "base/memory.h"
#include "kernels/huge_arena.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/row_sums.h"
#include "model/load/source.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>

// ---- packing

typedef struct {
    sd_context *cx;
    const sd_weight *const *w; // [tasks]
    sd_packed_weight *p;       // [tasks]
    sd_error *err;             // [tasks]
    sd_status *status;         // [tasks]
} pack_job;

// Plain C uses the stored form as it is, but copied into memory too: the file may change.
static sd_status copy_stored(sd_packed_weight *p, const sd_weight *w, sd_error *err) {
    p->bytes = (size_t)w->rows * sd_row_bytes(w->dtype, w->cols);
    p->data = sd_huge_arena_alloc(&p->arena, p->bytes);
    if (!p->data)
        return sd_fail(err, SD_ENOMEM, "out of memory for a weight of %zu bytes", p->bytes);
    memcpy(p->data, w->data, p->bytes);
    p->w.data = p->data;
    return SD_OK;
}

static bool told_to_stop(const sd_context *cx) {
    return cx->stop && atomic_load_explicit(cx->stop, memory_order_relaxed);
}

static void pack_one(void *ctx, int task, int worker) {
    (void)worker;
    pack_job *j = ctx;
    const sd_ops *ops = j->cx->ops;
    sd_packed_weight *p = &j->p[task];
    if (told_to_stop(j->cx)) {
        j->status[task] =
            sd_fail(&j->err[task], SD_EINTERRUPTED, "%s: interrupted", j->cx->model->path);
        return;
    }
    j->status[task] = ops->pack(p, j->w[task], j->cx->compute, j->cx->stop, &j->err[task]);
    if (j->status[task] == SD_OK && !ops->layout)
        j->status[task] = copy_stored(p, j->w[task], &j->err[task]);
}

static sd_status pack_all(sd_context *cx, const sd_weight *const *w, int n, sd_error *err) {
    sd_status st = SD_OK;
    pack_job j = {.cx = cx, .w = w, .p = cx->packed};
    j.err = sd_alloc((size_t)n, sizeof *j.err);
    j.status = sd_alloc((size_t)n, sizeof *j.status);
    SD_CHECK_ALLOC(j.err && j.status, err);
    sd_pool_run(cx->pool, n, pack_one, &j);
    for (int i = 0; i < n; i++)
        if (j.status[i] != SD_OK) {
            if (err) *err = j.err[i];
            st = j.status[i];
            goto out;
        }
out:
    free(j.err);
    free(j.status);
    return st;
}

static sd_weight_cache_user pack_user(const sd_context *cx) {
    return (sd_weight_cache_user){cx->cache_dir, cx->model, cx->ops, cx->pool, cx->stop};
}

// Keeps what was packed for the next start. A cache that cannot be written costs time, not the
// answer: a warning, once.
static sd_status keep(sd_context *cx, int n, const uint64_t *row_sum, sd_error *err) {
    sd_error why = {0};
    sd_log(SD_LOG_INFO, "%s: keeping its packed form (%zu MiB) in %s for the next start",
           cx->model->path, cx->packed_bytes >> 20, cx->cache_dir);
    sd_weight_cache_user u = pack_user(cx);
    sd_status st = sd_weight_cache_save(cx->packed, n, row_sum, &u, &why);
    if (st == SD_EINTERRUPTED) {
        if (err) *err = why;
        return st;
    }
    if (st == SD_EMISMATCH)
        sd_log(SD_LOG_WARN, "%s", why.message);
    else if (st != SD_OK)
        sd_log(SD_LOG_WARN, "%s; every start packs anew, --no-pack-cache ends this warning",
               why.message);
    return SD_OK;
}

// SD_OK: the weights were read from the cache. SD_ENOTFOUND: they must be packed, and *keep_it says
// whether to keep the result.
static sd_status load_kept(sd_context *cx, const sd_weight *const *w, int n, bool *keep_it,
                           sd_error *err) {
    sd_error why = {0};
    sd_weight_cache_user u = pack_user(cx);
    sd_status st = sd_weight_cache_load(cx->packed, w, n, &u, cx->compute, &why);
    if (st == SD_OK) return st;
    if (st == SD_EINTERRUPTED) {
        if (err) *err = why;
        return st;
    }
    *keep_it = st != SD_EMISMATCH;
    if (st == SD_EMISMATCH)
        sd_log(SD_LOG_WARN, "%s", why.message);
    else if (st != SD_ENOTFOUND && st != SD_EINVAL)
        sd_log(SD_LOG_WARN, "%s; it is made again", why.message);
    return SD_ENOTFOUND;
}

// The same for all layers.
static void place_matrices(sd_context *cx) {
    const sd_model *m = cx->model;
    cx->linears = m->n_linears / m->hp.L;
    for (int i = 0; i < cx->linears; i++)
        for (int k = 0; k < m->linear[i].kind->matrices; k++) {
            int p = (int)m->linear[i].kind->first + k;
            cx->linear_of[p] = i;
            cx->part_of[p] = k;
        }
}

static sd_status pack_weights(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    sd_model *m = cx->model;
    int n = 1 + m->hp.L * SD_PROJ_COUNT;
    size_t bytes = 0;
    const sd_weight **w = sd_alloc((size_t)n, sizeof *w);
    cx->packed = sd_alloc((size_t)n, sizeof *cx->packed);
    SD_CHECK_ALLOC(w && cx->packed, err);
    for (int i = 0; i < n; i++) w[i] = sd_cpu_weight_at(m, i);
    cx->w = cx->packed + 1;
    for (int i = 0; i < n; i++) bytes += cx->ops->pack_bytes(w[i]);
    bool kept = cx->cache_dir && bytes > 0 && bytes >= cx->cache_least, loaded = false;
    if (kept) {
        st = load_kept(cx, w, n, &kept, err);
        loaded = st == SD_OK;
        SD_CHECK(loaded || st == SD_ENOTFOUND, err, st, "%s: interrupted", m->path);
    }
    if (!loaded) SD_TRY(pack_all(cx, w, n, err));
    for (int i = 0; i < n; i++) cx->packed_bytes += cx->packed[i].bytes;
    // From here on only rows of the embedding are read from the files.
    cx->embedding = sd_model_row_file(m);
    if (cx->embedding) SD_TRY(sd_model_row_sums(&cx->row_sum, m, cx->pool, err));
    SD_TRY(sd_model_check(m, err)); // what was packed are the bytes that were opened
    if (kept && !loaded) SD_TRY(keep(cx, n, cx->row_sum, err));
    sd_model_forget(m);
out:
    free(w);
    return st;
}

static void free_weights(sd_context *cx) {
    for (int i = 0; cx->packed && i <= cx->model->hp.L * SD_PROJ_COUNT; i++)
        sd_packed_weight_free(&cx->packed[i]);
    free(cx->packed);
    cx->packed = cx->w = NULL;
    cx->packed_bytes = 0;
}

void sd_cpu_sleep(sd_context *cx) {
    free_weights(cx);
}

sd_status sd_cpu_wake(sd_context *cx, sd_error *err) {
    if (cx->packed) return SD_OK;
    sd_status st = pack_weights(cx, err);
    if (st != SD_OK) free_weights(cx);
    return st;
}

// ---- scratch

// With many rows it is better to share the preparing than to repeat it in each thread.
static sd_status make_inputs(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const int threads = sd_pool_threads(cx->pool), K = sd_cpu_widest(&cx->model->hp);
    cx->own_input_rows = sd_cpu_own_rows(threads);
    cx->own_input = sd_alloc((size_t)threads, sizeof *cx->own_input);
    SD_CHECK_ALLOC(cx->own_input, err);
    SD_TRY(sd_quant_rows_init(&cx->shared_input.act, cx->max_rows, K, cx->compute, err));
    for (int i = 0; i < threads; i++) {
        cx->own_input[i].xn =
            sd_alloc((size_t)(cx->own_input_rows * cx->model->hp.C), sizeof(float));
        SD_CHECK_ALLOC(cx->own_input[i].xn, err);
        SD_TRY(sd_quant_rows_init(&cx->own_input[i].act, cx->own_input_rows, K, cx->compute, err));
    }
out:
    return st;
}

static sd_status make_scratch(sd_context *cx, sd_error *err) {
    const sd_hparams *hp = &cx->model->hp;
    const size_t half = (size_t)hp->rope_dim / 2;
    cx->scratch_bytes = sd_cpu_lay_out(cx, NULL);
    cx->scratch = map_zero(cx->scratch_bytes);
    if (!cx->scratch)
        return sd_fail(err, SD_ENOMEM, "out of memory for steps of %d rows; use fewer",
                       cx->max_rows);
    sd_cpu_lay_out(cx, cx->scratch);
    for (int i = 0; i < 2 * hp->ropes; i++) {
        const sd_rotation *r = &hp->rope[i / 2];
        sd_rope_frequencies(r, hp->rope_dim, i % 2 ? INT_MAX : r->orig_ctx,
                            cx->inv + (size_t)i * half, &cx->attn_scale[i / 2][i % 2]);
    }
    return make_inputs(cx, err);
}

// ---- its life

sd_status sd_cpu_open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                      sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_context *cx = sd_alloc(1, sizeof *cx);
    SD_CHECK_ALLOC(cx, err);
    cx->base.backend = &sd_backend_cpu;
    sd_model_acquire(m);
    cx->model = m;
    cx->pool = pool;
    SD_TRY(sd_cpu_configure(cx, m, o, err));
    if (o->cache.dir) {
        cx->cache_dir = sd_strdup(o->cache.dir);
        SD_CHECK_ALLOC(cx->cache_dir, err);
        cx->cache_least = o->cache.least;
    }
    cx->stop = o->stop;
    SD_TRY(sd_lora_table_open(&cx->lora, cx->ops, cx->compute, err));
    place_matrices(cx);
    SD_TRY(make_scratch(cx, err));
    SD_TRY(sd_pick_open(cx, o->max_picked, err));
    SD_TRY(sd_attention_open(cx, err));
    if (cx->kv == SD_KV_INT8 && sd_key_scales(&m->hp)) {
        cx->key_scale = sd_alloc(sd_key_scales(&m->hp), sizeof *cx->key_scale);
        SD_CHECK_ALLOC(cx->key_scale, err);
        sd_key_scales_get(cx->key_scale, m);
    }
    SD_TRY(pack_weights(cx, err));
    *out = cx;
    cx = NULL;
out:
    if (cx) sd_cpu_close(cx);
    return st;
}

void sd_cpu_close(sd_context *cx) {
    free_weights(cx);
    for (int i = 0; cx->own_input && i < sd_pool_threads(cx->pool); i++) {
        sd_quant_rows_free(&cx->own_input[i].act);
        free(cx->own_input[i].xn);
    }
    free(cx->own_input);
    sd_pick_close(cx);
    sd_quant_rows_free(&cx->shared_input.act);
    if (cx->scratch) munmap(cx->scratch, cx->scratch_bytes);
    sd_lora_table_close(cx->lora);
    free(cx->cache_dir);
    free(cx->u);
    free(cx->key_scale);
    free(cx->att_scratch);
    free(cx->parts);
    sd_model_release(cx->model);
    free(cx);
}
