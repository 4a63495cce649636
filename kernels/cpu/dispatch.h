// Which instruction sets kernels may use: the one list of their names, and the one reading of
// SPECDEC_ISA. Tables of kernels (kernels/cpu/table.c, kernels/train/gemm_packed.c) choose by it;
// each has kernels for some of the names.
#pragma once

typedef enum {
    SD_ISA_NONE, // unknown, or not of this processor
    SD_ISA_PLAIN,
    SD_ISA_AVX2,
    SD_ISA_AVX512,
    SD_ISA_AVX512_BF16, // of training alone
    SD_ISA_AMX,
    SD_ISA_AMX_BF16, // of training alone
    SD_ISA_NEON
} sd_isa;

/// The instruction set of that name ("avx512-bf16"), as far as this processor runs it.
sd_isa sd_isa_named(const char *name);

/// The name that SPECDEC_ISA forces in the environment (for tests); NULL: none. Read at every call.
const char *sd_isa_forced(void);
