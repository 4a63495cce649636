// The factors of adapters as a context's kernels multiply with them: A in int8 where the map's own
// weight is quantised, else bf16, B in bf16, or both as they are under SD_COMPUTE_FP32. They are made when an adapter's first row comes and belong to the context; an
// adapter that goes takes its own along, whichever thread lets it go and whenever.
//
//     sd_lora_table *t;
//     SD_TRY(sd_lora_table_open(&t, ops, compute, err));
//     SD_TRY(sd_lora_table_get(&weights, t, adapter, model, err)); // the caller holds the adapter
//     sd_lora_table_close(t);
#pragma once

#include "model/adapter/adapter.h"

/// B (A x) of one linear map: the scale is in B, which is packed by the block's matrices that the map
/// holds.
typedef struct {
    int r;                 // 0: no adapter here
    sd_packed_weight A;    // [r, in]
    sd_packed_weight B[3]; // [rows, r] of each
} sd_lora_packed;

typedef struct sd_lora_weights {
    uint64_t generation; // the adapter's
    int n_linears;
    sd_lora_packed *of; // [n_linears]
    char *values;       // what was packed, where packed forms refer to it
    size_t bytes;       // of all this
    struct sd_lora_weights *next;
} sd_lora_weights;

typedef struct sd_lora_table sd_lora_table;

sd_status sd_lora_table_open(sd_lora_table **out, const sd_ops *ops, sd_compute compute,
                             sd_error *err);
/// Frees what it holds; adapters that are still there may go later. NULL is fine.
void sd_lora_table_close(sd_lora_table *t);

/// The weights of `a`, an adapter for `base`, made at the first call; they stay until the adapter
/// goes or the table is closed. SD_ENOMEM leaves the table as it was. Any thread, and none waits while
/// another one's are made.
sd_status sd_lora_table_get(const sd_lora_weights **out, sd_lora_table *t, const sd_adapter *a,
                            const sd_model *base, sd_error *err);

/// Bytes of the weights in the table now.
size_t sd_lora_table_bytes(sd_lora_table *t);
/// Bytes of the weights of an adapter with these ranks [base->n_linears], 0 where it has no factors.
size_t sd_lora_weights_bytes(const int *rank, const sd_model *base, const sd_ops *ops,
                             sd_compute compute);

/// Adapters with weights in the table now: for tests.
int sd_lora_table_count(sd_lora_table *t);
