// Several devices of one process: what each has goes to all of them, by NCCL. The library is opened at first use (kernels/cuda/plugin), never linked.
//
//     sd_cuda_comm *c;
//     sd_cuda_comm_open(&c, &functions, 2, (int[]){0, 1});
//     sd_cuda_comm_gather(c, to, from, n, stream); // to[r] [2, n] <- from[0], from[1]
//
// Values are moved and never added: which order NCCL would add in is its own choice, and may differ from machine to machine. Whoever gathers adds
// in the order of ranks.
#pragma once

#include "kernels/cuda/comm/nccl.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SD_CUDA_COMM_ERROR = 21000, // + NCCL's result
    SD_CUDA_ENOCOMM = 21999,    // the library is not there
    SD_CUDA_MOST_RANKS = 16
};

typedef struct sd_cuda_comm sd_cuda_comm;

/// functions live as long as *out. Rank r is device[r]; 2 to SD_CUDA_MOST_RANKS of them, all unlike.
int sd_cuda_comm_open(sd_cuda_comm **out, const sd_nccl_functions *functions, int ranks,
                      const int *device);
void sd_cuda_comm_close(sd_cuda_comm *c); // the streams are idle; NULL is fine
/// to[r] [ranks, n] on the device of rank r <- from[0], from[1], ... [n], each behind what stream[r] of that rank's device holds. Until its stream
/// has passed this, a rank's from is being read.
int sd_cuda_comm_gather(sd_cuda_comm *c, float *const *to, const float *const *from, size_t n,
                        sd_cuda_stream *const *stream);
/// The words of a status from SD_CUDA_COMM_ERROR on.
const char *sd_cuda_comm_error_text(int status);

#ifdef __cplusplus
}
#endif
