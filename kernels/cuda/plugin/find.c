#include "kernels/cuda/plugin/find.h"

#include <stdlib.h>

// By itself in its file: a test that defines it has its table, and the program nothing to be told by.
sd_status sd_cuda_find(const sd_cuda_device **out, int *devices, sd_error *err) {
    char *path = sd_cuda_plugin_path();
    if (!path)
        return sd_fail(err, SD_ENOTFOUND,
                       "CUDA: cannot find where this program lies, beside which " SD_CUDA_PLUGIN
                       " is looked for; is /proc there?");
    sd_status st = sd_cuda_open_plugin(out, devices, SD_CUDA_DRIVER, path, err);
    free(path);
    return st;
}
