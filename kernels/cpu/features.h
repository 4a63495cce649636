// What this processor and its system can run, asked once.
#pragma once

#include <stdbool.h>
#include <stddef.h>

/// The processor's model as the system calls it, cut to size; "" when it has no name for it.
void sd_cpu_name(char *out, size_t size);

bool sd_cpu_has_avx2(void);        // AVX2, FMA, F16C
bool sd_cpu_has_avx512(void);      // F, BW, DQ, VL, VNNI
bool sd_cpu_has_avx512_bf16(void); // the same and BF16
/// AVX-512 with BF16, and AMX with int8 and bf16 that the system lets this process use: asking for
/// it makes the system keep 8 KiB of tiles for each thread from then on.
bool sd_cpu_has_amx(void);
bool sd_cpu_has_neon_dot(void); // NEON with the dot product (ARMv8.2)
