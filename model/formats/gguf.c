// The GGUF reader. A file is opened once per process and is then read through pointers into its
// mapping, so all checks stand here, before anything is believed:
//
//   1. 4 bytes "GGUF", u32 version (2 or 3), u64 tensors, u64 metadata entries; little-endian
//   2. entries: string key, u32 type, value. A string is u64 length + bytes. An array is u32 type,
//      u64 count, elements.
//   3. tensors: string name, u32 dimensions, u64 ne[], u32 type, u64 offset into the data section
//   4. padding to general.alignment (32), then the data section; every offset is aligned
//
// Before memory is allocated for a count, it is compared with the most that the rest of the file
// could hold. So a file cannot cause more memory than a small multiple of its own size.
#include "model/formats/gguf.h"
#include "model/formats/foreign_file.h"
#include "model/formats/gguf_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_ENTRIES = 1 << 16,
    MAX_TENSORS = 1 << 16,
    MAX_NAME = 256,
    MIN_ENTRY_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 1 << 16,
    DEFAULT_ALIGNMENT = 32
};

_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "GGUF floats are IEEE 754");

typedef struct {
    sd_gguf *g;
    size_t at;
    sd_error *err;
} cursor;

static sd_status fail_at(const cursor *c, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static sd_status fail_at(const cursor *c, size_t at, const char *fmt, ...) {
    char what[sizeof c->err->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return sd_fail(c->err, SD_EFORMAT, "%s: byte %zu: %s", c->g->path, at, what);
}

static size_t left(const cursor *c) {
    return c->g->size - c->at;
}

static sd_status take(cursor *c, void *out, size_t n, const char *what) {
    if (left(c) < n)
        return fail_at(c, c->at, "the file ends inside %s; copy or download it again", what);
    memcpy(out, c->g->bytes + c->at, n);
    c->at += n;
    return SD_OK;
}

static sd_status take_string(cursor *c, sd_gguf_string *out, const char *what) {
    uint64_t len = 0;
    size_t start = c->at;
    sd_status st = take(c, &len, 8, what);
    if (st != SD_OK) return st;
    if (len > left(c))
        return fail_at(c, start,
                       "%s of %llu bytes does not fit in the file; copy or download it again", what,
                       (unsigned long long)len);
    *out = (sd_gguf_string){(const char *)c->g->bytes + c->at, (size_t)len};
    c->at += (size_t)len;
    return SD_OK;
}

// Keys and tensor names go into messages and JSON, so they are printable ASCII, as the format
// says.
static sd_status take_name(cursor *c, const char **out, const char *what) {
    size_t start = c->at;
    sd_gguf_string s = {0};
    sd_status st = take_string(c, &s, what);
    if (st != SD_OK) return st;
    if (s.len == 0 || s.len > MAX_NAME)
        return fail_at(c, start, "%s has %zu bytes, 1 to %d are allowed; the file is damaged", what,
                       s.len, MAX_NAME);
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] < 0x20 || s.data[i] > 0x7e)
            return fail_at(c, start, "%s holds the byte 0x%02x; the file is damaged", what,
                           (unsigned char)s.data[i]);
    *out = sd_arena_strndup(&c->g->arena, s.data, s.len);
    if (!*out) return sd_fail(c->err, SD_ENOMEM, "%s: out of memory", c->g->path);
    return SD_OK;
}

static sd_status index_strings(cursor *c, sd_gguf_entry *e) {
    sd_gguf_string *s = sd_arena_alloc(&c->g->arena, e->count, sizeof *s);
    if (!s) return sd_fail(c->err, SD_ENOMEM, "%s: out of memory", c->g->path);
    for (size_t i = 0; i < e->count; i++) {
        sd_status st = take_string(c, &s[i], e->key);
        if (st != SD_OK) return st;
    }
    e->strings = s;
    return SD_OK;
}

static sd_status take_array(cursor *c, sd_gguf_entry *e) {
    size_t start = c->at;
    uint32_t elem = 0;
    uint64_t count = 0;
    sd_status st = take(c, &elem, 4, e->key);
    if (st == SD_OK) st = take(c, &count, 8, e->key);
    if (st != SD_OK) return st;
    size_t each = elem == SD_GGUF_STRING ? 8 : sd_gguf_scalar_bytes(elem);
    if (each == 0)
        return fail_at(c, start, "%s: array elements of type %u are not supported", e->key, elem);
    if (count > left(c) / each)
        return fail_at(c, start, "%s: an array of %llu elements does not fit in the file", e->key,
                       (unsigned long long)count);
    e->elem = (sd_gguf_type)elem;
    e->count = (size_t)count;
    e->data = c->g->bytes + c->at;
    if (elem == SD_GGUF_STRING) return index_strings(c, e);
    c->at += e->count * each;
    return SD_OK;
}

