// Weights on their way to the device: strips of 16 rows are packed into its form by all threads, a wave of slices at a
// time, while the wave before is copied. A strip's codes, scales and supers lie apart in the whole, so a slice is three
// copies.
#include "model/cuda/weights.h"

#include "base/memory.h"
#include "model/load/source.h"

#include <string.h>

enum { HALF = 16 << 20, SLICE = 1 << 20, WAVE = 64 };

typedef struct {
    sd_weight w; // rows of a stored weight
    sd_cuda_weight form, whole;
    char *to; // the whole's memory
    int strip0;
    void *host;
} slice;

typedef struct {
    sd_cuda_weights *out;
    sd_model *m;
    sd_pool *pool;
    const atomic_bool *stop;
    sd_cuda_upload up;
    slice wave[WAVE];
    int n;
    size_t bytes; // of the wave
} loader;

static size_t round_up(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

// ---- a wave

static void pack_slice(void *ctx, int task, int worker) {
    (void)worker;
    slice *s = &((loader *)ctx)->wave[task];
    sd_cuda_weight_pack(s->host, &s->form, &s->w);
}

static sd_status send_slice(loader *l, const slice *s, sd_error *err) {
    sd_status st = SD_OK;
    const size_t strips = ((size_t)s->whole.M + SD_CUDA_TILE_M - 1) / SD_CUDA_TILE_M;
    const size_t part[3] = {s->form.codes, s->form.scales, s->form.supers},
                 all[3] = {s->whole.codes, s->whole.scales, s->whole.supers};
    const char *from = s->host;
    char *to = s->to;
    for (int i = 0; i < 3; i++) {
        SD_TRY(sd_cuda_upload_send(&l->up, to + all[i] / strips * (size_t)s->strip0, from, part[i],
                                   err));
        from += part[i];
        to += all[i];
    }
out:
    return st;
}

static sd_status send_wave(loader *l, sd_error *err) {
    sd_status st = SD_OK;
    if (!l->n) goto out;
    SD_CHECK(!l->stop || !atomic_load_explicit(l->stop, memory_order_relaxed), err, SD_EINTERRUPTED,
             "%s: interrupted", l->m->path);
    for (int i = 0; i < l->n; i++)
        SD_TRY(sd_cuda_upload_room(&l->up, &l->wave[i].host, l->wave[i].form.bytes, err));
    sd_pool_run(l->pool, l->n, pack_slice, l);
    for (int i = 0; i < l->n; i++) SD_TRY(send_slice(l, &l->wave[i], err));
    l->n = 0;
    l->bytes = 0;
out:
    return st;
}

// What a wave has of the half that it will lie in: behind a full one comes the other.
static size_t left(const sd_cuda_upload *u) {
    return u->half - (u->used == u->half ? 0 : u->used);
}

// Slices of one wave lie in one half, which is not given back before they are packed and queued.
static sd_status add_slice(loader *l, const slice *s, sd_error *err) {
    sd_status st = SD_OK;
    const size_t bytes = round_up(s->form.bytes);
    if (l->n == WAVE || l->bytes + bytes > left(&l->up)) SD_TRY(send_wave(l, err));
    if (bytes > left(&l->up)) l->up.used = l->up.half;
    l->wave[l->n++] = *s;
    l->bytes += bytes;
out:
    return st;
}

static size_t strip_bytes(const sd_weight *w) {
    sd_weight one = *w;
    if (one.rows > SD_CUDA_TILE_M) one.rows = SD_CUDA_TILE_M;
    return round_up(sd_cuda_weight_of(&one).bytes);
}

// ---- a weight, a vector

static sd_status load(loader *l, sd_cuda_weight *out, const sd_weight *w, sd_error *err) {
    sd_status st = SD_OK;
    void *to;
    *out = sd_cuda_weight_of(w);
    SD_TRY(sd_cuda_take(&l->out->owned, &to, out->bytes, "weights", err));
    out->data = to;
    size_t strips = SLICE / strip_bytes(w);
    const int rows = SD_CUDA_TILE_M * (int)(strips ? strips : 1);
    for (int m = 0; m < w->rows; m += rows) {
        slice s = {.w = *w, .whole = *out, .to = to, .strip0 = m / SD_CUDA_TILE_M};
        s.w.rows = w->rows - m < rows ? w->rows - m : rows;
        s.w.data = (const char *)w->data + (size_t)m * sd_row_bytes(w->dtype, w->cols);
        s.form = sd_cuda_weight_of(&s.w);
        SD_TRY(add_slice(l, &s, err));
    }
out:
    return st;
}

// A vector that the model lacks stays NULL.
static sd_status load_vector(loader *l, const float **out, const float *x, int n, sd_error *err) {
    sd_status st = SD_OK;
    void *to;
    const size_t bytes = (size_t)n * sizeof *x;
    *out = NULL;
    if (!x) goto out;
    SD_TRY(sd_cuda_take(&l->out->owned, &to, bytes, "weights", err));
    SD_TRY(send_wave(l, err)); // its slices have the room before this one's
    SD_TRY(sd_cuda_upload_copy(&l->up, to, x, bytes, err));
    *out = to;
out:
    return st;
}

static sd_status load_layer(loader *l, sd_cuda_layer *to, const sd_layer *y, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &l->m->hp;
    const struct {
        const float **to, *x;
        int n;
    } vectors[] = {{&to->attn_norm, y->attn_norm, hp->C},
                   {&to->ffn_norm, y->ffn_norm, hp->C},
                   {&to->post_attn_norm, y->post_attn_norm, hp->C},
                   {&to->post_ffn_norm, y->post_ffn_norm, hp->C},
                   {&to->q_norm, y->q_norm, hp->D},
                   {&to->k_norm, y->k_norm, hp->D}};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        SD_TRY(load_vector(l, vectors[i].to, vectors[i].x, vectors[i].n, err));
    for (int p = 0; p < SD_PROJ_COUNT; p++)
        SD_TRY(load_vector(l, &to->bias[p], y->bias[p], y->w[p].rows, err));
    for (int p = 0; p < SD_PROJ_COUNT; p++) SD_TRY(load(l, &to->w[p], &y->w[p], err));
out:
    return st;
}

// ---- all of them

static size_t half_for(const sd_model *m) {
    size_t half = HALF;
    for (int i = -2; i < m->hp.L * SD_PROJ_COUNT; i++) {
        const sd_weight *w = i == -2   ? &m->embedding
                             : i == -1 ? &m->head
                                       : &m->layer[i / SD_PROJ_COUNT].w[i % SD_PROJ_COUNT];
        const size_t strip = strip_bytes(w);
        if (strip > half) half = strip;
    }
    return half;
}

size_t sd_cuda_weight_sum(const sd_model *m) {
    const sd_hparams *hp = &m->hp;
    size_t sum = sd_cuda_weight_of(&m->embedding).bytes, vectors = (size_t)hp->C;
    if (!hp->tied_head) sum += sd_cuda_weight_of(&m->head).bytes;
    for (int l = 0; l < hp->L; l++) {
        const sd_layer *y = &m->layer[l];
        for (int p = 0; p < SD_PROJ_COUNT; p++) {
            sum += sd_cuda_weight_of(&y->w[p]).bytes;
            if (y->bias[p]) vectors += (size_t)y->w[p].rows;
        }
        vectors += (size_t)hp->C * (2 + (y->post_attn_norm != NULL) + (y->post_ffn_norm != NULL)) +
                   (size_t)hp->D * ((y->q_norm != NULL) + (y->k_norm != NULL));
    }
    return sum + vectors * sizeof(float);
}

sd_status sd_cuda_load_weights(sd_cuda_weights *out, sd_model *m, sd_cuda_stream *stream,
                               sd_pool *pool, const atomic_bool *stop, sd_error *err) {
    sd_status st = SD_OK;
    const sd_cuda_device *dev = out->owned.dev;
    loader *l = sd_alloc(1, sizeof *l);
    out->layer = sd_alloc((size_t)m->hp.L, sizeof *out->layer);
    SD_CHECK_ALLOC(l && out->layer, err);
    *l = (loader){.out = out, .m = m, .pool = pool, .stop = stop};
    SD_TRY(sd_cuda_upload_open(&l->up, dev, stream, half_for(m), err));
    SD_TRY(load(l, &out->embedding, &m->embedding, err));
    out->head = out->embedding;
    if (!m->hp.tied_head) SD_TRY(load(l, &out->head, &m->head, err));
    SD_TRY(load_vector(l, &out->out_norm, m->out_norm, m->hp.C, err));
    for (int i = 0; i < m->hp.L; i++) SD_TRY(load_layer(l, &out->layer[i], &m->layer[i], err));
    SD_TRY(send_wave(l, err));
    SD_CUDA_TRY(dev, dev->stream_wait(stream), "copying the weights");
    SD_TRY(sd_model_check(m, err)); // what was copied are the bytes that were opened
    sd_model_forget(m);
out:
    if (l) sd_cuda_upload_close(&l->up);
    free(l);
    return st;
}

void sd_cuda_free_weights(sd_cuda_weights *w) {
    sd_cuda_free_owned(&w->owned);
    free(w->layer);
    w->layer = NULL;
}
