// Models whose every width differs, so that a swapped stride or matrix cannot pass unseen.
#include "tests/unit/trainer/support_train.h"

#include "model/model_private.h"
#include "tests/unit/trainer/support_gradcheck.h"

#include <string.h>

enum { NO_LABEL = -100 };

static void *own(sd_model *m, size_t count, size_t size) {
    void *p = sd_arena_alloc(&m->owned->arena, count, size);
    SD_ASSERT(p);
    return p;
}

static sd_weight matrix(sd_model *m, int rows, int cols, uint64_t seed) {
    float *w = own(m, (size_t)rows * (size_t)cols, sizeof(float));
    gradcheck_fill_f32(w, (size_t)rows * (size_t)cols, seed, 0, 0.35);
    return (sd_weight){SD_F32, rows, cols, w};
}

static const float *vector(sd_model *m, int n, uint64_t seed, double centre, double scale) {
    float *w = own(m, (size_t)n, sizeof(float));
    gradcheck_fill_f32(w, (size_t)n, seed, centre, scale);
    return w;
}

static sd_model *empty_model(void) {
    sd_model *m = sd_alloc(1, sizeof *m);
    sd_model_owned *o = sd_alloc(1, sizeof *o);
    SD_ASSERT(m && o);
    pthread_mutex_init(&o->lock, NULL);
    atomic_store(&o->references, 1);
    m->owned = o;
    m->path = sd_strdup("memory");
    m->name = sd_strdup("tiny");
    return m;
}

sd_model *train_model(sd_arch arch, uint64_t seed) {
    sd_model *m = empty_model();
    m->hp = (sd_hparams){.arch = arch,
                         .L = 3,
                         .C = 32,
                         .H = 6,
                         .G = 2,
                         .D = 16,
                         .F = 64,
                         .V = 83,
                         .ctx_train = 64,
                         .eps = 1e-5f,
                         .rope_base = 1000,
                         .rope_dim = 16,
                         .rope_interleaved = arch == SD_ARCH_LLAMA,
                         .rope_factor = 1,
                         .rope_attn_factor = 1,
                         .qkv_bias = arch == SD_ARCH_QWEN2,
                         .qk_norm = arch == SD_ARCH_QWEN3,
                         .tied_head = arch == SD_ARCH_QWEN2};
    const sd_hparams *hp = &m->hp;
    seed *= 1000;
    m->layer = sd_alloc((size_t)hp->L, sizeof *m->layer);
    for (int l = 0; l < hp->L; l++, seed += 20) {
        sd_layer *y = &m->layer[l];
        y->attn_norm = vector(m, hp->C, seed, 1, 0.4);
        y->ffn_norm = vector(m, hp->C, seed + 1, 1, 0.4);
        if (hp->qkv_bias) {
            y->bq = vector(m, hp->H * hp->D, seed + 2, 0, 0.5);
            y->bk = vector(m, hp->G * hp->D, seed + 3, 0, 0.5);
            y->bv = vector(m, hp->G * hp->D, seed + 4, 0, 0.5);
        }
        if (hp->qk_norm) {
            y->q_norm = vector(m, hp->D, seed + 5, 1, 0.4);
            y->k_norm = vector(m, hp->D, seed + 6, 1, 0.4);
        }
        for (int p = 0; p < SD_PROJ_COUNT; p++) {
            int rows, cols;
            sd_proj_shape(hp, (sd_proj)p, &rows, &cols);
            y->w[p] = matrix(m, rows, cols, seed + 7 + (uint64_t)p);
        }
    }
    m->embedding = matrix(m, hp->V, hp->C, seed);
    m->head = hp->tied_head ? m->embedding : matrix(m, hp->V, hp->C, seed + 1);
    m->out_norm = vector(m, hp->C, seed + 2, 1, 0.4);
    return m;
}

static void requantise(sd_model *m, sd_weight *w, sd_dtype dtype) {
    size_t row = sd_row_bytes(dtype, w->cols);
    char *data = own(m, (size_t)w->rows, row);
    for (int i = 0; i < w->rows; i++) {
        const float *from = (const float *)w->data + (size_t)i * w->cols;
        SD_ASSERT(sd_quantise(data + (size_t)i * row, dtype, from, w->cols));
    }
    w->dtype = dtype;
    w->data = data;
}

sd_model *train_model_quantised(sd_arch arch, uint64_t seed, sd_dtype dtype) {
    sd_model *m = train_model(arch, seed);
    for (int l = 0; l < m->hp.L; l++)
        for (int p = 0; p < SD_PROJ_COUNT; p++) requantise(m, &m->layer[l].w[p], dtype);
    requantise(m, &m->embedding, dtype);
    if (m->hp.tied_head)
        m->head = m->embedding;
    else
        requantise(m, &m->head, dtype);
    return m;
}

static sd_weight dequantise(sd_model *m, const sd_weight *w) {
    float *data = own(m, (size_t)w->rows * (size_t)w->cols, sizeof(float));
    for (int i = 0; i < w->rows; i++)
        sd_dequantise(data + (size_t)i * w->cols, w->dtype,
                      (const char *)w->data + (size_t)i * sd_row_bytes(w->dtype, w->cols), w->cols);
    return (sd_weight){SD_F32, w->rows, w->cols, data};
}

sd_model *train_model_dequantised(const sd_model *from) {
    sd_model *m = empty_model();
    m->hp = from->hp;
    m->layer = sd_alloc((size_t)m->hp.L, sizeof *m->layer);
    for (int l = 0; l < m->hp.L; l++) {
        m->layer[l] = from->layer[l]; // vectors are shared: `from` lives longer
        for (int p = 0; p < SD_PROJ_COUNT; p++)
            m->layer[l].w[p] = dequantise(m, &from->layer[l].w[p]);
    }
    m->embedding = dequantise(m, &from->embedding);
    m->head = dequantise(m, &from->head);
    m->out_norm = from->out_norm;
    return m;
}

void train_layout(sd_lora_layout *lay, const sd_hparams *hp, const char *which, unsigned layers,
                  int r, bool rslora) {
    int rank[8 * SD_PROJ_COUNT] = {0};
    double alpha[8 * SD_PROJ_COUNT];
    for (int i = 0; i < hp->L * SD_PROJ_COUNT; i++) {
        alpha[i] = 6;
        int l = i / SD_PROJ_COUNT;
        if (layers >> l & 1 && strchr(which, "qkvogud"[i % SD_PROJ_COUNT])) rank[i] = r + l;
    }
    sd_error err;
    sd_status st = sd_lora_layout_init(lay, hp, rank, alpha, rslora, &err);
    SD_ASSERT(st == SD_OK);
}

void train_batch(train_data *d, int V) {
    static const int ends[TRAIN_ROWS][3] = {{7, 8, 21}, {5, 17, 20}, {24, 24, 24}};
    for (int i = 0; i < TRAIN_ROWS * TRAIN_T; i++) {
        int row = i / TRAIN_T, t = i % TRAIN_T, s = 0;
        while (s < 3 && t >= ends[row][s]) s++;
        d->segment[i] = s < 3 ? s : -1;
        d->token[i] = s < 3 ? (i * 37 + 11) % V : 0;
        d->label[i] = s < 3 && (i * 7 + i / 5) % 2 ? d->token[i] : NO_LABEL;
    }
    d->batch = (sd_train_batch){.rows = TRAIN_ROWS,
                                .T = TRAIN_T,
                                .token = d->token,
                                .label = d->label,
                                .segment = d->segment};
}
