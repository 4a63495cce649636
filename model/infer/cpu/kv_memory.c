// The keys and values of sequences in the CPU's memory: where a head's lie, how they are written, and
// the scales that int8 keys are divided by first.
#include "model/infer/cpu/private.h"

#include "base/memory.h"

#include <string.h>

size_t sd_cpu_kv_bytes(const sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    size_t head = (size_t)hp->D * sd_kv_value_bytes(cx->kv);
    if (cx->kv == SD_KV_INT8) head += sizeof(float); // its scale
    return 2 * (size_t)hp->G * head;
}

// ---- pages

// A page of a head's keys or values: float [SD_KV_PAGE] scales under SD_KV_INT8, then [SD_KV_PAGE][D].
// The pages of a layer's head stand together. A sequence's pages mostly have successive numbers, so
// that attention reads its keys in one piece: 6 % of decoding at depth 2048, by the processor's
// address translation and prefetching.
typedef struct {
    sd_kv_memory base;
    int L, G, D;
    sd_kv_type type;
    size_t page_bytes;
    int *pages;    // [L] of each head
    size_t *layer; // [L] where in data its pages begin
    char *data;    // [L][keys, values][G][pages of the layer][page_bytes]
} memory;

static const memory *memory_of(const sd_kv *kv) {
    return (const memory *)(const void *)kv->pool->memory;
}

static size_t cell_bytes(const memory *p) { // of one position in a page
    return (size_t)p->D * sd_kv_value_bytes(p->type);
}

static size_t scale_bytes(const memory *p) { // at a page's begin
    return p->type == SD_KV_INT8 ? SD_KV_PAGE * sizeof(float) : 0;
}

// Where the pages of a head's keys (i 0) or values (i 1) begin in layer l.
static size_t head_at(const memory *p, int l, int i, int g) {
    return p->layer[l] + (size_t)(i * p->G + g) * (size_t)p->pages[l] * p->page_bytes;
}

// Sizes and places of the layers' pages; false where they cannot be counted.
static bool place_layers(memory *p, const int *pages) {
    for (int l = 0; l < p->L; l++) {
        size_t bytes;
        p->pages[l] = pages[l];
        p->layer[l] = p->base.bytes;
        if (!sd_mul_size(&bytes, 2 * (size_t)p->G * p->page_bytes, (size_t)pages[l]) ||
            bytes > SIZE_MAX - p->base.bytes)
            return false;
        p->base.bytes += bytes;
    }
    return true;
}

sd_status sd_cpu_kv_open(sd_kv_memory **out, const sd_context *cx, const int *pages,
                         sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    int most = 0;
    for (int l = 0; l < hp->L; l++) most = pages[l] > most ? pages[l] : most;
    *out = NULL;
    memory *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->base.backend = &sd_backend_cpu;
    p->L = hp->L, p->G = hp->G, p->D = hp->D;
    p->type = cx->kv;
    p->pages = sd_alloc((size_t)p->L, sizeof *p->pages);
    p->layer = sd_alloc((size_t)p->L, sizeof *p->layer);
    SD_CHECK_ALLOC(p->pages && p->layer, err);
    p->page_bytes = scale_bytes(p) + SD_KV_PAGE * cell_bytes(p);
    SD_CHECK(place_layers(p, pages), err, SD_EINVAL,
             "a context of %d pages is not possible; give fewer", most);
    p->data = map_zero(p->base.bytes);
    SD_CHECK(p->data, err, SD_ENOMEM,
             "out of memory for a context of %lld positions (%zu MiB); use a shorter one",
             (long long)most * SD_KV_PAGE, p->base.bytes >> 20);
    *out = &p->base;
    p = NULL;
out:
    sd_cpu_kv_close(p ? &p->base : NULL);
    return st;
}

void sd_cpu_kv_close(sd_kv_memory *m) {
    memory *p = (memory *)(void *)m;
    if (!p) return;
    if (p->data) munmap(p->data, p->base.bytes);
    free(p->layer);
    free(p->pages);
    free(p);
}

void sd_cpu_kv_clear(sd_kv_memory *m) {
    memset(((memory *)(void *)m)->data, 0, m->bytes);
}

// ---- where they lie

bool sd_cpu_kv_fits(const sd_context *cx, const sd_kv_memory *m) {
    const sd_hparams *hp = &cx->model->hp;
    const memory *p = (const memory *)(const void *)m;
    return m->backend == &sd_backend_cpu && p->type == cx->kv && p->L == hp->L && p->G == hp->G &&
           p->D == hp->D;
}

