#define CHECKSUM_TABLE sd_checksum_avx512
#include "kernels/cpu/checksum_body.h"
