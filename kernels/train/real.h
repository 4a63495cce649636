// `real` is float in the library and double in the build that gradient checks run: one source for
// both. A *_real.c file (and its header) names its public functions through SD_REAL, so that both
// builds link into one test:
//
//     #define sd_softmax_rows SD_REAL(sd_softmax_rows) // sd_softmax_rows, or sd_softmax_rows_f64
#pragma once

#ifdef SD_REAL_DOUBLE
typedef double real;
#define SD_REAL(name) name##_f64
#define SD_REAL_IS_DOUBLE 1
#else
typedef float real;
#define SD_REAL(name) name
#define SD_REAL_IS_DOUBLE 0
#endif
