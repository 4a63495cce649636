// cuBLASLt, opened when training first asks for it: linked, it would cost every start of the program some 100 ms and 200 MB.
#include "kernels/cuda/plugin/blas.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <mutex>
#include <string.h>

// The numbers of lt.h, held against the library's own header.
#define SAME(ours, theirs) static_assert((long)(ours) == (long)(theirs), #ours)
SAME(SD_LT_R_32F, CUDA_R_32F);
SAME(SD_LT_R_16BF, CUDA_R_16BF);
SAME(SD_LT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(SD_LT_COMPUTE_32F_PEDANTIC, CUBLAS_COMPUTE_32F_PEDANTIC);
SAME(SD_LT_OP_N, CUBLAS_OP_N);
SAME(SD_LT_OP_T, CUBLAS_OP_T);
SAME(SD_LT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(SD_LT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(SD_LT_PREF_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(SD_LT_PREF_REDUCTIONS, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(SD_LT_PREF_ALIGN_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(SD_LT_PREF_ALIGN_B, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(SD_LT_PREF_ALIGN_C, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(SD_LT_PREF_ALIGN_D, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(SD_LT_REDUCTION_NONE, CUBLASLT_REDUCTION_SCHEME_NONE);
SAME(SD_LT_REDUCTION_COMPUTE_TYPE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
SAME(SD_LT_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
SAME(SD_LT_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
SAME(SD_LT_ARCH_MISMATCH, CUBLAS_STATUS_ARCH_MISMATCH);
SAME(SD_LT_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
SAME(SD_LT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(sizeof(sd_lt_algo), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(sd_lt_found), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(sd_lt_found, workspace), offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(sd_lt_found, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
// Arguments of the functions: enums are ints, descriptors pointers.
SAME(sizeof(cudaDataType), sizeof(int));
SAME(sizeof(cublasComputeType_t), sizeof(int));
SAME(sizeof(cublasStatus_t), sizeof(int));

static std::mutex opening;
static bool opened;
static sd_lt_functions functions;
static size_t version;

// The library stays open, as the driver does: neither outlives being unloaded.
static int open_library(void) {
    const std::lock_guard<std::mutex> hold(opening);
    if (opened) return 0;
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) return SD_CUDA_ENOBLAS;
#define TAKE(field, name, arguments)                                                               \
    void *at_##field = dlsym(library, #name);                                                      \
    if (!at_##field) return SD_CUDA_ENOBLAS;                                                       \
    memcpy(&functions.field, &at_##field, sizeof at_##field);
    SD_LT_LIST(TAKE)
#undef TAKE
    size_t (*get_version)(void);
    void *at = dlsym(library, "cublasLtGetVersion");
    if (!at) return SD_CUDA_ENOBLAS;
    memcpy(&get_version, &at, sizeof at);
    version = get_version();
    opened = true;
    return 0;
}

int sd_cuda_plugin_blas_version(size_t *out) {
    const int status = open_library();
    *out = status ? 0 : version;
    return status;
}
int sd_cuda_plugin_blas_open(sd_cuda_blas **out, void *workspace, size_t bytes) {
    *out = NULL;
    const int status = open_library();
    return status ? status : sd_cuda_blas_open(out, &functions, workspace, bytes);
}
