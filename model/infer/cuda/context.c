// The life of a context: the device, what lies on it, and what is counted of both.
#include "model/infer/cuda/private.h"

#include "base/memory.h"

#include <string.h>

// ---- windows

// The first layer that has the window of layer l.
static int first_alike(const sd_model *m, int l) {
    int k = 0;
    while (m->layer[k].window != m->layer[l].window) k++;
    return k;
}

// Windows of the layers before l.
static int count_windows(const sd_model *m, int l) {
    int n = 0;
    for (int k = 0; k < l; k++) n += first_alike(m, k) == k;
    return n;
}

static sd_status place_windows(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const int L = cx->model->hp.L;
    cx->windows = count_windows(cx->model, L);
    cx->window_of = sd_alloc((size_t)L, sizeof *cx->window_of);
    cx->first_layer = sd_alloc((size_t)cx->windows, sizeof *cx->first_layer);
    SD_CHECK_ALLOC(cx->window_of && cx->first_layer, err);
    for (int l = 0; l < L; l++) {
        const int first = first_alike(cx->model, l);
        cx->window_of[l] = count_windows(cx->model, first);
        cx->first_layer[cx->window_of[l]] = first;
    }
out:
    return st;
}

// ---- the device

static sd_status look(int device, sd_error *err) {
    const sd_cuda_device *dev;
    return sd_cuda_find_device(&dev, device, err);
}

// ---- its life

static sd_status make_lists(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const size_t N = (size_t)cx->max_rows;
    cx->row = sd_alloc(N, sizeof *cx->row);
    cx->kept_row = sd_alloc(N, sizeof *cx->kept_row);
    cx->chunk = sd_alloc(2 * N, sizeof *cx->chunk);
    cx->table = sd_alloc(2 * (size_t)cx->windows, sizeof *cx->table);
    cx->used = sd_alloc(N, sizeof *cx->used);
    cx->host_pick = sd_alloc(N, sizeof *cx->host_pick);
    SD_CHECK_ALLOC(cx->row && cx->kept_row && cx->chunk && cx->table && cx->used && cx->host_pick,
                   err);
out:
    return st;
}

static sd_status upload_key_scales(sd_context *cx, sd_error *err) {
    sd_status st = SD_OK;
    const size_t n = sd_key_scales(&cx->model->hp);
    sd_cuda_upload up = {0};
    float *scale = NULL;
    if (!cx->key_scale) goto out;
    scale = sd_alloc(n, sizeof *scale);
    SD_CHECK_ALLOC(scale, err);
    sd_key_scales_get(scale, cx->model);
    SD_TRY(sd_cuda_upload_open(&up, cx->dev, cx->stream, 1 << 16, err));
    SD_TRY(sd_cuda_upload_copy(&up, cx->key_scale, scale, n * sizeof *scale, err));
    CUDA_TRY(cx->dev->stream_wait(cx->stream), "copying scales of keys");
out:
    sd_cuda_upload_close(&up);
    free(scale);
    return st;
}

sd_status sd_cuda_open(sd_context **out, sd_model *m, sd_pool *pool, const sd_context_options *o,
                       sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_context *cx = sd_alloc(1, sizeof *cx);
    SD_CHECK_ALLOC(cx, err);
    cx->base.backend = &sd_backend_cuda;
    sd_model_acquire(m);
    cx->model = m;
    cx->pool = pool;
    SD_TRY(sd_cuda_configure(cx, m, o, err));
    SD_TRY(place_windows(cx, err));
    SD_TRY(make_lists(cx, err));
    SD_TRY(sd_cuda_find_device(&cx->dev, cx->device, err));
    cx->owned.dev = cx->weights.owned.dev = cx->dev;
    CUDA_TRY(cx->dev->choose(cx->device), "choosing the device");
    CUDA_TRY(cx->dev->stream_open(&cx->stream), "a stream");
    SD_TRY(sd_cuda_adapters_open(&cx->adapters, err));
    SD_TRY(sd_cuda_take_steps(cx, err));
    SD_TRY(upload_key_scales(cx, err));
    SD_TRY(sd_cuda_load_weights(&cx->weights, m, cx->stream, pool, cx->stop, err));
    *out = cx;
    cx = NULL;
out:
    if (cx) sd_cuda_close(cx);
    return st;
}

static void close_device(sd_context *cx) {
    if (!cx->dev) return;
    cx->dev->choose(cx->device);
    if (cx->stream) cx->dev->stream_wait(cx->stream);
    sd_cuda_graphs_close(cx);
    sd_cuda_adapters_close(cx->adapters, cx);
    sd_cuda_room *const rooms[] = {&cx->plan, &cx->partial, &cx->turn, &cx->products, &cx->to_host};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) sd_cuda_free_room(cx, rooms[i]);
    sd_cuda_free_weights(&cx->weights);
    sd_cuda_free_owned(&cx->owned);
    if (cx->stream) cx->dev->stream_close(cx->stream);
}

