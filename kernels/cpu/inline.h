// How kernels ask for inlining and unrolling: bodies are written once for a run of rows, codes or
// heads whose number is a constant where they are inlined, and the loops over it become straight
// code that holds its sums in registers.
#pragma once

#ifndef SPECDEC_SIMDE // an emulated instruction is a function: unrolled, they would take minutes
#define SD_INLINE static inline __attribute__((always_inline))
#else
#define SD_INLINE static
#endif
// Instrumented loops cannot always be unrolled, and gcc then refuses the wish as an error.
#if defined(SPECDEC_SIMDE) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SD_UNROLL
#else
#define SD_UNROLL _Pragma("GCC unroll 16")
#endif
