// cuBLASLt's functions without a device: products on the emulator's queues that obey the descriptors they are given.
//
// This one does whatever the library may: it takes the workspace that it asked for and leaves noise there, refuses pointers that are not aligned as
// was promised and algorithms that were found for other descriptors, and adds in an order of its own, which changes with the number of rows: nothing
// of serving, whose rows have the same bits in any company, passes through it unseen.
#pragma once

#include "kernels/cuda/blas/lt.h"

#ifdef __cplusplus
extern "C" {
#endif

const sd_lt_functions *emulated_lt(void);
enum { EMULATED_LT_VERSION = 130000 };

typedef struct {
    int handles, descriptors; // open now
    int searches;             // for an algorithm, so far
} emulated_lt_counts;
emulated_lt_counts emulated_lt_counted(void);

#ifdef __cplusplus
}
#endif
