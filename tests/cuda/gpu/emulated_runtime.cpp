// CUDA's runtime over the emulator, as a library in the place of libcudart: what nvcc made of the plugin and of the launchers runs where no
// device is, with the kernels' translated PTX (tests/cuda/ptx). So the plugin's own table, and the script for a device
// (tests/cuda/on_device.sh), are executed before there is one.
//
// Only what the plugin and the tests call is here: whatever else they come to call is an undefined name when they are
// linked. Kernels are known by the names that nvcc's code registers, and have the parameters' sizes of their PTX.
#include "tests/cuda/gpu/runtime.h"

#include "tests/cuda/emu/host.h"
#include "tests/cuda/ptx/ptx.h"

#include <map>
#include <vector>

enum {
    OK = 0,
    INVALID_VALUE = 1,
    INVALID_DEVICE = 101,
    INVALID_HANDLE = 400,
    SHARED_UNASKED = 48 << 10, // bytes of a block that a kernel has without cudaFuncSetAttribute
    MAX_DYNAMIC_SHARED = 8     // cudaFuncAttributeMaxDynamicSharedMemorySize
};

// The thread's last error, which cudaGetLastError takes.
static int last;
static int noted(int status) {
    if (status) last = status;
    return status;
}

extern "C" {

const char *cudaGetErrorString(int status) {
    return status == OK ? "no error" : "an error of the emulated runtime";
}
int cudaGetLastError() {
    const int status = last;
    last = OK;
    return status;
}

// ---- the device

int cudaGetDeviceCount(int *n) {
    *n = 1;
    return OK;
}
int cudaSetDevice(int device) {
    return noted(device == 0 ? OK : INVALID_DEVICE);
}
int cudaMemGetInfo(size_t *left, size_t *total) {
    *total = size_t(1) << 36, *left = *total - emu::device_bytes();
    return OK;
}
int cudaDeviceSynchronize() {
    emu::synchronise();
    return OK;
}
int cudaDeviceReset() {
    emu::synchronise();
    return OK;
}
int cudaDeviceGetAttribute(int *value, int, int) {
    *value = 0;
    return noted(INVALID_VALUE);
}

// ---- memory

int cudaMalloc(void **out, size_t bytes) {
    *out = emu::device_alloc(bytes);
    return OK;
}
int cudaMallocManaged(void **out, size_t bytes, unsigned flags) {
    if (flags != CUDA_MEM_ATTACH_GLOBAL) return noted(INVALID_VALUE);
    return cudaMalloc(out, bytes);
}
int cudaFree(void *p) {
    emu::synchronise();
    emu::device_free(p);
    return OK;
}
int cudaMallocHost(void **out, size_t bytes) {
    *out = emu::host_alloc(bytes);
    return OK;
}
int cudaFreeHost(void *p) {
    emu::host_free(p);
    return OK;
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
    if (kind != CUDA_COPY_DEFAULT) return noted(INVALID_VALUE);
    emu::synchronise();
    memmove(to, from, bytes);
    return OK;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    if (kind != CUDA_COPY_DEFAULT) return noted(INVALID_VALUE);
    const void *const ends[] = {to, from};
    for (const void *p : ends)
        if (!emu::is_device(p) && !emu::is_host(p))
            emu::fail("cudaMemcpyAsync: %p is neither the device's memory nor cudaMallocHost's", p);
    emu::copy_async(to, from, bytes, stream);
    return OK;
}

// ---- streams and events

int cudaStreamCreateWithFlags(void **out, unsigned) {
    *out = emu::stream_open();
    return OK;
}
int cudaStreamDestroy(void *stream) {
    emu::stream_close(stream);
    return OK;
}
int cudaStreamSynchronize(void *stream) {
    emu::stream_synchronise(stream);
    return OK;
}
int cudaEventCreateWithFlags(void **out, unsigned) {
    *out = emu::event_open();
    return OK;
}
int cudaEventDestroy(void *event) {
    emu::event_close(event);
    return OK;
}
int cudaEventRecord(void *event, void *stream) {
    emu::event_record(event, stream);
    return OK;
}
int cudaEventSynchronize(void *event) {
    emu::event_synchronise(event);
    return OK;
}
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) {
    if (flags) return noted(INVALID_VALUE);
    emu::stream_wait(stream, event);
    return OK;
}
int cudaEventElapsedTime(float *ms, void *, void *) {
    *ms = 0; // emulated threads have no time
    return noted(INVALID_HANDLE);
}

