// The state of a context, shared by its life (context.c) and its step (forward.c).
#pragma once

#include "base/file.h"
#include "model/forward.h"

struct sd_context {
    sd_model *model;
    sd_pool *pool;
    const sd_ops *ops;
    sd_compute compute;
    int max_rows; // N below

    sd_packed *packs; // [1 + L * SD_PROJ_COUNT]: the head [V, C], then
    sd_packed *w;     // [L * SD_PROJ_COUNT]
    size_t packed_bytes;
    sd_map mapped; // what they stand in when they came from the cache

    // Scratch, one mapping: touched as far as steps are wide, so a decode does not pay for a
    // prefill.
    void *scratch;
    size_t scratch_bytes;
    float *x;                // [N, C]    the residual stream
    float *xn;               // [N, C]    its norm
    float *q, *att;          // [N, H*D]
    float *k, *v;            // [N, G*D]
    float *gate, *up;        // [N, F]
    float *y;                // [N, C]    what a block adds
    float *cos_n, *sin_n;    // [N, rope_dim/2]
    sd_row *row;             // [N]       the step's rows
    double *inv, attn_scale; // [rope_dim/2] frequencies, and the factor on cos and sin
    sd_act act;              // the rows of whichever buffer the next matmul reads

    float *u;  // [N, SD_PROJ_COUNT, cap_r]  A x of rows with adapters; grown when one appears
    int cap_r; //
    bool lora; // some row of this step has an adapter
    float *att_scratch; // [threads, att_each]
    size_t att_each;

    int n, l; // rows and layer of the running step
};
