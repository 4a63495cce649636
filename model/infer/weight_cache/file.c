#include "model/infer/weight_cache/file.h"

#include "base/files/file.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/memory.h"
#include "kernels/checksum.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC = 8, HEX = 64, FIXED = 40 + HEX, LABEL_FIXED = 8 + HEX, SUMMED = 40 };
enum { MOST_JSON = 64 << 20, PIECE = 128 << 10, ROOM_A_SOURCE = 256 };
static const char magic[MAGIC + 1] = "SDPACK3\n";

// ---- whose it is

sd_status sd_weight_cache_check_dir(const char *dir, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT)) return sd_fail(err, SD_ENOTFOUND, "%s: is not there", dir);
    SD_CHECK(fd >= 0 || (errno != ELOOP && errno != ENOTDIR), err, SD_EMISMATCH,
             "%s: is a link or no folder, so the cache is not used; remove it", dir);
    if (fd < 0) return sd_fail_errno(err, dir, "open");
    SD_CHECK(fstat(fd, &sb) == 0, err, SD_EIO, "%s: %s", dir, strerror(errno));
    SD_CHECK(sb.st_uid == geteuid(), err, SD_EMISMATCH,
             "%s: belongs to another user (%u), so the cache is not used; remove it or set "
             "XDG_CACHE_HOME",
             dir, (unsigned)sb.st_uid);
    SD_CHECK(!(sb.st_mode & (S_IWGRP | S_IWOTH)), err, SD_EMISMATCH,
             "%s: others may write in it, so the cache is not used; chmod go-w it", dir);
out:
    if (fd >= 0) close(fd);
    return st;
}

