// SHA-256 (FIPS 180-4, through libcrypto) for identity, and a 64-bit mixer for tables.
#pragma once

#include "base/files/map.h"

#include <stdatomic.h>

typedef struct {
    char hex[65]; // 64 lower-case digits and a 0; all zero bytes: unknown
} sd_sha256;

typedef struct sd_hasher sd_hasher;
sd_status sd_hasher_open(sd_hasher **out, sd_error *err);
void sd_hasher_add(sd_hasher *h, const void *data, size_t len);
sd_sha256 sd_hasher_close(sd_hasher *h); // frees h
/// The map's bytes, read through its descriptor: no page is mapped, what cannot be read is SD_EIO.
/// SD_EINTERRUPTED within a piece of 1 MB once *stop is set; stop may be NULL.
sd_status sd_hasher_add_map(sd_hasher *h, const sd_map *m, const char *path,
                            const atomic_bool *stop, sd_error *err);

sd_status sd_sha256_of(sd_sha256 *out, const void *data, size_t len, sd_error *err);
sd_status sd_sha256_of_file(sd_sha256 *out, const char *path, sd_error *err);
sd_status sd_sha256_of_map(sd_sha256 *out, const sd_map *m, const char *path, sd_error *err);
bool sd_sha256_equal(const sd_sha256 *a, const sd_sha256 *b);

/// splitmix64's finaliser: a bijection on 64 bits with good avalanche. For hash tables, not for
/// security.
static inline uint64_t sd_mix64(uint64_t x) {
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
