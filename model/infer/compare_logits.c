#include "model/infer/compare_logits.h"

#include "model/infer/forward.h"

#include <math.h>

enum { CHUNK = 64 }; // rows at a time: two vocabularies wide of scratch

typedef struct {
    sd_context *cx;
    sd_kv *kv;
    float *logits; // [CHUNK, V]
    const sd_adapter *adapter;
} side;

static sd_status open_side(side *s, sd_model *m, const sd_adapter *adapter, int n, sd_pool *pool,
                           sd_error *err) {
    sd_status st = SD_OK;
    s->adapter = adapter;
    SD_TRY(sd_context_open(&s->cx, m, pool,
                           &(sd_context_options){.max_rows = CHUNK, .compute = SD_COMPUTE_FP32},
                           err));
    SD_TRY(sd_kv_open(&s->kv, s->cx, n, err));
    s->logits = sd_alloc((size_t)CHUNK * (size_t)m->hp.V, sizeof *s->logits);
    SD_CHECK_ALLOC(s->logits, err);
out:
    return st;
}

static void close_side(side *s) {
    sd_kv_close(s->kv);
    sd_context_close(s->cx);
    free(s->logits);
}

static sd_status run(side *s, const int32_t *tokens, int from, int n, sd_error *err) {
    sd_row rows[CHUNK];
    for (int i = 0; i < n; i++)
        rows[i] = (sd_row){.token = tokens[from + i],
                           .pos = from + i,
                           .kv = s->kv,
                           .adapter = s->adapter,
                           .want_logits = true};
    sd_status st = sd_forward(s->cx, rows, n, s->logits, err);
    s->kv->len = from + n;
    return st;
}

double sd_log_sum_exp(const float *x, int n, int *top) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        if (!(x[i] > max)) continue;
        max = x[i];
        if (top) *top = i;
    }
    for (int i = 0; i < n; i++) sum += exp(x[i] - max);
    return max + log(sum);
}

static double deviation(const float *x, int V) {
    double mean = 0, sum = 0;
    for (int i = 0; i < V; i++) mean += (double)x[i];
    mean /= V;
    for (int i = 0; i < V; i++) sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    return sqrt(sum / V);
}

static void compare_row(sd_logit_difference *d, const float *a, const float *b, int V) {
    int top_a = -1, top_b = -1;
    double za = sd_log_sum_exp(a, V, &top_a), zb = sd_log_sum_exp(b, V, &top_b), kl = 0;
    for (int i = 0; i < V; i++) {
        double la = a[i] - za, lb = b[i] - zb, diff = fabs((double)a[i] - b[i]);
        kl += exp(la) * (la - lb);
        if (!(diff <= d->max_abs)) d->max_abs = diff; // NaN too
    }
    if (!(kl <= d->max_kl)) d->max_kl = kl;
    d->spread = fmax(d->spread, deviation(a, V));
    d->mean_kl += kl;
    d->top1 += top_a == top_b;
    d->positions++;
}

sd_status sd_compare_logits(sd_logit_difference *out, sd_model *a, const sd_adapter *adapter_a,
                            sd_model *b, const sd_adapter *adapter_b, const int32_t *tokens, int n,
                            sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    side sa = {0}, sb = {0};
    *out = (sd_logit_difference){0};
    SD_CHECK(n > 0, err, SD_EINVAL, "there is no text to compare the models on");
    SD_CHECK(a->hp.V == b->hp.V, err, SD_EMISMATCH,
             "%s has %d tokens and %s has %d; their logits cannot be compared", a->path, a->hp.V,
             b->path, b->hp.V);
    SD_TRY(open_side(&sa, a, adapter_a, n, pool, err));
    SD_TRY(open_side(&sb, b, adapter_b, n, pool, err));
    for (int from = 0; from < n; from += CHUNK) {
        int rows = n - from < CHUNK ? n - from : CHUNK;
        SD_TRY(run(&sa, tokens, from, rows, err));
        SD_TRY(run(&sb, tokens, from, rows, err));
        for (int i = 0; i < rows; i++)
            compare_row(out, sa.logits + (size_t)i * (size_t)a->hp.V,
                        sb.logits + (size_t)i * (size_t)a->hp.V, a->hp.V);
    }
    out->mean_kl /= out->positions;
    out->top1 /= out->positions;
out:
    close_side(&sa);
    close_side(&sb);
    return st;
}

// A weight that is off by the share u moves a product of many by less than u of its size, each of
// the 7 L products adds its own, and they do not know of each other: the logits move by at most
// u sqrt(7 L) of their spread. A distribution whose logits move by s is s^2 / 2 nats away. 1e-5 is
// what two orders of fp32 sums are apart.
static double kl_of_rounding(double roundoff, int L, double spread) {
    if (isinf(roundoff)) return INFINITY;
    double s = roundoff * sqrt(SD_PROJ_COUNT * (double)L) * spread;
    return 1e-5 + s * s / 2;
}

sd_status sd_verify_merged(sd_merge_report *out, sd_logit_difference *d, sd_model *written,
                           const sd_adapter *a, sd_model *base, const int32_t *tokens, int n,
                           sd_pool *pool, sd_error *err) {
    sd_status st = SD_OK;
    *d = (sd_logit_difference){0};
    SD_TRY(sd_merge_check(out, written, a, base, err));
    if (n == 0) goto out;
    SD_TRY(sd_compare_logits(d, base, a, written, NULL, tokens, n, pool, err));
    double bound = kl_of_rounding(out->roundoff, base->hp.L, d->spread);
    SD_CHECK(d->max_kl <= bound, err, SD_EMISMATCH,
             "%s: does not give the adapter's logits (KL %.2e, rounding explains %.2e); do not use "
             "it",
             written->path, d->max_kl, bound);
out:
    return st;
}
