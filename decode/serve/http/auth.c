// A key is never compared as text: both sides are hashed first, so the time of the comparison says
// nothing about how much of a guess was right, nor do lengths.
#include "decode/serve/http/auth.h"

#include "base/files/file.h"
#include "base/memory.h"

#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

static sd_status add_key(sd_keys *k, const char *key, size_t n, const char *path, int line,
                         sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(k->n < SD_MAX_KEYS, err, SD_ELIMIT, "%s: more than %d keys", path, SD_MAX_KEYS);
    SD_CHECK(n >= SD_MIN_KEY && n <= SD_MAX_KEY, err, SD_EINVAL,
             "%s:%d: a key has %zu bytes; give %d to %d", path, line, n, SD_MIN_KEY, SD_MAX_KEY);
    for (size_t i = 0; i < n; i++)
        SD_CHECK((unsigned char)key[i] > 0x20 && (unsigned char)key[i] < 0x7f, err, SD_EINVAL,
                 "%s:%d: a key has a blank or a byte outside ASCII; one key a line", path, line);
    SD_TRY(sd_sha256_of(&k->hash[k->n], key, n, err));
    k->n++;
out:
    return st;
}

sd_status sd_keys_load(sd_keys *out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len = 0;
    sd_keys k = {0};
    SD_TRY(sd_stream_read(&text, &len, path, 1 << 20, err));
    k.hash = sd_alloc(SD_MAX_KEYS, sizeof *k.hash);
    SD_CHECK_ALLOC(k.hash, err);
    int line = 0;
    for (char *s = text; s < text + len; line++) {
        size_t n = strcspn(s, "\n"), used = n;
        while (used && (s[used - 1] == '\r' || s[used - 1] == ' ')) used--;
        if (used && s[0] != '#') SD_TRY(add_key(&k, s, used, path, line + 1, err));
        s += n + 1;
    }
    SD_CHECK(k.n > 0, err, SD_EINVAL, "%s: has no key; write one key a line", path);
    *out = k;
    k = (sd_keys){0};
out:
    if (text) OPENSSL_cleanse(text, len);
    free(text);
    sd_keys_free(&k);
    return st;
}

void sd_keys_free(sd_keys *k) {
    free(k->hash);
    *k = (sd_keys){0};
}

int sd_keys_find(const sd_keys *k, const char *authorization) {
    if (k->n == 0 || !authorization || strncasecmp(authorization, "Bearer ", 7) != 0) return -1;
    const char *key = authorization + 7;
    key += strspn(key, " ");
    sd_sha256 hash;
    if (sd_sha256_of(&hash, key, strlen(key), NULL) != SD_OK) return -1;
    int found = -1;
    for (int i = 0; i < k->n; i++) // all, and without a branch
        found += (i - found) * (CRYPTO_memcmp(hash.hex, k->hash[i].hex, sizeof hash.hex) == 0);
    return found;
}

bool sd_keys_allow(const sd_keys *k, const char *authorization) {
    return k->n == 0 || sd_keys_find(k, authorization) >= 0;
}
