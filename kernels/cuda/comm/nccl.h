// NCCL's functions and numbers, as far as they are used: declared here, so that what calls them also compiles, and is tested, where NCCL is not
// installed. The plugin's build compares them with nccl.h where that is (kernels/cuda/plugin/nccl.cu).
#pragma once

#include <stddef.h>

enum { // results
    SD_NCCL_OK = 0,
    SD_NCCL_CUDA_ERROR = 1,
    SD_NCCL_SYSTEM_ERROR = 2,
    SD_NCCL_INTERNAL_ERROR = 3,
    SD_NCCL_INVALID_ARGUMENT = 4,
    SD_NCCL_INVALID_USAGE = 5,
    SD_NCCL_REMOTE_ERROR = 6
};
enum { SD_NCCL_FLOAT32 = 7 }; // types

// X(field, NCCL's name, arguments). A communicator is an opaque pointer, of one device.
#define SD_NCCL_LIST(X)                                                                            \
    X(init_all, ncclCommInitAll, (void **comm, int n, const int *device))                          \
    X(destroy, ncclCommDestroy, (void *comm))                                                      \
    X(group_start, ncclGroupStart, (void))                                                         \
    X(group_end, ncclGroupEnd, (void))                                                             \
    X(all_gather, ncclAllGather,                                                                   \
      (const void *send, void *receive, size_t count, int type, void *comm, void *stream))

typedef struct {
#define SD_NCCL_FIELD(field, name, arguments) int(*field) arguments;
    SD_NCCL_LIST(SD_NCCL_FIELD)
#undef SD_NCCL_FIELD
} sd_nccl_functions;