static sd_status take_value(cursor *c, sd_gguf_entry *e) {
    size_t start = c->at;
    uint32_t type = 0;
    sd_status st = take(c, &type, 4, e->key);
    if (st != SD_OK) return st;
    e->type = (sd_gguf_type)type;
    e->raw = c->g->bytes + c->at;
    if (type == SD_GGUF_STRING) {
        sd_gguf_string s = {0};
        st = take_string(c, &s, e->key);
        e->data = (const uint8_t *)s.data;
        e->count = s.len;
    } else if (type == SD_GGUF_ARRAY) {
        st = take_array(c, e);
    } else {
        size_t n = sd_gguf_scalar_bytes(type);
        if (n == 0)
            return fail_at(c, start, "%s: unknown type %u; the file is damaged", e->key, type);
        if (n > left(c)) return fail_at(c, start, "the file ends inside %s", e->key);
        e->data = c->g->bytes + c->at;
        e->count = 1;
        c->at += n;
    }
    e->raw_bytes = (size_t)(c->g->bytes + c->at - e->raw);
    return st;
}

static sd_status take_tensor(cursor *c, sd_gguf_tensor *t, uint64_t *offset) {
    sd_status st = SD_OK;
    size_t start = c->at;
    uint32_t n_dims = 0, type = 0;
    uint64_t elements = 1;
    SD_TRY(take_name(c, &t->name, "a tensor's name"));
    SD_TRY(take(c, &n_dims, 4, t->name));
    if (n_dims < 1 || n_dims > 4)
        return fail_at(c, start, "tensor %s has %u dimensions, 1 to 4 are allowed", t->name,
                       n_dims);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < 4; d++) {
        uint64_t ne = 1;
        if (d < t->n_dims) SD_TRY(take(c, &ne, 8, t->name));
        if (ne < 1 || ne > INT32_MAX || __builtin_mul_overflow(elements, ne, &elements))
            return fail_at(c, start,
                           "tensor %s: dimension %d is %llu, which no supported model has", t->name,
                           d, (unsigned long long)ne);
        t->ne[d] = (int64_t)ne;
    }
    SD_TRY(take(c, &type, 4, t->name));
    SD_TRY(take(c, offset, 8, t->name));
    if (!sd_dtype_known(type))
        return fail_at(c, start,
                       "tensor %s: type %u is not supported; use F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
                       "Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                       t->name, type);
    t->dtype = (sd_dtype)type;
    if (t->ne[0] % sd_dtype_block(t->dtype))
        return fail_at(c, start, "tensor %s: rows of %lld are no multiple of %s's block of %d",
                       t->name, (long long)t->ne[0], sd_dtype_name(t->dtype),
                       sd_dtype_block(t->dtype));
    if (!sd_mul_size(&t->bytes, sd_row_bytes(t->dtype, (int)t->ne[0]),
                     (size_t)(elements / (uint64_t)t->ne[0])))
        return fail_at(c, start, "tensor %s is larger than memory; the file is damaged", t->name);
out:
    return st;
}

static int compare_entries(const void *a, const void *b) {
    return strcmp((*(const sd_gguf_entry *const *)a)->key, (*(const sd_gguf_entry *const *)b)->key);
}
int sd_gguf_compare_names(const void *a, const void *b) {
    return strcmp((*(const sd_gguf_tensor *const *)a)->name,
                  (*(const sd_gguf_tensor *const *)b)->name);
}
static int compare_places(const void *a, const void *b) {
    const sd_gguf_tensor *s = *(const sd_gguf_tensor *const *)a,
                         *t = *(const sd_gguf_tensor *const *)b;
    uintptr_t p = (uintptr_t)s->data, q = (uintptr_t)t->data;
    return p < q ? -1 : p > q;
}

static sd_status read_entries(cursor *c, size_t n) {
    sd_status st = SD_OK;
    sd_gguf *g = c->g;
    g->entry = sd_arena_alloc(&g->arena, n + 1, sizeof *g->entry);
    g->by_key = sd_arena_alloc(&g->arena, n + 1, sizeof *g->by_key);
    SD_CHECK_ALLOC(g->entry, c->err);
    SD_CHECK_ALLOC(g->by_key, c->err);
    for (size_t i = 0; i < n; i++) {
        sd_gguf_entry *e = &g->entry[i];
        SD_TRY(take_name(c, &e->key, "a metadata key"));
        SD_TRY(take_value(c, e));
        g->by_key[i] = e;
        g->n_entries++;
    }
    qsort(g->by_key, n, sizeof *g->by_key, compare_entries);
    for (size_t i = 1; i < n; i++)
        if (strcmp(g->by_key[i - 1]->key, g->by_key[i]->key) == 0)
            return fail_at(c, g->by_key[i]->raw - g->bytes, "the key %s stands there twice",
                           g->by_key[i]->key);
out:
    return st;
}

