// The packed form of an adapter's factors, for the tables that multiply with them. Where
// activations are rounded to 8 bits the factors are held in bf16: half the bytes of a step that
// waits for memory, at a rounding of 1/256 of a correction. Under fp32 they stay as they are.
#include "model/infer/lora_weights.h"

#include <string.h>

// values <- x * scale in type t; returns the room it took.
static size_t store(char *values, const float *x, size_t n, float scale, sd_dtype t) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * scale;
        if (t == SD_F32) {
            memcpy(values + 4 * i, &v, 4);
        } else {
            uint16_t h = sd_float_to_bf16(v);
            memcpy(values + 2 * i, &h, 2);
        }
    }
    return n * (t == SD_F32 ? 4 : 2);
}

static void free_packs(sd_adapter_packs *p, int n) {
    for (int i = 0; i < n; i++) {
        sd_packed_free(&p->of[i].A);
        sd_packed_free(&p->of[i].B);
    }
    free(p->values);
    free(p->of);
    free(p);
}

void sd_adapter_cache_init(sd_adapter_cache *c) {
    pthread_mutex_init(&c->lock, NULL);
}

void sd_adapter_cache_free(sd_adapter_cache *c, int slots) {
    while (c->first) {
        sd_adapter_packs *next = c->first->next;
        free_packs(c->first, slots);
        c->first = next;
    }
    pthread_mutex_destroy(&c->lock);
}

static sd_status make(sd_adapter_packs **out, const sd_adapter *a, const sd_model *base,
                      const sd_ops *ops, sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    sd_dtype t = compute == SD_COMPUTE_FP32 ? SD_F32 : SD_BF16;
    int n = a->L * SD_PROJ_COUNT;
    *out = NULL;
    sd_adapter_packs *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->ops = ops;
    p->compute = compute;
    p->of = sd_alloc((size_t)n, sizeof *p->of);
    p->values = sd_alloc((size_t)a->n_params, t == SD_F32 ? 4 : 2);
    SD_CHECK_ALLOC(p->of && p->values ? p : NULL, err);
    char *next = p->values;
    for (int i = 0; i < n; i++) {
        const sd_lora *l = &a->lora[i];
        if (!l->r) continue;
        int rows, cols;
        sd_proj_shape(&base->hp, (sd_proj)(i % SD_PROJ_COUNT), &rows, &cols);
        sd_weight A = {.dtype = t, .rows = l->r, .cols = cols, .data = next};
        next += store(next, l->A, (size_t)l->r * (size_t)cols, 1, t);
        sd_weight B = {.dtype = t, .rows = rows, .cols = l->r, .data = next};
        next += store(next, l->B, (size_t)l->r * (size_t)rows, l->scale, t);
        SD_TRY(ops->pack(&p->of[i].A, &A, compute, NULL, err));
        SD_TRY(ops->pack(&p->of[i].B, &B, compute, NULL, err));
        p->of[i].r = l->r;
    }
    if (ops->layout) { // the packs are copies
        free(p->values);
        p->values = NULL;
    }
    *out = p;
    p = NULL;
out:
    if (p) free_packs(p, p->of ? n : 0);
    return st;
}

sd_status sd_adapter_cache_get(const sd_adapter_packs **out, sd_adapter_cache *c,
                               const sd_adapter *a, const sd_model *base, const sd_ops *ops,
                               sd_compute compute, sd_error *err) {
    sd_status st = SD_OK;
    pthread_mutex_lock(&c->lock);
    sd_adapter_packs *p = c->first;
    while (p && (p->ops != ops || p->compute != compute)) p = p->next;
    if (!p) {
        st = make(&p, a, base, ops, compute, err);
        if (p) p->next = c->first, c->first = p;
    }
    pthread_mutex_unlock(&c->lock);
    *out = p;
    return st;
}
