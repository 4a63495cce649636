// One allocation holds a pass. The same function counts its bytes for the plan and hands out its
// pointers for the run, so the plan cannot promise less than the run takes.
#include "trainer/pass/state.h"

#include "base/memory.h"

typedef struct {
    char *base; // NULL: count only
    size_t at;
} carver;

static void *take(carver *c, size_t count, size_t size, size_t *part) {
    size_t bytes;
    if (!sd_mul_size(&bytes, count, size) || !sd_add_size(&bytes, bytes, 63) ||
        !sd_add_size(&c->at, c->at, bytes & ~(size_t)63)) {
        c->at = SIZE_MAX / 2; // no memory is that large: the allocation says so
        return NULL;
    }
    *part += bytes & ~(size_t)63;
    return c->base ? c->base + c->at - (bytes & ~(size_t)63) : NULL;
}
#define REALS(count, part) take(&c, (count), sizeof(real), (part))

static size_t largest(size_t a, size_t b) {
    return a > b ? a : b;
}

typedef struct {
    size_t N, C, qkv, att, H, G, F;
    bool qk_norm, post_norm;
    int ranks[SD_STACKS];
} widths;

static widths widths_of(const sd_model *m, const sd_lora_layout *lay, int layer, size_t N) {
    const sd_hparams *hp = &m->hp;
    widths w = {.N = N,
                .qk_norm = hp->qk_norm,
                .post_norm = m->layer[layer].post_attn_norm != NULL,
                .C = (size_t)hp->C,
                .qkv = (size_t)(hp->H + 2 * hp->G) * (size_t)hp->D,
                .att = (size_t)hp->H * (size_t)hp->D,
                .H = (size_t)hp->H,
                .G = (size_t)hp->G,
                .F = (size_t)hp->F};
    for (int s = 0; s < SD_STACKS; s++)
        for (int i = lay->first[s]; i < lay->first[s + 1]; i++)
            w.ranks[s] += lay->slot[layer * lay->linears + i].r;
    return w;
}

// The attention half of a block: what recompute `attn` drops.
static void carve_attention(sd_train_acts *a, carver *at, const widths *w, size_t *part) {
    carver c = *at;
    a->rstd1 = REALS(w->N, part);
    if (w->qk_norm) {
        a->raw = REALS(w->N * (w->qkv - w->G * (w->att / w->H)), part);
        a->rstd_qk = REALS(w->N * (w->H + w->G), part);
    }
    a->qkv = REALS(w->N * w->qkv, part);
    a->att = REALS(w->N * w->att, part);
    a->lse = REALS(w->N * w->H, part);
    *at = c;
}

static void carve_mlp(sd_train_acts *a, carver *at, const widths *w, size_t *part) {
    carver c = *at;
    a->rstd2 = REALS(w->N, part);
    a->x2 = REALS(w->N * w->C, part);
    a->gu = REALS(w->N * 2 * w->F, part);
    if (w->post_norm) {
        a->o = REALS(w->N * w->C, part);
        a->rstd_o = REALS(w->N, part);
        a->down = REALS(w->N * w->C, part);
        a->rstd_down = REALS(w->N, part);
    }
    *at = c;
}

static void carve_acts(sd_train_memory *m, carver *at, const sd_model *model,
                       const sd_lora_layout *lay, size_t N, sd_recompute recompute, int lowest) {
    const sd_hparams *hp = &model->hp;
    carver c = *at;
    widths w = widths_of(model, lay, 0, N);
    sd_train_acts shared = {0}, counted;
    bool below = lowest > 0;
    real *ping = below ? REALS(N * w.C, &m->scratch) : NULL;
    real *pong = below ? REALS(N * w.C, &m->scratch) : NULL;
    if (below || recompute != SD_RECOMPUTE_NONE) carve_attention(&shared, &c, &w, &m->scratch);
    if (below || recompute == SD_RECOMPUTE_BLOCK) carve_mlp(&shared, &c, &w, &m->scratch);
    for (int l = 0; l <= hp->L; l++) {
        sd_train_acts *a = m->acts ? &m->acts[l] : &counted;
        *a = shared;
        a->x = l < lowest ? (l & 1 ? pong : ping) : REALS(N * w.C, &m->kept);
        if (l < lowest || l == hp->L) continue;
        w = widths_of(model, lay, l, N);
        if (recompute == SD_RECOMPUTE_NONE) carve_attention(a, &c, &w, &m->kept);
        if (recompute != SD_RECOMPUTE_BLOCK) carve_mlp(a, &c, &w, &m->kept);
        for (int s = 0; s < SD_STACKS; s++) a->u[s] = REALS(N * (size_t)w.ranks[s], &m->kept);
    }
    *at = c;
}

