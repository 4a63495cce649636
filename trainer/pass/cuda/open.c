// The life of a pass on a device.
#include "trainer/pass/cuda/private.h"

#include "base/memory.h"

#include <math.h>

static sd_status carve(sd_cuda_train *t, int ranks, sd_error *err) {
    sd_status st = SD_OK;
    void *device = NULL, *host = NULL;
    sd_cuda_acts *acts = sd_alloc((size_t)t->m->hp.L + 1, sizeof *acts);
    t->mem.acts = acts;
    SD_CHECK_ALLOC(acts, err);
    sd_cuda_train_memory sizes;
    sd_cuda_train_carve(&sizes, NULL, NULL, NULL, t->m, &t->lay, t->dev, t->type, t->o.max_tokens,
                        t->recompute, ranks);
    SD_TRY(sd_cuda_take(&t->owned, &device, sizes.device_bytes, "training", err));
    SD_TRY(sd_cuda_take_host(&t->owned, &host, sizes.host_bytes, "training's copies", err));
    sd_cuda_train_carve(&t->mem, acts, device, host, t->m, &t->lay, t->dev, t->type,
                        t->o.max_tokens, t->recompute, ranks);
    t->rows.segment = sd_alloc((size_t)t->o.max_tokens, sizeof *t->rows.segment);
    SD_CHECK_ALLOC(t->rows.segment, err);
out:
    return st;
}

// cos and sin, as trainer/pass/pass_real.c has them.
static sd_status upload_turns(sd_cuda_train *t, sd_error *err) {
    sd_status st = SD_OK;
    const sd_hparams *hp = &t->m->hp;
    const int half = hp->rope_dim / 2, ctx = t->o.context > 0 ? t->o.context : t->o.max_tokens;
    const size_t one = (size_t)t->o.max_tokens * (size_t)half, all = (size_t)hp->ropes * one;
    sd_cuda_upload up = {0};
    double *inverse = sd_alloc((size_t)half + 1, sizeof *inverse), scale = 1;
    float *cosine = sd_alloc(all + 1, sizeof *cosine), *sine = sd_alloc(all + 1, sizeof *sine);
    SD_CHECK_ALLOC(inverse && cosine && sine, err);
    for (int r = 0; r < hp->ropes; r++) {
        sd_rope_frequencies(&hp->rope[r], hp->rope_dim, ctx, inverse, &scale);
        for (size_t i = 0; i < one; i++) {
            const double angle = (double)(i / (size_t)half) * inverse[i % (size_t)half];
            cosine[(size_t)r * one + i] = (float)(cos(angle) * scale);
            sine[(size_t)r * one + i] = (float)(sin(angle) * scale);
        }
    }
    SD_TRY(sd_cuda_upload_open(&up, t->dev, t->stream, 1 << 20, err));
    SD_TRY(sd_cuda_upload_copy(&up, t->mem.cosine, cosine, all * sizeof *cosine, err));
    SD_TRY(sd_cuda_upload_copy(&up, t->mem.sine, sine, all * sizeof *sine, err));
out:
    sd_cuda_upload_close(&up);
    free(inverse);
    free(cosine);
    free(sine);
    return st;
}

sd_status sd_cuda_train_open(sd_cuda_train **out, sd_model *m, const sd_lora_layout *lay,
                             sd_pool *pool, const sd_train_options *o, int device, int ranks,
                             sd_error *err) {
    sd_status st = SD_OK;
    sd_cuda_train *t = sd_alloc(1, sizeof *t);
    *out = NULL;
    SD_CHECK_ALLOC(t, err);
    SD_TRY(sd_lora_layout_copy(&t->lay, lay, err));
    t->m = sd_model_acquire(m);
    t->o = *o;
    t->device = device;
    t->type = o->compute == SD_TRAIN_FP32 ? SD_CUDA_F32 : SD_CUDA_BF16;
    t->recompute = o->recompute;
    t->lowest = sd_lora_lowest(lay);
    SD_TRY(sd_cuda_find_device(&t->dev, device, err));
    t->owned.dev = t->weights.owned.dev = t->dev;
    CUDA_TRY(t->dev->choose(device), "choosing the device");
    CUDA_TRY(t->dev->stream_open(&t->stream), "a stream");
    CUDA_TRY(t->dev->stream_open(&t->copies), "a stream");
    for (int i = 0; i < 2; i++) {
        CUDA_TRY(t->dev->event_open(&t->flight[i].sent), "an event");
        CUDA_TRY(t->dev->event_open(&t->flight[i].done), "an event");
    }
    if (ranks > 1) {
        CUDA_TRY(t->dev->stream_open(&t->meeting), "a stream");
        CUDA_TRY(t->dev->event_open(&t->there), "an event");
        CUDA_TRY(t->dev->event_open(&t->added), "an event");
    }
    SD_TRY(carve(t, ranks, err));
    CUDA_TRY(t->dev->blas_open(&t->blas, t->mem.workspace, SD_CUDA_BLAS_WORKSPACE),
             "opening cuBLASLt");
    SD_TRY(upload_turns(t, err));
    SD_TRY(sd_cuda_load_weights(&t->weights, m, t->stream, pool, NULL, err));
    *out = t;
    t = NULL;
out:
    sd_cuda_train_close(t);
    return st;
}

void sd_cuda_train_close(sd_cuda_train *t) {
    if (!t) return;
    if (t->dev) {
        (void)t->dev->choose(t->device);
        if (t->copies) (void)t->dev->stream_wait(t->copies);
        if (t->stream) (void)t->dev->stream_wait(t->stream);
        if (t->meeting) (void)t->dev->stream_wait(t->meeting);
        t->dev->blas_close(t->blas);
        sd_cuda_free_weights(&t->weights);
        sd_cuda_free_owned(&t->owned);
        for (int i = 0; i < 2; i++) {
            if (t->flight[i].sent) t->dev->event_close(t->flight[i].sent);
            if (t->flight[i].done) t->dev->event_close(t->flight[i].done);
        }
        if (t->there) t->dev->event_close(t->there);
        if (t->added) t->dev->event_close(t->added);
        if (t->meeting) t->dev->stream_close(t->meeting);
        if (t->copies) t->dev->stream_close(t->copies);
        if (t->stream) t->dev->stream_close(t->stream);
    }
    free(t->rows.segment);
    free(t->mem.acts);
    sd_lora_layout_free(&t->lay);
    sd_model_release(t->m);
    free(t);
}
