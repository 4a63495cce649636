// Messages where a driver, a plugin or a GPU is missing, or a plugin is of another build.
#include "tests/cuda/model/check.h"

#include "kernels/cuda/plugin/find.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sd_status open_with(const char *driver, const char *plugin, sd_error *err) {
    const sd_cuda_device *d = NULL;
    int devices = -1;
    const sd_status st = sd_cuda_open_plugin(&d, &devices, driver, plugin, err);
    check((st == SD_OK) == (d != NULL), "status %d, table %p", (int)st, (const void *)d);
    check(st != SD_OK || devices > 0, "%d devices", devices);
    return st;
}

static void says(const char *driver, const char *plugin, sd_status want, const char *part) {
    sd_error err = {0};
    const sd_status st = open_with(driver, plugin, &err);
    check(st == want && strstr(err.message, part) && strncmp(err.message, "CUDA: ", 6) == 0 &&
              !strchr(err.message, '\n'),
          "status %d: %s", (int)st, err.message);
    check(sd_status_exit_code(want) == (want == SD_EIO ? 1 : 2), "its exit code");
}

#define DRIVER PLUGINS "fake_driver.so"
#define OWN PLUGINS "fake_plugin_own.so"

TEST("a plugin of this build with a device is taken") {
    sd_error err = {0};
    must(open_with(DRIVER, OWN, &err), &err);
    setenv("FAKE_DEVICES", "3", 1);
    const sd_cuda_device *d;
    int devices;
    must(sd_cuda_open_plugin(&d, &devices, DRIVER, OWN, &err), &err);
    check(devices == 3, "%d devices", devices);
}
TEST("without a driver the plugin is not even looked for") {
    says("libcuda.so.none", "/nowhere/libspecdec_cuda.so", SD_ENOTFOUND,
         "the driver's library libcuda.so.none is not here; install the GPU's driver, or run on");
}
TEST("a plugin that is missing, none, or no library is named") {
    says(DRIVER, "/nowhere/libspecdec_cuda.so", SD_ENOTFOUND,
         "/nowhere/libspecdec_cuda.so is not here; build it (target specdec_cuda)");
    says(DRIVER, DRIVER, SD_EINVAL, "fake_driver.so is no plugin of specdec; build it anew");
    says(DRIVER, "/proc/self/cmdline", SD_EINVAL, "/proc/self/cmdline cannot be loaded: ");
}
TEST("a plugin of another build or interface is refused before it is used") {
    says(DRIVER, PLUGINS "fake_plugin_other_build.so", SD_EINVAL,
         "fake_plugin_other_build.so is of build 0123456789ab, this program of build ");
    char versions[100];
    snprintf(versions, sizeof versions,
             "has version %d of the interface, this program has %d; take", SD_CUDA_ABI + 1,
             SD_CUDA_ABI);
    says(DRIVER, PLUGINS "fake_plugin_other_abi.so", SD_EINVAL, versions);
}
TEST("a driver that finds no GPU is told from one that fails") {
    static const char *const none[] = {"35", "34", "100", "999"};
    for (int i = 0; i < 4; i++) {
        char part[80];
        setenv("FAKE_STATUS", none[i], 1);
        snprintf(part, sizeof part, "there is no GPU that the driver can use (error %s: so says",
                 none[i]);
        says(DRIVER, OWN, SD_ENOTFOUND, part);
    }
    setenv("FAKE_STATUS", "0", 1);
    setenv("FAKE_DEVICES", "0", 1);
    says(DRIVER, OWN, SD_ENOTFOUND, "there is no GPU that the driver can use (error 0:");
    setenv("FAKE_STATUS", "46", 1);
    says(DRIVER, OWN, SD_EIO, "the driver fails (error 46: so says the driver); see nvidia-smi");
}
TEST("the plugin that was built is of this build, and says what it finds") {
    sd_error err = {0};
    if (access(REAL_PLUGIN, F_OK) != 0) {
        printf("# %s is not built: nothing to open\n", REAL_PLUGIN);
        return;
    }
    const sd_status st = open_with(DRIVER, REAL_PLUGIN, &err);
    check(st == SD_OK || (st == SD_ENOTFOUND && strstr(err.message, "there is no GPU")), "%s",
          err.message);
}
// A library that is there lacks none of the functions that are asked of it.
static void finds(int status, int absent, const char *library) {
    const bool there = dlopen(library, RTLD_NOW | RTLD_LOCAL) != NULL;
    if (!there) printf("# %s is not installed: only its absence is looked at\n", library);
    check(status == (there ? 0 : absent), "%s: %d", library, status);
}
TEST("the plugin finds cuBLASLt and NCCL where they are installed") {
    void *library = dlopen(REAL_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("# %s is not built: nothing to open\n", REAL_PLUGIN);
        return;
    }
    void *symbol = dlsym(library, SD_CUDA_PLUGIN_SYMBOL);
    sd_cuda_plugin_fn get;
    memcpy(&get, &symbol, sizeof get);
    size_t version;
    finds(get()->blas_version(&version), SD_CUDA_ENOBLAS, "libcublasLt.so.13");
    finds(get()->comm_find(), SD_CUDA_ENOCOMM, "libnccl.so.2");
}
TEST("the plugin is looked for beside the program, and the CPU is there without it") {
    char *path = sd_cuda_plugin_path();
    check(path && path[0] == '/' && strstr(path, "/cuda_tests/libspecdec_cuda.so"), "%s", path);
    free(path);
    check(strlen(sd_cuda_build()) == 64, "%s", sd_cuda_build());
    const sd_backend *b = NULL;
    int device = -1;
    sd_error err = {0};
    must(sd_device_choose(&b, &device, "auto", &err), &err);
    check(b == &sd_backend_cpu && device == 0, "no plugin is beside this program");
    check(sd_device_choose(&b, &device, "cuda", &err) == SD_ENOTFOUND && !strchr(err.message, '\n'),
          "%s", err.message);
}
