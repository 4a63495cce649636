#include "model/infer/key_scale.h"

#include <math.h>

size_t sd_key_scales(const sd_hparams *hp) {
    return hp->qkv_bias || hp->qk_norm ? (size_t)hp->L * (size_t)hp->G * (size_t)hp->D : 0;
}

// The power of two below 1 + the size of a pair of channels: keys divided by it are of order 1.
static float size_of(float a, float b) {
    return ldexpf(1, ilogbf(1 + hypotf(a, b)));
}

void sd_key_scales_get(float *scale, const sd_model *m) {
    const sd_hparams *hp = &m->hp;
    const int D = hp->D, half = hp->rope_dim / 2, step = hp->rope_interleaved ? 1 : half;
    for (int head = 0; head < hp->L * hp->G; head++, scale += D) {
        const sd_layer *layer = &m->layer[head / hp->G];
        const float *w = layer->k_norm ? layer->k_norm : layer->bias[SD_WK] + (head % hp->G) * D;
        for (int i = 0; i < D; i++) scale[i] = size_of(w[i], 0);
        for (int i = 0; i < half; i++) {
            const int a = hp->rope_interleaved ? 2 * i : i;
            scale[a] = scale[a + step] = size_of(w[a], w[a + step]);
        }
    }
}
