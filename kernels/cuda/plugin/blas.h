// The plugin's cuBLASLt: the entries of the device's table.
#pragma once

#include "kernels/cuda/blas/blas.h"

int sd_cuda_plugin_blas_version(size_t *out);
int sd_cuda_plugin_blas_open(sd_cuda_blas **out, void *workspace, size_t bytes);
