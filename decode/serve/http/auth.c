// A key is never compared as text: both sides are hashed first, so the time of the comparison says
// nothing about how much of a guess was right, nor do lengths.
#include "decode/serve/http/auth.h"

#include "base/files/file.h"
#include "base/memory.h"

#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

enum { HEX = 64, MAX_WORDS = 3, BARE_ID = 8 };
static const char hash_mark[] = "sha256:";

// A line's words: [n].
typedef struct {
    const char *word[MAX_WORDS];
    size_t len[MAX_WORDS];
    int n; // MAX_WORDS + 1: more
} words;

static words split(const char *line, size_t n) {
    words w = {0};
    for (size_t i = 0; i < n && w.n <= MAX_WORDS;) {
        size_t begin = i;
        while (i < n && line[i] != ' ' && line[i] != '\t') i++;
        if (i > begin && w.n < MAX_WORDS) w.word[w.n] = line + begin, w.len[w.n] = i - begin;
        w.n += i > begin;
        while (i < n && (line[i] == ' ' || line[i] == '\t')) i++;
    }
    return w;
}

static bool is_word(const words *w, int i, const char *text) {
    return w->n > i && w->len[i] == strlen(text) && memcmp(w->word[i], text, w->len[i]) == 0;
}

static bool is_hash(const words *w, int i) {
    return w->n > i && w->len[i] >= sizeof hash_mark - 1 &&
           memcmp(w->word[i], hash_mark, sizeof hash_mark - 1) == 0;
}

// A key as it is sent.
static sd_status read_bare(sd_api_key *k, const char *key, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(n >= SD_MIN_KEY && n <= SD_MAX_KEY, err, SD_EINVAL,
             "a key has %zu bytes; give %d to %d", n, SD_MIN_KEY, SD_MAX_KEY);
    for (size_t i = 0; i < n; i++)
        SD_CHECK((unsigned char)key[i] > 0x20 && (unsigned char)key[i] < 0x7f, err, SD_EINVAL,
                 "a key has a byte that is no printable ASCII; write another key");
    SD_TRY(sd_sha256_of(&k->hash, key, n, err));
    memcpy(k->id, k->hash.hex, BARE_ID);
out:
    return st;
}

static bool is_id(const char *id, size_t n) {
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    for (size_t i = 0; i < n; i++)
        if (!id[i] || !strchr(good, id[i])) return false;
    return n > 0;
}

// ID sha256:HEX [admin]
static sd_status read_hashed(sd_api_key *k, const words *w, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(is_hash(w, 1) && w->n <= MAX_WORDS, err, SD_EINVAL,
             "a line is a key without blanks, or ID sha256:HEX, or ID sha256:HEX admin");
    SD_CHECK(w->n < 3 || is_word(w, 2, "admin"), err, SD_EINVAL,
             "behind the hash stands what is not 'admin'; write admin or nothing");
    SD_CHECK(w->len[0] <= SD_MAX_KEY_ID, err, SD_EINVAL, "an ID has %zu bytes; give at most %d",
             w->len[0], SD_MAX_KEY_ID);
    SD_CHECK(is_id(w->word[0], w->len[0]), err, SD_EINVAL,
             "an ID has letters, digits, '.', '_' and '-' alone");
    const char *hex = w->word[1] + sizeof hash_mark - 1;
    size_t n = w->len[1] - (sizeof hash_mark - 1);
    bool ok = n == HEX;
    for (size_t i = 0; ok && i < n; i++) ok = hex[i] && strchr("0123456789abcdef", hex[i]);
    SD_CHECK(ok, err, SD_EINVAL,
             "behind sha256: stand %zu characters; give the key's SHA-256, 64 digits of 0-9 and "
             "a-f",
             n);
    memcpy(k->id, w->word[0], w->len[0]);
    memcpy(k->hash.hex, hex, HEX);
    k->admin = w->n == 3;
out:
    return st;
}

// A bare key may be repeated. Else one key with two rights, or one name for two keys, is a mistake.
static sd_status check_new(const sd_keys *k, const sd_api_key *new, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < k->n; i++) {
        const sd_api_key *old = &k->key[i];
        bool same = sd_sha256_equal(&old->hash, &new->hash);
        if (same && new->bare && old->bare) continue;
        SD_CHECK(!same, err, SD_EINVAL, "this key stands in line %d already; remove one",
                 old->line);
        SD_CHECK(strcmp(old->id, new->id) != 0, err, SD_EINVAL,
                 "the ID %s stands in line %d already; give another", new->id, old->line);
    }
out:
    return st;
}

