#include "cli/bench.h"

sd_status sd_bench_spec(int argc, char **argv, sd_error *err) {
    (void)argc, (void)argv;
    return sd_fail(err, SD_EINVAL, "bench spec: not built yet");
}
