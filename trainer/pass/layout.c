// Offsets of the LoRA factors in one flat vector. Inside a layer the maps that read the same input
// have their A's side by side (q k v, then gate up), so that one product gives u of all of
// them and the stack needs no copy:
//
//     A_q A_k A_v B_q B_k B_v | A_o B_o | A_gate A_up B_gate B_up | A_down B_down
#include "trainer/pass/layout.h"

#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

// The matrix that each stack begins with.
static const sd_proj stack_begin[SD_STACKS] = {SD_WQ, SD_WO, SD_WGATE, SD_WDOWN};

static sd_status size_slot(sd_lora_slot *s, const sd_linear *m, int r, double alpha, bool rslora,
                           sd_error *err) {
    sd_status st = SD_OK;
    *s = (sd_lora_slot){.out = m->w.rows, .in = m->w.cols};
    if (r == 0) return SD_OK;
    SD_CHECK(r > 0 && r <= SD_MAX_RANK, err, SD_EINVAL,
             "layer %d, %s: rank %d; it is between 1 and %d, or 0 for no adapter", m->layer,
             m->kind->leaf, r, SD_MAX_RANK);
    SD_CHECK(isfinite(alpha) && alpha > 0, err, SD_EINVAL,
             "layer %d, %s: alpha is %g; it must be a positive number", m->layer, m->kind->leaf,
             alpha);
    s->r = r;
    s->scale = rslora ? alpha / sqrt((double)r) : alpha / r;
out:
    return st;
}

sd_status sd_lora_layout_init(sd_lora_layout *lay, const sd_model *m, const int *rank,
                              const double *alpha, bool rslora, sd_error *err) {
    sd_status st = SD_OK;
    *lay = (sd_lora_layout){.n_linears = m->n_linears, .linears = m->n_linears / m->hp.L};
    lay->slot = sd_alloc((size_t)lay->n_linears, sizeof *lay->slot);
    SD_CHECK_ALLOC(lay->slot, err);
    for (int s = 0; s < SD_STACKS; s++)
        while (m->linear[lay->first[s]].kind->first < stack_begin[s]) lay->first[s]++;
    lay->first[SD_STACKS] = lay->linears;
    for (int i = 0; i < lay->n_linears; i++)
        SD_TRY(size_slot(&lay->slot[i], &m->linear[i], rank[i], alpha[i], rslora, err));
    size_t at = 0;
    for (int l = 0; l < m->hp.L; l++) {
        sd_lora_slot *slot = lay->slot + l * lay->linears;
        for (int s = 0; s < SD_STACKS; s++) {
            sd_lora_slot *first = slot + lay->first[s], *end = slot + lay->first[s + 1];
            for (sd_lora_slot *p = first; p < end; p++)
                p->a = at, at += (size_t)p->r * (size_t)p->in;
            for (sd_lora_slot *p = first; p < end; p++)
                p->b = at, at += (size_t)p->r * (size_t)p->out;
        }
    }
    lay->n_params = at;
    SD_CHECK(at > 0, err, SD_EINVAL,
             "no linear map has an adapter; name at least one in target_modules");
out:
    if (st != SD_OK) sd_lora_layout_free(lay);
    return st;
}

sd_status sd_lora_layout_copy(sd_lora_layout *to, const sd_lora_layout *from, sd_error *err) {
    sd_status st = SD_OK;
    const size_t n = (size_t)from->n_linears;
    *to = *from;
    to->slot = sd_alloc(n, sizeof *to->slot);
    SD_CHECK_ALLOC(to->slot, err);
    memcpy(to->slot, from->slot, n * sizeof *to->slot);
out:
    return st;
}

void sd_lora_layout_free(sd_lora_layout *lay) {
    free(lay->slot);
    *lay = (sd_lora_layout){0};
}

int sd_lora_lowest(const sd_lora_layout *lay) {
    int i = 0;
    while (i < lay->n_linears && lay->slot[i].r == 0) i++;
    return i / lay->linears;
}

void sd_lora_init(float *theta, const sd_lora_layout *lay, uint64_t seed) {
    memset(theta, 0, lay->n_params * sizeof *theta);
    for (int i = 0; i < lay->n_linears; i++) {
        const sd_lora_slot *s = &lay->slot[i];
        size_t count = (size_t)s->r * (size_t)s->in;
        float bound = count ? 1 / sqrtf((float)s->in) : 0;
        for (size_t k = 0; k < count; k += 4) {
            uint32_t w[4];
            sd_philox(w, seed, (uint64_t)SD_STREAM_INIT << 32 | (uint32_t)i, k);
            for (size_t j = 0; j < 4 && k + j < count; j++)
                theta[s->a + k + j] = bound * (2 * sd_uniform(w[j]) - 1);
        }
    }
}

sd_status sd_lora_to_adapter(sd_adapter **out, const char *name, const float *theta,
                             const sd_lora_layout *lay, const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_lora *lora = NULL;
    SD_CHECK(lay->n_linears == base->n_linears, err, SD_EINVAL,
             "the parameters are of %d linear maps, the model has %d", lay->n_linears,
             base->n_linears);
    lora = sd_alloc((size_t)lay->n_linears, sizeof *lora);
    SD_CHECK_ALLOC(lora, err);
    for (int i = 0; i < lay->n_linears; i++) {
        const sd_lora_slot *s = &lay->slot[i];
        if (s->r > 0) lora[i] = (sd_lora){s->r, theta + s->a, theta + s->b, (float)s->scale};
    }
    SD_TRY(sd_adapter_from_factors(out, name, lora, base, err));
out:
    free(lora);
    return st;
}
