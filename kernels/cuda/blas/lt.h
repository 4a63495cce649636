// cuBLASLt's functions and numbers, as far as they are used: declared here, so that what sets its descriptors also compiles, and is tested, where
// CUDA is not installed. The plugin's build compares them with cublasLt.h (kernels/cuda/plugin/blas.cu).
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t data[8];
} sd_lt_algo;
typedef struct {
    sd_lt_algo algo;
    size_t workspace;
    int state; // 0: usable
    float waves;
    int reserved[4];
} sd_lt_found;

enum { // statuses
    SD_LT_OK = 0,
    SD_LT_NOT_INITIALIZED = 1,
    SD_LT_ALLOC_FAILED = 3,
    SD_LT_INVALID_VALUE = 7,
    SD_LT_ARCH_MISMATCH = 8,
    SD_LT_EXECUTION_FAILED = 13,
    SD_LT_INTERNAL_ERROR = 14,
    SD_LT_NOT_SUPPORTED = 15
};
enum { // types, operations, attributes
    SD_LT_R_32F = 0,
    SD_LT_R_16BF = 14,
    SD_LT_COMPUTE_32F = 68,
    SD_LT_COMPUTE_32F_PEDANTIC = 69,
    SD_LT_OP_N = 0,
    SD_LT_OP_T = 1,
    SD_LT_DESC_TRANSA = 3,
    SD_LT_DESC_TRANSB = 4,
    SD_LT_PREF_WORKSPACE = 1,
    SD_LT_PREF_REDUCTIONS = 3,
    SD_LT_PREF_ALIGN_A = 5,
    SD_LT_PREF_ALIGN_B = 6,
    SD_LT_PREF_ALIGN_C = 7,
    SD_LT_PREF_ALIGN_D = 8,
    SD_LT_REDUCTION_NONE = 0,
    SD_LT_REDUCTION_COMPUTE_TYPE = 2
};

// X(field, cuBLASLt's name, arguments). Descriptors are opaque pointers; matrices are column-major.
#define SD_LT_LIST(X)                                                                              \
    X(create, cublasLtCreate, (void **handle))                                                     \
    X(destroy, cublasLtDestroy, (void *handle))                                                    \
    X(desc_create, cublasLtMatmulDescCreate, (void **desc, int compute, int scale_type))           \
    X(desc_destroy, cublasLtMatmulDescDestroy, (void *desc))                                       \
    X(desc_set, cublasLtMatmulDescSetAttribute,                                                    \
      (void *desc, int name, const void *value, size_t bytes))                                     \
    X(layout_create, cublasLtMatrixLayoutCreate,                                                   \
      (void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld))                         \
    X(layout_destroy, cublasLtMatrixLayoutDestroy, (void *layout))                                 \
    X(pref_create, cublasLtMatmulPreferenceCreate, (void **pref))                                  \
    X(pref_destroy, cublasLtMatmulPreferenceDestroy, (void *pref))                                 \
    X(pref_set, cublasLtMatmulPreferenceSetAttribute,                                              \
      (void *pref, int name, const void *value, size_t bytes))                                     \
    X(find, cublasLtMatmulAlgoGetHeuristic,                                                        \
      (void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int wanted,       \
       sd_lt_found *found, int *n))                                                                \
    X(matmul, cublasLtMatmul,                                                                      \
      (void *handle, void *desc, const void *alpha, const void *A, void *a, const void *B,         \
       void *b, const void *beta, const void *C, void *c, void *D, void *d,                        \
       const sd_lt_algo *algo, void *workspace, size_t bytes, void *stream))

typedef struct {
#define SD_LT_FIELD(field, name, arguments) int(*field) arguments;
    SD_LT_LIST(SD_LT_FIELD)
#undef SD_LT_FIELD
} sd_lt_functions;
