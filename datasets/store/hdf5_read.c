// Addresses and sizes come from the file, so each is checked where it is read: `get` knows the
// file's end, a message's reader its own. Nothing is allocated before the file proves that it is
// large enough to need it: an entry of a chunk index takes 32 bytes and more.
#include "datasets/store/hdf5_read.h"

#include "base/memory.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    MAX_HEADER = 1 << 20, // bytes of an object header's block
    MAX_BLOCKS = 16,      // of one header
    MAX_LEVEL = 4,        // of a chunk index: 64^4 chunks
    INDEX_ENTRY = 32,     // bytes of an index entry of one dimension: the least
    MSG_DATASPACE = 1,
    MSG_LINK_INFO = 2,
    MSG_DATATYPE = 3,
    MSG_LINK = 6,
    MSG_EXTERNAL = 7,
    MSG_LAYOUT = 8,
    MSG_FILTERS = 11,
    MSG_CONTINUATION = 16,
    FILTER_SHUFFLE = 2,
    FILTER_ZSTD = 32015
};

static sd_status odd(const sd_hdf5_file *f, const char *what, const char *why, sd_error *err) {
    return sd_fail(err, SD_EFORMAT, "%s: %s %s; prepare the data again", f->name, what, why);
}

static sd_status get(void *to, const sd_hdf5_file *f, uint64_t at, size_t n, const char *what,
                     sd_error *err) {
    if (at > f->map->size || n > f->map->size - at)
        return odd(f, what, "points outside the file", err);
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->map->fd, (char *)to + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return sd_fail(err, SD_EIO, "%s: %s cannot be read: %s", f->name, what,
                           got < 0 ? strerror(errno) : "the file became shorter");
        done += (size_t)got;
    }
    return SD_OK;
}

// Little-endian, n <= 8 bytes.
static uint64_t number(const uint8_t *p, int n) {
    uint64_t x = 0;
    for (int i = n; i-- > 0;) x = x << 8 | p[i];
    return x;
}

// ---- object headers ----------------------------------------------------------------------------

typedef struct {
    int type, flags;
    const uint8_t *data;
    size_t n;
} message;
typedef sd_status (*on_message)(void *ctx, const message *m, sd_error *err);

typedef struct {
    const sd_hdf5_file *f;
    const char *what;
    on_message take;
    void *ctx;
    bool ordered; // messages carry their order of creation
    struct {
        uint64_t at, n;
    } block[MAX_BLOCKS]; // continuations
    int blocks;
} header;

static sd_status take_messages(header *h, const uint8_t *p, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    size_t head = h->ordered ? 6 : 4;
    while (n >= head) {
        message m = {p[0], p[3], p + head, (size_t)number(p + 1, 2)};
        if (m.n > n - head) return odd(h->f, h->what, "has a message beyond its header", err);
        if (m.type == MSG_CONTINUATION) {
            if (m.n < 16 || h->blocks == MAX_BLOCKS)
                return odd(h->f, h->what, "has a header in too many parts", err);
            h->block[h->blocks].at = number(m.data, 8);
            h->block[h->blocks++].n = number(m.data + 8, 8);
        } else {
            if (m.flags & 2) return odd(h->f, h->what, "shares its description", err);
            SD_TRY(h->take(h->ctx, &m, err));
        }
        p += head + m.n;
        n -= head + m.n;
    }
out:
    return st;
}

