// In place of the double build's products (kernels/train/gemm_real.c), which this file's function comes before: the same ones, whose factors are
// rounded to bf16 first where a test asks for it. A pass over them is the naive pass of that precision.
#define SD_REAL_DOUBLE
#include "tests/cuda/model/rounded.h"

#include "kernels/dequantize.h"
#include "kernels/train/gemm.h"

bool products_are_rounded;

static double taken(double x) {
    return products_are_rounded ? (double)sd_bf16_to_float(sd_float_to_bf16((float)x)) : x;
}

void sd_gemm(bool ta, bool tb, int m, int n, int k, double alpha, const double *a, int lda,
             const double *b, int ldb, double beta, double *c, int ldc) {
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int p = 0; p < k; p++)
                sum += taken(ta ? a[(size_t)p * (size_t)lda + (size_t)i]
                                : a[(size_t)i * (size_t)lda + (size_t)p]) *
                       taken(tb ? b[(size_t)j * (size_t)ldb + (size_t)p]
                                : b[(size_t)p * (size_t)ldb + (size_t)j]);
            double *out = &c[(size_t)i * (size_t)ldc + (size_t)j];
            *out = alpha * sum + (beta == 0 ? 0 : beta * *out);
        }
    }
}
