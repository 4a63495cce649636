// Does a merged file hold the adapter? Every weight of the opened file is held against W + s B A,
// and everything else against the base. Logits alone cannot say: an adapter of little effect that
// was left out would pass there.
//
// The tolerance follows from the type that a weight is stored in. A float may be off by half of
// its last place; a quantised row must be the bytes that the sum gives when it is quantised again.
#include "model/infer/compare_logits.h"

#include "model/adapter/basis.h"
#include "model/load/source.h"

#include <math.h>
#include <string.h>

typedef struct {
    const sd_model *written, *base;
    double asked, kept; // <D, D> and <D', D>
    float *sum, *delta, *was, *got;
    char *row; // a quantised row
} check;

double sd_dtype_roundoff(sd_dtype t) {
    return t == SD_F32 ? 0x1p-24 : t == SD_F16 ? 0x1p-11 : t == SD_BF16 ? 0x1p-8 : INFINITY;
}

static bool row_holds(const check *c, const sd_weight *w, const void *written_row) {
    double unit = sd_dtype_roundoff(w->dtype), least = w->dtype == SD_F16 ? 0x1p-25 : 0;
    if (isinf(unit)) {
        if (!sd_quantise(c->row, w->dtype, c->sum, w->cols)) return false;
        return memcmp(c->row, written_row, sd_row_bytes(w->dtype, w->cols)) == 0;
    }
    for (int k = 0; k < w->cols; k++) {
        double off = fabs((double)c->got[k] - (double)c->sum[k]);
        if (!(off <= fmax(unit * fabs((double)c->sum[k]), least))) return false; // NaN too
    }
    return true;
}

static sd_status check_merged(check *c, const sd_weight *w, const sd_weight *base, const sd_lora *l,
                              const char *name, sd_error *err) {
    int K = w->cols;
    size_t bytes = sd_row_bytes(w->dtype, K);
    for (int m = 0; m < w->rows; m++) {
        const char *row = (const char *)w->data + (size_t)m * bytes;
        sd_dequantise(c->was, base->dtype, (const char *)base->data + (size_t)m * bytes, K);
        sd_dequantise(c->got, w->dtype, row, K);
        sd_adapter_delta_row(c->delta, l, m, K);
        for (int k = 0; k < K; k++) {
            double d = (double)c->delta[k];
            c->sum[k] = c->was[k] + c->delta[k];
            c->asked += d * d;
            c->kept += ((double)c->got[k] - (double)c->was[k]) * d;
        }
        if (!row_holds(c, w, row))
            return sd_fail(err, SD_EMISMATCH,
                           "%s: row %d of %s is not the base's with the adapter in it; do not use "
                           "the file",
                           c->written->path, m, name);
    }
    return SD_OK;
}

static sd_status check_same(const check *c, const void *a, const void *b, size_t bytes,
                            const char *name, sd_error *err) {
    if (!a && !b) return SD_OK;
    if (a && b && memcmp(a, b, bytes) == 0) return SD_OK;
    return sd_fail(err, SD_EMISMATCH,
                   "%s: %s is not the base's, although the adapter leaves it as it is; do not use "
                   "the file",
                   c->written->path, name);
}

static sd_status check_norms(const check *c, int l, sd_error *err) {
    sd_status st = SD_OK;
    const sd_layer *w = &c->written->layer[l], *b = &c->base->layer[l];
    const sd_hparams *hp = &c->base->hp;
    const struct {
        const float *written, *base;
        int n;
    } vectors[] = {{w->attn_norm, b->attn_norm, hp->C},
                   {w->ffn_norm, b->ffn_norm, hp->C},
                   {w->post_attn_norm, b->post_attn_norm, hp->C},
                   {w->post_ffn_norm, b->post_ffn_norm, hp->C},
                   {w->q_norm, b->q_norm, hp->D},
                   {w->k_norm, b->k_norm, hp->D}};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        SD_TRY(check_same(c, vectors[i].written, vectors[i].base,
                          (size_t)vectors[i].n * sizeof(float), "a norm", err));
out:
    return st;
}

static sd_status check_linear(check *c, int i, const sd_adapter *a, sd_merge_report *out,
                              sd_error *err) {
    sd_status st = SD_OK;
    const sd_linear *w = &c->written->linear[i], *b = &c->base->linear[i];
    const sd_weight *x = &w->w, *y = &b->w;
    const sd_lora *lora = &a->lora[i];
    SD_CHECK(x->dtype == y->dtype && x->rows == y->rows && x->cols == y->cols, err, SD_EMISMATCH,
             "%s: %s has another type or shape than in the base", c->written->path, w->name);
    size_t bytes = (size_t)x->rows * sd_row_bytes(x->dtype, x->cols);
    SD_TRY(check_same(c, w->bias, b->bias, (size_t)x->rows * sizeof(float), "a bias", err));
    if (!lora->r) {
        SD_TRY(check_same(c, x->data, y->data, bytes, w->name, err));
        goto out;
    }
    SD_TRY(check_merged(c, x, y, lora, w->name, err));
    out->roundoff = fmax(out->roundoff, sd_dtype_roundoff(x->dtype));
    out->tensors++;
out:
    return st;
}

sd_status sd_merge_check(sd_merge_report *out, const sd_model *written, const sd_adapter *a,
                         const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &base->hp, *got = &written->hp;
    check c = {.written = written, .base = base};
    size_t widest = (size_t)(hp->C > hp->F ? hp->C : hp->F);
    if ((size_t)(hp->H * hp->D) > widest) widest = (size_t)(hp->H * hp->D);
    *out = (sd_merge_report){.survived = 1};
    SD_CHECK(got->arch == hp->arch && got->L == hp->L && got->C == hp->C && got->F == hp->F &&
                 got->H == hp->H && got->G == hp->G && got->D == hp->D && got->V == hp->V &&
                 got->tied_head == hp->tied_head &&
                 written->embedding.dtype == base->embedding.dtype &&
                 written->head.dtype == base->head.dtype,
             err, SD_EMISMATCH, "%s: is not a model of the base's shape; do not use the file",
             written->path);
    c.sum = sd_alloc(widest * 5, sizeof(float));
    SD_CHECK_ALLOC(c.sum, err);
    c.delta = c.sum + widest, c.was = c.delta + widest, c.got = c.was + widest;
    c.row = (char *)(c.got + widest);
    SD_TRY(check_same(&c, written->out_norm, base->out_norm, (size_t)hp->C * sizeof(float),
                      "the last norm", err));
    size_t bytes = (size_t)hp->V * sd_row_bytes(base->embedding.dtype, hp->C);
    SD_TRY(
        check_same(&c, written->embedding.data, base->embedding.data, bytes, "the embedding", err));
    if (!hp->tied_head)
        SD_TRY(check_same(&c, written->head.data, base->head.data,
                          (size_t)hp->V * sd_row_bytes(base->head.dtype, hp->C), "the head", err));
    for (int l = 0; l < hp->L; l++) SD_TRY(check_norms(&c, l, err));
    for (int i = 0; i < base->n_linears; i++) SD_TRY(check_linear(&c, i, a, out, err));
    if (c.asked > 0) out->survived = c.kept / c.asked;
    sd_model_forget(base), sd_model_forget(written);
out:
    free(c.sum);
    return st;
}
