#define CHECKSUM_TABLE sd_checksum_plain
#include "kernels/cpu/checksum_body.h"
