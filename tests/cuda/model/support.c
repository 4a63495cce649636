#include "tests/cuda/model/check.h"

#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

void must(sd_status st, const sd_error *err) {
    check(st == SD_OK, "%s", err->message);
}

sd_model *open_tiny(const sd_tiny_model *t) {
    sd_model *m = sd_tiny_open(t, true);
    check(m, "no model of %s", sd_arch_name(t->arch));
    return m;
}

sd_context *open_typed(const sd_backend *b, sd_model *m, sd_compute compute, sd_kv_type kv,
                       int max_rows, int max_picked) {
    sd_context *cx = NULL;
    sd_error err = {0};
    const sd_context_options o = {
        .max_rows = max_rows, .compute = compute, .kv = kv, .backend = b, .max_picked = max_picked};
    must(sd_context_open(&cx, m, NULL, &o, &err), &err);
    return cx;
}
sd_context *open_on(const sd_backend *b, sd_model *m, sd_compute compute, int max_rows,
                    int max_picked) {
    return open_typed(b, m, compute, SD_KV_AUTO, max_rows, max_picked);
}

sd_kv *open_kv(const sd_context *cx, int ctx) {
    sd_kv *kv = NULL;
    sd_error err = {0};
    must(sd_kv_open(&kv, cx, ctx, &err), &err);
    return kv;
}

int32_t token_at(int sequence, int t, int V) {
    uint32_t r[4];
    sd_philox(r, 99, (uint64_t)sequence, (uint64_t)t);
    return (int32_t)(r[0] % (uint32_t)V);
}

static float *random_floats(size_t n, uint64_t seed, uint64_t stream) {
    float *x = sd_alloc(n, sizeof *x);
    check(x, "out of memory");
    for (size_t k = 0; k < n; k++) {
        uint32_t w[4];
        sd_philox(w, seed, stream, k);
        x[k] = (2 * sd_uniform(w[0]) - 1) * 0.2f;
    }
    return x;
}

sd_adapter *random_adapter(const sd_model *m, int r, uint64_t seed) {
    enum { MOST = 16 * SD_PROJ_COUNT };
    sd_lora lora[MOST] = {0};
    check(m->n_linears <= MOST, "%d linear maps", m->n_linears);
    for (int i = 0; i < m->n_linears; i++) {
        const sd_weight *w = &m->linear[i].w;
        if (seed % 2 && i % 3 == 1) continue;
        lora[i] =
            (sd_lora){.r = r,
                      .A = random_floats((size_t)r * (size_t)w->cols, seed, 2 * (uint64_t)i),
                      .B = random_floats((size_t)w->rows * (size_t)r, seed, 2 * (uint64_t)i + 1),
                      .scale = 0.5f};
    }
    sd_adapter *a = NULL;
    sd_error err = {0};
    must(sd_adapter_from_factors(&a, "random", lora, m, &err), &err);
    for (int i = 0; i < m->n_linears; i++) {
        free((void *)(uintptr_t)lora[i].A);
        free((void *)(uintptr_t)lora[i].B);
    }
    return a;
}

double distance(const float *x, const float *want, size_t n) {
    double off = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (double)want[i];
        off += d * d, size += (double)want[i] * (double)want[i];
    }
    return sqrt(off / size);
}

double distance_to(const float *x, const double *want, size_t n) {
    double off = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - want[i];
        off += d * d, size += want[i] * want[i];
    }
    return sqrt(off / size);
}

void run_rows(float *logits, sd_context *cx, sd_kv *kv, int sequence, int t0, int n,
              const sd_adapter *a) {
    const int V = sd_context_model(cx)->hp.V;
    sd_error err = {0};
    sd_row *row = sd_alloc((size_t)n, sizeof *row);
    check(row, "out of memory");
    for (int i = 0; i < n; i++)
        row[i] = (sd_row){.token = token_at(sequence, t0 + i, V),
                          .pos = t0 + i,
                          .kv = kv,
                          .adapter = a,
                          .want_logits = true};
    must(sd_forward(cx, row, n, logits, &err), &err);
    kv->len = t0 + n;
    free(row);
}
