#include "kernels/cuda/plugin/find.h"

#include "base/memory.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

char *sd_cuda_plugin_path(void) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof SD_CUDA_PLUGIN);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (!slash) return NULL;
    memcpy(slash + 1, SD_CUDA_PLUGIN, sizeof SD_CUDA_PLUGIN);
    return sd_strdup(path);
}

const char *sd_cuda_build(void) {
    return SD_CUDA_BUILD;
}

// A function's address out of an object's: POSIX has dlsym give what ISO C does not convert.
static sd_cuda_plugin_fn plugin_function(void *library) {
    void *symbol = dlsym(library, SD_CUDA_PLUGIN_SYMBOL);
    sd_cuda_plugin_fn f = NULL;
    memcpy(&f, &symbol, sizeof f);
    return f;
}

static sd_status check_build(const sd_cuda_device *d, const char *plugin, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(d->abi == SD_CUDA_ABI, err, SD_EINVAL,
             "CUDA: %s has version %u of the interface, this program has %d; take both from one "
             "build",
             plugin, d->abi, SD_CUDA_ABI);
    SD_CHECK(strncmp(d->build, SD_CUDA_BUILD, sizeof d->build) == 0, err, SD_EINVAL,
             "CUDA: %s is of build %.12s, this program of build %.12s; take both from one build",
             plugin, d->build, SD_CUDA_BUILD);
out:
    return st;
}

// 35: the driver is older than the runtime; 34: the toolkit's empty library in the driver's place; 100: no device;
// 999: what else a broken installation gives.
static bool means_no_gpu(int status) {
    return status == 35 || status == 34 || status == 100 || status == 999;
}

static sd_status count_devices(const sd_cuda_device *d, int *devices, sd_error *err) {
    sd_status st = SD_OK;
    *devices = 0;
    const int status = d->count(devices);
    SD_CHECK(!means_no_gpu(status) && (status || *devices > 0), err, SD_ENOTFOUND,
             "CUDA: there is no GPU that the driver can use (error %d: %s); see nvidia-smi", status,
             d->error_text(status));
    SD_CHECK(!status, err, SD_EIO, "CUDA: the driver fails (error %d: %s); see nvidia-smi", status,
             d->error_text(status));
out:
    return st;
}

sd_status sd_cuda_open_plugin(const sd_cuda_device **out, int *devices, const char *driver,
                              const char *plugin, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    *devices = 0;
    // What was opened stays: neither library outlives being unloaded from a process that has used it.
    SD_CHECK(dlopen(driver, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE), err, SD_ENOTFOUND,
             "CUDA: the driver's library %s is not here; install the GPU's driver, or run on the "
             "CPU",
             driver);
    SD_CHECK(access(plugin, F_OK) == 0, err, SD_ENOTFOUND,
             "CUDA: %s is not here; build it (target specdec_cuda), or run on the CPU", plugin);
    void *library = dlopen(plugin, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    SD_CHECK(library, err, SD_EINVAL, "CUDA: %s cannot be loaded: %s", plugin, dlerror());
    sd_cuda_plugin_fn get = plugin_function(library);
    SD_CHECK(get, err, SD_EINVAL, "CUDA: %s is no plugin of specdec; build it anew", plugin);
    const sd_cuda_device *d = get();
    SD_TRY(check_build(d, plugin, err));
    SD_TRY(count_devices(d, devices, err));
    *out = d;
out:
    return st;
}
