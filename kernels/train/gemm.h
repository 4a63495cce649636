// Dense matrix products of training. Float goes to oneDNN's sgemm, called inside one task of our
// own pool on tiles that do not depend on the number of threads; double (the gradient-check build)
// to plain loops.
//
//     sd_gemm(false, true, n, M, K, 1, x, K, W, K, 0, y, M); // y [n, M] <- x [n, K] W^T, W [M, K]
#pragma once

#include "kernels/train/real.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define sd_gemm SD_REAL(sd_gemm)
/// c [m, n] <- alpha op(a) op(b) + beta c, row-major with leading dimensions lda, ldb, ldc; op(a)
/// is [m, k], op(b) is [k, n]; ta, tb: stored transposed. beta 0 does not read c. Serial; may run
/// in several threads on disjoint c. The same call gives the same bytes whichever thread runs it.
void sd_gemm(bool ta, bool tb, int m, int n, int k, real alpha, const real *a, int lda,
             const real *b, int ldb, real beta, real *c, int ldc);
