// A Feistel network over 2h bits is a bijection whatever its round function; where the domain is
// not a power of four, a value outside is sent through again until it falls inside (cycle walking,
// Black and Rogaway 2002), which stays a bijection. The domain is at most four times too large, so
// there are fewer than four walks on average. Nothing is stored, and any position can be asked for
// at any time.
#include "base/rng.h"
#include "datasets/dataset.h"

enum { ROUNDS = 8 };

int64_t sd_dataset_permute(int64_t rows, uint64_t seed, int64_t epoch, int64_t i, bool shuffle) {
    if (!shuffle || rows <= 1 || i < 0 || i >= rows) return i;
    int half = 1;
    while (half < 31 && (int64_t)1 << (2 * half) < rows) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)i;
    uint64_t hi = (uint64_t)SD_STREAM_SHUFFLE << 56 ^ (uint64_t)epoch;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint32_t r[4];
            sd_philox(r, seed, hi, round << 56 | right);
            uint64_t mixed = left ^ (r[0] & mask);
            left = right;
            right = mixed;
        }
        x = left << half | right;
    } while (x >= (uint64_t)rows);
    return (int64_t)x;
}
