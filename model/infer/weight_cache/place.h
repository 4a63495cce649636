// Where packed forms are kept, how much room they may have, and the name of a model's.
#pragma once

#include "kernels/ops.h"
#include "model/model.h"

typedef struct {
    const char *dir; // NULL: nothing is kept
    size_t least;    // bytes from which a packed form is worth a file
} sd_weight_cache;

/// $XDG_CACHE_HOME/specdec/packed or ~/.cache/specdec/packed, malloc'ed; NULL when neither variable
/// is set or memory is out.
char *sd_weight_cache_dir(void);

/// Bytes that all files of the cache may have together: $SPECDEC_CACHE_MIB, else 64 GiB.
int64_t sd_weight_cache_bytes(void);

/// Where in dir the model's packed form for these ops is or would be; NULL when dir is, or when
/// these ops use the stored form. malloc'ed.
char *sd_weight_cache_path(const char *dir, const sd_model *m, const sd_ops *ops);

/// Path of the step-cost file (model/infer/step_cost.h) kept beside the packed form at `path`,
/// malloc'ed.
char *sd_weight_cache_costs_path(const char *path);
