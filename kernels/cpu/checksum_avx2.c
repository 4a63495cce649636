#define CHECKSUM_TABLE sd_checksum_avx2
#include "kernels/cpu/checksum_body.h"
