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

sd_status sd_kv_open(sd_kv **out, const sd_context *cx, int ctx, sd_error *err) {
    sd_status st = SD_OK;
    size_t bytes = 0;
    *out = NULL;
    sd_kv *kv = sd_alloc(1, sizeof *kv);
    SD_CHECK_ALLOC(kv, err);
    SD_CHECK(ctx > 0 && sd_mul_size(&bytes, sd_kv_bytes_per_position(cx), (size_t)ctx), err,
             SD_EINVAL, "a context of %d positions is not possible; give 1 or more", ctx);
    kv->ctx = ctx;
    kv->bytes = bytes;
    kv->type = cx->kv;
    kv->data = map_zero(bytes);
    SD_CHECK(kv->data, err, SD_ENOMEM,
             "out of memory for a context of %d positions (%zu MiB); use a shorter one", ctx,
             bytes >> 20);
    *out = kv;
    kv = NULL;
out:
    sd_kv_close(kv);
    return st;
}

void sd_kv_close(sd_kv *kv) {
    if (!kv) return;
    if (kv->data) munmap(kv->data, kv->bytes);
    free(kv);
}

// ---- where they lie

// The number of a head's plane among all of a cache.
static size_t plane_of(const sd_context *cx, int which, int g) {
    return ((size_t)cx->l * 2 + which) * cx->model->hp.G + g;
}

void *sd_kv_head(const sd_context *cx, const sd_kv *kv, int which, int g) {
    const sd_hparams *hp = &cx->model->hp;
    size_t ctx = (size_t)kv->ctx, at = plane_of(cx, which, g) * ctx * hp->D;
    size_t scales = kv->type == SD_KV_INT8 ? (size_t)hp->L * 2 * hp->G * ctx * sizeof(float) : 0;
    return (char *)kv->data + scales + at * sd_kv_value_bytes(kv->type);
}

float *sd_kv_scales(const sd_context *cx, const sd_kv *kv, int which, int g) {
    if (kv->type != SD_KV_INT8) return NULL;
    return (float *)kv->data + plane_of(cx, which, g) * (size_t)kv->ctx;
}

// x [D] into row r's place of a head's cache.
void sd_kv_store(const sd_context *cx, const sd_row *r, int which, int g, const float *x) {
    int D = cx->model->hp.D;
    void *head = sd_kv_head(cx, r->kv, which, g);
    size_t at = (size_t)r->pos * D;
    if (r->kv->type == SD_KV_F16)
        cx->ops->to_f16((uint16_t *)head + at, x, D);
    else if (r->kv->type == SD_KV_BF16)
        cx->ops->to_bf16((uint16_t *)head + at, x, D);
    else if (r->kv->type == SD_KV_INT8)
        sd_kv_scales(cx, r->kv, which, g)[r->pos] = cx->ops->quantize_i8((int8_t *)head + at, x, D);
    else
        memcpy((float *)head + at, x, (size_t)D * sizeof *x);
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
        const float *w = layer->k_norm ? layer->k_norm : layer->bk + (head % hp->G) * D;
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
