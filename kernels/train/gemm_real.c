// The double build's GEMM: plain loops in an order that suits the cache of tiny test models.
// The float build has its own in gemm.c.
#include "kernels/train/gemm.h"

#if SD_REAL_IS_DOUBLE
void sd_gemm(bool ta, bool tb, int m, int n, int k, real alpha, const real *a, int lda,
             const real *b, int ldb, real beta, real *c, int ldc) {
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            real sum = 0;
            for (int p = 0; p < k; p++) {
                real x = ta ? a[(size_t)p * lda + i] : a[(size_t)i * lda + p];
                real y = tb ? b[(size_t)j * ldb + p] : b[(size_t)p * ldb + j];
                sum += x * y;
            }
            real *out = &c[(size_t)i * ldc + j];
            *out = alpha * sum + (beta == 0 ? 0 : beta * *out);
        }
    }
}
#else
typedef int sd_gemm_is_in_gemm_c; // an empty unit is not C
#endif
