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
static sd_status vector(sd_model *m, const sd_tensor_ref *t, float plus, const float **out,
                        sd_error *err) {
    float *v = sd_arena_alloc(&m->owned->arena, (size_t)t->cols, sizeof *v);
    if (!v) return sd_fail(err, SD_ENOMEM, "%s: out of memory", m->path);
    sd_dequantise(v, t->dtype, t->data, (int)t->cols);
    for (int i = 0; plus != 0 && i < (int)t->cols; i++) v[i] += plus;
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

// "blk.3.attn_q.weight"
static const char *name_in_layer(char out[NAME_MAX_LEN], const sd_tensor_source *s, int l,
                                 const char *leaf, const char *what) {
    snprintf(out, NAME_MAX_LEN, "%s%d.%s.%s", s->layer, l, leaf, what);
    return out;
}

static sd_status bind_vector(binder *b, const char *name, int n, float plus, const float **out) {
    sd_tensor_ref t;
    sd_status st = find(b->m, b->source, name, 1, n, &t, b->err);
    if (st == SD_OK) st = note(b, &t);
    return st == SD_OK ? vector(b->m, &t, plus, out, b->err) : st;
}

static sd_status bind_matrix(binder *b, const char *name, int rows, int cols, sd_weight *out) {
    sd_tensor_ref t;
    sd_status st = find(b->m, b->source, name, rows, cols, &t, b->err);
    if (st == SD_OK) st = note(b, &t);
    *out = (sd_weight){t.dtype, rows, cols, t.data};
    return st;
}

static float norm_plus(const binder *b) {
    return b->m->hp.arch->norm_adds_one && !b->source->gguf ? 1 : 0;
}

// leaf NULL: the architecture has no such norm.
static sd_status bind_norm(binder *b, const char *leaf, int l, int n, const float **out) {
    char name[NAME_MAX_LEN];
    if (!leaf) return SD_OK;
    return bind_vector(b, name_in_layer(name, b->source, l, leaf, "weight"), n, norm_plus(b), out);
}

static sd_status bind_linear(binder *b, int i) {
    sd_status st = SD_OK;
    sd_model *m = b->m;
    const sd_linear_kind *kind = m->linear[i].kind;
    const char *leaf = b->source->gguf ? kind->gguf : kind->module;
    char name[NAME_MAX_LEN];
    int l = m->linear[i].layer, all = 0, rows, cols;
    sd_weight w;
    const float *bias = NULL;
    for (int k = 0; k < kind->matrices; k++) {
        sd_proj_shape(&m->hp, (sd_proj)((int)kind->first + k), &rows, &cols);
        all += rows;
    }
    SD_TRY(bind_matrix(b, name_in_layer(name, b->source, l, leaf, "weight"), all, cols, &w));
    const char *stored = b->used[b->n_used - 1];
    if (m->hp.qkv_bias && kind->first <= SD_WV)
        SD_TRY(bind_vector(b, name_in_layer(name, b->source, l, leaf, "bias"), all, 0, &bias));
    sd_model_set_linear(m, i, &w, bias, stored);
out:
    return st;
}

static sd_status bind_layer(binder *b, int l) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &b->m->hp;
    const sd_norm_names *norms = b->source->gguf ? &hp->arch->gguf : &hp->arch->folder;
    sd_layer *layer = &b->m->layer[l];
    int n = hp->arch->linears;
    SD_TRY(bind_norm(b, norms->attn_norm, l, hp->C, &layer->attn_norm));
    SD_TRY(bind_norm(b, norms->post_attn_norm, l, hp->C, &layer->post_attn_norm));
    SD_TRY(bind_norm(b, norms->ffn_norm, l, hp->C, &layer->ffn_norm));
    SD_TRY(bind_norm(b, norms->post_ffn_norm, l, hp->C, &layer->post_ffn_norm));
    SD_TRY(bind_norm(b, norms->q_norm, l, hp->D, &layer->q_norm));
    SD_TRY(bind_norm(b, norms->k_norm, l, hp->D, &layer->k_norm));
    for (int i = 0; i < n; i++) SD_TRY(bind_linear(b, l * n + i));
out:
    return st;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_read_by_arch(const binder *b, const char *name) {
    const char *const *own = b->m->hp.arch->tensor;
    for (int i = 0; b->source->gguf && i < 3 && own[i]; i++)
        if (strcmp(own[i], name) == 0) return true;
    return false;
}

static sd_status refuse_unused(binder *b) {
    const char *name;
    qsort(b->used, (size_t)b->n_used, sizeof *b->used, compare_names);
    for (int i = 0; (name = b->source->name_at(b->m, i)); i++) {
        if (bsearch(&name, b->used, (size_t)b->n_used, sizeof *b->used, compare_names)) continue;
        if (is_ignored(b->source, name) || is_read_by_arch(b, name)) continue;
        if (b->m->hp.tied_head && strcmp(name, b->source->head) == 0) continue;
        return sd_fail(b->err, SD_EFORMAT,
                       "%s: holds the tensor %s, which architecture %s does not compute with here; "
                       "use a model without it",
                       b->m->path, name, sd_arch_name(b->m->hp.arch));
    }
    return SD_OK;
}

static sd_status check_rope(const sd_rotation *r, const char *path, sd_error *err) {
    bool scaled = r->scaling != SD_ROPE_NONE;
    bool pieces =
        r->scaling == SD_ROPE_LLAMA3 || r->scaling == SD_ROPE_YARN || r->scaling == SD_ROPE_LONG;
    if (!(r->base > 1 && r->base < 1e12f))
        return sd_fail(err, SD_EFORMAT, "%s: rotary base %g is out of range; the file is damaged",
                       path, (double)r->base);
    if ((scaled && !(r->factor > 0 && r->factor < 1e6f)) || (pieces && r->orig_ctx < 1) ||
        (r->scaling == SD_ROPE_LLAMA3 && !(r->high > r->low && r->low > 0)) ||
        (r->scaling == SD_ROPE_LONG &&
         !(r->factors && r->long_factors && r->attn_factor > 0 && r->attn_factor < 100)) ||
        (r->scaling == SD_ROPE_YARN && !(r->beta_fast > 0 && r->beta_slow > 0)))
        return sd_fail(err, SD_EFORMAT,
                       "%s: the rotary scaling (factor %g, original context %d) is out of range",
                       path, (double)r->factor, r->orig_ctx);
    return SD_OK;
}

sd_status sd_model_check_sizes(const sd_model *m, sd_error *err) {
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
    return SD_OK;
}

sd_status sd_model_check_hparams(const sd_model *m, sd_error *err) {
    const sd_hparams *hp = &m->hp;
    sd_status st = sd_model_check_sizes(m, err);
    if (st != SD_OK) return st;
    if (!(hp->eps > 0 && hp->eps < 1))
        return sd_fail(err, SD_EFORMAT, "%s: norm epsilon %g is out of range; the file is damaged",
                       m->path, (double)hp->eps);
    for (int i = 0; i < hp->ropes; i++) {
        st = check_rope(&hp->rope[i], m->path, err);
        if (st != SD_OK) return st;
    }
    if (hp->attn_scale < 0 || !isfinite(hp->attn_scale) || !isfinite(hp->embedding_scale))
        return sd_fail(err, SD_EFORMAT,
                       "%s: the scale of scores %g or of embeddings %g is out of range", m->path,
                       (double)hp->attn_scale, (double)hp->embedding_scale);
    return SD_OK;
}

// A classifier's rows are few; which of them is the relevance, the reader of the format knows.
static sd_status bind_classifier(binder *b) {
    sd_status st = SD_OK;
    sd_tensor_ref t;
    sd_output *o = &b->m->output;
    const int C = b->m->hp.C;
    const size_t each = 4 * (size_t)C;
    if (!b->source->classifier || !b->source->find(b->m, b->source->classifier, &t)) return SD_OK;
    SD_CHECK(t.rows >= 1 && t.rows <= SD_MAX_LABELS, b->err, SD_EFORMAT,
             "%s: the classifier %s has %lld rows, 1 to %d are supported", b->m->path, t.name,
             (long long)t.rows, SD_MAX_LABELS);
    o->labels = (int)t.rows;
    SD_TRY(find(b->m, b->source, b->source->classifier, t.rows, C, &t, b->err));
    SD_TRY(note(b, &t));
    float *rows = sd_arena_alloc(&b->m->owned->arena, (size_t)o->labels, each);
    SD_CHECK_ALLOC(rows, b->err);
    sd_dequantise(rows, t.dtype, t.data, o->labels * C);
    b->m->owned->classifier = rows;
    if (!b->source->find(b->m, b->source->classifier_bias, &t)) goto out;
    SD_TRY(bind_vector(b, b->source->classifier_bias, o->labels, 0, &b->m->owned->classifier_bias));
out:
    return st;
}

void sd_model_rank_by(sd_model *m, int yes, int no) {
    const sd_model_owned *o = m->owned;
    const int C = m->hp.C;
    float *w = sd_arena_alloc(&m->owned->arena, (size_t)C, sizeof *w);
    if (!w) return; // which is marked
    for (int c = 0; c < C; c++)
        w[c] =
            o->classifier[(size_t)yes * C + c] - (no < 0 ? 0 : o->classifier[(size_t)no * C + c]);
    m->output.rank = w;
    if (o->classifier_bias)
        m->output.rank_bias = o->classifier_bias[yes] - (no < 0 ? 0 : o->classifier_bias[no]);
}

sd_status sd_model_bind(sd_model *m, const sd_tensor_source *source, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &m->hp;
    binder b = {.m = m, .source = source, .cap = hp->L * 16 + 8, .err = err};
    b.used = sd_alloc((size_t)b.cap, sizeof *b.used);
    SD_CHECK_ALLOC(b.used, err);
    SD_TRY(bind_matrix(&b, source->embedding, hp->V, hp->C, &m->embedding));
    SD_TRY(bind_vector(&b, source->out_norm, hp->C, norm_plus(&b), &m->out_norm));
    if (hp->tied_head)
        m->head = m->embedding;
    else
        SD_TRY(bind_matrix(&b, source->head, hp->V, hp->C, &m->head));
    SD_TRY(bind_classifier(&b));
    for (int l = 0; l < hp->L; l++) SD_TRY(bind_layer(&b, l));
    SD_TRY(refuse_unused(&b));
out:
    free(b.used);
    return st;
}
