#include "base/files/hash.h"

#include "base/files/file.h"
#include "base/files/map.h"
#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
// The digest functions that take the state in the caller's hands: EVP's fetch theirs at run time,
// which allocates, and libcrypto 3.0 crashes where that fails.
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>
#include <string.h>
#include <unistd.h>

struct sd_hasher {
    SHA256_CTX state;
};

sd_status sd_hasher_open(sd_hasher **out, sd_error *err) {
    sd_hasher *h = sd_alloc(1, sizeof *h);
    if (!h) return sd_fail(err, SD_ENOMEM, "out of memory while hashing");
    SD_ASSERT(SHA256_Init(&h->state) == 1);
    *out = h;
    return SD_OK;
}

void sd_hasher_add(sd_hasher *h, const void *data, size_t len) {
    SD_ASSERT(SHA256_Update(&h->state, data, len) == 1);
}

sd_sha256 sd_hasher_close(sd_hasher *h) {
    sd_sha256 out = {{0}};
    unsigned char raw[SHA256_DIGEST_LENGTH];
    SD_ASSERT(SHA256_Final(raw, &h->state) == 1);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) snprintf(out.hex + 2 * i, 3, "%02x", raw[i]);
    free(h);
    return out;
}

sd_status sd_sha256_of(sd_sha256 *out, const void *data, size_t len, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    sd_hasher_add(h, data, len);
    *out = sd_hasher_close(h);
    return SD_OK;
}

// Read, not mapped: a disk that cannot give a page, or a file that is cut meanwhile, is an error
// here and a signal there.
sd_status sd_sha256_of_file(sd_sha256 *out, const char *path, sd_error *err) {
    enum { PIECE = 1 << 20 };
    sd_status st = SD_OK;
    size_t size;
    int fd = -1;
    sd_hasher *h = NULL;
    char *piece = sd_malloc_marked(PIECE);
    SD_CHECK_ALLOC(piece, err);
    SD_TRY(sd_open_regular(&fd, &size, path, err));
    SD_TRY(sd_hasher_open(&h, err));
    for (;;) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        SD_CHECK(n >= 0, err, SD_EIO, "%s: read: %s", path, strerror(errno));
        if (n == 0) break;
        sd_hasher_add(h, piece, (size_t)n);
    }
out:
    if (h) {
        sd_sha256 hash = sd_hasher_close(h);
        if (st == SD_OK) *out = hash;
    }
    if (fd >= 0) close(fd);
    free(piece);
    return st;
}

sd_status sd_hasher_add_map(sd_hasher *h, const sd_map *m, const char *path,
                            const atomic_bool *stop, sd_error *err) {
    enum { PIECE = 1 << 20 };
    sd_status st = SD_OK;
    char *piece = sd_malloc_marked(PIECE);
    SD_CHECK_ALLOC(piece, err);
    for (size_t at = 0; at < m->size; at += PIECE) {
        size_t n = m->size - at < PIECE ? m->size - at : PIECE;
        SD_CHECK(!stop || !atomic_load(stop), err, SD_EINTERRUPTED, "%s: interrupted", path);
        SD_CHECK(sd_map_read(piece, m, m->data + at, n), err, SD_EIO,
                 "%s: byte %zu cannot be read; is the disk there, the file whole?", path, at);
        sd_hasher_add(h, piece, n);
    }
out:
    free(piece);
    return st;
}

sd_status sd_sha256_of_map(sd_sha256 *out, const sd_map *m, const char *path, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    st = sd_hasher_add_map(h, m, path, NULL, err);
    *out = sd_hasher_close(h);
    return st;
}

bool sd_sha256_equal(const sd_sha256 *a, const sd_sha256 *b) {
    return a->hex[0] && strcmp(a->hex, b->hex) == 0;
}
