// Wide matrix products: training's, by cuBLASLt. The library is opened at first use (kernels/cuda/plugin), never linked.
//
//     sd_cuda_blas *b;
//     sd_cuda_blas_open(&b, &functions, workspace, bytes);
//     sd_cuda_product p = {.m = N, .n = M, .k = K, .tb = true, .alpha = 1, .a = x, .lda = K, .b = W, .ldb = K, .c = y, .ldc = M}; // y <- x W^T
//     sd_cuda_blas_multiply(b, &p, stream);
//
// A shape has one algorithm, the first that cuBLASLt's heuristic names for it, so that a run repeats; which one differs from shape to shape, and with
// it the order of sums. Rows are therefore not invariant: nothing of serving may come here.
#pragma once

#include "kernels/cuda/blas/lt.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SD_CUDA_BLAS_ERROR = 20000,       // + cuBLAS's status
    SD_CUDA_ENOBLAS = 20999,          // the library is not there
    SD_CUDA_BLAS_WORKSPACE = 32 << 20 // bytes that NVIDIA recommends for its fastest algorithms
};

typedef struct sd_cuda_blas sd_cuda_blas;

/// c [m, n] <- alpha op(a) op(b), += where add: row-major, leading dimensions lda, ldb, ldc; op(a) is [m, k], op(b) is [k, n]; ta, tb: stored
/// transposed. Sums are fp32.
typedef struct {
    int m, n, k;
    bool ta, tb;
    float alpha;
    const void *a; // of `type`, as b
    int lda;
    const void *b;
    int ldb;
    bool add;
    void *c; // of `type_c`
    int ldc;
    sd_cuda_real type, type_c;
} sd_cuda_product;

/// functions live as long as *out; workspace [bytes] is in device memory, aligned to 256, and belongs to what is opened until it is closed.
int sd_cuda_blas_open(sd_cuda_blas **out, const sd_lt_functions *functions, void *workspace,
                      size_t bytes);
void sd_cuda_blas_close(sd_cuda_blas *b); // the stream is idle; NULL is fine
/// Queues p; products of one sd_cuda_blas go on one stream, since they share its workspace.
int sd_cuda_blas_multiply(sd_cuda_blas *b, const sd_cuda_product *p, sd_cuda_stream *s);
/// The words of a status from SD_CUDA_BLAS_ERROR on.
const char *sd_cuda_blas_error_text(int status);

#ifdef __cplusplus
}
#endif