// "OHDR" 2 flags [times 16] [limits 4] size, messages, checksum; "OCHK" messages, checksum. The
// file's SHA-256 was held against the manifest, so checksums are passed over.
static sd_status walk(header *h, uint64_t at, sd_error *err) {
    sd_status st = SD_OK;
    uint8_t head[6 + 20 + 8] = {0}, *buf = NULL;
    size_t room = h->f->map->size > at ? (size_t)(h->f->map->size - at) : 0;
    SD_TRY(get(head, h->f, at, room < sizeof head ? room : sizeof head, h->what, err));
    if (memcmp(head, "OHDR\2", 5) != 0) return odd(h->f, h->what, "has no header", err);
    size_t skip = 6 + (head[5] & 0x20 ? 16 : 0) + (head[5] & 0x10 ? 4 : 0);
    int width = 1 << (head[5] & 3);
    uint64_t n = number(head + skip, width);
    h->ordered = head[5] & 4;
    at += skip + (size_t)width;
    for (int i = 0;; i++) {
        if (n > MAX_HEADER) return odd(h->f, h->what, "has too large a header", err);
        buf = sd_alloc((size_t)n + 1, 1);
        SD_CHECK_ALLOC(buf, err);
        SD_TRY(get(buf, h->f, at, (size_t)n, h->what, err));
        SD_TRY(take_messages(h, buf, (size_t)n, err));
        free(buf);
        buf = NULL;
        if (i == h->blocks) break;
        uint8_t sign[4];
        at = h->block[i].at, n = h->block[i].n;
        SD_TRY(get(sign, h->f, at, 4, h->what, err));
        if (memcmp(sign, "OCHK", 4) != 0 || n < 8)
            return odd(h->f, h->what, "has a broken header", err);
        at += 4, n -= 8;
    }
out:
    free(buf);
    return st;
}

// ---- groups ------------------------------------------------------------------------------------

