// cuDNN's functions, as the library that was opened has them, and descriptors that say what went wrong.
#pragma once

#include "kernels/cuda/cudnn/sdpa.h"

#include <cudnn.h>

// Every function that is called.
#define SD_CUDNN_LIST(X)                                                                           \
    X(cudnnGetVersion)                                                                             \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnGetLastErrorString)                                                                     \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnSetStream)                                                                              \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendExecute)

struct sd_cudnn {
    void *library;
    cudnnHandle_t handle; // made by the first run
#define SD_CUDNN_FIELD(name) __typeof__(name) *name;
    SD_CUDNN_LIST(SD_CUDNN_FIELD)
#undef SD_CUDNN_FIELD
};

// Descriptors that live and go together. Its first failure stays; whatever is asked of it then does nothing.
enum { SD_CUDNN_DESCRIPTORS = 160 };
typedef struct {
    sd_cudnn *c;
    cudnnBackendDescriptor_t made[SD_CUDNN_DESCRIPTORS];
    int n;
    sd_status st;
    sd_error *err;
} sd_cudnn_graph;

/// Keeps what failed; `what` names it.
void sd_cudnn_failed(sd_cudnn_graph *g, cudnnStatus_t status, const char *what);
cudnnBackendDescriptor_t sd_cudnn_new(sd_cudnn_graph *g, cudnnBackendDescriptorType_t type);
void sd_cudnn_set(sd_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t n, const void *values);
void sd_cudnn_finalize(sd_cudnn_graph *g, cudnnBackendDescriptor_t d, const char *what);
void sd_cudnn_graph_free(sd_cudnn_graph *g);

/// The operations of one direction of causal attention: a finalised graph of them; NULL where it failed.
cudnnBackendDescriptor_t sd_cudnn_sdpa_graph(sd_cudnn_graph *g, const sd_cudnn_sdpa *shape);

// Names of the tensors that a run is given.
enum {
    SD_CUDNN_Q = 1,
    SD_CUDNN_K,
    SD_CUDNN_V,
    SD_CUDNN_O,
    SD_CUDNN_STATS,
    SD_CUDNN_DO,
    SD_CUDNN_DQ,
    SD_CUDNN_DK,
    SD_CUDNN_DV,
    SD_CUDNN_SUMS,   // [B, H, S] fp32, workspace: sums of do * o
    SD_CUDNN_DQ_SUM, // [B, S, H, D] fp32, workspace: dq before it is rounded
    SD_CUDNN_SCALE,  // numbers of the host from here
    SD_CUDNN_MASKED,
    SD_CUDNN_ONE,
    SD_CUDNN_VIRTUAL = 100, // and up: what no memory holds
};