// Files hold their tensors one behind the other, as every writer lays them out: where these do and the
// last one lies behind the end, the rest of the file is missing. Offsets at random are damage.
static sd_status check_length(const cursor *c, const uint64_t *offset, size_t base,
                              uint32_t align) {
    const sd_gguf *g = c->g;
    uint64_t next = 0;
    for (int i = 0; i < g->n_tensors; i++) {
        uint64_t bytes = g->tensor[i].bytes;
        if (offset[i] != next || bytes > (UINT64_C(1) << 60) - next) return SD_OK;
        next = (next + bytes + align - 1) / align * align;
        if (i + 1 == g->n_tensors)
            next = offset[i] + bytes; // some writers leave out the last padding
    }
    // A file without tensors, a vocabulary, ends with its metadata.
    if (base + next <= g->size || g->n_tensors == 0) return SD_OK;
    return fail_at(
        c, g->size,
        "the file is truncated: %.3g of %.3g GB are there (%zu of %llu bytes); download or "
        "copy it again, or join it with the rest if it is the first piece of a file that "
        "was cut",
        (double)g->size / 1e9, (double)(base + next) / 1e9, g->size,
        (unsigned long long)(base + next));
}

static sd_status place_tensors(cursor *c, const uint64_t *offset) {
    sd_gguf *g = c->g;
    uint32_t align = DEFAULT_ALIGNMENT;
    const sd_gguf_entry *e = sd_gguf_entry_find(g, "general.alignment");
    sd_status st = sd_gguf_u32(g, "general.alignment", &align, NULL, c->err);
    if (st != SD_OK) return st;
    if (align < MIN_ALIGNMENT || align > MAX_ALIGNMENT || (align & (align - 1)))
        return fail_at(c, e ? e->raw - g->bytes : 0,
                       "general.alignment is not a power of two from %d to %d", MIN_ALIGNMENT,
                       MAX_ALIGNMENT);
    size_t base = (c->at + align - 1) / align * align;
    size_t room = base < g->size ? g->size - base : 0;
    st = check_length(c, offset, base, align);
    if (st != SD_OK) return st;
    for (int i = 0; i < g->n_tensors; i++) {
        sd_gguf_tensor *t = &g->tensor[i];
        if (offset[i] % align || offset[i] > room || t->bytes > room - offset[i])
            return fail_at(c, base,
                           "tensor %s (%zu bytes at %llu of the data section) lies outside the %zu "
                           "bytes that the file has, or is not aligned to %u; copy or download it "
                           "again",
                           t->name, t->bytes, (unsigned long long)offset[i], room, align);
        t->data = g->bytes + base + offset[i];
        g->by_name[i] = t;
    }
    return SD_OK;
}

static sd_status check_places(cursor *c) {
    sd_gguf *g = c->g;
    size_t n = (size_t)g->n_tensors;
    qsort(g->by_name, n, sizeof *g->by_name, compare_places);
    for (size_t i = 1; i < n; i++) {
        const sd_gguf_tensor *s = g->by_name[i - 1], *t = g->by_name[i];
        if ((const uint8_t *)s->data + s->bytes > (const uint8_t *)t->data)
            return fail_at(c, (const uint8_t *)t->data - g->bytes,
                           "tensors %s and %s overlap; the file is damaged", s->name, t->name);
    }
    qsort(g->by_name, n, sizeof *g->by_name, sd_gguf_compare_names);
    for (size_t i = 1; i < n; i++)
        if (strcmp(g->by_name[i - 1]->name, g->by_name[i]->name) == 0)
            return fail_at(c, (const uint8_t *)g->by_name[i]->data - g->bytes,
                           "the tensor %s stands there twice", g->by_name[i]->name);
    return SD_OK;
}

static sd_status read_tensors(cursor *c, size_t n) {
    sd_status st = SD_OK;
    sd_gguf *g = c->g;
    uint64_t *offset = sd_alloc(n + 1, sizeof *offset);
    g->tensor = sd_arena_alloc(&g->arena, n + 1, sizeof *g->tensor);
    g->by_name = sd_arena_alloc(&g->arena, n + 1, sizeof *g->by_name);
    SD_CHECK_ALLOC(offset, c->err);
    SD_CHECK_ALLOC(g->tensor, c->err);
    SD_CHECK_ALLOC(g->by_name, c->err);
    for (size_t i = 0; i < n; i++) SD_TRY(take_tensor(c, &g->tensor[i], &offset[i]));
    g->n_tensors = (int)n;
    SD_TRY(place_tensors(c, offset));
    SD_TRY(check_places(c));
out:
    free(offset);
    return st;
}

