// The keys and values of a sequence, as a context's steps write and read them (model/infer/forward.h).
#pragma once

#include "base/status.h"
#include "kernels/ops.h"

typedef struct sd_context sd_context;

/// One sequence's keys and values. Layout: [L][2][G][ctx][D]; int8 after its scales, fp32
/// [L][2][G][ctx].
typedef struct {
    int ctx; // capacity in positions
    int len; // committed positions: the only truth. Truncate by lowering it; what lies beyond is
             // overwritten.
    size_t bytes;
    void *data;
    sd_kv_type type;
} sd_kv;
sd_status sd_kv_open(sd_kv **out, const sd_context *cx, int ctx, sd_error *err);
void sd_kv_close(sd_kv *kv);
/// Bytes of one position for this context: what --ctx costs.
size_t sd_kv_bytes_per_position(const sd_context *cx);
