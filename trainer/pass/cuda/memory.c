// One piece of the device's memory and one of the host's hold a pass. The same function counts their bytes for the plan and hands out their pointers
// for the run, so the plan cannot promise less than the run takes.
#include "trainer/pass/cuda/private.h"

#include "base/memory.h"

#ifndef SD_CUDA_STAGING // a test has smaller pieces, so that a tiny adapter has several
#define SD_CUDA_STAGING (1 << 20)
#define SD_CUDA_BUCKET (1 << 22)
#endif

enum {
    HEAD_CHUNK = 4096, // classes whose weights are dequantised at a time: at C 4096 32 MB of bf16
    STAGING = SD_CUDA_STAGING, // parameters that cross in one copy
    BUCKET = SD_CUDA_BUCKET    // parameters whose gradients meet at a time: 16 MB of each device
};

typedef struct {
    char *base; // NULL: count only
    size_t at;
} carver;

static void *take(carver *c, size_t count, size_t size, size_t *part) {
    size_t bytes;
    if (!sd_mul_size(&bytes, count, size) || !sd_add_size(&bytes, bytes, 255) ||
        !sd_add_size(&c->at, c->at, bytes & ~(size_t)255)) {
        c->at = SIZE_MAX / 2; // no memory is that large: the device says so
        return NULL;
    }
    *part += bytes & ~(size_t)255;
    return c->base ? c->base + c->at - (bytes & ~(size_t)255) : NULL;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

// Sizes of arrays; N tokens.
typedef struct {
    size_t N, C, F, H, qkv, att, T; // T: bytes of a value that enters products
    bool qk_norm, post_norm;
} sizes;

static sizes sizes_of(const sd_model *m, int max_tokens, sd_cuda_real type) {
    const sd_hparams *hp = &m->hp;
    return (sizes){.N = (size_t)max_tokens,
                   .C = (size_t)hp->C,
                   .F = (size_t)hp->F,
                   .H = (size_t)hp->H,
                   .qkv = (size_t)(hp->H + 2 * hp->G) * (size_t)hp->D,
                   .att = (size_t)hp->H * (size_t)hp->D,
                   .T = sd_cuda_real_bytes(type),
                   .qk_norm = hp->qk_norm,
                   .post_norm = m->layer[0].post_attn_norm != NULL};
}

static int rank_of(const sd_lora_layout *lay, int layer, int stack) {
    int r = 0;
    for (int i = lay->first[stack]; i < lay->first[stack + 1]; i++)
        r += lay->slot[layer * lay->linears + i].r;
    return r;
}

// The attention half of a block: what recompute `attn` drops.
static void carve_attention(sd_cuda_acts *a, carver *c, const sizes *z, size_t *part) {
    if (z->qk_norm) a->raw = take(c, z->N * z->qkv, sizeof(float), part);
    a->qkv = take(c, z->N * z->qkv, z->T, part);
    a->att = take(c, z->N * z->att, z->T, part);
    a->lse = take(c, z->N * z->H, sizeof(float), part);
}

static void carve_mlp(sd_cuda_acts *a, carver *c, const sizes *z, size_t *part) {
    a->x2 = take(c, z->N * z->C, sizeof(float), part);
    a->gu = take(c, z->N * 2 * z->F, sizeof(float), part);
    if (!z->post_norm) return;
    a->o = take(c, z->N * z->C, sizeof(float), part);
    a->down = take(c, z->N * z->C, sizeof(float), part);
}

static void carve_acts(sd_cuda_train_memory *m, carver *c, const sd_lora_layout *lay,
                       const sizes *z, sd_recompute recompute, int L) {
    const int lowest = sd_lora_lowest(lay);
    sd_cuda_acts shared = {.raw = m->wide}, counted;
    const bool below = lowest > 0;
    // Below the lowest adapted layer one is enough: a block's input is not read again once x2 is there.
    float *passing = below ? take(c, z->N * z->C, sizeof(float), &m->scratch) : NULL;
    if (below || recompute != SD_RECOMPUTE_NONE) carve_attention(&shared, c, z, &m->scratch);
    if (below || recompute == SD_RECOMPUTE_BLOCK) carve_mlp(&shared, c, z, &m->scratch);
    for (int l = 0; l <= L; l++) {
        sd_cuda_acts *a = m->acts ? &m->acts[l] : &counted;
        *a = shared;
        a->x = l < lowest ? passing : take(c, z->N * z->C, sizeof(float), &m->kept);
        if (l < lowest || l == L) continue;
        if (recompute == SD_RECOMPUTE_NONE) carve_attention(a, c, z, &m->kept);
        if (recompute != SD_RECOMPUTE_BLOCK) carve_mlp(a, c, z, &m->kept);
        for (int s = 0; s < SD_STACKS; s++)
            a->u[s] = take(c, z->N * (size_t)rank_of(lay, l, s), z->T, &m->kept);
    }
}

static void carve_block(sd_cuda_train_memory *m, carver *c, const sd_lora_layout *lay,
                        const sizes *z, int L) {
    const size_t f = sizeof(float),
                 stacks[SD_STACKS] = {z->qkv * z->C, z->C * z->att, 2 * z->F * z->C, z->C * z->F};
    size_t widest = 0, R = 0;
    for (int s = 0; s < SD_STACKS; s++) {
        widest = larger(widest, stacks[s]);
        for (int l = 0; l < L; l++) R = larger(R, (size_t)rank_of(lay, l, s));
    }
    m->W = take(c, widest, z->T, &m->weights);
    m->n = take(c, z->N * z->C, z->T, &m->scratch);
    m->dy = take(c, z->N * z->C, z->T, &m->scratch);
    m->wide = take(c, z->N * z->qkv, f, &m->scratch);
    m->dwide = take(c, z->N * larger(2 * z->F, z->qkv), z->T, &m->scratch);
    m->act = take(c, z->N * z->F, z->T, &m->scratch);
    m->mid = take(c, z->N * larger(larger(z->F, z->att), z->C), f, &m->scratch);
    m->rounded = take(c, z->N * z->att, z->T, &m->scratch);
    m->delta = take(c, z->N * z->H, f, &m->scratch);
    m->du = take(c, z->N * R, z->T, &m->scratch);
    m->dx = take(c, z->N * z->C, f, &m->scratch);
}

static void carve_head(sd_cuda_train_memory *m, carver *c, const sizes *z, int V,
                       const sd_cuda_device *dev) {
    const size_t f = sizeof(float), rows = z->N * z->C;
    m->head_chunk = V < HEAD_CHUNK ? V : HEAD_CHUNK;
    const size_t chunk = (size_t)m->head_chunk;
    m->rows_x = take(c, rows, f, &m->head);
    m->rows_d = take(c, rows, f, &m->head);
    m->dh = take(c, rows, f, &m->head);
    m->h = take(c, rows, z->T, &m->head);
    m->head_W = take(c, chunk * z->C, z->T, &m->head);
    m->slopes = take(c, z->N * ((chunk + 7) / 8 * 8), z->T, &m->head);
    m->max = take(c, z->N, f, &m->head);
    m->sum = take(c, z->N, f, &m->head);
    m->target = take(c, z->N, f, &m->head);
    m->loss = take(c, z->N, f, &m->head);
    m->total = take(c, 1, sizeof *m->total, &m->head);
    m->partial = take(c, dev->head_floats((int)z->N, m->head_chunk), f, &m->head);
}

// The micro-batch's arrays from one place on, which is the same on both sides.
static size_t carve_batch(sd_cuda_batch *b, carver *c, size_t N) {
    const size_t before = c->at;
    size_t none = 0;
    b->token = take(c, N, sizeof *b->token, &none);
    b->pos = take(c, N, sizeof *b->pos, &none);
    b->row = take(c, N, sizeof *b->row, &none);
    b->label = take(c, N, sizeof *b->label, &none);
    b->place = take(c, N, sizeof *b->place, &none);
    b->weight = take(c, N, sizeof *b->weight, &none);
    b->tile = take(c, N, sizeof *b->tile, &none);
    return c->at - before;
}

static void carve_tables(sd_cuda_train_memory *m, carver *c, const sd_hparams *hp, const sizes *z) {
    const size_t turns = (size_t)hp->ropes * z->N * (size_t)(hp->rope_dim / 2);
    m->cosine = take(c, turns, sizeof(float), &m->tables);
    m->sine = take(c, turns, sizeof(float), &m->tables);
    for (int i = 0; i < 2; i++) {
        m->batch_there[i] = c->base ? c->base + c->at : NULL;
        m->batch_bytes = carve_batch(&m->there[i], c, z->N);
        m->tables += m->batch_bytes;
    }
    m->workspace = take(c, SD_CUDA_BLAS_WORKSPACE, 1, &m->tables);
}

static void carve_parameters(sd_cuda_train_memory *m, carver *c, size_t n, sd_cuda_real type,
                             const sd_cuda_device *dev, int ranks) {
    float **const all[] = {&m->theta, &m->m, &m->v, &m->grad, &m->grad_sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = take(c, n, sizeof(float), &m->parameters);
    m->factors = m->theta;
    if (type == SD_CUDA_BF16) m->factors = take(c, n, sd_cuda_real_bytes(type), &m->parameters);
    m->norm = take(c, 2, sizeof *m->norm, &m->parameters);
    m->norm_partial = take(c, dev->grad_partials(n), sizeof *m->norm_partial, &m->parameters);
    m->bucket = n < BUCKET ? n : BUCKET;
    if (ranks > 1) m->gathered = take(c, (size_t)ranks * m->bucket, sizeof(float), &m->parameters);
}

void sd_cuda_train_carve(sd_cuda_train_memory *m, sd_cuda_acts *acts, char *device, char *host,
                         const sd_model *model, const sd_lora_layout *lay,
                         const sd_cuda_device *dev, sd_cuda_real type, int max_tokens,
                         sd_recompute recompute, int ranks) {
    const sizes z = sizes_of(model, max_tokens, type);
    carver c = {device, 0}, h = {host, 0};
    *m = (sd_cuda_train_memory){.acts = acts};
    carve_parameters(m, &c, lay->n_params, type, dev, ranks);
    carve_block(m, &c, lay, &z, model->hp.L);
    carve_acts(m, &c, lay, &z, recompute, model->hp.L);
    carve_head(m, &c, &z, model->hp.V, dev);
    carve_tables(m, &c, &model->hp, &z);
    m->device_bytes = c.at;
    size_t none = 0;
    for (int i = 0; i < 2; i++) {
        m->batch_here[i] = h.base ? h.base + h.at : NULL;
        carve_batch(&m->here[i], &h, z.N);
    }
    m->total_here = take(&h, 2, sizeof *m->total_here, &none);
    m->norm_here = take(&h, 1, sizeof *m->norm_here, &none);
    m->loss_here = take(&h, z.N, sizeof *m->loss_here, &none);
    m->n_staging = lay->n_params < STAGING ? lay->n_params : STAGING;
    m->staging = take(&h, m->n_staging, sizeof *m->staging, &none);
    m->host_bytes = h.at;
}
