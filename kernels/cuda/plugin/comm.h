// The plugin's NCCL: the entries of the device's table.
#pragma once

#include "kernels/cuda/comm/comm.h"

int sd_cuda_plugin_comm_find(void);
int sd_cuda_plugin_comm_open(sd_cuda_comm **out, int ranks, const int *device);
