// The memory form of adapters: fp32 factors in the basis of the base they were opened for
// (model/adapter/basis.h), whichever file they were read from.
#include "model/adapter/read.h"

#include "base/files/path.h"
#include "base/log.h"
#include "model/adapter/base_sketch.h"
#include "model/adapter/basis.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

// Somebody who wants to know when the adapter goes.
typedef struct listener {
    void (*gone)(void *ctx, uint64_t generation);
    void *ctx;
    struct listener *next;
} listener;

typedef struct {
    atomic_int references;
    float *factors;       // all A and B, one after another
    pthread_mutex_t lock; // of what follows
    listener *listeners;
} owner;

static atomic_uint_fast64_t next_generation = 1;

// ---- life

static sd_status new_adapter(sd_adapter **out, const char *name, const char *path,
                             const sd_model *base, size_t floats, sd_error *err) {
    sd_status st = SD_OK;
    owner *o = NULL;
    sd_adapter *a = sd_alloc(1, sizeof *a);
    SD_CHECK_ALLOC(a, err);
    o = sd_alloc(1, sizeof *o);
    SD_CHECK_ALLOC(o, err);
    a->owned = o;
    pthread_mutex_init(&o->lock, NULL);
    atomic_init(&o->references, 1);
    o->factors = sd_alloc(floats, sizeof(float));
    a->name = sd_strdup(name);
    a->path = sd_strdup(path ? path : "");
    a->n_linears = base->n_linears;
    a->lora = sd_alloc((size_t)a->n_linears, sizeof *a->lora);
    a->generation = atomic_fetch_add(&next_generation, 1);
    if (!o->factors || !a->name || !a->path || !a->lora)
        st = sd_fail(err, SD_ENOMEM, "%s: out of memory", name);
out:
    if (st != SD_OK) {
        if (a && !o)
            free(a);
        else
            sd_adapter_release(a);
        a = NULL;
    }
    *out = a;
    return st;
}

sd_adapter *sd_adapter_acquire(sd_adapter *a) {
    if (a) atomic_fetch_add(&((owner *)a->owned)->references, 1);
    return a;
}

void sd_adapter_release(sd_adapter *a) {
    if (!a) return;
    owner *o = a->owned;
    if (atomic_fetch_sub(&o->references, 1) != 1) return;
    for (listener *l = o->listeners, *next; l; l = next) {
        next = l->next;
        l->gone(l->ctx, a->generation);
        free(l);
    }
    pthread_mutex_destroy(&o->lock);
    free(o->factors);
    free(o);
    free(a->name);
    free(a->path);
    free(a->base_sketch);
    free(a->lora);
    free(a);
}

sd_status sd_adapter_on_release(const sd_adapter *a, void (*gone)(void *ctx, uint64_t generation),
                                void *ctx, sd_error *err) {
    owner *o = a->owned;
    listener *l = sd_alloc(1, sizeof *l);
    if (!l) return sd_fail(err, SD_ENOMEM, "%s: out of memory", a->name);
    pthread_mutex_lock(&o->lock);
    *l = (listener){gone, ctx, o->listeners};
    o->listeners = l;
    pthread_mutex_unlock(&o->lock);
    return SD_OK;
}

static void summarise(sd_adapter *a, const sd_model *base) {
    for (int i = 0; i < a->n_linears; i++) {
        const sd_weight *w = &base->linear[i].w;
        int r = a->lora[i].r;
        if (r > a->max_r) a->max_r = r;
        a->n_params += (int64_t)r * (w->rows + w->cols);
    }
}

