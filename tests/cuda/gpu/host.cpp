// The tests' side of the emulator (tests/cuda/emu/host.h) over CUDA's runtime, for the same test programs with the kernels
// as nvcc built them. Memory is managed: the host's as well as the device's, as tests expect it. Nothing here
// initialises CUDA before a test's own process begins: it does not outlive a fork.
#include "tests/cuda/gpu/runtime.h"

#include "tests/cuda/emu/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

namespace emu {

Options options = {};
const bool has_orders = false;

void fail(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "gpu: ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\n");
    va_end(args);
    fflush(nullptr);
    _exit(ERROR_STATUS);
}
static void must(int status, const char *what) {
    if (status) fail("%s: error %d, %s", what, status, cudaGetErrorString(status));
}

// 0xff: NaN in every type, as the emulator's memory is.
void *device_alloc(size_t bytes) {
    void *p;
    must(cudaMallocManaged(&p, bytes ? bytes : 1, CUDA_MEM_ATTACH_GLOBAL), "cudaMallocManaged");
    memset(p, 0xff, bytes);
    return p;
}
void device_free(void *p) {
    must(cudaFree(p), "cudaFree");
}

void *stream_open() {
    enum { NON_BLOCKING = 1 };
    void *s;
    must(cudaStreamCreateWithFlags(&s, NON_BLOCKING), "cudaStreamCreateWithFlags");
    return s;
}
void stream_close(void *stream) {
    must(cudaStreamSynchronize(stream), "a stream");
    must(cudaStreamDestroy(stream), "cudaStreamDestroy");
}
void synchronise() {
    must(cudaDeviceSynchronize(), "the device");
}
// At a test's end: the reset lets compute-sanitizer have its last word.
void device_check() {
    synchronise();
    must(cudaGetLastError(), "a call");
    must(cudaDeviceReset(), "cudaDeviceReset");
}

} // namespace emu
