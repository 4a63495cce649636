// NCCL's functions without a device: gathers on the emulator's queues.
//
// A group is carried out when its last call ends it. Calls of the ranks are then held against each other, one by one in their order: another number
// of them, another count or type, a buffer of another device, a stream of another device end the test, where NCCL would hang or write what nobody
// asked for. So does a lone call outside a group, for which one thread would wait for itself. Each rank's part begins when all streams have come to
// it, and no stream passes it before all ranks have read its buffer.
#pragma once

#include "kernels/cuda/comm/nccl.h"

#ifdef __cplusplus
extern "C" {
#endif

const sd_nccl_functions *emulated_nccl(void);
int emulated_nccl_open(void); // communicators that were not closed

#ifdef __cplusplus
}
#endif
