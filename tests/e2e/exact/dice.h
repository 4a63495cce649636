// Random numbers of the suites, by a rule: what is rolled depends on the seed, on what it is rolled for
// (a prompt's number, a group's) and on how often it was rolled before, so that one prompt can be made
// again without the others.
#pragma once

#include "base/rng.h"

#include <stdbool.h>

typedef struct {
    uint64_t seed, what, rolled;
} dice;

// A roll is for a number and a use of it.
typedef enum { DICE_PROMPT, DICE_TEXT, DICE_GROUP, DICE_RUN, DICE_SCHEMA, DICE_WORLD } dice_use;
static inline dice dice_for(uint64_t seed, dice_use use, int64_t number) {
    return (dice){seed, (uint64_t)number << 8 | (uint64_t)use, 0};
}

/// 0 to sides - 1.
static inline int roll(dice *d, int sides) {
    uint32_t r[4];
    sd_philox(r, d->seed, d->what, d->rolled++);
    return (int)(r[0] % (uint32_t)sides);
}
/// lo to hi.
static inline int roll_in(dice *d, int lo, int hi) {
    return lo + roll(d, hi - lo + 1);
}
/// True once in n times.
static inline bool one_in(dice *d, int n) {
    return roll(d, n) == 0;
}
