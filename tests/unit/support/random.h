// Numbers that are the same in every run.
#pragma once

#include <stdint.h>

static uint64_t seed;
static float uniform(void) { // [-1, 1)
    seed += 0x9e3779b97f4a7c15u;
    uint64_t x = seed;
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return (float)((x ^ x >> 31) >> 40) * 0x1p-23f - 1;
}
