// The keys and values of a sequence: where a head's lie, how they are written, and the scales that
// int8 keys are divided by first.
#include "model/infer/private.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

size_t sd_kv_bytes_per_position(const sd_context *cx) {
    const sd_hparams *hp = &cx->model->hp;
    size_t head = (size_t)hp->D * sd_kv_value_bytes(cx->kv);
    if (cx->kv == SD_KV_INT8) head += sizeof(float); // its scale
    return (size_t)hp->L * 2 * (size_t)hp->G * head;
}

// ---- pages

// A page of a layer: [2][G][SD_KV_PAGE] scales under SD_KV_INT8, then [2][G][SD_KV_PAGE][D]. The
// pages of a layer stand together, so that a step walks through memory layer by layer.
struct sd_kv_pool {
    int L, G, D;
    sd_kv_type type;
    size_t page_bytes, bytes; // of one layer's page; of all
    char *data;               // [L][pages][page_bytes]
    int pages, left;
    int32_t *free_page; // [pages] a stack of those that nobody has: left
    int32_t *readers;   // [pages] sequences that have it
};

static size_t value_bytes(const sd_kv_pool *p) { // of a kv head in a page: keys or values
    return (size_t)SD_KV_PAGE * (size_t)p->D * sd_kv_value_bytes(p->type);
}

static size_t scale_bytes(const sd_kv_pool *p) {
    return p->type == SD_KV_INT8 ? SD_KV_PAGE * sizeof(float) : 0;
}

sd_status sd_kv_pool_open(sd_kv_pool **out, const sd_context *cx, int pages, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &cx->model->hp;
    *out = NULL;
    sd_kv_pool *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->L = hp->L, p->G = hp->G, p->D = hp->D;
    p->type = cx->kv;
    p->pages = p->left = pages;
    p->page_bytes = 2 * (size_t)p->G * (value_bytes(p) + scale_bytes(p));
    p->page_bytes = (p->page_bytes + 63) / 64 * 64;
    SD_CHECK(pages > 0 && sd_mul_size(&p->bytes, p->page_bytes, (size_t)pages) &&
                 sd_mul_size(&p->bytes, p->bytes, (size_t)p->L),
             err, SD_EINVAL, "a context of %d pages is not possible; give 1 or more", pages);
    p->free_page = sd_alloc((size_t)pages, sizeof *p->free_page);
    p->readers = sd_alloc((size_t)pages, sizeof *p->readers);
    SD_CHECK_ALLOC(p->free_page && p->readers, err);
    for (int i = 0; i < pages; i++) p->free_page[i] = pages - 1 - i; // the first is lent first
    p->data = map_zero(p->bytes);
    SD_CHECK(p->data, err, SD_ENOMEM,
             "out of memory for a context of %lld positions (%zu MiB); use a shorter one",
             (long long)pages * SD_KV_PAGE, p->bytes >> 20);
    *out = p;
    p = NULL;
out:
    sd_kv_pool_close(p);
    return st;
}

void sd_kv_pool_close(sd_kv_pool *p) {
    if (!p) return;
    if (p->data) munmap(p->data, p->bytes);
    free(p->free_page);
    free(p->readers);
    free(p);
}

size_t sd_kv_pool_bytes(const sd_kv_pool *p) {
    return p->bytes;
}

int sd_kv_pool_left(const sd_kv_pool *p) {
    return p->left;
}

void sd_kv_pool_clear(sd_kv_pool *p) {
    memset(p->data, 0, p->bytes);
}

// ---- sequences

sd_status sd_kv_open_in(sd_kv **out, sd_kv_pool *pool, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_kv *kv = sd_alloc(1, sizeof *kv);
    SD_CHECK_ALLOC(kv, err);
    SD_CHECK(ctx > 0, err, SD_EINVAL, "a context of %d positions is not possible; give 1 or more",
             ctx);
    kv->pool = pool;
    kv->ctx = ctx;
    kv->page = sd_alloc((size_t)sd_kv_pages(ctx), sizeof *kv->page);
    SD_CHECK_ALLOC(kv->page, err);
    *out = kv;
    kv = NULL;
out:
    sd_kv_close(kv);
    return st;
}

sd_status sd_kv_open(sd_kv **out, const sd_context *cx, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    sd_kv_pool *pool = NULL;
    *out = NULL;
    SD_CHECK(ctx > 0, err, SD_EINVAL, "a context of %d positions is not possible; give 1 or more",
             ctx);
    SD_TRY(sd_kv_pool_open(&pool, cx, sd_kv_pages(ctx), err));
    SD_TRY(sd_kv_open_in(out, pool, ctx, err));
    (*out)->owns_pool = true;
    (void)sd_kv_reserve(*out, ctx); // the pool is as large
    pool = NULL;
out:
    sd_kv_pool_close(pool);
    return st;
}

