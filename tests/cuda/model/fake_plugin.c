// A plugin without a device. FAKE_DEVICES and FAKE_STATUS in the environment are what its driver says.
#include "kernels/cuda/device.h"

#include <stdlib.h>

static const char *error_text(int status) {
    (void)status;
    return "so says the driver";
}

static int count(int *n) {
    const char *devices = getenv("FAKE_DEVICES"), *status = getenv("FAKE_STATUS");
    *n = devices ? atoi(devices) : 1;
    return status ? atoi(status) : 0;
}

const sd_cuda_device *sd_cuda_plugin(void);
const sd_cuda_device *sd_cuda_plugin(void) {
    static const sd_cuda_device table = {
#ifdef FAKE_other_abi
        .abi = SD_CUDA_ABI + 1,
#else
        .abi = SD_CUDA_ABI,
#endif
#ifdef FAKE_other_build
        .build = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
#else
        .build = SD_CUDA_BUILD,
#endif
        .error_text = error_text,
        .count = count};
    return &table;
}