// n things of at least `each` bytes, as the header says, against the rest of the file.
static sd_status check_count(const cursor *c, size_t at, uint64_t n, uint64_t most, size_t each,
                             const char *what) {
    if (n > most)
        return fail_at(c, at, "%llu %s are more than %llu; the file is damaged",
                       (unsigned long long)n, what, (unsigned long long)most);
    if (n > left(c) / each)
        return fail_at(c, at,
                       "the file is truncated: its %zu bytes end before its %llu %s do; copy or "
                       "download it again",
                       c->g->size, (unsigned long long)n, what);
    return SD_OK;
}

static sd_status parse(sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    cursor c = {g, 0, err};
    uint32_t version = 0;
    uint64_t tensors = 0, entries = 0;
    if (g->size < 4 || memcmp(g->bytes, "GGUF", 4) != 0) {
        const char *is = sd_foreign_file(g->bytes, g->size);
        return sd_fail(err, SD_EFORMAT, "%s: byte 0: %s", g->path,
                       is ? is : "does not begin with \"GGUF\"; give a GGUF file");
    }
    c.at = 4;
    SD_TRY(take(&c, &version, 4, "the header"));
    SD_CHECK(version == 2 || version == 3, err, SD_EFORMAT,
             "%s: byte 4: GGUF version %u%s is not supported; use version 2 or 3, little-endian",
             g->path, version, version > 0xffff ? " (big-endian?)" : "");
    SD_TRY(take(&c, &tensors, 8, "the header"));
    SD_TRY(take(&c, &entries, 8, "the header"));
    SD_TRY(check_count(&c, 8, tensors, MAX_TENSORS, MIN_TENSOR_BYTES, "tensors"));
    SD_TRY(check_count(&c, 16, entries, MAX_ENTRIES, MIN_ENTRY_BYTES, "metadata entries"));
    SD_TRY(read_entries(&c, (size_t)entries));
    SD_TRY(read_tensors(&c, (size_t)tensors));
out:
    return st;
}

static sd_status finish(sd_gguf **out, sd_gguf *g, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    g->path = sd_strdup(name);
    SD_CHECK_ALLOC(g->path, err);
    st = parse(g, err);
    // Zeros that stand for what could not be read are no GGUF; the reason goes before the symptom.
    if (st != SD_OK && sd_map_look(&g->map) == SD_MAP_LOST)
        st = sd_map_check(&g->map, g->path, err);
    if (st != SD_OK) goto out;
    *out = g;
    g = NULL;
out:
    sd_gguf_close(g);
    return st;
}

sd_status sd_gguf_from_memory(sd_gguf **out, const void *data, size_t size, const char *name,
                              sd_error *err) {
    *out = NULL;
    sd_gguf *g = sd_alloc(1, sizeof *g);
    if (!g) return sd_fail(err, SD_ENOMEM, "%s: out of memory", name);
    g->bytes = data;
    g->size = size;
    return finish(out, g, name, err);
}

sd_status sd_gguf_open(sd_gguf **out, const char *path, sd_error *err) {
    *out = NULL;
    sd_gguf *g = sd_alloc(1, sizeof *g);
    if (!g) return sd_fail(err, SD_ENOMEM, "%s: out of memory", path);
    sd_status st = sd_map_open(&g->map, path, err);
    if (st != SD_OK) {
        sd_gguf_close(g);
        return st;
    }
    g->bytes = g->map.data;
    g->size = g->map.size;
    return finish(out, g, path, err);
}

int sd_gguf_file_count(const sd_gguf *g) {
    return g->part ? g->n_parts : g->map.data ? 1 : 0;
}

static const sd_gguf *file_at(const sd_gguf *g, int i) {
    return g->part ? g->part[i] : g;
}
const char *sd_gguf_file_path(const sd_gguf *g, int i) {
    return file_at(g, i)->path;
}
sd_map *sd_gguf_file_map(sd_gguf *g, int i) {
    return g->part ? &g->part[i]->map : &g->map;
}

void sd_gguf_forget(const sd_gguf *g) {
    for (int i = 0; g && i < sd_gguf_file_count(g); i++) sd_map_forget(&file_at(g, i)->map);
}

const sd_map *sd_gguf_map(const sd_gguf *g, const void *p, size_t bytes) {
    for (int i = 0; g && i < sd_gguf_file_count(g); i++) {
        const sd_map *map = &file_at(g, i)->map;
        if (sd_map_holds(map, p, bytes)) return map;
    }
    return NULL;
}

void sd_gguf_close(sd_gguf *g) {
    if (!g) return;
    for (int i = 1; i < g->n_parts; i++) sd_gguf_close(g->part[i]);
    free(g->part);
    sd_map_close(&g->map);
    sd_arena_free(&g->arena);
    free(g->path);
    free(g);
}