void sd_cuda_close(sd_context *cx) {
    close_device(cx);
    sd_cuda_pick_close(cx);
    sd_model_release(cx->model);
    free(cx->window_of);
    free(cx->first_layer);
    free(cx->row);
    free(cx->kept_row);
    free(cx->chunk);
    free(cx->table);
    free(cx->used);
    free(cx->host_pick);
    free(cx);
}

sd_status sd_cuda_take_adapter(sd_context *cx, const sd_adapter *a, sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_adapter *e;
    CUDA_TRY(cx->dev->choose(cx->device), "choosing the device");
    SD_TRY(sd_cuda_adapters_get(&e, cx, a, err));
    if (a->max_r > cx->cap_r) {
        cx->cap_r = 0;
        SD_TRY(sd_cuda_grow(cx, &cx->products,
                            (size_t)cx->max_rows * (size_t)a->max_r * sizeof(float), true, false,
                            "an adapter's products", err));
        cx->cap_r = a->max_r;
    }
out:
    return st;
}

// ---- what it takes

static size_t room_bytes(const sd_cuda_room *r) {
    return r->bytes * ((r->device != NULL) + (r->host != NULL));
}

void sd_cuda_memory(const sd_context *cx, sd_context_memory *out) {
    *out = (sd_context_memory){.weights = cx->weights.owned.bytes,
                               .steps = cx->step_bytes,
                               .adapters =
                                   sd_cuda_adapters_bytes(cx->adapters) + room_bytes(&cx->products),
                               .splits = room_bytes(&cx->plan) + room_bytes(&cx->partial) +
                                         room_bytes(&cx->turn) + room_bytes(&cx->to_host)};
}

sd_status sd_cuda_plan(sd_context_plan *out, const sd_model *m, const sd_context_options *o,
                       int threads, int ctx, const int *const *rank, int n_adapters,
                       sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_device *dev;
    struct { // a context that is only measured, of a model that is only looked at
        sd_context cx;
        sd_model seen;
    } * p;
    int most = 0;
    (void)threads;
    *out = (sd_context_plan){0};
    p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->seen = *m;
    sd_context *cx = &p->cx;
    cx->model = &p->seen;
    SD_TRY(sd_cuda_configure(cx, m, o, err));
    SD_TRY(sd_cuda_find_device(&dev, cx->device, err));
    cx->windows = count_windows(m, m->hp.L);
    sd_context_memory *sum = &out->memory;
    sum->weights = sd_cuda_weight_sum(m);
    sum->steps = sd_cuda_step_sum(cx);
    sum->adapters = sd_cuda_places_sum(m, n_adapters);
    for (int k = 0; k < n_adapters; k++) {
        sum->adapters += sd_cuda_adapter_sum(m, rank[k]);
        for (int i = 0; i < m->n_linears; i++) most = rank[k][i] > most ? rank[k][i] : most;
    }
    sum->adapters += (size_t)cx->max_rows * (size_t)most * sizeof(float);
    sum->splits = sd_cuda_plan_sum(cx, ctx) + sd_cuda_partial_sum(cx, dev, ctx) +
                  sd_cuda_turn_sum(&m->hp, ctx) +
                  (size_t)cx->logit_rows * (size_t)m->hp.V * sizeof(float);
    out->kv = cx->codes ? SD_KV_INT8 : cx->real == SD_CUDA_F32 ? SD_KV_F32 : SD_KV_BF16;
    out->kv_bytes = sd_cuda_kv_bytes(cx);
out:
    free(p);
    return st;
}

// ---- the table

static sd_model *model_of(const sd_context *cx) {
    return cx->model;
}
static int max_rows_of(const sd_context *cx) {
    return cx->max_rows;
}
static size_t bytes_of(const sd_context *cx) {
    return cx->owned.bytes + cx->weights.owned.bytes;
}

const sd_backend sd_backend_cuda = {.word = "cuda",
                                    .own_memory = true,
                                    .look = look,
                                    .open = sd_cuda_open,
                                    .close = sd_cuda_close,
                                    .model = model_of,
                                    .max_rows = max_rows_of,
                                    .bytes = bytes_of,
                                    .memory = sd_cuda_memory,
                                    .plan = sd_cuda_plan,
                                    .step_costs = sd_cuda_step_costs,
                                    .take_adapter = sd_cuda_take_adapter,
                                    .forward = sd_cuda_forward,
                                    .kv_bytes = sd_cuda_kv_bytes,
                                    .kv_open = sd_cuda_kv_open,
                                    .kv_close = sd_cuda_kv_close,
                                    .kv_fits = sd_cuda_kv_fits,
                                    .kv_copy_page = sd_cuda_kv_copy_page,
                                    .kv_equal = sd_cuda_kv_equal};
