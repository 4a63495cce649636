#include "tests/unit/support/counting_backend.h"

#include "base/memory.h"

#include <stdlib.h>

test_backend_counts test_counted;
sd_status (*test_counted_forward)(sd_context *cx, const sd_row *rows, int n, float *logits,
                                  sd_picked *picked, sd_error *err);

typedef struct {
    sd_context_base base;
    char unlike[4096]; // where a context of the CPU has its state
    sd_context *inner;
} counting;

static counting *of(sd_context *cx) {
    if (sd_context_backend(cx) != &test_counting_backend) abort();
    return (counting *)(void *)cx;
}
static const counting *of_const(const sd_context *cx) {
    return (const counting *)(const void *)cx;
}

static sd_status look(int device, sd_error *err) {
    (void)device, (void)err;
    return SD_OK;
}

static sd_status open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                      sd_error *err) {
    sd_status st = SD_OK;
    counting *c = sd_alloc(1, sizeof *c);
    SD_CHECK_ALLOC(c, err);
    c->base.backend = &test_counting_backend;
    sd_context_options inner = *o;
    inner.backend = NULL;
    SD_TRY(sd_backend_cpu.open(&c->inner, m, pool, &inner, err));
    test_counted.opened++;
    *out = (sd_context *)(void *)c, c = NULL;
out:
    free(c);
    return st;
}

static void close(sd_context *cx) {
    test_counted.closed++;
    sd_backend_cpu.close(of(cx)->inner);
    free(of(cx));
}

static sd_model *model(const sd_context *cx) {
    return sd_backend_cpu.model(of_const(cx)->inner);
}
static int max_rows(const sd_context *cx) {
    return sd_backend_cpu.max_rows(of_const(cx)->inner);
}
static size_t bytes(const sd_context *cx) {
    return sd_backend_cpu.bytes(of_const(cx)->inner);
}

static void memory(const sd_context *cx, sd_context_memory *out) {
    sd_backend_cpu.memory(of_const(cx)->inner, out);
}

static sd_status plan(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                      int threads, int ctx, const int *const *rank, int n_adapters, sd_error *err) {
    return sd_backend_cpu.plan(out, m, o, threads, ctx, rank, n_adapters, err);
}

static bool step_costs(sd_step_costs *out, sd_context *cx) {
    test_counted.costs++;
    return sd_backend_cpu.step_costs(out, of(cx)->inner);
}

static sd_status take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    test_counted.adapters++;
    return sd_backend_cpu.take_adapter(of(cx)->inner, a, err);
}

static sd_status forward(sd_context *cx, const sd_row *rows, int n, float *logits,
                         sd_picked *picked, sd_error *err) {
    test_counted.forwards++;
    test_counted.rows += n;
    for (int i = 0; i < n; i++) {
        test_counted.picked += rows[i].pick != NULL;
        test_counted.logits += rows[i].want_logits;
    }
    if (test_counted_forward)
        return test_counted_forward(of(cx)->inner, rows, n, logits, picked, err);
    return sd_backend_cpu.forward(of(cx)->inner, rows, n, logits, picked, err);
}

static size_t kv_bytes(const sd_context *cx) {
    return sd_backend_cpu.kv_bytes(of_const(cx)->inner);
}
// The memory is the CPU's own, and closed as such.
static sd_status kv_open(sd_kv_memory **out, const sd_context *cx, const int *pages,
                         sd_error *err) {
    test_counted.kv_opened++;
    return sd_backend_cpu.kv_open(out, of_const(cx)->inner, pages, err);
}
static void kv_close(sd_kv_memory *m) {
    sd_backend_cpu.kv_close(m);
}
static bool kv_fits(const sd_context *cx, const sd_kv_memory *m) {
    return sd_backend_cpu.kv_fits(of_const(cx)->inner, m);
}
static void kv_copy_page(sd_kv_memory *m, int l, int32_t to, int32_t from, int positions) {
    sd_backend_cpu.kv_copy_page(m, l, to, from, positions);
}
static bool kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    return sd_backend_cpu.kv_equal(a, b, positions);
}

const sd_backend test_counting_backend = {.word = "counting",
                                          .look = look,
                                          .open = open,
                                          .close = close,
                                          .model = model,
                                          .max_rows = max_rows,
                                          .bytes = bytes,
                                          .memory = memory,
                                          .plan = plan,
                                          .step_costs = step_costs,
                                          .take_adapter = take_adapter,
                                          .forward = forward,
                                          .kv_bytes = kv_bytes,
                                          .kv_open = kv_open,
                                          .kv_close = kv_close,
                                          .kv_fits = kv_fits,
                                          .kv_copy_page = kv_copy_page,
                                          .kv_equal = kv_equal};
