// The tables of panels.h that instruction sets bring; each is in a file compiled for its set.
#pragma once

#include "kernels/panels.h"

extern const sd_panels sd_panels_avx2, sd_panels_avx512, sd_panels_bf16, sd_panels_amx;
