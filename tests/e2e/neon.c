// The NEON table against the plain one, every type and both computes; prints TAP. Called by
// neon.sh, which compiles it for 64-bit ARM; needs no library.
#include "base/memory.h"
#include "kernels/ops.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { M = 40, K = 512, N = 7 };

static uint32_t state = 5;
static float uniform(void) { // [-0.5, 0.5)
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-24f - 0.5f;
}

// What can be written is written; else random codes under a small scale in front of each block.
static void fill(uint8_t *data, sd_dtype t) {
    static float w[M * K];
    for (int k = 0; k < M * K; k++) w[k] = uniform();
    if (sd_quantise(data, t, w, M * K)) return;
    size_t bytes = M * sd_row_bytes(t, K), block = (size_t)sd_dtype_block_bytes(t);
    uint16_t d = sd_float_to_half(0.01f);
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)((uniform() + 0.5f) * 255);
    for (size_t i = 0; i < bytes; i += block) memcpy(data + i, &d, 2);
}

// Largest difference; both sum the same products of order 1 in another order.
static double difference(const sd_ops *neon, const sd_ops *plain, sd_dtype t, sd_compute compute) {
    float x[N * K], y[N * M], want[N * M];
    sd_packed a, b;
    sd_act act;
    uint8_t *data = malloc(M * sd_row_bytes(t, K));
    if (!data) return INFINITY;
    fill(data, t);
    for (int k = 0; k < N * K; k++) x[k] = uniform();
    sd_weight w = {.dtype = t, .rows = M, .cols = K, .data = data};
    if (neon->pack(&a, &w, compute, NULL) || plain->pack(&b, &w, compute, NULL) ||
        sd_act_init(&act, N, K, compute, NULL))
        return INFINITY;
    neon->act_rows(&act, x, 0, N);
    neon->matmul(y, M, &a, &act, N, 0, M);
    plain->matmul(want, M, &b, &act, N, 0, M);
    double worst = 0;
    for (int i = 0; i < N * M; i++) {
        double off = fabs((double)y[i] - want[i]);
        if (!(off <= worst)) worst = off; // NaN too
    }
    sd_packed_free(&a);
    sd_packed_free(&b);
    sd_act_free(&act);
    free(data);
    return worst;
}

int main(void) {
    const sd_ops *neon = sd_ops_named("neon"), *plain = sd_ops_named("plain");
    bool bad = false;
    if (!neon) {
        printf("ok - neon # SKIP this processor has no dot product of ARMv8.2\n");
        return 0;
    }
    for (uint32_t t = 0; t < 64; t++) {
        if (!sd_dtype_known(t)) continue;
        for (int c = SD_COMPUTE_AUTO; c <= SD_COMPUTE_FP32; c++) {
            // K terms of at most 0.25 and their rounding: K * 0.25 * K * 2^-24 / 10 is far above.
            double worst = difference(neon, plain, (sd_dtype)t, (sd_compute)c), limit = 4e-4;
            bad |= !(worst <= limit);
            printf("%s - neon: %s%s equals the plain table (%.1e)\n",
                   worst <= limit ? "ok" : "not ok", sd_dtype_name((sd_dtype)t),
                   c == SD_COMPUTE_FP32 ? " in fp32" : "", worst);
        }
    }
    return bad;
}
