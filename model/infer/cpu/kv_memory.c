// The keys and values of sequences in the CPU's memory: where a head's lie, how they are written, and
// the scales that int8 keys are divided by first.
#include "model/infer/cpu/private.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

size_t sd_cpu_kv_bytes(const sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    size_t head = (size_t)hp->D * sd_kv_value_bytes(cx->kv);
    if (cx->kv == SD_KV_INT8) head += sizeof(float); // its scale
    return 2 * (size_t)hp->G * head;
}

// ---- pages

// A page of a layer: [2][G][SD_KV_PAGE] scales under SD_KV_INT8, then [2][G][SD_KV_PAGE][D]. The
// pages of a layer stand together, so that a step walks through memory layer by layer.
typedef struct {
    sd_kv_memory base;
    int L, G, D;
    sd_kv_type type;
    size_t page_bytes; // of one layer's page
    size_t *layer;     // [L] where in data its pages begin
    char *data;        // [L][pages of the layer][page_bytes]
} memory;

static const memory *memory_of(const sd_kv *kv) {
    return (const memory *)(const void *)kv->pool->memory;
}

static size_t value_bytes(const memory *p) { // of a kv head in a page: keys or values
    return (size_t)SD_KV_PAGE * (size_t)p->D * sd_kv_value_bytes(p->type);
}

static size_t scale_bytes(const memory *p) {
    return p->type == SD_KV_INT8 ? SD_KV_PAGE * sizeof(float) : 0;
}

// Sizes and places of the layers' pages; false where they cannot be counted.
static bool place_layers(memory *p, const int *pages) {
    for (int l = 0; l < p->L; l++) {
        size_t bytes;
        p->layer[l] = p->base.bytes;
        if (!sd_mul_size(&bytes, p->page_bytes, (size_t)pages[l]) ||
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
    p->layer = sd_alloc((size_t)p->L, sizeof *p->layer);
    SD_CHECK_ALLOC(p->layer, err);
    p->page_bytes = 2 * (size_t)p->G * (value_bytes(p) + scale_bytes(p));
    p->page_bytes = (p->page_bytes + 63) / 64 * 64;
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
    size_t scales = 2 * (size_t)p->G * scale_bytes(p);
    r->layer = p->data + p->layer[cx->l];
    r->page_bytes = p->page_bytes;
    r->page = sd_kv_table(kv, cx->l);
    r->g = g;
    r->k = scales + (size_t)g * value_bytes(p);
    r->v = scales + (size_t)(p->G + g) * value_bytes(p);
    r->k_scale = (size_t)g * scale_bytes(p);
    r->v_scale = (size_t)(p->G + g) * scale_bytes(p);
}

// x [D] at position `at` of the page's keys or values.
static void store(const sd_context *cx, char *values, char *scales, int at, const float *x) {
    int D = cx->model->hp.D;
    void *to = values + (size_t)at * (size_t)D * sd_kv_value_bytes(cx->kv);
    if (cx->kv == SD_KV_F16)
        cx->ops->to_f16(to, x, D);
    else if (cx->kv == SD_KV_BF16)
        cx->ops->to_bf16(to, x, D);
    else if (cx->kv == SD_KV_INT8)
        ((float *)(void *)scales)[at] = cx->ops->quantize_i8(to, x, D);
    else
        memcpy(to, x, (size_t)D * sizeof *x);
}

// The page of position `pos` in layer l.
static char *page_at(const sd_kv *kv, int l, int pos) {
    const memory *p = memory_of(kv);
    return p->data + p->layer[l] + (size_t)sd_kv_table(kv, l)[pos / SD_KV_PAGE] * p->page_bytes;
}

void sd_kv_store(const sd_context *cx, const sd_row *r, const float *k, const float *v) {
    const memory *p = memory_of(r->kv);
    const size_t each = value_bytes(p), scale = scale_bytes(p);
    char *scales = page_at(r->kv, cx->l, r->pos), *values = scales + 2 * (size_t)p->G * scale;
    const float *const x[] = {k, v};
    for (int i = 0; i < 2; i++)
        for (int g = 0; g < p->G; g++, scales += scale, values += each)
            store(cx, values, scales, r->pos % SD_KV_PAGE, x[i] + (size_t)g * p->D);
}

bool sd_cpu_kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    const memory *p = memory_of(a), *q = memory_of(b);
    if (p->type != q->type || p->L != q->L || p->G != q->G || p->D != q->D) return false;
    size_t cell = (size_t)p->D * sd_kv_value_bytes(p->type),
           scales = 2 * (size_t)p->G * scale_bytes(p);
    for (int l = 0; l < p->L; l++) {
        const int i = sd_kv_first_page(a, l), j = sd_kv_first_page(b, l);
        for (int t = (i > j ? i : j) * SD_KV_PAGE; t < positions; t++) {
            const char *x = page_at(a, l, t), *y = page_at(b, l, t);
            size_t in = (size_t)(t % SD_KV_PAGE);
            for (int plane = 0; plane < 2 * p->G; plane++) {
                size_t at = scales + (size_t)plane * value_bytes(p) + in * cell;
                if (memcmp(x + at, y + at, cell) != 0) return false;
                if (p->type != SD_KV_INT8) continue;
                at = (size_t)plane * scale_bytes(p) + in * sizeof(float);
                if (memcmp(x + at, y + at, sizeof(float)) != 0) return false;
            }
        }
    }
    return true;
}

// ---- int8 keys

// The power of two below 1 + the size of a pair of channels: keys divided by it are of order 1.
static float size_of(float a, float b) {
    return ldexpf(1, ilogbf(1 + hypotf(a, b)));
}

// Some channels of keys are ten times larger than the others, by their bias or by the weight of their
// norm. One scale for all channels would leave the others few codes. So each channel of the keys is
// divided by a power of two before quantisation, and the queries are multiplied by it: apart from the
// codes the score is the same to the bit (arXiv:2211.10438). Both channels of a rotated pair share a
// scale, so that it outlasts the rotation.
sd_status sd_kv_measure_keys(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    int D = hp->D, half = hp->rope_dim / 2, step = hp->rope_interleaved ? 1 : half;
    if (!hp->qkv_bias && !hp->qk_norm) goto out;
    cx->key_scale = sd_alloc((size_t)hp->L * hp->G * D, sizeof *cx->key_scale);
    SD_CHECK_ALLOC(cx->key_scale, err);
    for (int head = 0; head < hp->L * hp->G; head++) {
        const sd_layer *layer = &cx->model->layer[head / hp->G];
        const float *w = layer->k_norm ? layer->k_norm : layer->bias[SD_WK] + (head % hp->G) * D;
        float *size = cx->key_scale + (size_t)head * D;
        for (int i = 0; i < D; i++) size[i] = size_of(w[i], 0);
        for (int i = 0; i < half; i++) {
            int a = hp->rope_interleaved ? 2 * i : i;
            size[a] = size[a + step] = size_of(w[a], w[a + step]);
        }
    }
out:
    return st;
}

void sd_kv_scale_keys(const sd_context *cx, float *q, float *k) {
    const sd_hparams *hp = &cx->model->hp;
    const float *size = cx->key_scale + (size_t)cx->l * hp->G * hp->D;
    for (int h = 0; h < hp->H; h++, q += hp->D) {
        const float *s = size + (size_t)(h / (hp->H / hp->G)) * hp->D;
        for (int i = 0; i < hp->D; i++) q[i] *= s[i];
    }
    for (int i = 0; i < hp->G * hp->D; i++) k[i] /= size[i];
}
