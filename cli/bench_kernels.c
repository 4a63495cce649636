#include "cli/bench.h"

sd_status sd_bench_kernels(int argc, char **argv, sd_error *err) {
    (void)argc, (void)argv;
    return sd_fail(err, SD_EINVAL, "bench kernels: not built yet");
}