sd_status sd_adapter_from_factors(sd_adapter **out, const char *name, const sd_lora *lora,
                                  const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    sd_adapter *a = NULL;
    size_t floats = 0;
    *out = NULL;
    for (int i = 0; i < base->n_linears; i++) {
        SD_CHECK(lora[i].r >= 0 && lora[i].r <= SD_MAX_RANK, err, SD_EINVAL,
                 "%s: r is %d, at most %d is supported", name, lora[i].r, SD_MAX_RANK);
        floats += (size_t)lora[i].r * (size_t)(base->linear[i].w.rows + base->linear[i].w.cols);
    }
    SD_TRY(new_adapter(&a, name, NULL, base, floats, err));
    float *next = ((owner *)a->owned)->factors;
    for (int i = 0; i < base->n_linears; i++) {
        const sd_weight *w = &base->linear[i].w;
        if (!lora[i].r) continue;
        size_t n_a = (size_t)lora[i].r * (size_t)w->cols, n_b = (size_t)lora[i].r * (size_t)w->rows;
        memcpy(next, lora[i].A, n_a * sizeof *next);
        memcpy(next + n_a, lora[i].B, n_b * sizeof *next);
        a->lora[i] = (sd_lora){lora[i].r, next, next + n_a, lora[i].scale};
        next += n_a + n_b;
    }
    summarise(a, base);
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    return st;
}

// ---- from the factors of a file

static sd_status check_pair(const sd_factor_pair *f, const sd_model *base, int i, const char *path,
                            sd_error *err) {
    sd_status st = SD_OK;
    const int out_rows = base->linear[i].w.rows, in_cols = base->linear[i].w.cols;
    SD_CHECK(f->a.data && f->b.data, err, SD_EFORMAT,
             "%s: %s has no partner (lora_A and lora_B come in pairs)", path,
             f->a.data ? f->a.name : f->b.name);
    SD_CHECK(f->a.rows >= 1 && f->a.rows <= SD_MAX_RANK, err, SD_EFORMAT,
             "%s: %s: rank %lld, 1 to %d is supported", path, f->a.name, (long long)f->a.rows,
             SD_MAX_RANK);
    SD_CHECK(f->b.cols == f->a.rows, err, SD_EFORMAT,
             "%s: %s has rank %lld and %s has rank %lld; they must agree", path, f->a.name,
             (long long)f->a.rows, f->b.name, (long long)f->b.cols);
    SD_CHECK(f->a.cols == in_cols && f->b.rows == out_rows, err, SD_EINVAL,
             "%s: %s and its partner are for a [%lld, %lld] weight, but %s has [%d, %d]; the "
             "adapter belongs to another base; give that one",
             path, f->a.name, (long long)f->b.rows, (long long)f->a.cols, base->path, out_rows,
             in_cols);
    SD_CHECK(isfinite(f->scale), err, SD_EFORMAT, "%s: the scale of %s is not finite", path,
             f->a.name);
out:
    return st;
}

sd_status sd_adapter_ranks_of(int *rank, const sd_factor_pair *pairs, const char *path,
                              const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    bool any = false;
    for (int i = 0; i < base->n_linears; i++) {
        rank[i] = 0;
        if (!pairs[i].a.data && !pairs[i].b.data) continue;
        SD_TRY(check_pair(&pairs[i], base, i, path, err));
        rank[i] = (int)pairs[i].a.rows;
        any = true;
    }
    SD_CHECK(any, err, SD_EFORMAT, "%s: holds no LoRA factors", path);
out:
    return st;
}

size_t sd_adapter_bytes(const int *rank, const sd_model *base) {
    size_t floats = 0;
    for (int i = 0; i < base->n_linears; i++)
        floats += (size_t)rank[i] * (size_t)(base->linear[i].w.rows + base->linear[i].w.cols);
    return floats * sizeof(float) + (size_t)base->n_linears * sizeof(sd_lora);
}

// A value that is not finite reaches every logit; so does a product with the scale that is not.
static sd_status check_finite(const float *x, size_t n, float scale, const char *name,
                              const char *path, sd_error *err) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]) || !(fabsf(x[i] * scale) < 1e30f))
            return sd_fail(err, SD_EFORMAT,
                           "%s: %s holds %g, which no multiplication survives; train or save the "
                           "adapter again",
                           path, name, (double)x[i]);
    return SD_OK;
}

// B [rows, r] <- its rows in the basis of the base.
static void copy_b(float *B, const sd_factor *b, int r, bool moves, bool interleaved, int D) {
    size_t row_bytes = sd_row_bytes(b->dtype, r);
    for (int row = 0; row < (int)b->rows; row++) {
        // `to` walks the rows in the half layout; its partner index is the interleaved one.
        int other = moves ? sd_adapter_interleave_row(row, D) : row;
        int from = interleaved ? other : row, to = interleaved ? row : other;
        sd_dequantise(B + (size_t)to * (size_t)r, b->dtype,
                      (const char *)b->data + (size_t)from * row_bytes, r);
    }
}

