// What tests ask of CUDA's runtime. Its own headers define the vector types that emu.h defines too, so its functions are
// declared here: by the documentation of "CUDA Runtime API", whose numbers these are.
#pragma once

#include <stddef.h>

extern "C" {
enum { CUDA_MEM_ATTACH_GLOBAL = 1 };
enum { CUDA_COPY_DEFAULT = 4 }; // cudaMemcpyDefault: by the addresses
const char *cudaGetErrorString(int status);
int cudaMalloc(void **out, size_t bytes);
int cudaMallocManaged(void **out, size_t bytes, unsigned flags);
int cudaFree(void *p);
int cudaMallocHost(void **out, size_t bytes);
int cudaFreeHost(void *p);
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind);
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream);
int cudaDeviceSynchronize(void);
int cudaDeviceReset(void);
int cudaGetLastError(void);
int cudaDeviceGetAttribute(int *value, int attribute, int device);
int cudaStreamCreateWithFlags(void **out, unsigned flags);
int cudaStreamDestroy(void *stream);
int cudaStreamSynchronize(void *stream);
int cudaEventCreateWithFlags(void **out, unsigned flags);
int cudaEventDestroy(void *event);
int cudaEventRecord(void *event, void *stream);
int cudaEventSynchronize(void *event);
int cudaEventElapsedTime(float *ms, void *begin, void *end);
}
