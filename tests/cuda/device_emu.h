// The table of device functions over the emulator: streams are its queues, which run late, and everything that a kernel
// or a copy is given must be memory that a device could reach.
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EMULATED_DEVICES = 4 };
const sd_cuda_device *emulated_device(void);

/// The n-th request for memory from now on is refused, and no other; 0: none is.
void emulated_refuse(int n);
void emulated_without_blas(bool without); // cuBLASLt cannot be opened
void emulated_without_nccl(bool without); // NCCL cannot be opened
size_t emulated_device_bytes(void);
size_t emulated_bytes(void); // of the device and of copies' memory, allocated now
int emulated_graphs(void);   // that were recorded and not closed

#ifdef __cplusplus
}
#endif
