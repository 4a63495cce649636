// Models whose every width differs, so that a swapped stride or matrix cannot pass unseen.
#include "tests/unit/trainer/support_train.h"

#include "model/arch/arch.h"
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

static void make_linear(sd_model *m, int i, uint64_t seed) {
    const sd_linear_kind *kind = m->linear[i].kind;
    int all = 0, rows, cols = 0;
    for (int k = 0; k < kind->matrices; k++) {
        sd_proj_shape(&m->hp, (sd_proj)((int)kind->first + k), &rows, &cols);
        all += rows;
    }
    sd_weight w = matrix(m, all, cols, seed + 7 + (uint64_t)kind->first);
    bool biased = m->hp.qkv_bias && kind->first <= SD_WV;
    sd_model_set_linear(m, i, &w,
                        biased ? vector(m, all, seed + 2 + (uint64_t)kind->first, 0, 0.5) : NULL,
                        kind->leaf);
}

// Windows that the batches' rows cross, on both sides of a layer without one.
static void make_gemma3(sd_model *m) {
    sd_hparams *hp = &m->hp;
    hp->act = SD_ACT_GELU_TANH;
    hp->embedding_scale = 5.5f;
    hp->attn_scale = 0.3f;
    hp->rope[hp->ropes++] = (sd_rotation){.base = 50, .factor = 1, .attn_factor = 1};
    for (int l = 0; l < hp->L; l += 2) m->layer[l].window = 3 + 2 * l, m->layer[l].rope = 1;
}

// 12 of the 16 turn, by long factors beyond 16 positions.
static void make_phi3(sd_model *m) {
    sd_hparams *hp = &m->hp;
    hp->rope_dim = 12;
    hp->rope[0].scaling = SD_ROPE_LONG;
    hp->rope[0].attn_factor = 1.2f;
    hp->rope[0].orig_ctx = 16;
    hp->rope[0].factors = vector(m, hp->rope_dim / 2, 1, 1.2, 0.2);
    hp->rope[0].long_factors = vector(m, hp->rope_dim / 2, 2, 3, 2);
    for (int l = 0; l < hp->L; l++) m->layer[l].window = l;
}

sd_model *train_model(const sd_arch *arch, uint64_t seed) {
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
                         .rope = {{.base = 1000, .factor = 1, .attn_factor = 1}},
                         .ropes = 1,
                         .rope_dim = 16,
                         .rope_interleaved = arch == &sd_arch_llama,
                         .qkv_bias = arch == &sd_arch_qwen2,
                         .qk_norm = arch == &sd_arch_qwen3 || arch == &sd_arch_gemma3,
                         .tied_head = arch == &sd_arch_qwen2 || arch == &sd_arch_gemma3};
    const sd_hparams *hp = &m->hp;
    seed *= 1000;
    SD_ASSERT(sd_model_make_layers(m, NULL) == SD_OK);
    if (arch == &sd_arch_gemma3) make_gemma3(m);
    if (arch == &sd_arch_phi3) make_phi3(m);
    for (int l = 0; l < hp->L; l++, seed += 20) {
        sd_layer *y = &m->layer[l];
        y->attn_norm = vector(m, hp->C, seed, 1, 0.4);
        y->ffn_norm = vector(m, hp->C, seed + 1, 1, 0.4);
        if (hp->qk_norm) {
            y->q_norm = vector(m, hp->D, seed + 5, 1, 0.4);
            y->k_norm = vector(m, hp->D, seed + 6, 1, 0.4);
        }
        if (arch->gguf.post_attn_norm) {
            y->post_attn_norm = vector(m, hp->C, seed + 14, 1, 0.4);
            y->post_ffn_norm = vector(m, hp->C, seed + 15, 1, 0.4);
        }
        for (int i = 0; i < arch->linears; i++) make_linear(m, l * arch->linears + i, seed);
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

sd_model *train_model_quantised(const sd_arch *arch, uint64_t seed, sd_dtype dtype) {
    sd_model *m = train_model(arch, seed);
    for (int i = 0; i < m->n_linears; i++) {
        sd_linear *linear = &m->linear[i];
        sd_weight w = linear->w;
        requantise(m, &w, dtype);
        sd_model_set_linear(m, i, &w, linear->bias, linear->name);
    }
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
    SD_ASSERT(sd_model_make_layers(m, NULL) == SD_OK);
    // Vectors are shared: `from` lives longer.
    memcpy(m->layer, from->layer, (size_t)m->hp.L * sizeof *m->layer);
    for (int i = 0; i < m->n_linears; i++) {
        const sd_linear *linear = &from->linear[i];
        sd_weight w = dequantise(m, &linear->w);
        sd_model_set_linear(m, i, &w, linear->bias, linear->name);
    }
    m->embedding = dequantise(m, &from->embedding);
    m->head = dequantise(m, &from->head);
    m->out_norm = from->out_norm;
    return m;
}

void train_layout(sd_lora_layout *lay, const sd_model *m, const char *which, unsigned layers, int r,
                  bool rslora) {
    int rank[8 * SD_PROJ_COUNT] = {0};
    double alpha[8 * SD_PROJ_COUNT];
    for (int i = 0; i < m->n_linears; i++) {
        const sd_linear *linear = &m->linear[i];
        alpha[i] = 6;
        if (layers >> linear->layer & 1 && strchr(which, "qkvogud"[linear->kind->first]))
            rank[i] = r + linear->layer;
    }
    sd_error err;
    sd_status st = sd_lora_layout_init(lay, m, rank, alpha, rslora, &err);
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
