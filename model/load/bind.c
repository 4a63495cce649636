// From names to pointers: every tensor that the forward reads is looked up once, its shape is
// checked against the hyperparameters, and what is left over is refused: a bias that nobody adds
// would give wrong answers without a word.
#include "model/load/read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_LEN = 128 };

typedef struct {
    sd_model *m;
    const sd_tensor_source *source;
    const char **used; // names that were bound
    int n_used, cap;
    sd_error *err;
} binder;

static bool is_ignored(const sd_tensor_source *s, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < 4 && s->ignored[i]; i++) {
        size_t k = strlen(s->ignored[i]);
        if (n >= k && strcmp(name + n - k, s->ignored[i]) == 0) return true;
    }
    return false;
}

// Weights of 2 and 4 bytes are read as such, so they must stand at multiples of that; safetensors
// does not promise it.
static sd_status aligned(sd_model *m, sd_tensor_ref *t, sd_error *err) {
    size_t unit = t->dtype == SD_F32 ? 4 : 2;
    if ((uintptr_t)t->data % unit == 0) return SD_OK;
    void *copy = sd_arena_alloc(&m->owned->arena, t->bytes, 1);
    if (!copy) return sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
    memcpy(copy, t->data, t->bytes);
    t->data = copy;
    return SD_OK;
}

static sd_status find(sd_model *m, const sd_tensor_source *s, const char *name, int64_t rows,
                      int64_t cols, sd_tensor_ref *t, sd_error *err) {
    if (!s->find(m, name, t))
        return sd_fail(err, SD_EFORMAT,
                       "%s: the tensor %s is missing; a model of architecture %s "
                       "with %d layers needs it",
                       m->path, name, sd_arch_name(m->hp.arch), m->hp.L);
    if (!sd_dtype_known((uint32_t)t->dtype))
        return sd_fail(err, SD_EFORMAT, "%s: tensor %s has the type %s, use F32, F16 or BF16",
                       m->path, name, t->dtype_name);
    if (t->rows != rows || t->cols != cols)
        return sd_fail(err, SD_EFORMAT, "%s: tensor %s: shape [%lld,%lld], want [%lld,%lld]",
                       m->path, name, (long long)t->rows, (long long)t->cols, (long long)rows,
                       (long long)cols);
    return aligned(m, t, err);
}

static sd_status note(binder *b, const sd_tensor_ref *t) {
    if (b->n_used == b->cap)
        return sd_fail(b->err, SD_EFORMAT, "%s: more tensors than the layers need", b->m->path);
    b->used[b->n_used++] = t->name;
    b->m->n_params += t->rows * t->cols;
    b->m->weight_bytes += t->bytes;
    return SD_OK;
}

// fp32 is copied too: read in place, each vector would bring its neighbourhood of the file into
// memory.
static sd_status vector(sd_model *m, const sd_tensor_ref *t, const float **out, sd_error *err) {
    float *v = sd_arena_alloc(&m->owned->arena, (size_t)t->cols, sizeof *v);
    if (!v) return sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
    sd_dequantise(v, t->dtype, t->data, (int)t->cols);
    // These few values reach every row. The matrices are not read here: a bad value there ends as an
    // error of the request whose logits it spoils.
    for (int i = 0; i < (int)t->cols; i++)
        if (!isfinite(v[i]))
            return sd_fail(err, SD_EFORMAT,
                           "%s: %s[%d] is %g; the file is damaged, or the training that made it "
                           "failed: use another",
                           m->path, t->name, i, (double)v[i]);
    *out = v;
    return SD_OK;
}

sd_status sd_model_bind_vector(sd_model *m, const sd_tensor_source *source, const char *name, int n,
                               const float **out, sd_error *err) {
    sd_tensor_ref t;
    sd_status st = find(m, source, name, 1, n, &t, err);
    return st == SD_OK ? vector(m, &t, out, err) : st;
}

static const char *layer_name(char out[NAME_MAX_LEN], const char *fmt, int l) {
    // One %d, replaced by hand: the formats are data, not literals.
    const char *at = strstr(fmt, "%d");
    if (at)
        snprintf(out, NAME_MAX_LEN, "%.*s%d%s", (int)(at - fmt), fmt, l, at + 2);
    else
        snprintf(out, NAME_MAX_LEN, "%s", fmt);
    return out;
}

static sd_status bind_vector(binder *b, const char *fmt, int l, int n, const float **out) {
    char name[NAME_MAX_LEN];
    sd_tensor_ref t;
    sd_status st = find(b->m, b->source, layer_name(name, fmt, l), 1, n, &t, b->err);
    if (st == SD_OK) st = note(b, &t);
    return st == SD_OK ? vector(b->m, &t, out, b->err) : st;
}

static sd_status bind_matrix(binder *b, const char *fmt, int l, int rows, int cols,
                             sd_weight *out) {
    char name[NAME_MAX_LEN];
    sd_tensor_ref t;
    sd_status st = find(b->m, b->source, layer_name(name, fmt, l), rows, cols, &t, b->err);
    if (st == SD_OK) st = note(b, &t);
    *out = (sd_weight){t.dtype, rows, cols, t.data};
    return st;
}