static sd_status add_key(sd_keys *k, const sd_api_key *new, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(k->n < SD_MAX_KEYS, err, SD_ELIMIT, "more than %d keys; remove one", SD_MAX_KEYS);
    SD_TRY(check_new(k, new, err));
    if (!k->key) k->key = sd_alloc(SD_MAX_KEYS, sizeof *k->key);
    SD_CHECK_ALLOC(k->key, err);
    k->key[k->n++] = *new;
out:
    return st;
}

sd_status sd_keys_add(sd_keys *k, const char *text, size_t n, int line, sd_error *err) {
    sd_status st = SD_OK;
    const words w = split(text, n);
    sd_api_key new = {.line = line, .bare = w.n == 1};
    SD_CHECK(!is_hash(&w, 0), err, SD_EINVAL, "a hash has no ID before it; write ID sha256:HEX");
    SD_TRY(new.bare ? read_bare(&new, w.word[0], w.len[0], err) : read_hashed(&new, &w, err));
    SD_TRY(add_key(k, &new, err));
out:
    return st;
}

sd_status sd_keys_read(sd_keys *k, const char *text, size_t len, const char *path, sd_error *err) {
    int line = 0;
    for (const char *s = text; s < text + len; line++) {
        const char *end = memchr(s, '\n', (size_t)(text + len - s));
        size_t n = end ? (size_t)(end - s) : (size_t)(text + len - s), used = n;
        while (used && (s[used - 1] == '\r' || s[used - 1] == ' ' || s[used - 1] == '\t')) used--;
        sd_status st = used && s[0] != '#' ? sd_keys_add(k, s, used, line + 1, err) : SD_OK;
        if (st != SD_OK) {
            sd_error_prefix(err, "%s:%d", path, line + 1);
            return st;
        }
        s += n + 1;
    }
    return SD_OK;
}

sd_status sd_keys_load(sd_keys *out, const sd_keys *also, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len = 0;
    sd_keys k = {0};
    for (int i = 0; also && i < also->n; i++) SD_TRY(add_key(&k, &also->key[i], err));
    int before = k.n;
    if (path) {
        SD_TRY(sd_file_read(&text, &len, path, SD_MAX_KEY_FILE, err));
        SD_TRY(sd_keys_read(&k, text, len, path, err));
        SD_CHECK(k.n > before, err, SD_EINVAL, "%s: has no key; write one a line", path);
    }
    *out = k;
    k = (sd_keys){0};
out:
    if (text) OPENSSL_cleanse(text, len);
    free(text);
    sd_keys_free(&k);
    return st;
}

void sd_keys_free(sd_keys *k) {
    free(k->key);
    *k = (sd_keys){0};
}

static int find_key(const sd_keys *k, const char *key) {
    sd_sha256 hash;
    if (sd_sha256_of(&hash, key, strlen(key), NULL) != SD_OK) return -1;
    int found = -1;
    for (int i = 0; i < k->n; i++) // all, and without a branch
        found += (i - found) * (CRYPTO_memcmp(hash.hex, k->key[i].hash.hex, sizeof hash.hex) == 0);
    return found;
}

int sd_keys_find(const sd_keys *k, const char *authorization) {
    if (k->n == 0 || !authorization || strncasecmp(authorization, "Bearer ", 7) != 0) return -1;
    const char *key = authorization + 7;
    return find_key(k, key + strspn(key, " "));
}

int sd_keys_find_either(const sd_keys *k, const char *authorization, const char *key) {
    int found = sd_keys_find(k, authorization);
    return found < 0 && k->n > 0 && key ? find_key(k, key) : found;
}

int sd_keys_check(const sd_keys *k, sd_auth level, const char *authorization, const char *key) {
    if (level == SD_AUTH_PUBLIC) return 0;
    if (k->n == 0) return level == SD_AUTH_USER ? 0 : 403;
    int found = sd_keys_find_either(k, authorization, key);
    if (found < 0) return 401;
    return level == SD_AUTH_USER || k->key[found].admin ? 0 : 403;
}

sd_status sd_key_line(char out[SD_KEY_LINE], const char *id, const char *key, bool admin,
                      sd_error *err) {
    sd_status st = SD_OK;
    sd_api_key k = {0};
    SD_CHECK(strlen(id) <= SD_MAX_KEY_ID && is_id(id, strlen(id)), err, SD_EINVAL,
             "'%.80s' is no ID; give 1 to %d letters, digits, '.', '_' and '-'", id, SD_MAX_KEY_ID);
    SD_TRY(read_bare(&k, key, strlen(key), err));
    snprintf(out, SD_KEY_LINE, "%s %s%.*s%s", id, hash_mark, HEX, k.hash.hex,
             admin ? " admin" : "");
out:
    return st;
}
