// Shapes around the kernels' 6, 12 or 32 rows, 16 or 32 outputs and blocks of 192, 384 or 768
// terms.
#include "tests/unit/kernels/support_gemm_packed.h"

#include "kernels/tensor.h"
#include "tests/unit/trainer/support_gradcheck.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int shapes[][3] = {{1, 1, 1},     {5, 16, 8},     {6, 33, 7},
                                {12, 96, 64},  {13, 31, 65},   {7, 64, 385},
                                {25, 70, 193}, {11, 129, 800}, {288, 40, 32}};

static double rounded(const sd_gemm_packed *p, float v) {
    return (double)(p->bf16 ? sd_bf16_to_float(sd_float_to_bf16(v)) : v);
}

typedef struct {
    float *x, *w, *y;
    char *packed, *scratch;
    int M, K;
} product;

// Packs in two halves where there are two, as tasks do.
static product make(const sd_gemm_packed *p, int n, int M, int K, bool back) {
    product a = {.M = M, .K = K};
    a.x = malloc(sizeof(float) * (size_t)n * (size_t)(back ? M : K));
    a.w = malloc(sizeof(float) * (size_t)M * (size_t)K);
    a.y = malloc(sizeof(float) * (size_t)n * (size_t)(back ? K : M));
    a.packed = malloc(sd_gemm_packed_bytes(p, M, K));
    a.scratch = malloc(SD_GEMM_SCRATCH);
    memset(a.packed, 0xff, sd_gemm_packed_bytes(p, M, K)); // NaN wherever packing forgets a zero
    gradcheck_fill_f32(a.x, (size_t)n * (size_t)(back ? M : K), 1, 0, 1);
    gradcheck_fill_f32(a.w, (size_t)M * (size_t)K, 2, 0, 1);
    for (int m = 0; m < M; m += SD_GEMM_PACK_ROWS) {
        int count = M - m < SD_GEMM_PACK_ROWS ? M - m : SD_GEMM_PACK_ROWS;
        (back ? sd_gemm_pack_backward : sd_gemm_pack_forward)(p, a.packed, a.w + (size_t)m * K, m,
                                                              count, M, K);
    }
    return a;
}

static void release(product *a) {
    free(a->x), free(a->w), free(a->y), free(a->packed), free(a->scratch);
}

static double one_error(const sd_gemm_packed *p, int n, int M, int K, bool back, bool add) {
    product a = make(p, n, M, K, back);
    int out = back ? K : M, terms = back ? M : K;
    for (int i = 0; i < n * out; i++) a.y[i] = 0.25f;
    p->matmul(a.y, out, a.x, terms, a.packed, n, out, terms, add, a.scratch);
    double worst = 0;
    for (int r = 0; r < n; r++) {
        for (int o = 0; o < out; o++) {
            double want = add ? 0.25 : 0, size = 1;
            for (int k = 0; k < terms; k++) {
                double t = rounded(p, a.x[r * terms + k]) *
                           rounded(p, back ? a.w[k * K + o] : a.w[o * K + k]);
                want += t, size += fabs(t);
            }
            double error = fabs((double)a.y[r * out + o] - want) / (size * (terms + 2) * 0x1p-24);
            if (!(error <= worst)) worst = error;
        }
    }
    release(&a);
    return worst;
}

double gemm_packed_error(const sd_gemm_packed *p) {
    double worst = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int form = 0; form < 4; form++) {
            double e =
                one_error(p, shapes[i][0], shapes[i][1], shapes[i][2], form & 1, (form & 2) != 0);
            if (!(e <= worst)) worst = e;
        }
    }
    return worst;
}

bool gemm_packed_rows_are_independent(const sd_gemm_packed *p) {
    enum { N = 29, M = 70, K = 401 };
    product a = make(p, N, M, K, false);
    float alone[M];
    bool same = true;
    p->matmul(a.y, M, a.x, K, a.packed, N, M, K, false, a.scratch);
    for (int r = 0; r < N; r++) {
        p->matmul(alone, M, a.x + (size_t)r * K, K, a.packed, 1, M, K, false, a.scratch);
        same = same && memcmp(alone, a.y + (size_t)r * M, sizeof alone) == 0;
    }
    release(&a);
    return same;
}
