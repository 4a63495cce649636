// Directions come from the counter RNG, so that a failure is the same failure on every machine.
#include "tests/unit/trainer/support_gradcheck.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIRECTIONS = 32 };

static double uniform(uint64_t seed, uint64_t hi, uint64_t i) {
    uint32_t r[4];
    sd_philox(r, seed, hi, i);
    return 2 * sd_uniform64(r[0], r[1]) - 1;
}

void gradcheck_fill(double *x, size_t n, uint64_t seed, double scale) {
    for (size_t i = 0; i < n; i++) x[i] = scale * uniform(seed, 1, i);
}

void gradcheck_fill_f32(float *x, size_t n, uint64_t seed, double centre, double scale) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(centre + scale * uniform(seed, 2, i));
}

double gradcheck_error(double *x, const double *grad, size_t n, gradcheck_fn f, void *ctx) {
    const double h = 1e-4;
    double *kept = malloc(2 * n * sizeof(double)), *d = kept + n, worst = 0, norm = 0;
    memcpy(kept, x, n * sizeof(double));
    for (size_t i = 0; i < n; i++) norm += grad[i] * grad[i];
    for (int k = 0; k < DIRECTIONS; k++) {
        double length = 0, along = 0;
        for (size_t i = 0; i < n; i++) {
            d[i] = uniform(77, 100 + (uint64_t)k, i);
            length += d[i] * d[i];
        }
        length = sqrt(length);
        for (size_t i = 0; i < n; i++) along += grad[i] * (d[i] /= length);
        for (size_t i = 0; i < n; i++) x[i] = kept[i] + h * d[i];
        double up = f(x, ctx);
        for (size_t i = 0; i < n; i++) x[i] = kept[i] - h * d[i];
        double measured = (up - f(x, ctx)) / (2 * h);
        double scale = fmax(fmax(fabs(along), fabs(measured)), 0.01 * sqrt(norm));
        double error = scale > 0 ? fabs(along - measured) / scale : 0;
        if (!(error <= worst)) worst = error; // a NaN is kept
    }
    memcpy(x, kept, n * sizeof(double));
    free(kept);
    return worst;
}