static void carve_rows(sd_train_rows *r, carver *at, size_t N, size_t *part) {
    r->token = take(at, N, sizeof *r->token, part);
    r->pos = take(at, N, sizeof *r->pos, part);
    r->segment = take(at, N, sizeof *r->segment, part);
    r->row = take(at, N, sizeof *r->row, part);
    r->label = take(at, N, sizeof *r->label, part);
}

// Bytes of a packed matrix. The double build keeps rows.
static size_t weight_bytes(const sd_gemm_packed *p, int M, int K) {
#if SD_REAL_IS_DOUBLE
    (void)p;
    return (size_t)M * (size_t)K * sizeof(real);
#else
    return sd_gemm_packed_bytes(p, M, K);
#endif
}

static void carve_head(sd_train_memory *m, carver *at, const sd_hparams *hp,
                       const sd_gemm_packed *p, size_t N) {
    carver c = *at;
    size_t rows = N * (size_t)hp->C;
    // A chunk's weights stay in the last-level cache while all supervised rows pass over them.
    size_t chunk = (size_t)4 * 1024 * 1024 / ((size_t)hp->C * sizeof(real)) & ~(size_t)15;
    m->head_chunk = (int)(chunk < 64 ? 64 : chunk > 1024 ? 1024 : chunk);
    if (m->head_chunk > hp->V) m->head_chunk = hp->V;
    size_t bytes = weight_bytes(p, m->head_chunk, hp->C);
    for (int i = 0; i < 2; i++)
        for (int way = 0; way < 2; way++) m->head_W[i][way] = take(&c, bytes, 1, &m->head);
    m->h = REALS(rows, &m->head);
    m->dh = REALS(rows, &m->head);
    m->acc = REALS(rows, &m->head);
    m->rstd_h = REALS(N, &m->head);
    m->max = take(&c, N, sizeof(double), &m->head);
    m->sum = take(&c, N, sizeof(double), &m->head);
    m->target = take(&c, N, sizeof(double), &m->head);
    *at = c;
}

static void carve_workers(sd_train_memory *m, carver *at, const sd_hparams *hp, size_t N,
                          int threads) {
    carver c = *at;
    size_t longest_row = largest(largest((size_t)hp->C, (size_t)hp->F), (size_t)hp->H * hp->D);
    for (int i = 0; i < threads; i++) {
        sd_train_worker none, *w = m->worker ? &m->worker[i] : &none;
        w->rows = take(&c, SD_GEMM_PACK_ROWS * longest_row, sizeof(float), &m->workers);
        w->gemm_scratch = take(&c, SD_GEMM_SCRATCH, 1, &m->workers);
        w->attention = REALS(sd_causal_scratch((int)N, hp->D), &m->workers);
        w->logits = REALS((size_t)SD_TRAIN_TILE * (size_t)m->head_chunk, &m->workers);
        w->dn = REALS((size_t)SD_TRAIN_TILE * (size_t)hp->C, &m->workers);
    }
    *at = c;
}

void sd_train_carve(sd_train_memory *m, char *base, const sd_model *model,
                    const sd_lora_layout *lay, const sd_gemm_packed *gemm, int max_tokens,
                    sd_recompute recompute, int lowest, int threads) {
    const sd_hparams *hp = &model->hp;
    carver c = {base, 0};
    *m = (sd_train_memory){0};
    size_t N = (size_t)max_tokens, most_u = 0;
    widths w = {0};
    for (int l = 0; l < hp->L; l++) {
        w = widths_of(model, lay, l, N);
        for (int s = 0; s < SD_STACKS; s++) most_u = largest(most_u, (size_t)w.ranks[s]);
    }
    m->acts = take(&c, (size_t)hp->L + 1, sizeof *m->acts, &m->other);
    m->worker = take(&c, (size_t)threads, sizeof *m->worker, &m->other);
    carve_rows(&m->rows, &c, N, &m->other);
    m->cosine = REALS((size_t)hp->ropes * N * (size_t)(hp->rope_dim / 2), &m->other);
    m->sine = REALS((size_t)hp->ropes * N * (size_t)(hp->rope_dim / 2), &m->other);
    int wide = (int)largest(w.qkv, 2 * w.F), mid = (int)largest(w.att, w.F);
    m->W[0] = take(&c, weight_bytes(gemm, wide, hp->C), 1, &m->weights);
    m->W[1] = take(&c, weight_bytes(gemm, hp->C, mid), 1, &m->weights);
    carve_acts(m, &c, model, lay, N, recompute, lowest);
    m->n = REALS(N * w.C, &m->scratch);
    m->dx = REALS(N * w.C, &m->scratch);
    m->wide = REALS(N * largest(2 * w.F, w.qkv), &m->scratch);
    m->mid = REALS(N * largest(w.F, w.att), &m->scratch);
    m->du = REALS(N * most_u, &m->scratch);
    if (w.post_norm) m->dy = REALS(N * w.C, &m->scratch);
    carve_head(m, &c, hp, gemm, N);
    carve_workers(m, &c, hp, N, threads);
    m->bytes = c.at;
}
