// Writing the K types: blocks of 256 whose scales (and minimums) are themselves quantised. Each run
// of 16 or 32 values gets its scale by a short search: a few starting steps around the obvious one,
// for each the weighted least squares fit, and the best of them.
#include "kernels/quantize.h"

#include <math.h>
#include <string.h>

enum { RUNS = 8, RUN = 32, RUNS6 = 16, RUN6 = 16, BLOCK = 256 };

static int nearest(float x) { // ties to even; NaN and the absurd give 0
    return fabsf(x) < 4194304.0f ? (int)rintf(x) : 0;
}
static int clamp(int v, int lo, int hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

static void put16(uint8_t *p, uint16_t h) {
    p[0] = (uint8_t)h, p[1] = (uint8_t)(h >> 8);
}

// ---- Q6_K: x = scale * code, codes -32..31, weights x^2

// Sums of the fit for one step: with codes q, scale = xq / qq and the error falls by xq^2 / qq.
static void fit_sums(float *xq, float *qq, const float *x, float inverse) {
    *xq = *qq = 0;
    for (int i = 0; i < RUN6; i++) {
        float q = (float)clamp(nearest(inverse * x[i]), -32, 31), w = x[i] * x[i];
        *xq += w * x[i] * q;
        *qq += w * q * q;
    }
}

static float fit_scale(const float *x) {
    float extreme = 0, size = 0, xq, qq;
    for (int i = 0; i < RUN6; i++)
        if (fabsf(x[i]) > size) size = fabsf(x[i]), extreme = x[i];
    if (size < 1e-15f) return 0;
    fit_sums(&xq, &qq, x, -32.0f / extreme);
    float scale = qq > 0 ? xq / qq : 0, best = scale * xq;
    for (int step = -9; step <= 9; step++) {
        if (step == 0) continue;
        fit_sums(&xq, &qq, x, -(32.0f + 0.1f * (float)step) / extreme);
        if (qq > 0 && xq * xq > best * qq) scale = xq / qq, best = scale * xq;
    }
    return scale;
}

void sd_write_q6_k(uint8_t *p, const float *x) {
    float scale[RUNS6], largest = 0, size = 0;
    memset(p, 0, 210);
    for (int r = 0; r < RUNS6; r++) {
        scale[r] = fit_scale(x + r * RUN6);
        if (fabsf(scale[r]) > size) size = fabsf(scale[r]), largest = scale[r];
    }
    if (size < 1e-15f) return;
    float inverse = -128.0f / largest;
    uint16_t h = sd_float_to_half(1 / inverse);
    put16(p + 208, h);
    for (int r = 0; r < RUNS6; r++) {
        int s = clamp(nearest(inverse * scale[r]), -128, 127);
        p[192 + r] = (uint8_t)(int8_t)s;
        float d = sd_half_to_float(h) * (float)s;
        for (int i = 0; i < RUN6; i++) {
            int k = r * RUN6 + i, j = k / RUN, at = k % RUN; // j: which 32 of the block
            int q = d != 0 ? clamp(nearest(x[k] / d), -32, 31) + 32 : 32;
            p[j / 4 * 64 + j % 2 * 32 + at] |= (uint8_t)((q & 15) << (j % 4 / 2 * 4));
            p[128 + j / 4 * 32 + at] |= (uint8_t)(q >> 4 << (j % 4 * 2));
        }
    }
}

// ---- Q4_K, Q5_K: x = scale * code - minimum, codes 0..top

typedef struct {
    float scale, min; // min >= 0, subtracted
} affine;

// Codes for one step, their sums and the fit: minimises sum w (a q + b - x)^2 over a and b <= 0.
static bool fit_affine(float *a, float *b, const float *x, const float *w, float lo, float inverse,
                       int top, float sum_w, float sum_x, float q[RUN]) {
    float sq = 0, sqq = 0, sxq = 0;
    for (int i = 0; i < RUN; i++) {
        q[i] = (float)clamp(nearest(inverse * (x[i] - lo)), 0, top);
        sq += w[i] * q[i];
        sqq += w[i] * q[i] * q[i];
        sxq += w[i] * q[i] * x[i];
    }
    float det = sum_w * sqq - sq * sq;
    if (!(det > 0)) return false;
    *a = (sum_w * sxq - sum_x * sq) / det;
    *b = (sqq * sum_x - sq * sxq) / det;
    if (*b > 0) *b = 0, *a = sxq / sqq;
    return true;
}

static float weighted_error(const float *x, const float *w, const float *q, float a, float b) {
    float e = 0;
    for (int i = 0; i < RUN; i++) {
        float d = a * q[i] + b - x[i];
        e += w[i] * (d * d);
    }
    return e;
}

static affine search_affine(const float *x, int top, float from, int steps) {
    float w[RUN], q[RUN], squares = 0, lo = x[0], hi = x[0], sum_w = 0, sum_x = 0;
    for (int i = 0; i < RUN; i++) squares += x[i] * x[i];
    float mean = sqrtf(squares / RUN);
    for (int i = 0; i < RUN; i++) {
        w[i] = mean + fabsf(x[i]);
        sum_w += w[i];
        sum_x += w[i] * x[i];
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (lo > 0) lo = 0;
    if (!(hi > lo)) return (affine){0, -lo};
    float inverse = (float)top / (hi - lo), a = 1 / inverse, b = lo;
    for (int i = 0; i < RUN; i++) q[i] = (float)clamp(nearest(inverse * (x[i] - lo)), 0, top);
    float best = weighted_error(x, w, q, a, b);
    // Each step spans from the minimum of the best fit so far to the largest value.
    for (int s = 0; s <= steps; s++) {
        float ta, tb;
        inverse = (from + 0.1f * (float)s + (float)top) / (hi - b);
        if (!fit_affine(&ta, &tb, x, w, b, inverse, top, sum_w, sum_x, q)) continue;
        float e = weighted_error(x, w, q, ta, tb);
        if (e < best) best = e, a = ta, b = tb;
    }
    return (affine){a, -b};
}

static void put_scales(uint8_t out[12], const int scale[RUNS], const int min[RUNS]) {
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(scale[j] | (scale[j + 4] >> 4) << 6);
        out[j + 4] = (uint8_t)(min[j] | (min[j + 4] >> 4) << 6);
        out[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

void sd_write_q45_k(uint8_t *p, const float *x, bool five) {
    affine fit[RUNS];
    float top_scale = 0, top_min = 0;
    int scale[RUNS], min[RUNS], top = five ? 31 : 15;
    for (int j = 0; j < RUNS; j++) {
        fit[j] = five ? search_affine(x + j * RUN, top, -0.5f, 15)
                      : search_affine(x + j * RUN, top, -1.0f, 20);
        if (fit[j].scale > top_scale) top_scale = fit[j].scale;
        if (fit[j].min > top_min) top_min = fit[j].min;
    }
    float per_scale = top_scale > 0 ? 63.0f / top_scale : 0;
    float per_min = top_min > 0 ? 63.0f / top_min : 0;
    for (int j = 0; j < RUNS; j++) {
        scale[j] = clamp(nearest(per_scale * fit[j].scale), 0, 63);
        min[j] = clamp(nearest(per_min * fit[j].min), 0, 63);
    }
    uint16_t d = sd_float_to_half(top_scale / 63.0f), m = sd_float_to_half(top_min / 63.0f);
    memset(p, 0, five ? 176 : 144);
    put16(p, d);
    put16(p + 2, m);
    put_scales(p + 4, scale, min);
    uint8_t *high = p + 16, *low = p + (five ? 48 : 16);
    for (int j = 0; j < RUNS; j++) {
        float dj = sd_half_to_float(d) * (float)scale[j], mj = sd_half_to_float(m) * (float)min[j];
        for (int i = 0; i < RUN; i++) {
            int q = dj != 0 ? clamp(nearest((x[j * RUN + i] + mj) / dj), 0, top) : 0;
            low[j / 2 * 32 + i] |= (uint8_t)((q & 15) << (j % 2 * 4));
            if (five) high[i] |= (uint8_t)(q >> 4 << j);
        }
    }
}
