// XXH3 of 128 bits (github.com/Cyan4973/xxHash, doc/xxhash_spec.md) in the widest vectors that the
// processor has. Debian's library is built for the least x86-64 and takes a tenth of a cold start;
// its header, compiled for AVX2 or AVX-512, gives the same sums in half the time.
//
//     sd_checksum *c = sd_checksum_open();
//     sd_checksum_add(c, data, bytes); // any number of times
//     sd_checksum_close(c, sum);
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct sd_checksum sd_checksum;
sd_checksum *sd_checksum_open(void); // NULL when out of memory
void sd_checksum_add(sd_checksum *c, const void *data, size_t bytes);
/// sum [2] <- low and high half, NULL when it is not wanted; frees c.
void sd_checksum_close(sd_checksum *c, uint64_t *sum);
