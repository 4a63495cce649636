// Adapters on the device: the factors of each in one piece of memory, as they were trained (fp32), and for every linear
// map an array of what kernels read of it, an element for each adapter's place.
//
// An adapter goes on any thread, and a step may be reading it; so it is only marked then, and the context's thread frees
// what is marked before it takes another or plans a step. The table outlives its context until the last adapter that
// will tell has told.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

#include <pthread.h>
#include <string.h>

enum { FIRST_PLACES = 8, HALF = 4 << 20 };

struct sd_cuda_adapters {
    pthread_mutex_t lock;   // of what follows
    int holders;            // the context, and adapters that will tell when they go
    sd_cuda_adapter *first; // changed by the context's thread alone, but for `gone`
    int places;
    sd_cuda_lora *array;  // [n_linears, places] on the device
    sd_cuda_lora *mirror; // the same here
    size_t array_bytes;
};

// ---- sums

static size_t factors_of(const sd_model *m, int i, int r) {
    const sd_weight *w = &m->linear[i].w;
    return (size_t)r * ((size_t)w->cols + (size_t)w->rows) * sizeof(float);
}
size_t sd_cuda_adapter_sum(const sd_model *m, const int *rank) {
    size_t sum = 0;
    for (int i = 0; i < m->n_linears; i++) sum += factors_of(m, i, rank[i]);
    return sum;
}
static size_t array_bytes(const sd_model *m, int places) {
    return (size_t)m->n_linears * (size_t)places * sizeof(sd_cuda_lora);
}
static int places_for(int n) {
    int places = FIRST_PLACES;
    while (places < n) places *= 2;
    return places;
}
size_t sd_cuda_places_sum(const sd_model *m, int n) {
    return n ? array_bytes(m, places_for(n)) : 0;
}

// ---- one of them

static void free_entry(const sd_cuda_device *dev, sd_cuda_adapter *e) {
    if (!e) return;
    if (e->factors) dev->free(e->factors);
    free(e->r);
    free(e);
}

// Factors to the device, and the mirror's elements of its place.
static sd_status send_factors(sd_cuda_adapters *t, sd_cuda_adapter *e, const sd_context *cx,
                              const sd_adapter *a, sd_cuda_upload *up, sd_error *err) {
    sd_status st = SD_OK;
    const sd_model *m = cx->model;
    char *to = e->factors;
    for (int i = 0; i < m->n_linears; i++) {
        const sd_lora *l = &a->lora[i];
        const size_t A = (size_t)l->r * (size_t)m->linear[i].w.cols * sizeof(float),
                     B = (size_t)l->r * (size_t)m->linear[i].w.rows * sizeof(float);
        sd_cuda_lora *place = &t->mirror[(size_t)i * (size_t)t->places + (size_t)e->place];
        *place = (sd_cuda_lora){0};
        if (!l->r) continue;
        SD_TRY(sd_cuda_upload_copy(up, to, l->A, A, err));
        SD_TRY(sd_cuda_upload_copy(up, to + A, l->B, B, err));
        *place = (sd_cuda_lora){.A = (const float *)(const void *)to,
                                .B = (const float *)(const void *)(to + A),
                                .r = l->r,
                                .scale = l->scale};
        to += A + B;
    }
out:
    return st;
}

static sd_status make_entry(sd_cuda_adapter **out, const sd_context *cx, const sd_adapter *a,
                            sd_error *err) {
    sd_status st = SD_OK;
    const sd_model *m = cx->model;
    sd_cuda_adapter *e = sd_alloc(1, sizeof *e);
    SD_CHECK_ALLOC(e, err);
    e->generation = a->generation;
    e->most_r = a->max_r;
    e->r = sd_alloc((size_t)m->n_linears, sizeof *e->r);
    SD_CHECK_ALLOC(e->r, err);
    for (int i = 0; i < m->n_linears; i++) e->r[i] = a->lora[i].r;
    e->bytes = sd_cuda_adapter_sum(m, e->r);
    if (e->bytes) CUDA_TRY(cx->dev->alloc(&e->factors, e->bytes), "an adapter");
    *out = e, e = NULL;
out:
    free_entry(cx->dev, e);
    return st;
}

// ---- places

static int free_place(const sd_cuda_adapters *t) {
    for (int place = 0; place < t->places; place++) {
        bool taken = false;
        for (const sd_cuda_adapter *e = t->first; e; e = e->next) taken |= e->place == place;
        if (!taken) return place;
    }
    return -1;
}

