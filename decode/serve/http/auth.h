// API keys: read from a file, kept as SHA-256, compared in constant time.
//
//     # a line is a key as it is sent, or its name and SHA-256 and, for an administrator's, a word more
//     a-key-as-it-is-sent
//     alice sha256:<64 hex digits>
//     ops   sha256:<64 hex digits> admin
#pragma once

#include "base/files/hash.h"

enum { SD_MAX_KEYS = 256, SD_MIN_KEY = 8, SD_MAX_KEY = 512, SD_MAX_KEY_ID = 64 };
enum { SD_MAX_KEY_FILE = 1 << 20 }; // bytes
enum {
    SD_KEY_LINE = SD_MAX_KEY_ID + 1 + 7 + 64 + 6 + 1
}; // bytes of a line "ID sha256:HEX admin", with its 0

// The level that a route asks of a request. Zero is no level: a route that forgets one is an
// administrator's, and found by a test.
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

/// The keys of `also` (NULL: none) and those of the file (NULL: none). Blank lines and lines that begin with '#' are
/// skipped. The file's bytes are wiped from memory. SD_EINVAL names the line of what is neither form, of a key shorter than 8
/// bytes, of an ID or a key that stands there twice (but for bare keys that are the same); or says that the file has no key.
sd_status sd_keys_load(sd_keys *out, const sd_keys *also, const char *path, sd_error *err);
/// The keys of a file's bytes; path is for messages alone. k is zeroed or has keys. No key is no error here.
sd_status sd_keys_read(sd_keys *k, const char *text, size_t len, const char *path, sd_error *err);
/// One such line; `line` is its number in later messages. k is zeroed or has keys.
sd_status sd_keys_add(sd_keys *k, const char *text, size_t len, int line, sd_error *err);
void sd_keys_free(sd_keys *k);

/// The place in the file of the key in `authorization` (the field's value, NULL when absent), "Bearer KEY"; -1: it
/// is none that is known. Looks at every key, whichever matches.
int sd_keys_find(const sd_keys *k, const char *authorization);
/// The same, else of a key as it is (x-api-key, NULL when absent).
int sd_keys_find_either(const sd_keys *k, const char *authorization, const char *key);
/// May a request with these two fields call what asks for `level`? 0, or the status that refuses it: 401 without a
/// known key, 403 with one that is no administrator's. A server without keys lets everybody call all but what is an
/// administrator's, and nobody that.
int sd_keys_check(const sd_keys *k, sd_auth level, const char *authorization, const char *key);

/// "ID sha256:HEX" or "ID sha256:HEX admin" of a key. SD_EINVAL says what an ID or a key may not be.
sd_status sd_key_line(char out[SD_KEY_LINE], const char *id, const char *key, bool admin,
                      sd_error *err);
