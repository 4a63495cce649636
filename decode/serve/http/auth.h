// API keys: read once from a file, kept as SHA-256, compared in constant time.
#pragma once

#include "base/files/hash.h"

enum { SD_MAX_KEYS = 256, SD_MIN_KEY = 8, SD_MAX_KEY = 512 };

// The level that a route asks of a request. Zero is no level: a route that forgets one is found by a test.
typedef enum { SD_AUTH_UNSET, SD_AUTH_PUBLIC, SD_AUTH_USER, SD_AUTH_ADMIN } sd_auth;

typedef struct {
    sd_sha256 *hash; // NULL and 0: no key is asked for
    int n;
} sd_keys;

/// One key a line; blank lines and lines that begin with '#' are skipped. The file's bytes are
/// wiped from memory. A file without a key, a key shorter than 8 bytes or with a blank is
/// SD_EINVAL.
sd_status sd_keys_load(sd_keys *out, const char *path, sd_error *err);
void sd_keys_free(sd_keys *k);

/// Is `authorization` (the field's value, NULL when absent) "Bearer KEY" with a known key? Looks at
/// every key, whichever matches.
bool sd_keys_allow(const sd_keys *k, const char *authorization);
/// The known key's place in the file; -1: none.
int sd_keys_find(const sd_keys *k, const char *authorization);