void sd_kv_locate(sd_attention_rows *r, const sd_context *cx, const sd_kv *kv, int g) {
    const memory *p = memory_of(kv);
    r->layer = p->data;
    r->page_bytes = p->page_bytes;
    r->page = sd_kv_table(kv, cx->l);
    r->g = g;
    r->k_scale = head_at(p, cx->l, 0, g);
    r->v_scale = head_at(p, cx->l, 1, g);
    r->k = r->k_scale + scale_bytes(p);
    r->v = r->v_scale + scale_bytes(p);
}

// Where the page of position `pos` begins: of a head's keys (i 0) or values (i 1) in layer l.
static char *page_at(const sd_kv *kv, int l, int i, int g, int pos) {
    const memory *p = memory_of(kv);
    const size_t page = (size_t)sd_kv_table(kv, l)[pos / SD_KV_PAGE];
    return p->data + head_at(p, l, i, g) + page * p->page_bytes;
}

// x [D] at position `at` of the page.
static void store(const sd_context *cx, const memory *p, char *page, int at, const float *x) {
    void *to = page + scale_bytes(p) + (size_t)at * cell_bytes(p);
    if (p->type == SD_KV_F16)
        cx->ops->to_f16(to, x, p->D);
    else if (p->type == SD_KV_BF16)
        cx->ops->to_bf16(to, x, p->D);
    else if (p->type == SD_KV_INT8)
        ((float *)(void *)page)[at] = cx->ops->quantize_i8(to, x, p->D);
    else
        memcpy(to, x, (size_t)p->D * sizeof *x);
}

void sd_kv_store(const sd_context *cx, const sd_row *r, const float *k, const float *v) {
    const memory *p = memory_of(r->kv);
    const float *const x[] = {k, v};
    for (int i = 0; i < 2; i++)
        for (int g = 0; g < p->G; g++)
            store(cx, p, page_at(r->kv, cx->l, i, g, r->pos), r->pos % SD_KV_PAGE,
                  x[i] + (size_t)g * p->D);
}

void sd_cpu_kv_copy_page(sd_kv_memory *m, int l, int32_t to, int32_t from, int positions) {
    const memory *p = (const memory *)(const void *)m;
    const size_t scales = p->type == SD_KV_INT8 ? (size_t)positions * sizeof(float) : 0;
    for (int plane = 0; plane < 2 * p->G; plane++) {
        char *head = p->data + head_at(p, l, plane / p->G, plane % p->G);
        char *a = head + (size_t)to * p->page_bytes;
        const char *b = head + (size_t)from * p->page_bytes;
        memcpy(a, b, scales);
        memcpy(a + scale_bytes(p), b + scale_bytes(p), (size_t)positions * cell_bytes(p));
    }
}

// Whether position `at` of two pages holds the same.
static bool equal_at(const memory *p, const char *a, const char *b, int at) {
    const size_t cell = scale_bytes(p) + (size_t)at * cell_bytes(p), scale = at * sizeof(float);
    return memcmp(a + cell, b + cell, cell_bytes(p)) == 0 &&
           (p->type != SD_KV_INT8 || memcmp(a + scale, b + scale, sizeof(float)) == 0);
}

bool sd_cpu_kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    const memory *p = memory_of(a), *q = memory_of(b);
    if (p->type != q->type || p->L != q->L || p->G != q->G || p->D != q->D) return false;
    for (int l = 0; l < p->L; l++) {
        const int x = sd_kv_first_page(a, l), y = sd_kv_first_page(b, l);
        for (int t = (x > y ? x : y) * SD_KV_PAGE; t < positions; t++)
            for (int plane = 0; plane < 2 * p->G; plane++) {
                const int i = plane / p->G, g = plane % p->G;
                if (!equal_at(p, page_at(a, l, i, g, t), page_at(b, l, i, g, t), t % SD_KV_PAGE))
                    return false;
            }
    }
    return true;
}

// ---- int8 keys

void sd_kv_scale_keys(const sd_context *cx, float *q, float *k) {
    const sd_hparams *hp = &cx->model->hp;
    const float *size = cx->key_scale + (size_t)cx->l * hp->G * hp->D;
    for (int h = 0; h < hp->H; h++, q += hp->D) {
        const float *s = size + (size_t)(h / (hp->H / hp->G)) * hp->D;
        for (int i = 0; i < hp->D; i++) q[i] *= s[i];
    }
    for (int i = 0; i < hp->G * hp->D; i++) k[i] /= size[i];
}
