// What the emulated runtime says its device is. By itself: CUDA's header has the struct, and vector types that emu.h has
// too.
#include <cuda_runtime_api.h>
#include <string.h>

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device) {
    memset(out, 0, sizeof *out);
    if (device) return cudaErrorInvalidDevice;
    strcpy(out->name, "emulated runtime");
    out->major = 9, out->multiProcessorCount = 132;
    return cudaSuccess;
}