// ---- graphs: an instance is its graph, which goes with it

int cudaStreamBeginCapture(void *stream, int mode) {
    enum { THREAD_LOCAL = 1 };
    if (mode != THREAD_LOCAL) return noted(INVALID_VALUE);
    emu::capture_begin(stream);
    return OK;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    *graph = emu::capture_end(stream);
    return OK;
}
int cudaGraphInstantiate(void **made, void *graph, unsigned long long) {
    *made = graph;
    return OK;
}
int cudaGraphDestroy(void *) {
    return OK;
}
int cudaGraphLaunch(void *made, void *stream) {
    emu::graph_launch(made, stream);
    return OK;
}
int cudaGraphExecDestroy(void *made) {
    emu::graph_close(made);
    return OK;
}

// ---- kernels: nvcc's code says their names when the library is loaded, and launches them in three calls

struct Kernel {
    const ptx::Entry *entry;
    const char *name;
    size_t shared; // bytes of dynamic shared memory that it may have
};
struct Configuration {
    dim3 grid, block;
    size_t shared;
    void *stream;
};
static std::map<const void *, Kernel> &kernels() {
    static auto *all = new std::map<const void *, Kernel>;
    return *all;
}
static std::vector<Configuration> configurations;

void **__cudaRegisterFatBinary(void *) {
    static void *handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
char __cudaInitModule(void **) {
    return 1;
}
void __cudaRegisterFunction(void **, const char *host, char *, const char *name, int, uint3 *,
                            uint3 *, dim3 *, dim3 *, int *) {
    kernels()[host] = {nullptr, name, SHARED_UNASKED};
}
int cudaFuncSetAttribute(const void *host, int attribute, int value) {
    const auto k = kernels().find(host);
    if (k == kernels().end() || attribute != MAX_DYNAMIC_SHARED ||
        size_t(value) > emu::options.shared_limit)
        return noted(INVALID_VALUE);
    k->second.shared = size_t(value);
    return OK;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    configurations.push_back({grid, block, shared, stream});
    return 0;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
    const Configuration c = configurations.back();
    configurations.pop_back();
    *grid = c.grid, *block = c.block, *shared = c.shared, *stream = c.stream;
    return OK;
}
int __cudaGetKernel(void **out, const void *host) {
    const auto k = kernels().find(host);
    *out = k == kernels().end() ? nullptr : &k->second;
    return *out ? OK : noted(INVALID_HANDLE);
}

// The arguments by value, as a launch takes them.
struct Arguments final : emu::Body {
    std::vector<std::vector<char>> value;
    void run() const override {
        std::vector<const void *> pointers;
        for (const auto &v : value) pointers.push_back(v.data());
        translation(pointers.data());
    }
};
int __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **args, size_t shared,
                       void *stream) {
    Kernel *k = static_cast<Kernel *>(kernel);
    if (!k) return noted(INVALID_HANDLE);
    if (!k->entry) k->entry = ptx::entry_of(k->name);
    if (shared > k->shared) return noted(INVALID_VALUE);
    auto *a = new Arguments;
    for (int i = 0; k->entry->bytes[i]; i++) {
        const char *from = static_cast<const char *>(args[i]);
        a->value.emplace_back(from, from + k->entry->bytes[i]);
    }
    return noted(emu::launch({k->name, grid, block, shared}, a, stream));
}

} // extern "C"
