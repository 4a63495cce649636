// Attention of training on long sequences by cuDNN's graphs: causal, in sequences of one length. The house's own kernels are
// what it is held against.
//
//     sd_cudnn *cudnn = NULL;
//     sd_cudnn_plan *plan = NULL;
//     SD_TRY(sd_cudnn_open(&cudnn, err));
//     SD_TRY(sd_cudnn_plan_open(&plan, cudnn, &(sd_cudnn_sdpa){.B = 1, .S = 8192, ...}, NULL, err));
//     SD_TRY(sd_cudnn_run(plan, &tensors, workspace, stream, err));
//
// cuDNN does not say in what order its backward pass adds, so a run may not repeat its bits; the house's kernels do.
//
// cuDNN is opened at its first use and never linked. A plan is made once for a shape and runs many times. Plans need no
// device: they can be made for one that is described.
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct sd_cudnn sd_cudnn;           // the library
typedef struct sd_cudnn_plan sd_cudnn_plan; // one graph, compiled for a device

/// Opens libcudnn.so.9. SD_ENOTFOUND: it is not there, or has not what is called.
sd_status sd_cudnn_open(sd_cudnn **out, sd_error *err);
void sd_cudnn_close(sd_cudnn *c); // NULL is fine
/// As cuDNN numbers itself: 91300 is 9.13.0.
size_t sd_cudnn_version(const sd_cudnn *c);

typedef struct {
    int64_t B, S;    // sequences, and positions of each
    int64_t H, G, D; // query heads; heads of keys and values, a divisor of H; a head's size
    float scale;     // of the products of queries and keys
    bool backward;
} sd_cudnn_sdpa;

/// Compiles the graph for the device of the calling thread, or for the one that `device` describes (JSON, as
/// CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION has it; NULL: none). SD_EINVAL: a shape that cannot be. SD_ENOTFOUND: cuDNN has no
/// kernel for it.
sd_status sd_cudnn_plan_open(sd_cudnn_plan **out, sd_cudnn *c, const sd_cudnn_sdpa *shape,
                             const char *device, sd_error *err);
void sd_cudnn_plan_close(sd_cudnn_plan *p); // NULL is fine
/// Bytes of the device's memory that sd_cudnn_run is given; a multiple of 256.
size_t sd_cudnn_plan_workspace(const sd_cudnn_plan *p);

/// In the device's memory. Rows of all heads, as the matrix products leave them: q, o, d_o, dq [B, S, H, D]; k, v, dk, dv
/// [B, S, G, D], bf16. stats [B, H, S] fp32: log of each row's sum of exponentials, written by the forward pass.
typedef struct {
    const void *q, *k, *v;
    void *o;
    float *stats;
    const void *d_o; // this and what follows: the backward pass only
    void *dq, *dk, *dv;
} sd_cudnn_tensors;
/// Queues the plan on a cudaStream_t. Needs a device.
sd_status sd_cudnn_run(sd_cudnn_plan *p, const sd_cudnn_tensors *t, void *workspace, void *stream,
                       sd_error *err);