// Twice as many places, or the first. On failure the table is as it was.
static sd_status more_places(sd_cuda_adapters *t, const sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const sd_model *m = cx->model;
    const int places = t->places ? 2 * t->places : FIRST_PLACES;
    void *array = NULL;
    sd_cuda_lora *mirror = sd_alloc((size_t)m->n_linears * (size_t)places, sizeof *mirror);
    SD_CHECK_ALLOC(mirror, err);
    CUDA_TRY(cx->dev->alloc(&array, array_bytes(m, places)), "adapters");
    for (int i = 0; i < m->n_linears && t->places; i++)
        memcpy(mirror + (size_t)i * (size_t)places, t->mirror + (size_t)i * (size_t)t->places,
               (size_t)t->places * sizeof *mirror);
    if (t->array) cx->dev->free(t->array);
    free(t->mirror);
    pthread_mutex_lock(&t->lock);
    t->array = array, t->mirror = mirror, t->places = places;
    t->array_bytes = array_bytes(m, places);
    pthread_mutex_unlock(&t->lock);
    mirror = NULL;
out:
    free(mirror);
    return st;
}

// ---- the table

sd_status sd_cuda_adapters_open(sd_cuda_adapters **out, sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_adapters *t = sd_alloc(1, sizeof *t);
    SD_CHECK_ALLOC(t, err);
    t->holders = 1;
    pthread_mutex_init(&t->lock, NULL);
out:
    *out = t;
    return st;
}

static void let_go(sd_cuda_adapters *t) {
    pthread_mutex_lock(&t->lock);
    const bool last = --t->holders == 0;
    pthread_mutex_unlock(&t->lock);
    if (!last) return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void adapter_gone(void *table, uint64_t generation) {
    sd_cuda_adapters *t = table;
    pthread_mutex_lock(&t->lock);
    for (sd_cuda_adapter *e = t->first; e; e = e->next) e->gone |= e->generation == generation;
    pthread_mutex_unlock(&t->lock);
    let_go(t);
}

// Frees those that are gone, or all.
static void reap(sd_cuda_adapters *t, const sd_cuda_device *dev, bool all) {
    sd_cuda_adapter *gone = NULL;
    pthread_mutex_lock(&t->lock);
    for (sd_cuda_adapter **at = &t->first; *at;) {
        sd_cuda_adapter *e = *at;
        if (!all && !e->gone) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        e->next = gone, gone = e;
    }
    pthread_mutex_unlock(&t->lock);
    for (sd_cuda_adapter *next; gone; gone = next) {
        next = gone->next;
        free_entry(dev, gone);
    }
}

void sd_cuda_adapters_reap(const sd_context *cx) {
    reap(cx->adapters, cx->dev, false);
}

void sd_cuda_adapters_close(sd_cuda_adapters *t, const sd_context *cx) {
    if (!t) return;
    reap(t, cx->dev, true);
    if (t->array) cx->dev->free(t->array);
    free(t->mirror);
    let_go(t);
}

// The mirror goes to the device whole: it is small beside any factors.
static sd_status send_all(sd_cuda_adapters *t, sd_cuda_adapter *e, const sd_context *cx,
                          const sd_adapter *a, sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_upload up = {0};
    SD_TRY(sd_cuda_upload_open(&up, cx->dev, cx->stream, HALF, err));
    SD_TRY(send_factors(t, e, cx, a, &up, err));
    SD_TRY(sd_cuda_upload_copy(&up, t->array, t->mirror, t->array_bytes, err));
    CUDA_TRY(cx->dev->stream_wait(cx->stream), "copying an adapter");
out:
    sd_cuda_upload_close(&up);
    return st;
}

sd_status sd_cuda_adapters_get(sd_cuda_adapter **out, sd_context *cx, const sd_adapter *a,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_adapters *t = cx->adapters;
    sd_cuda_adapter *e = t->first;
    while (e && e->generation != a->generation) e = e->next;
    *out = e;
    if (e) return SD_OK;
    SD_TRY(make_entry(&e, cx, a, err));
    if (free_place(t) < 0) SD_TRY(more_places(t, cx, err));
    e->place = free_place(t);
    SD_TRY(send_all(t, e, cx, a, err));
    pthread_mutex_lock(&t->lock);
    t->holders++;
    pthread_mutex_unlock(&t->lock);
    st = sd_adapter_on_release(a, adapter_gone, t, err);
    if (st != SD_OK) {
        let_go(t);
        goto out;
    }
    pthread_mutex_lock(&t->lock);
    e->next = t->first;
    *out = t->first = e;
    pthread_mutex_unlock(&t->lock);
    e = NULL;
out:
    if (st != SD_OK) free_entry(cx->dev, e);
    return st;
}

const sd_cuda_lora *sd_cuda_adapters_of(const sd_cuda_adapters *t, int i) {
    return t->array + (size_t)i * (size_t)t->places;
}

size_t sd_cuda_adapters_bytes(sd_cuda_adapters *t) {
    pthread_mutex_lock(&t->lock);
    size_t sum = t->array_bytes;
    for (const sd_cuda_adapter *e = t->first; e; e = e->next) sum += e->bytes;
    pthread_mutex_unlock(&t->lock);
    return sum;
}
