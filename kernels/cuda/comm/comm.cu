// One thread speaks for all ranks, so their calls stand in a group: NCCL starts none of them before all are known.
#include "kernels/cuda/comm/comm.h"

#include <stdlib.h>

struct sd_cuda_comm {
    const sd_nccl_functions *nccl;
    int ranks;
    void *rank[SD_CUDA_MOST_RANKS];
};

static int failed(int result) {
    return result ? SD_CUDA_COMM_ERROR + result : 0;
}

extern "C" int sd_cuda_comm_open(sd_cuda_comm **out, const sd_nccl_functions *functions, int ranks,
                                 const int *device) {
    *out = NULL;
    if (!device || ranks < 2 || ranks > SD_CUDA_MOST_RANKS) return SD_CUDA_EINVAL;
    sd_cuda_comm *c = (sd_cuda_comm *)calloc(1, sizeof *c);
    if (!c) return failed(SD_NCCL_SYSTEM_ERROR);
    c->nccl = functions;
    const int result = functions->init_all(c->rank, ranks, device);
    if (result) {
        free(c);
        return failed(result);
    }
    c->ranks = ranks;
    *out = c;
    return 0;
}

extern "C" void sd_cuda_comm_close(sd_cuda_comm *c) {
    if (!c) return;
    for (int r = 0; r < c->ranks; r++) (void)c->nccl->destroy(c->rank[r]);
    free(c);
}

extern "C" int sd_cuda_comm_gather(sd_cuda_comm *c, float *const *to, const float *const *from,
                                   size_t n, sd_cuda_stream *const *stream) {
    if (!to || !from || !stream || n < 1) return SD_CUDA_EINVAL;
    int result = c->nccl->group_start();
    if (result) return failed(result);
    for (int r = 0; r < c->ranks && !result; r++)
        result = c->nccl->all_gather(from[r], to[r], n, SD_NCCL_FLOAT32, c->rank[r], stream[r]);
    const int ended = c->nccl->group_end(); // in any case
    return failed(result ? result : ended);
}

extern "C" const char *sd_cuda_comm_error_text(int status) {
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {SD_CUDA_ENOCOMM, "libnccl.so.2 cannot be opened"},
        {SD_CUDA_COMM_ERROR + SD_NCCL_CUDA_ERROR, "a call of CUDA failed in NCCL"},
        {SD_CUDA_COMM_ERROR + SD_NCCL_SYSTEM_ERROR, "the system refuses NCCL something"},
        {SD_CUDA_COMM_ERROR + SD_NCCL_INTERNAL_ERROR, "NCCL fails"},
        {SD_CUDA_COMM_ERROR + SD_NCCL_INVALID_ARGUMENT, "NCCL refuses a value"},
        {SD_CUDA_COMM_ERROR + SD_NCCL_INVALID_USAGE, "NCCL cannot use these devices together"},
        {SD_CUDA_COMM_ERROR + SD_NCCL_REMOTE_ERROR, "another device failed in NCCL"}};
    for (const auto &t : texts)
        if (t.status == status) return t.text;
    return "an error of NCCL";
}