static sd_status bind_layer(binder *b, int l) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &b->m->hp;
    const sd_tensor_source *s = b->source;
    sd_layer *layer = &b->m->layer[l];
    SD_TRY(bind_vector(b, s->attn_norm, l, hp->C, &layer->attn_norm));
    SD_TRY(bind_vector(b, s->ffn_norm, l, hp->C, &layer->ffn_norm));
    if (hp->qkv_bias) {
        SD_TRY(bind_vector(b, s->bq, l, hp->H * hp->D, &layer->bq));
        SD_TRY(bind_vector(b, s->bk, l, hp->G * hp->D, &layer->bk));
        SD_TRY(bind_vector(b, s->bv, l, hp->G * hp->D, &layer->bv));
    }
    if (hp->qk_norm) {
        SD_TRY(bind_vector(b, s->q_norm, l, hp->D, &layer->q_norm));
        SD_TRY(bind_vector(b, s->k_norm, l, hp->D, &layer->k_norm));
    }
    for (int p = 0; p < SD_PROJ_COUNT; p++) {
        int rows, cols;
        sd_proj_shape(hp, (sd_proj)p, &rows, &cols);
        SD_TRY(bind_matrix(b, s->w[p], l, rows, cols, &layer->w[p]));
        layer->w_name[p] = b->used[b->n_used - 1];
    }
out:
    return st;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static sd_status refuse_unused(binder *b) {
    const char *name;
    qsort(b->used, (size_t)b->n_used, sizeof *b->used, compare_names);
    for (int i = 0; (name = b->source->name_at(b->m, i)); i++) {
        if (bsearch(&name, b->used, (size_t)b->n_used, sizeof *b->used, compare_names)) continue;
        if (is_ignored(b->source, name)) continue;
        if (b->m->hp.tied_head && strcmp(name, b->source->head) == 0) continue;
        return sd_fail(b->err, SD_EFORMAT,
                       "%s: holds the tensor %s, which architecture %s does not compute with here; "
                       "use a model without it",
                       b->m->path, name, sd_arch_name(b->m->hp.arch));
    }
    return SD_OK;
}

sd_status sd_model_check_hparams(const sd_model *m, sd_error *err) {
    const sd_hparams *hp = &m->hp;
    const struct {
        const char *name;
        int value, min, max;
    } rows[] = {{"layers", hp->L, 1, 1024},
                {"hidden size", hp->C, 1, 1 << 16},
                {"attention heads", hp->H, 1, 1024},
                {"key/value heads", hp->G, 1, hp->H},
                {"head size", hp->D, 2, 512},
                {"feed-forward size", hp->F, 1, 1 << 20},
                {"vocabulary", hp->V, 1, 1 << 24},
                {"context", hp->ctx_train, 1, 1 << 28},
                {"rotary dimensions", hp->rope_dim, 2, hp->D}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].value < rows[i].min || rows[i].value > rows[i].max)
            return sd_fail(err, SD_EFORMAT, "%s: %s is %d, %d to %d is supported", m->path,
                           rows[i].name, rows[i].value, rows[i].min, rows[i].max);
    if (hp->H % hp->G || hp->D % 2 || hp->rope_dim % 2)
        return sd_fail(
            err, SD_EFORMAT,
            "%s: %d heads over %d key/value heads of %d (%d rotary) do not divide evenly", m->path,
            hp->H, hp->G, hp->D, hp->rope_dim);
    if (!(hp->eps > 0 && hp->eps < 1) || !(hp->rope_base > 1 && hp->rope_base < 1e12f))
        return sd_fail(err, SD_EFORMAT,
                       "%s: norm epsilon %g or rotary base %g is out of range; the file is damaged",
                       m->path, (double)hp->eps, (double)hp->rope_base);
    bool scaled = hp->scaling != SD_ROPE_NONE;
    bool pieces = hp->scaling == SD_ROPE_LLAMA3 || hp->scaling == SD_ROPE_YARN;
    if ((scaled && !(hp->rope_factor > 0 && hp->rope_factor < 1e6f)) ||
        (pieces && hp->rope_orig_ctx < 1) ||
        (hp->scaling == SD_ROPE_LLAMA3 && !(hp->rope_high > hp->rope_low && hp->rope_low > 0)) ||
        (hp->scaling == SD_ROPE_YARN && !(hp->rope_beta_fast > 0 && hp->rope_beta_slow > 0)))
        return sd_fail(err, SD_EFORMAT,
                       "%s: the rotary scaling (factor %g, original context %d) is out of range",
                       m->path, (double)hp->rope_factor, hp->rope_orig_ctx);
    return SD_OK;
}

sd_status sd_model_bind(sd_model *m, const sd_tensor_source *source, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &m->hp;
    binder b = {.m = m, .source = source, .cap = hp->L * 16 + 8, .err = err};
    b.used = sd_alloc((size_t)b.cap, sizeof *b.used);
    m->layer = sd_alloc((size_t)hp->L, sizeof *m->layer);
    SD_CHECK_ALLOC(b.used, err);
    SD_CHECK_ALLOC(m->layer, err);
    SD_TRY(bind_matrix(&b, source->embedding, 0, hp->V, hp->C, &m->embedding));
    SD_TRY(bind_vector(&b, source->out_norm, 0, hp->C, &m->out_norm));
    if (hp->tied_head)
        m->head = m->embedding;
    else
        SD_TRY(bind_matrix(&b, source->head, 0, hp->V, hp->C, &m->head));
    for (int l = 0; l < hp->L; l++) SD_TRY(bind_layer(&b, l));
    SD_TRY(refuse_unused(&b));
out:
    free(b.used);
    return st;
}
