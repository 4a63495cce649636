// Monotonic time.
#pragma once

#include <stdint.h>
#include <time.h>

static inline int64_t sd_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static inline double sd_now_s(void) {
    return (double)sd_now_ns() * 1e-9;
}
