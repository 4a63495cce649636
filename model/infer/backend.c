// What callers call, by the table of the context's backend; and the checks that hold for each.
#include "model/infer/backend.h"

sd_status sd_context_open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                          sd_error *err) {
    static const sd_context_options none;
    if (!o) o = &none;
    const sd_backend *b = o->backend ? o->backend : &sd_backend_cpu;
    *out = NULL;
    return b->open(out, m, pool, o, err);
}

void sd_context_close(sd_context *cx) {
    if (cx) sd_context_backend(cx)->close(cx);
}
sd_model *sd_context_model(const sd_context *cx) {
    return sd_context_backend(cx)->model(cx);
}
int sd_context_max_rows(const sd_context *cx) {
    return sd_context_backend(cx)->max_rows(cx);
}
size_t sd_context_bytes(const sd_context *cx) {
    return sd_context_backend(cx)->bytes(cx);
}
void sd_context_get_memory(const sd_context *cx, sd_context_memory *out) {
    sd_context_backend(cx)->memory(cx, out);
}

sd_status sd_context_plan_open(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                               int threads, int ctx, const int *const *rank, int n_adapters,
                               sd_error *err) {
    static const sd_context_options none;
    if (!o) o = &none;
    const sd_backend *b = o->backend ? o->backend : &sd_backend_cpu;
    return b->plan(out, m, o, threads, ctx, rank, n_adapters, err);
}

size_t sd_kv_bytes_per_position(const sd_context *cx) {
    const sd_model *m = sd_context_model(cx);
    size_t layers = 0;
    for (int l = 0; l < m->hp.L; l++) layers += m->layer[l].window == 0;
    return layers * sd_context_backend(cx)->kv_bytes(cx);
}
bool sd_step_costs_get(sd_step_costs *out, sd_context *cx) {
    return sd_context_backend(cx)->step_costs(out, cx);
}

bool sd_context_sleep(sd_context *cx) {
    const sd_backend *b = sd_context_backend(cx);
    if (!b->sleep) return false;
    b->sleep(cx);
    return true;
}

sd_status sd_context_wake(sd_context *cx, sd_error *err) {
    const sd_backend *b = sd_context_backend(cx);
    return b->wake ? b->wake(cx, err) : SD_OK;
}

static sd_status check_adapter(const sd_adapter *a, const sd_model *m, sd_error *err) {
    if (a->n_linears == m->n_linears && a->max_r <= SD_MAX_RANK) return SD_OK;
    return sd_fail(err, SD_EINVAL, "adapter '%s' was not made for this model",
                   a->name ? a->name : "");
}

sd_status sd_context_prepare_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    const sd_backend *b = sd_context_backend(cx);
    sd_status st = check_adapter(a, sd_context_model(cx), err);
    return st == SD_OK && b->prepare_adapter ? b->prepare_adapter(cx, a, err) : st;
}

sd_status sd_context_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    sd_status st = check_adapter(a, sd_context_model(cx), err);
    return st == SD_OK ? sd_context_backend(cx)->take_adapter(cx, a, err) : st;
}

// ---- a step

static sd_status check_row(const sd_context *cx, const sd_model *m, const sd_row *rows, int n,
                           sd_error *err) {
    const sd_row *r = &rows[n];
    if (r->token < 0 || r->token >= m->hp.V)
        return sd_fail(err, SD_EINVAL, "token %d is not in the vocabulary of %d", r->token,
                       m->hp.V);
    if (!r->kv || !sd_context_backend(cx)->kv_fits(cx, r->kv->pool->memory) ||
        !sd_kv_pool_fits(r->kv->pool, m))
        return sd_fail(err, SD_EINVAL, "row %d: its cache was not made for this model", n);
    if (r->pos < 0 || r->pos >= r->kv->ctx)
        return sd_fail(err, SD_EINVAL, "position %d is outside the context of %d; use a larger one",
                       r->pos, r->kv->ctx);
    if (r->pos >= r->kv->pages * SD_KV_PAGE)
        return sd_fail(err, SD_EINVAL, "row %d: no page was reserved for position %d", n, r->pos);
    if (!sd_kv_sees(r->kv, r->pos))
        return sd_fail(err, SD_EINVAL, "row %d: what position %d sees was given back", n, r->pos);
    if (n > 0 && rows[n - 1].kv == r->kv && rows[n - 1].pos >= r->pos)
        return sd_fail(err, SD_EINVAL, "row %d: positions of a cache must ascend", n);
    return r->adapter ? check_adapter(r->adapter, m, err) : SD_OK;
}

sd_status sd_forward_pick(sd_context *cx, const sd_row *rows, int n, float *logits,
                          sd_picked *picked, sd_error *err) {
    sd_status st = SD_OK;
    const sd_model *m = sd_context_model(cx);
    const int most = sd_context_max_rows(cx);
    bool want_logits = false, want_token = false;
    SD_CHECK(n > 0 && n <= most, err, SD_EINVAL, "%d rows in a step, 1 to %d are possible", n,
             most);
    for (int i = 0; i < n; i++) {
        SD_TRY(check_row(cx, m, rows, i, err));
        want_logits |= rows[i].want_logits;
        want_token |= rows[i].pick != NULL;
    }
    SD_CHECK(logits || !want_logits, err, SD_EINVAL,
             "rows want logits, but there is no place for them");
    SD_CHECK(picked || !want_token, err, SD_EINVAL,
             "rows want tokens, but there is no place for them");
    SD_TRY(sd_context_backend(cx)->forward(cx, rows, n, logits, picked, err));
out:
    return st;
}

sd_status sd_forward(sd_context *cx, const sd_row *rows, int n, float *logits, sd_error *err) {
    return sd_forward_pick(cx, rows, n, logits, NULL, err);
}
