// Whether there is a CUDA device that this program can use, and its table.
//
// The program links no CUDA. It looks for the driver's library first, which costs a tenth of a millisecond where there is
// none; only then for the plugin, beside the program, under no name that an environment could bend.
//
//     const sd_cuda_device *d;
//     int devices;
//     SD_TRY(sd_cuda_find(&d, &devices, err)); // one sentence that names what is missing
#pragma once

#include "base/status.h"
#include "kernels/cuda/device.h"

#define SD_CUDA_DRIVER "libcuda.so.1"
#define SD_CUDA_PLUGIN "libspecdec_cuda.so"

/// The table and how many devices it has, at least one. It stays for the process's life. SD_ENOTFOUND: no driver, no
/// plugin, or no GPU; SD_EINVAL: the plugin is of another build, or is none; SD_EIO: a device that fails. Thread-safe.
sd_status sd_cuda_find(const sd_cuda_device **out, int *devices, sd_error *err);

/// The same with these libraries, as dlopen takes them.
sd_status sd_cuda_open_plugin(const sd_cuda_device **out, int *devices, const char *driver,
                              const char *plugin, sd_error *err);

const char *sd_cuda_build(void); // the hash that a plugin must have

/// Where the plugin is looked for; the caller frees it. NULL: out of memory, or nobody knows where the program lies.
char *sd_cuda_plugin_path(void);
