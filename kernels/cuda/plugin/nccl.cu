// NCCL, opened when training on several devices first asks for it.
#include "kernels/cuda/plugin/comm.h"

#include <dlfcn.h>
#include <mutex>
#include <string.h>

// The numbers of comm/nccl.h, held against the library's own header where that is installed.
#if __has_include(<nccl.h>)
#include <nccl.h>
#define SAME(ours, theirs) static_assert((long)(ours) == (long)(theirs), #ours)
SAME(SD_NCCL_OK, ncclSuccess);
SAME(SD_NCCL_CUDA_ERROR, ncclUnhandledCudaError);
SAME(SD_NCCL_SYSTEM_ERROR, ncclSystemError);
SAME(SD_NCCL_INTERNAL_ERROR, ncclInternalError);
SAME(SD_NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(SD_NCCL_INVALID_USAGE, ncclInvalidUsage);
SAME(SD_NCCL_REMOTE_ERROR, ncclRemoteError);
SAME(SD_NCCL_FLOAT32, ncclFloat32);
// Arguments of the functions: enums are ints, communicators and streams pointers.
SAME(sizeof(ncclResult_t), sizeof(int));
SAME(sizeof(ncclDataType_t), sizeof(int));
SAME(sizeof(ncclComm_t), sizeof(void *));
#endif

static std::mutex opening;
static bool opened;
static sd_nccl_functions functions;

// The library stays open, as the driver does: neither outlives being unloaded.
int sd_cuda_plugin_comm_find(void) {
    const std::lock_guard<std::mutex> hold(opening);
    if (opened) return 0;
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) return SD_CUDA_ENOCOMM;
#define TAKE(field, name, arguments)                                                               \
    void *at_##field = dlsym(library, #name);                                                      \
    if (!at_##field) return SD_CUDA_ENOCOMM;                                                       \
    memcpy(&functions.field, &at_##field, sizeof at_##field);
    SD_NCCL_LIST(TAKE)
#undef TAKE
    opened = true;
    return 0;
}

int sd_cuda_plugin_comm_open(sd_cuda_comm **out, int ranks, const int *device) {
    *out = NULL;
    const int status = sd_cuda_plugin_comm_find();
    return status ? status : sd_cuda_comm_open(out, &functions, ranks, device);
}
