// Pages of keys and values on the device: of a layer each a piece of memory of its own, of a page the keys [G, SD_KV_PAGE,
// D] and behind them the values; where they are codes, each with their scales [G, SD_KV_PAGE] behind them.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

#include <string.h>

size_t sd_cuda_kv_bytes(const sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    const size_t D = (size_t)hp->D,
                 head = cx->codes ? D + sizeof(float) : D * sd_cuda_real_bytes(cx->real);
    return 2 * (size_t)hp->G * head;
}

static sd_cuda_pages *pages_of(sd_kv_memory *m) {
    return (sd_cuda_pages *)(void *)m;
}
static const sd_cuda_pages *pages_of_kv(const sd_kv *kv) {
    return (const sd_cuda_pages *)(const void *)kv->pool->memory;
}

// Their sum into p->base.bytes; false where it cannot be counted.
static bool count_bytes(sd_cuda_pages *p) {
    for (int l = 0; l < p->L; l++) {
        size_t bytes;
        if (!sd_mul_size(&bytes, 2 * p->half, (size_t)p->pages[l]) ||
            !sd_add_size(&p->base.bytes, p->base.bytes, bytes))
            return false;
    }
    return true;
}

sd_status sd_cuda_kv_open(sd_kv_memory **out, const sd_context *cx, const int *pages,
                          sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    *out = NULL;
    sd_cuda_pages *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->base.backend = &sd_backend_cuda;
    p->dev = cx->dev, p->device = cx->device, p->stream = cx->stream;
    p->L = hp->L, p->G = hp->G, p->D = hp->D;
    p->real = cx->real, p->codes = cx->codes;
    p->value = p->codes ? 1 : sd_cuda_real_bytes(p->real);
    p->half = (size_t)SD_KV_PAGE * sd_cuda_kv_bytes(cx) / 2;
    p->pages = sd_alloc((size_t)p->L, sizeof *p->pages);
    p->layer = sd_alloc((size_t)p->L, sizeof *p->layer);
    SD_CHECK_ALLOC(p->pages && p->layer, err);
    memcpy(p->pages, pages, (size_t)p->L * sizeof *p->pages);
    SD_CHECK(count_bytes(p), err, SD_EINVAL, "a context of %d pages is not possible; give fewer",
             pages[0]);
    CUDA_TRY(cx->dev->choose(cx->device), "choosing the device");
    for (int l = 0; l < p->L; l++)
        CUDA_TRY(cx->dev->alloc(&p->layer[l], 2 * p->half * (size_t)pages[l]), "keys and values");
    *out = &p->base;
    p = NULL;
out:
    sd_cuda_kv_close(p ? &p->base : NULL);
    return st;
}

void sd_cuda_kv_close(sd_kv_memory *m) {
    sd_cuda_pages *p = pages_of(m);
    if (!p) return;
    p->dev->choose(p->device);
    for (int l = 0; p->layer && l < p->L; l++)
        if (p->layer[l]) p->dev->free(p->layer[l]);
    free(p->layer);
    free(p->pages);
    free(p);
}

bool sd_cuda_kv_fits(const sd_context *cx, const sd_kv_memory *m) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_cuda_pages *p = (const sd_cuda_pages *)(const void *)m;
    return m->backend == &sd_backend_cuda && p->device == cx->device && p->real == cx->real &&
           p->codes == cx->codes && p->L == hp->L && p->G == hp->G && p->D == hp->D;
}

// ---- whole pages

static char *half_at(const sd_cuda_pages *p, int l, int32_t page, int half) {
    return (char *)p->layer[l] + (2 * (size_t)page + (size_t)half) * p->half;
}

// Bytes of a head's values at a position; of a head in a page; of those of all heads: where the scales begin.
static size_t row_bytes(const sd_cuda_pages *p) {
    return (size_t)p->D * p->value;
}
static size_t scales_at(const sd_cuda_pages *p) {
    return (size_t)p->G * SD_KV_PAGE * row_bytes(p);
}

sd_cuda_kv sd_cuda_kv_of(const sd_cuda_pages *p, int l) {
    return (sd_cuda_kv){.layer = p->layer[l],
                        .page_bytes = 2 * p->half,
                        .k = 0,
                        .v = p->half,
                        .codes = p->codes,
                        .k_scale = scales_at(p),
                        .v_scale = p->half + scales_at(p)};
}

// The first positions of one head, keys or values, or of its scales.
static int copy_part(const sd_cuda_pages *p, char *to, const char *from, size_t at, size_t bytes) {
    return p->dev->copy(to + at, from + at, bytes, p->stream);
}

void sd_cuda_kv_copy_page(sd_kv_memory *m, int l, int32_t to, int32_t from, int positions) {
    sd_cuda_pages *p = pages_of(m);
    const size_t row = row_bytes(p), n = (size_t)positions;
    int status = p->dev->choose(p->device);
    for (int i = 0; i < 2 * p->G && !status; i++) {
        char *a = half_at(p, l, to, i / p->G);
        const char *b = half_at(p, l, from, i / p->G);
        const size_t first = (size_t)(i % p->G) * SD_KV_PAGE; // of the head's positions
        status = copy_part(p, a, b, first * row, n * row);
        if (p->codes && !status)
            status = copy_part(p, a, b, scales_at(p) + first * sizeof(float), n * sizeof(float));
    }
    // Steps of other contexts may read it next, on streams of their own.
    if (!status) status = p->dev->stream_wait(p->stream);
    if (status) p->failed = status;
}

// ---- comparing

// host [2, half] <- page of a sequence.
static bool fetch_page(char *host, const sd_kv *kv, int l, int page) {
    const sd_cuda_pages *p = pages_of_kv(kv);
    const int32_t number = sd_kv_table(kv, l)[page];
    return !p->dev->choose(p->device) &&
           !p->dev->copy(host, half_at(p, l, number, 0), 2 * p->half, p->stream) &&
           !p->dev->stream_wait(p->stream);
}

static bool equal_pages(const sd_cuda_pages *p, const char *a, const char *b, int positions) {
    const size_t row = row_bytes(p), n = (size_t)positions;
    for (int i = 0; i < 2 * p->G; i++) {
        const size_t half = (size_t)(i / p->G) * p->half, first = (size_t)(i % p->G) * SD_KV_PAGE,
                     values = half + first * row,
                     scales = half + scales_at(p) + first * sizeof(float);
        if (memcmp(a + values, b + values, n * row) != 0) return false;
        if (p->codes && memcmp(a + scales, b + scales, n * sizeof(float)) != 0) return false;
    }
    return true;
}

bool sd_cuda_kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    const sd_cuda_pages *p = pages_of_kv(a), *q = pages_of_kv(b);
    void *x = NULL, *y = NULL;
    bool equal =
        p->real == q->real && p->codes == q->codes && p->L == q->L && p->G == q->G && p->D == q->D;
    equal = equal && !p->dev->host_alloc(&x, 2 * p->half) && !q->dev->host_alloc(&y, 2 * q->half);
    for (int l = 0; equal && l < p->L; l++) {
        const int i = sd_kv_first_page(a, l), k = sd_kv_first_page(b, l);
        for (int page = i > k ? i : k; equal && page * SD_KV_PAGE < positions; page++) {
            const int left = positions - page * SD_KV_PAGE;
            equal = fetch_page(x, a, l, page) && fetch_page(y, b, l, page) &&
                    equal_pages(p, x, y, left < SD_KV_PAGE ? left : SD_KV_PAGE);
        }
    }
    if (x) p->dev->host_free(x);
    if (y) q->dev->host_free(y);
    return equal;
}
