// API keys: read once from a file, kept as SHA-256, compared in constant time.
//
//     # a line is a key as it is sent, or its name and SHA-256 and, for an administrator's, a word more
//     a-key-as-it-is-sent
//     alice sha256:<64 hex digits>
//     ops   sha256:<64 hex digits> admin
#pragma once

#include "base/files/hash.h"

enum { SD_MAX_KEYS = 256, SD_MIN_KEY = 8, SD_MAX_KEY = 512, SD_MAX_KEY_ID = 64 };

// The level that a route asks of a request. Zero is no level: a route that forgets one is found by a test.
typedef enum { SD_AUTH_UNSET, SD_AUTH_PUBLIC, SD_AUTH_USER, SD_AUTH_ADMIN } sd_auth;

typedef struct {
    sd_sha256 hash;
    char id[SD_MAX_KEY_ID + 1]; // its name; of a bare key the first 8 digits of its hash
    bool admin;                 // an administrator's
    bool bare;                  // it stands in the file as it is sent
    int line;                   // where
} sd_api_key;

typedef struct {
    sd_api_key *key; // [n] in the file's order; NULL and 0: no key is asked for
    int n;
} sd_keys;

/// Blank lines and lines that begin with '#' are skipped. The file's bytes are wiped from memory.
/// SD_EINVAL names the line of what is neither form, of a key shorter than 8 bytes, of an ID or a key that
/// stands there twice (but for bare keys that are the same); or says that there is no key.
sd_status sd_keys_load(sd_keys *out, const char *path, sd_error *err);
void sd_keys_free(sd_keys *k);

/// Is `authorization` (the field's value, NULL when absent) "Bearer KEY" with a known key? Looks at
/// every key, whichever matches.
bool sd_keys_allow(const sd_keys *k, const char *authorization);
/// The same of a key as it is (x-api-key), where there is no such field or none of its keys is known.
bool sd_keys_allow_either(const sd_keys *k, const char *authorization, const char *key);
int sd_keys_find_either(const sd_keys *k, const char *authorization, const char *key);
/// The known key's place in the file; -1: none.
int sd_keys_find(const sd_keys *k, const char *authorization);
