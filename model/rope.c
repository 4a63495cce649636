// Inverse frequencies of the rotary embedding (arXiv:2104.09864) and its extensions to longer
// contexts: position interpolation (arXiv:2306.15595), YaRN (arXiv:2309.00071), LongRoPE
// (arXiv:2402.13753) and Llama 3.1's piecewise rule. All in double: a position of 10^5 times an fp32 frequency would be off by 1e-2.
#include "model/model.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

// The (fractional) pair that turns `turns` times within the original context.
static double pair_of(double turns, const sd_rotation *r, int dim) {
    return dim * log(r->orig_ctx / (turns * 2 * pi)) / (2 * log((double)r->base));
}

static void yarn(const sd_rotation *r, int dim, double *inv, double *attn_scale) {
    double low = floor(pair_of((double)r->beta_fast, r, dim)),
           high = ceil(pair_of((double)r->beta_slow, r, dim));
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < dim / 2; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
        inv[i] = inv[i] / (double)r->factor * ramp + inv[i] * (1 - ramp);
    }
    double f = (double)r->factor;
    *attn_scale = r->attn_factor > 0 ? (double)r->attn_factor : (f > 1 ? 0.1 * log(f) + 1 : 1);
}

static void llama3(const sd_rotation *r, int dim, double *inv) {
    double low = (double)r->low, high = (double)r->high, f = (double)r->factor;
    for (int i = 0; i < dim / 2; i++) {
        double turns = r->orig_ctx * inv[i] / (2 * pi);
        double smooth = fmin(fmax((turns - low) / (high - low), 0), 1);
        inv[i] = (1 - smooth) * inv[i] / f + smooth * inv[i];
    }
}

void sd_rope_frequencies(const sd_rotation *r, int dim, int ctx, double *inv, double *attn_scale) {
    const float *factors =
        r->scaling == SD_ROPE_LONG && ctx > r->orig_ctx ? r->long_factors : r->factors;
    *attn_scale = 1;
    for (int i = 0; i < dim / 2; i++) {
        inv[i] = pow((double)r->base, -2.0 * i / dim);
        if (factors) inv[i] /= (double)factors[i];
    }
    switch (r->scaling) {
    case SD_ROPE_LINEAR:
        for (int i = 0; i < dim / 2; i++) inv[i] /= (double)r->factor;
        break;
    case SD_ROPE_LLAMA3:
        llama3(r, dim, inv);
        break;
    case SD_ROPE_YARN:
        yarn(r, dim, inv, attn_scale);
        break;
    case SD_ROPE_LONG:
        *attn_scale = (double)r->attn_factor;
        break;
    case SD_ROPE_NONE:
        break;
    }
}

double sd_attention_scale(const sd_hparams *hp) {
    return hp->attn_scale > 0 ? (double)hp->attn_scale : 1 / sqrt((double)hp->D);
}