void sd_kv_close(sd_kv *kv) {
    if (!kv) return;
    if (kv->page) sd_kv_truncate(kv, 0);
    if (kv->owns_pool) sd_kv_pool_close(kv->pool);
    free(kv->page);
    free(kv);
}

bool sd_kv_reserve(sd_kv *kv, int positions) {
    sd_kv_pool *p = kv->pool;
    int more = sd_kv_pages(positions) - kv->pages;
    if (positions > kv->ctx || more > p->left) return false;
    for (; more > 0; more--) {
        int32_t page = p->free_page[--p->left];
        p->readers[page] = 1;
        kv->page[kv->pages++] = page;
    }
    return true;
}

int sd_kv_reuse(sd_kv *kv, const sd_kv *from, int positions) {
    int most = positions < from->len ? positions : from->len;
    if (most > kv->ctx) most = kv->ctx;
    if (kv->pages > 0 || kv->pool != from->pool) return kv->len;
    for (; kv->pages < most / SD_KV_PAGE; kv->pages++) {
        kv->page[kv->pages] = from->page[kv->pages];
        kv->pool->readers[kv->page[kv->pages]]++;
    }
    return kv->len = kv->pages * SD_KV_PAGE;
}

int sd_kv_truncate(sd_kv *kv, int len) {
    sd_kv_pool *p = kv->pool;
    if (len < kv->len) kv->len = len;
    int cut = kv->len % SD_KV_PAGE;
    if (cut && p->readers[kv->page[kv->len / SD_KV_PAGE]] > 1) kv->len -= cut;
    for (int keep = sd_kv_pages(kv->len); kv->pages > keep;) {
        int32_t page = kv->page[--kv->pages];
        if (--p->readers[page] == 0) p->free_page[p->left++] = page;
    }
    return kv->len;
}

// ---- where they lie

bool sd_kv_fits(const sd_context *cx, const sd_kv *kv) {
    const sd_hparams *hp = &cx->model->hp;
    const sd_kv_pool *p = kv->pool;
    return p->type == cx->kv && p->L == hp->L && p->G == hp->G && p->D == hp->D;
}

void sd_kv_locate(sd_attention_rows *r, const sd_context *cx, const sd_kv *kv, int g) {
    const sd_kv_pool *p = kv->pool;
    size_t scales = 2 * (size_t)p->G * scale_bytes(p);
    r->layer = p->data + (size_t)cx->l * (size_t)p->pages * p->page_bytes;
    r->page_bytes = p->page_bytes;
    r->page = kv->page;
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

void sd_kv_store(const sd_context *cx, const sd_row *r, const float *k, const float *v) {
    const sd_kv_pool *p = r->kv->pool;
    const size_t pages = (size_t)cx->l * (size_t)p->pages + r->kv->page[r->pos / SD_KV_PAGE];
    const size_t each = value_bytes(p), scale = scale_bytes(p);
    char *scales = p->data + pages * p->page_bytes, *values = scales + 2 * (size_t)p->G * scale;
    const float *const x[] = {k, v};
    for (int i = 0; i < 2; i++)
        for (int g = 0; g < p->G; g++, scales += scale, values += each)
            store(cx, values, scales, r->pos % SD_KV_PAGE, x[i] + (size_t)g * p->D);
}

bool sd_kv_equal(const sd_kv *a, const sd_kv *b, int positions) {
    const sd_kv_pool *p = a->pool, *q = b->pool;
    if (p->type != q->type || p->L != q->L || p->G != q->G || p->D != q->D) return false;
    size_t cell = (size_t)p->D * sd_kv_value_bytes(p->type),
           scales = 2 * (size_t)p->G * scale_bytes(p);
    for (int l = 0; l < p->L; l++)
        for (int t = 0; t < positions; t++) {
            const char *x =
                p->data + ((size_t)l * p->pages + a->page[t / SD_KV_PAGE]) * p->page_bytes;
            const char *y =
                q->data + ((size_t)l * q->pages + b->page[t / SD_KV_PAGE]) * q->page_bytes;
            size_t in = (size_t)(t % SD_KV_PAGE);
            for (int plane = 0; plane < 2 * p->G; plane++) {
                size_t at = scales + (size_t)plane * value_bytes(p) + in * cell;
                if (memcmp(x + at, y + at, cell) != 0) return false;
                if (p->type != SD_KV_INT8) continue;
                at = (size_t)plane * scale_bytes(p) + in * sizeof(float);
                if (memcmp(x + at, y + at, sizeof(float)) != 0) return false;
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
