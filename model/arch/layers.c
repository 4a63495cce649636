// The linear maps of a model's layers, in the order of its architecture.
#include "model/arch/arch.h"
#include "model/model_private.h"

sd_status sd_model_make_layers(sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    const sd_arch *arch = m->hp.arch;
    SD_CHECK(m->hp.L >= 1 && m->hp.L <= 1024, err, SD_EFORMAT,
             "%s: layers is %d, 1 to 1024 is supported", m->path, m->hp.L);
    m->layer = sd_alloc((size_t)m->hp.L, sizeof *m->layer);
    m->linear = sd_alloc((size_t)m->hp.L * (size_t)arch->linears, sizeof *m->linear);
    SD_CHECK_ALLOC(m->layer && m->linear, err);
    m->n_linears = m->hp.L * arch->linears;
    for (int i = 0; i < m->n_linears; i++) {
        m->linear[i].layer = i / arch->linears;
        m->linear[i].kind = &arch->linear[i % arch->linears];
    }
out:
    return st;
}

void sd_model_set_linear(sd_model *m, int i, const sd_weight *w, const float *bias,
                         const char *name) {
    sd_linear *linear = &m->linear[i];
    sd_layer *layer = &m->layer[linear->layer];
    int row = 0, rows, cols;
    linear->w = *w;
    linear->bias = bias;
    linear->name = name;
    for (int k = 0; k < linear->kind->matrices; k++) {
        sd_proj p = (sd_proj)((int)linear->kind->first + k);
        sd_proj_shape(&m->hp, p, &rows, &cols);
        layer->w[p] =
            (sd_weight){w->dtype, rows, cols,
                        (const char *)w->data + (size_t)row * sd_row_bytes(w->dtype, cols)};
        layer->bias[p] = bias ? bias + row : NULL;
        row += rows;
    }
}
