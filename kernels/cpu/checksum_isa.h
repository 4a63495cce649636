// The table that each instruction set has for kernels/cpu/checksum.c.
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *(*open)(void);
    void (*add)(void *state, const void *data, size_t bytes);
    void (*close)(void *state, uint64_t *sum);
} sd_checksum_isa;

extern const sd_checksum_isa sd_checksum_plain, sd_checksum_avx2, sd_checksum_avx512;
