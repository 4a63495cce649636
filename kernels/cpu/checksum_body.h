// xxHash's own code, compiled for the instruction set of the file that includes this;
// CHECKSUM_TABLE names its table.
#define XXH_INLINE_ALL
#include "kernels/cpu/checksum_isa.h"

#include <xxhash.h>

static void *open_state(void) {
    XXH3_state_t *s = XXH3_createState();
    if (s) XXH3_128bits_reset(s);
    return s;
}

static void add_bytes(void *state, const void *data, size_t bytes) {
    XXH3_128bits_update(state, data, bytes);
}

static void close_state(void *state, uint64_t *sum) {
    if (sum) {
        XXH128_hash_t h = XXH3_128bits_digest(state);
        sum[0] = h.low64, sum[1] = h.high64;
    }
    XXH3_freeState(state);
}

const sd_checksum_isa CHECKSUM_TABLE = {open_state, add_bytes, close_state};