sd_status sd_weight_cache_open_own(int *fd, const char *path, int flags, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    const char *slash = strrchr(path, '/');
    char *dir = sd_strndup(path, slash ? (size_t)(slash - path) : 0);
    *fd = -1;
    SD_CHECK_ALLOC(dir, err);
    SD_TRY(sd_weight_cache_check_dir(dir, err));
    *fd = open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    SD_CHECK(*fd >= 0, err, SD_ENOTFOUND, "%s: %s", path, strerror(errno));
    SD_CHECK(fstat(*fd, &sb) == 0 && S_ISREG(sb.st_mode) && sb.st_uid == geteuid() &&
                 !(sb.st_mode & (S_IWGRP | S_IWOTH)),
             err, SD_ENOTFOUND, "%s: is not this user's file, or others may write it", path);
out:
    if (st != SD_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    free(dir);
    return st;
}

// ---- reading

static uint64_t u64_at(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static bool read_at(int fd, void *to, size_t bytes, size_t at) {
    for (ssize_t n; bytes > 0; to = (char *)to + n, at += (size_t)n, bytes -= (size_t)n) {
        n = pread(fd, to, bytes, (off_t)at);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            return false;
    }
    return true;
}

static bool sum_is(const char *hex, const void *head, size_t head_bytes, const void *json,
                   size_t len) {
    sd_hasher *h;
    if (sd_hasher_open(&h, NULL) != SD_OK) return false;
    sd_hasher_add(h, head, head_bytes);
    sd_hasher_add(h, json, len);
    sd_sha256 sum = sd_hasher_close(h);
    return memcmp(sum.hex, hex, HEX) == 0;
}

// len bytes of JSON at `at`, which are inside the file; NULL when they are not what `hex` says.
static json_t *read_json(const sd_weight_file *f, size_t at, size_t len, const void *head,
                         size_t head_bytes, const char *hex) {
    json_t *out = NULL;
    char *text = len <= MOST_JSON ? sd_malloc_marked(len + 1) : NULL;
    if (text && read_at(f->fd, text, len, at) && sum_is(hex, head, head_bytes, text, len))
        sd_json_load(&out, text, len, JSON_REJECT_DUPLICATES, NULL, NULL);
    free(text);
    return out;
}

static json_t *read_label(const sd_weight_file *f) {
    uint8_t head[LABEL_FIXED];
    size_t room = f->data_at - f->label_at;
    if (room < LABEL_FIXED || !read_at(f->fd, head, sizeof head, f->label_at)) return NULL;
    uint64_t len = u64_at(head);
    if (len > room - LABEL_FIXED) return NULL;
    return read_json(f, f->label_at + LABEL_FIXED, (size_t)len, NULL, 0, (const char *)head + 8);
}

static bool read_head(sd_weight_file *f, const uint8_t *head) {
    uint64_t all = u64_at(head + 8), label = u64_at(head + 16), data = u64_at(head + 24),
             len = u64_at(head + 32);
    if (all != f->size || label > all || data > all || label > data || label < FIXED ||
        label % SD_WEIGHT_FILE_PAGE || data % SD_WEIGHT_FILE_PAGE || len > label - FIXED)
        return false;
    f->label_at = (size_t)label;
    f->data_at = (size_t)data;
    memcpy(f->identity.hex, head + SUMMED, HEX);
    // Places and shapes are trusted from here on, so they are checked as a whole.
    f->body = read_json(f, FIXED, (size_t)len, head, SUMMED, (const char *)head + SUMMED);
    if (f->body) f->label = read_label(f);
    return f->body != NULL;
}

sd_status sd_weight_file_open(sd_weight_file *f, const char *path, int flags, sd_error *err) {
    sd_status st = SD_OK;
    struct stat sb;
    uint8_t head[FIXED];
    *f = (sd_weight_file){.fd = -1};
    SD_TRY(sd_weight_cache_open_own(&f->fd, path, flags, err));
    SD_CHECK(fstat(f->fd, &sb) == 0, err, SD_EIO, "%s: %s", path, strerror(errno));
    f->size = (size_t)sb.st_size;
    SD_CHECK(f->size >= FIXED && read_at(f->fd, head, FIXED, 0), err, SD_EFORMAT, "%s: is damaged",
             path);
    SD_CHECK(memcmp(head, magic, MAGIC - 2) != 0 || memcmp(head, magic, MAGIC) == 0, err, SD_EINVAL,
             "%s: was written by another version of this program", path);
    SD_CHECK(memcmp(head, magic, MAGIC) == 0 && read_head(f, head), err, SD_EFORMAT,
             "%s: is damaged", path);
out:
    if (st != SD_OK) sd_weight_file_close(f);
    return st;
}

void sd_weight_file_close(sd_weight_file *f) {
    if (f->fd >= 0) close(f->fd);
    json_decref(f->body);
    json_decref(f->label);
    *f = (sd_weight_file){.fd = -1};
}

bool sd_weight_file_place(size_t *at, size_t *bytes, const json_t *row, const sd_weight_file *f) {
    json_int_t where = json_integer_value(json_object_get(row, "at"));
    json_int_t n = json_integer_value(json_object_get(row, "bytes"));
    size_t room = f->size - f->data_at;
    if (where < 0 || n < 0 || (uint64_t)where > room || (uint64_t)n > room - (uint64_t)where ||
        where % SD_WEIGHT_FILE_ALIGN)
        return false;
    *at = f->data_at + (size_t)where;
    *bytes = (size_t)n;
    return true;
}

// hex [SD_WEIGHT_SUM_HEX + 1]; frees c.
static void hex_of(char *hex, sd_checksum *c) {
    uint64_t sum[2] = {0, 0};
    sd_checksum_close(c, sum);
    snprintf(hex, SD_WEIGHT_SUM_HEX + 1, "%016llx%016llx", (unsigned long long)sum[1],
             (unsigned long long)sum[0]);
}

bool sd_weight_sum(char *hex, const void *data, size_t bytes) {
    sd_checksum *c = sd_checksum_open();
    if (!c) return false;
    sd_checksum_add(c, data, bytes);
    hex_of(hex, c);
    return true;
}

// keep: each piece has its own place in `to`; else all go to the same one.
static bool read_pieces(char *to, bool keep, const sd_weight_file *f, size_t at, size_t bytes,
                        const char *want, const atomic_bool *stop) {
    char hex[SD_WEIGHT_SUM_HEX + 1];
    sd_checksum *c = sd_checksum_open();
    bool whole = c != NULL;
    for (size_t done = 0; whole && done < bytes; done += PIECE) {
        size_t n = bytes - done < PIECE ? bytes - done : PIECE;
        char *here = keep ? to + done : to;
        whole = !(stop && atomic_load(stop)) && read_at(f->fd, here, n, at + done);
        if (whole) sd_checksum_add(c, here, n);
    }
    if (c) hex_of(hex, c);
    return whole && want && strcmp(hex, want) == 0;
}

bool sd_weight_file_read(void *to, const sd_weight_file *f, size_t at, size_t bytes,
                         const char *want, const atomic_bool *stop) {
    return read_pieces(to, true, f, at, bytes, want, stop);
}

bool sd_weight_file_check(const sd_weight_file *f, size_t at, size_t bytes, const char *want) {
    char *piece = sd_malloc_marked(PIECE);
    bool whole = piece && read_pieces(piece, false, f, at, bytes, want, NULL);
    free(piece);
    return whole;
}

// ---- writing

static void put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static void put_zeros(FILE *f, size_t n) {
    static const char zeros[SD_WEIGHT_FILE_PAGE];
    for (size_t now; n > 0; n -= now)
        fwrite(zeros, 1, now = n < sizeof zeros ? n : sizeof zeros, f);
}
static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

// *out [*len] <- the label's head and JSON, malloc'ed.
static sd_status make_label(char **out, size_t *len, const json_t *label, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 sum;
    char *json = NULL;
    *out = NULL;
    SD_TRY(sd_json_dump(&json, label, JSON_COMPACT, err));
    size_t n = strlen(json);
    *out = sd_malloc_marked(LABEL_FIXED + n);
    SD_CHECK_ALLOC(*out, err);
    SD_TRY(sd_sha256_of(&sum, json, n, err));
    put_u64((uint8_t *)*out, n);
    memcpy(*out + 8, sum.hex, HEX);
    memcpy(*out + LABEL_FIXED, json, n);
    *len = LABEL_FIXED + n;
out:
    free(json);
    if (st != SD_OK) {
        free(*out);
        *out = NULL;
    }
    return st;
}

// Pieces, so that a signal is seen soon and a full disk too.
static sd_status put_part(FILE *f, const sd_weight_part *p, const char *path,
                          const atomic_bool *stop, sd_error *err) {
    enum { WRITE = 4 << 20 };
    for (size_t at = 0; at < p->bytes; at += WRITE) {
        size_t n = p->bytes - at < WRITE ? p->bytes - at : WRITE;
        if (stop && atomic_load(stop))
            return sd_fail(err, SD_EINTERRUPTED, "%s: interrupted", path);
        if (fwrite((const char *)p->data + at, 1, n, f) != n)
            return sd_fail_errno(err, path, "write");
    }
    put_zeros(f, round_up(p->bytes, SD_WEIGHT_FILE_ALIGN) - p->bytes);
    return SD_OK;
}

static sd_status put_head(FILE *f, size_t all, size_t label_at, size_t data_at, const char *json,
                          sd_error *err) {
    uint8_t head[FIXED];
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    memcpy(head, magic, MAGIC);
    put_u64(head + 8, all);
    put_u64(head + 16, label_at);
    put_u64(head + 24, data_at);
    put_u64(head + 32, strlen(json));
    sd_hasher_add(h, head, SUMMED);
    sd_hasher_add(h, json, strlen(json));
    sd_sha256 sum = sd_hasher_close(h);
    memcpy(head + SUMMED, sum.hex, HEX);
    fwrite(head, 1, FIXED, f);
    fwrite(json, 1, strlen(json), f);
    put_zeros(f, label_at - FIXED - strlen(json));
    return SD_OK;
}

sd_status sd_weight_file_write(const char *path, uint32_t mode, json_t *body, json_t *label,
                               const sd_weight_part *part, int parts, const atomic_bool *stop,
                               sd_error *err) {
    sd_status st = SD_OK;
    sd_replace r = {0};
    char *json = NULL, *head = NULL;
    size_t label_len = 0;
    SD_TRY(sd_json_dump(&json, body, JSON_COMPACT, err));
    SD_TRY(make_label(&head, &label_len, label, err));
    // Room for numbers that grow: a label is written again in place.
    size_t sources = json_array_size(json_object_get(label, "sources"));
    size_t label_at = round_up(FIXED + strlen(json), SD_WEIGHT_FILE_PAGE);
    size_t data_at = label_at + round_up(label_len + sources * ROOM_A_SOURCE, SD_WEIGHT_FILE_PAGE);
    size_t all = data_at;
    for (int i = 0; i < parts; i++) all += round_up(part[i].bytes, SD_WEIGHT_FILE_ALIGN);
    SD_TRY(sd_replace_open_own(&r, path, mode & 0644, err));
    // The whole room first: a full disk is known before a gigabyte is written.
    int full = posix_fallocate(fileno(r.f), 0, (off_t)all);
    SD_CHECK(full == 0 || full == EOPNOTSUPP || full == EINVAL, err, SD_EIO,
             "%s: cannot have %zu MiB: %s", path, all >> 20, strerror(full));
    SD_TRY(put_head(r.f, all, label_at, data_at, json, err));
    fwrite(head, 1, label_len, r.f);
    put_zeros(r.f, data_at - label_at - label_len);
    for (int i = 0; i < parts; i++) SD_TRY(put_part(r.f, &part[i], path, stop, err));
    SD_TRY(sd_replace_commit(&r, err));
out:
    sd_replace_abort(&r);
    free(json);
    free(head);
    return st;
}

bool sd_weight_file_relabel(const sd_weight_file *f, json_t *label) {
    char *head = NULL;
    size_t len = 0;
    bool written = make_label(&head, &len, label, NULL) == SD_OK && len <= f->data_at - f->label_at;
    for (size_t at = 0; written && at < len;) {
        ssize_t n = pwrite(f->fd, head + at, len - at, (off_t)(f->label_at + at));
        if (n < 0 && errno == EINTR) continue;
        written = n > 0;
        if (written) at += (size_t)n;
    }
    written = written && fdatasync(f->fd) == 0;
    free(head);
    return written;
}
