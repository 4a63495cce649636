// The benches behind `specdec bench`: one function, one file each.
#pragma once

#include "base/status.h"

sd_status sd_bench_kernels(int argc, char **argv, sd_error *err);
sd_status sd_bench_model(int argc, char **argv, sd_error *err);
sd_status sd_bench_spec(int argc, char **argv, sd_error *err);
/// bench spec --replay, which takes no other option of bench spec.
bool sd_bench_wants_replay(int argc, char **argv);
sd_status sd_bench_replay(int argc, char **argv, sd_error *err);

/// For qsort(): doubles, ascending.
static inline int sd_by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