// \211HDF\r\n\032\n 2 8 8 flags base[8] extension[8] end[8] root[8] checksum[4]
sd_status sd_hdf5_root(uint64_t *group, const sd_hdf5_file *f, sd_error *err) {
    static const uint8_t sign[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n', 2, 8, 8};
    uint8_t s[48];
    if (f->map->size < sizeof s) return odd(f, "the file", "is not an HDF5 file", err);
    sd_status st = get(s, f, 0, sizeof s, "the file", err);
    if (st != SD_OK) return st;
    if (memcmp(s, sign, sizeof sign) != 0 || number(s + 12, 8) != 0)
        return odd(f, "the file", "is not an HDF5 file of specdec's", err);
    if (number(s + 28, 8) > f->map->size) return odd(f, "the file", "is cut short", err);
    *group = number(s + 36, 8);
    return SD_OK;
}

typedef struct {
    const sd_hdf5_file *f;
    const char *name;
    uint64_t object;
    bool found;
} search;

// 1 flags [type] [order 8] [character set] length name, then for a hard link the address.
static sd_status take_link(void *ctx, const message *m, sd_error *err) {
    search *s = ctx;
    if (m->type != MSG_LINK || m->n < 2) return SD_OK;
    int flags = m->data[1], width = 1 << (flags & 3);
    size_t at = 2, length;
    int type = 0;
    if (m->data[0] != 1) return odd(s->f, s->name, "stands among links that are not read", err);
    if (flags & 8) type = at < m->n ? m->data[at] : 0, at++;
    at += (flags & 4 ? 8 : 0) + (flags & 16 ? 1 : 0);
    if (at + (size_t)width > m->n) return odd(s->f, s->name, "has a broken link", err);
    uint64_t said = number(m->data + at, width);
    at += (size_t)width;
    length = strlen(s->name);
    if (said > m->n - at) return odd(s->f, s->name, "has a broken link", err);
    if (said != length || memcmp(m->data + at, s->name, length) != 0) return SD_OK;
    if (type != 0) return odd(s->f, s->name, "is a link to elsewhere", err);
    if (s->found || m->n - at - length < 8) return odd(s->f, s->name, "has a broken link", err);
    s->object = number(m->data + at + length, 8);
    s->found = true;
    return SD_OK;
}

sd_status sd_hdf5_find(uint64_t *object, const sd_hdf5_file *f, uint64_t group, const char *name,
                       sd_error *err) {
    search s = {.f = f, .name = name};
    header h = {.f = f, .what = name, .take = take_link, .ctx = &s};
    sd_status st = walk(&h, group, err);
    if (st != SD_OK) return st;
    if (!s.found) return odd(f, name, "is missing", err);
    *object = s.object;
    return SD_OK;
}

// ---- arrays ------------------------------------------------------------------------------------

typedef struct {
    const sd_hdf5_file *f;
    const char *name;
    const sd_hdf5_shape *want;
    uint64_t dim[2], chunk[2], index;
    bool space, type, layout, filters;
} description;

static sd_status take_space(description *d, const message *m, sd_error *err) {
    // 2 rank flags type, dims[8 each]
    if (m->n < 4 || m->data[0] != 2 || m->data[3] != 1 || m->data[1] != d->want->rank)
        return odd(d->f, d->name, "has another number of dimensions", err);
    if (m->n < 4 + 8 * (size_t)d->want->rank) return odd(d->f, d->name, "has no dimensions", err);
    d->dim[1] = 1;
    for (int i = 0; i < d->want->rank; i++) d->dim[i] = number(m->data + 4 + 8 * i, 8);
    d->space = true;
    return SD_OK;
}

static sd_status take_type(description *d, const message *m, sd_error *err) {
    // class and version, bits[3], size[4], offset[2], precision[2]: whole numbers, little-endian
    int size = d->want->size;
    if (m->n < 12 || (m->data[0] & 15) != 0 || (m->data[1] & ~8) != 0 ||
        !!(m->data[1] & 8) != d->want->is_signed || number(m->data + 4, 4) != (uint64_t)size ||
        number(m->data + 8, 2) != 0 || number(m->data + 10, 2) != 8 * (uint64_t)size)
        return odd(d->f, d->name, "is of another type than expected", err);
    d->type = true;
    return SD_OK;
}

static sd_status take_layout(description *d, const message *m, sd_error *err) {
    // 3 class dimensions index[8] dims[4 each], the last of them an element's bytes
    int rank = d->want->rank;
    if (m->n < 2 || m->data[0] != 3 || m->data[1] != 2)
        return odd(d->f, d->name, "is not stored in chunks", err);
    if (m->n < 11 + 4 * (size_t)(rank + 1) || m->data[2] != rank + 1 ||
        number(m->data + 11 + 4 * rank, 4) != (uint64_t)d->want->size)
        return odd(d->f, d->name, "has odd chunks", err);
    d->index = number(m->data + 3, 8);
    d->chunk[1] = 1;
    for (int i = 0; i < rank; i++) d->chunk[i] = number(m->data + 11 + 4 * i, 4);
    d->layout = true;
    return SD_OK;
}

// 2 n, then each: id[2] (from 256 on: name's length[2]) flags[2] values[2] name, values[4 each].
static sd_status take_filters(description *d, const message *m, sd_error *err) {
    static const char why[] = "has other filters than shuffle and zstd";
    static const uint64_t want[] = {FILTER_SHUFFLE, FILTER_ZSTD};
    size_t at = 2;
    if (m->n < 2 || m->data[0] != 2 || m->data[1] != 2) return odd(d->f, d->name, why, err);
    for (int i = 0; i < 2; i++) {
        size_t name = 0, fixed = want[i] >= 256 ? 8 : 6;
        if (m->n - at < fixed || number(m->data + at, 2) != want[i])
            return odd(d->f, d->name, why, err);
        if (fixed == 8) name = (size_t)number(m->data + at + 2, 2);
        size_t values = (size_t)number(m->data + at + fixed - 2, 2);
        at += fixed;
        if (name + 4 * values > m->n - at) return odd(d->f, d->name, why, err);
        at += name;
        if (want[i] == FILTER_SHUFFLE &&
            (values != 1 || number(m->data + at, 4) != (uint64_t)d->want->size))
            return odd(d->f, d->name, why, err);
        at += 4 * values;
    }
    d->filters = true;
    return SD_OK;
}

static sd_status take_description(void *ctx, const message *m, sd_error *err) {
    description *d = ctx;
    bool twice = (m->type == MSG_DATASPACE && d->space) || (m->type == MSG_DATATYPE && d->type) ||
                 (m->type == MSG_LAYOUT && d->layout) || (m->type == MSG_FILTERS && d->filters);
    if (twice) return odd(d->f, d->name, "is described twice", err);
    switch (m->type) {
    case MSG_DATASPACE:
        return take_space(d, m, err);
    case MSG_DATATYPE:
        return take_type(d, m, err);
    case MSG_EXTERNAL:
        return odd(d->f, d->name, "has parts in other files", err);
    case MSG_LAYOUT:
        return take_layout(d, m, err);
    case MSG_FILTERS:
        return take_filters(d, m, err);
    default:
        return SD_OK;
    }
}

// ---- the chunk index ---------------------------------------------------------------------------

typedef struct {
    sd_hdf5_array *a;
    const sd_hdf5_file *f;
    const char *name;
    int rank;
    int64_t seen;
    uint64_t bytes; // of the chunks seen
} indexer;

// One entry: stored bytes[4] filter mask[4] offset[8 each, and 0], address[8].
static sd_status take_chunk(indexer *x, const uint8_t *e, sd_error *err) {
    sd_hdf5_array *a = x->a;
    uint64_t bytes = number(e, 4), mask = number(e + 4, 4), row = number(e + 8, 8);
    uint64_t column = x->rank == 2 ? number(e + 16, 8) : 0;
    uint64_t at = number(e + 8 + 8 * (x->rank + 1), 8);
    int64_t i = (int64_t)(row / (uint64_t)a->chunk_rows);
    if (mask != 0) return odd(x->f, x->name, "has a chunk that is not compressed", err);
    if (row % (uint64_t)a->chunk_rows != 0 || column != 0 || row >= (uint64_t)a->rows)
        return odd(x->f, x->name, "has a chunk where none belongs", err);
    if (a->chunk[i].bytes) return odd(x->f, x->name, "has a chunk twice", err);
    if (bytes == 0 || bytes > ZSTD_compressBound(a->plain) || at > x->f->map->size ||
        bytes > x->f->map->size - at)
        return odd(x->f, x->name, "has a chunk outside the file", err);
    x->bytes += bytes;
    if (x->bytes > x->f->map->size) return odd(x->f, x->name, "has chunks that overlap", err);
    a->chunk[i] = (sd_hdf5_chunk){at, (uint32_t)bytes};
    if (bytes > a->stored) a->stored = (size_t)bytes;
    x->seen++;
    return SD_OK;
}

// "TREE" 1 level entries[2] left[8] right[8], then keys and addresses in turn.
static sd_status walk_index(indexer *x, uint64_t at, int level, sd_error *err) {
    sd_status st = SD_OK;
    uint8_t head[24], *entries = NULL;
    size_t key = 8 + 8 * (size_t)(x->rank + 1), one = key + 8;
    SD_TRY(get(head, x->f, at, sizeof head, x->name, err));
    int n = (int)number(head + 6, 2), is = head[5];
    if (memcmp(head, "TREE\1", 5) != 0 || n < 1 || is > MAX_LEVEL || (level >= 0 && is != level))
        return odd(x->f, x->name, "has a broken chunk index", err);
    entries = sd_alloc((size_t)n, one);
    SD_CHECK_ALLOC(entries, err);
    SD_TRY(get(entries, x->f, at + sizeof head, (size_t)n * one, x->name, err));
    for (int i = 0; i < n; i++) {
        const uint8_t *e = entries + (size_t)i * one;
        if (is == 0)
            SD_TRY(take_chunk(x, e, err));
        else
            SD_TRY(walk_index(x, number(e + key, 8), is - 1, err));
    }
out:
    free(entries);
    return st;
}

static sd_status check_shape(const description *d, sd_error *err) {
    const sd_hdf5_shape *want = d->want;
    if (!d->space || !d->type || !d->layout)
        return odd(d->f, d->name, "is not described in full", err);
    if (!d->filters) return odd(d->f, d->name, "has other filters than shuffle and zstd", err);
    if (d->dim[0] < 1 || d->dim[0] >= INT32_MAX || d->dim[1] < 1 ||
        d->dim[1] > (uint64_t)want->max_width ||
        (want->width && d->dim[1] != (uint64_t)want->width))
        return sd_fail(err, SD_EFORMAT,
                       "%s: %s has %llu rows of %llu, which does not fit; prepare the data again",
                       d->f->name, d->name, (unsigned long long)d->dim[0],
                       (unsigned long long)d->dim[1]);
    if (d->chunk[0] < 1 || d->chunk[0] > d->dim[0] || d->chunk[1] != d->dim[1] ||
        d->chunk[0] > SD_HDF5_MAX_CHUNK / (uint64_t)want->size / d->dim[1])
        return odd(d->f, d->name, "has odd chunks", err);
    return SD_OK;
}

sd_status sd_hdf5_array_open(sd_hdf5_array *a, const sd_hdf5_file *f, uint64_t object,
                             const char *name, const sd_hdf5_shape *want, sd_error *err) {
    sd_status st = SD_OK;
    description d = {.f = f, .name = name, .want = want};
    header h = {.f = f, .what = name, .take = take_description, .ctx = &d};
    *a = (sd_hdf5_array){0};
    SD_TRY(walk(&h, object, err));
    SD_TRY(check_shape(&d, err));
    a->rows = (int64_t)d.dim[0];
    a->width = (int)d.dim[1];
    a->size = want->size;
    a->chunk_rows = (int64_t)d.chunk[0];
    a->n_chunks = (a->rows + a->chunk_rows - 1) / a->chunk_rows;
    a->plain = (size_t)a->chunk_rows * (size_t)a->width * (size_t)a->size;
    if ((uint64_t)a->n_chunks > f->map->size / INDEX_ENTRY) {
        st = odd(f, name, "says that it holds more than the file has room for", err);
        goto out;
    }
    a->chunk = sd_alloc((size_t)a->n_chunks, sizeof *a->chunk);
    SD_CHECK_ALLOC(a->chunk, err);
    indexer x = {.a = a, .f = f, .name = name, .rank = want->rank};
    SD_TRY(walk_index(&x, d.index, -1, err));
    if (x.seen != a->n_chunks) st = odd(f, name, "lacks chunks", err);
out:
    if (st != SD_OK) sd_hdf5_array_close(a);
    return st;
}

void sd_hdf5_array_close(sd_hdf5_array *a) {
    free(a->chunk);
    *a = (sd_hdf5_array){0};
}

// Byte k of every element stands together.
static void unshuffle(uint8_t *to, const uint8_t *from, size_t n, int size) {
    for (int k = 0; k < size; k++)
        for (size_t i = 0; i < n; i++) to[i * (size_t)size + (size_t)k] = from[(size_t)k * n + i];
}

sd_status sd_hdf5_chunk_read(void *plain, void *scratch, const sd_hdf5_array *a,
                             const sd_hdf5_file *f, const char *name, int64_t i, sd_error *err) {
    uint8_t *stored = scratch, *shuffled = stored + a->stored;
    size_t n = a->chunk[i].bytes;
    sd_status st = get(stored, f, a->chunk[i].at, n, name, err);
    if (st != SD_OK) return st;
    if (ZSTD_getFrameContentSize(stored, n) != a->plain ||
        ZSTD_findFrameCompressedSize(stored, n) != n)
        return odd(f, name, "has a chunk of another size than its shape says", err);
    size_t got = ZSTD_decompress(shuffled, a->plain, stored, n);
    if (ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation)
        return sd_fail(err, SD_ENOMEM, "out of memory while reading %s", name);
    if (got != a->plain) return odd(f, name, "has a damaged chunk", err);
    unshuffle(plain, shuffled, a->plain / (size_t)a->size, a->size);
    return SD_OK;
}