sd_status sd_adapter_build(sd_adapter **out, const sd_factor_pair *pairs, const char *path,
                           sd_model *base, bool interleaved, sd_error *err) {
    sd_status st = SD_OK;
    sd_adapter *a = NULL;
    size_t floats = 0;
    int n = base->n_linears;
    for (int i = 0; i < n; i++) {
        if (!pairs[i].a.data && !pairs[i].b.data) continue;
        SD_TRY(check_pair(&pairs[i], base, i, path, err));
        floats += (size_t)pairs[i].a.rows * (size_t)(pairs[i].a.cols + pairs[i].b.rows);
    }
    SD_CHECK(floats > 0, err, SD_EFORMAT, "%s: holds no LoRA factors", path);
    const char *name = sd_path_name(path);
    SD_TRY(new_adapter(&a, *name ? name : path, path, base, floats, err));
    float *next = ((owner *)a->owned)->factors;
    for (int i = 0; i < n; i++) {
        const sd_factor_pair *f = &pairs[i];
        if (!f->a.data) continue;
        int r = (int)f->a.rows, in = (int)f->a.cols;
        size_t n_a = (size_t)r * (size_t)in, n_b = (size_t)r * (size_t)f->b.rows;
        float *A = next, *B = next + n_a;
        next = B + n_b;
        sd_dequantise(A, f->a.dtype, f->a.data, r * in);
        copy_b(B, &f->b, r, sd_adapter_row_moves(base, i, interleaved), interleaved, base->hp.D);
        SD_TRY(check_finite(A, n_a, 1, f->a.name, path, err));
        SD_TRY(check_finite(B, n_b, f->scale, f->b.name, path, err));
        a->lora[i] = (sd_lora){r, A, B, f->scale};
    }
    summarise(a, base);
    *out = a;
    a = NULL;
out:
    sd_adapter_release(a);
    return st;
}

// ---- which base it is for

// The rounding of 4 bits moves weights by some 8 % of their size. Fine-tuning moves them by less,
// but it moves the norms too.
static bool same_model(const sd_sketch_difference *d) {
    return d->known && d->same_norms &&
           (d->difference < 1e-6 || (!d->same_type && d->difference <= 0.25));
}

sd_status sd_adapter_check_base(sd_adapter *a, const sd_base_record *r, sd_model *base,
                                bool any_base, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 have;
    sd_sketch_difference d = {0};
    char how[128] = "by how much its file does not say";
    if (!r->sha256) return SD_OK;
    SD_CHECK(r->sha256_len == 64, err, SD_EFORMAT,
             "%s: its record of the base is no SHA-256; write the adapter again", a->path);
    memcpy(a->base_sha256.hex, r->sha256, 64);
    if (r->sketch) {
        a->base_sketch = sd_strndup(r->sketch, r->sketch_len);
        SD_CHECK_ALLOC(a->base_sketch, err);
    }
    SD_TRY(sd_model_sha256(base, &have, err));
    if (sd_sha256_equal(&have, &a->base_sha256)) goto out;
    if (r->sketch) SD_TRY(sd_base_sketch_compare(&d, r->sketch, r->sketch_len, base, err));
    if (d.known)
        snprintf(how, sizeof how, "whose weights differ by about %.1f %% (%s there, %s here%s)",
                 100 * d.difference, d.type, d.m_type, d.same_norms ? "" : ", other norms");
    bool same = same_model(&d);
    SD_CHECK(
        same || any_base, err, SD_EINVAL,
        "%s was trained on a base with SHA-256 %.12s..., but %s has %.12s..., %s; give the base "
        "it was trained on, or --other-base to take it all the same",
        a->path, a->base_sha256.hex, base->path, have.hex, how);
    sd_log(SD_LOG_WARN, "%s was trained on a base with SHA-256 %.12s..., %s has %.12s..., %s%s",
           a->path, a->base_sha256.hex, base->path, have.hex, how,
           same ? ": the same model in another form" : "");
out:
    return st;
}
