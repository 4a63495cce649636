// Typed access to what gguf.c has validated. Lookup is a binary search: a model has a few dozen
// keys and a few hundred tensors, each asked for once.
#include "model/gguf.h"
#include "model/gguf_private.h"

#include <string.h>

const char *sd_gguf_path(const sd_gguf *g) {
    return g->path;
}

const sd_gguf_entry *sd_gguf_entry_find(const sd_gguf *g, const char *key) {
    size_t lo = 0, hi = (size_t)g->n_entries;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(key, g->by_key[mid]->key);
        if (c == 0) return g->by_key[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const sd_gguf_tensor *sd_gguf_tensor_find(const sd_gguf *g, const char *name) {
    size_t lo = 0, hi = (size_t)g->n_tensors;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(name, g->by_name[mid]->name);
        if (c == 0) return g->by_name[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

int sd_gguf_tensor_count(const sd_gguf *g) {
    return g->n_tensors;
}
const sd_gguf_tensor *sd_gguf_tensor_at(const sd_gguf *g, int i) {
    return i >= 0 && i < g->n_tensors ? &g->tensor[i] : NULL;
}

// Any integer, sign-extended. Unsigned 64-bit values beyond INT64_MAX do not count as integers
// here.
static bool read_integer(sd_gguf_type type, const uint8_t *p, int64_t *out) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v;
    size_t n = sd_gguf_scalar_bytes(type);
    if (n == 0 || n > sizeof v) return false;
    memcpy(&v, p, n);
    switch (type) {
    case SD_GGUF_U8:
        return *out = v.u8, true;
    case SD_GGUF_I8:
        return *out = v.i8, true;
    case SD_GGUF_U16:
        return *out = v.u16, true;
    case SD_GGUF_I16:
        return *out = v.i16, true;
    case SD_GGUF_U32:
        return *out = v.u32, true;
    case SD_GGUF_I32:
        return *out = v.i32, true;
    case SD_GGUF_U64:
        return *out = (int64_t)v.u64, v.u64 <= INT64_MAX;
    case SD_GGUF_I64:
        return *out = v.i64, true;
    default:
        return false;
    }
}

static bool read_float(sd_gguf_type type, const uint8_t *p, double *out) {
    if (type == SD_GGUF_F32) {
        float f;
        memcpy(&f, p, 4);
        *out = (double)f;
        return true;
    }
    if (type != SD_GGUF_F64) return false;
    memcpy(out, p, 8);
    return true;
}

bool sd_gguf_u32(const sd_gguf *g, const char *key, uint32_t *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    int64_t v;
    if (!e || !read_integer(e->type, e->data, &v) || v < 0 || v > UINT32_MAX) return false;
    *out = (uint32_t)v;
    return true;
}

bool sd_gguf_f32(const sd_gguf *g, const char *key, float *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    double v;
    if (!e || !read_float(e->type, e->data, &v)) return false;
    *out = (float)v;
    return true;
}

bool sd_gguf_bool(const sd_gguf *g, const char *key, bool *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    if (!e || e->type != SD_GGUF_BOOL) return false;
    *out = e->data[0] != 0;
    return true;
}

bool sd_gguf_str(const sd_gguf *g, const char *key, sd_gguf_string *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    if (!e || e->type != SD_GGUF_STRING) return false;
    *out = (sd_gguf_string){(const char *)e->data, e->count};
    return true;
}

static const sd_gguf_entry *array(const sd_gguf *g, const char *key, sd_gguf_type type) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    return e && e->type == SD_GGUF_ARRAY && e->elem == type ? e : NULL;
}

size_t sd_gguf_array_len(const sd_gguf *g, const char *key, sd_gguf_type type) {
    const sd_gguf_entry *e = array(g, key, type);
    return e ? e->count : 0;
}

bool sd_gguf_array_str(const sd_gguf *g, const char *key, size_t i, sd_gguf_string *out) {
    const sd_gguf_entry *e = array(g, key, SD_GGUF_STRING);
    if (!e || i >= e->count) return false;
    *out = e->strings[i];
    return true;
}

const void *sd_gguf_array_data(const sd_gguf *g, const char *key, sd_gguf_type type, size_t *n) {
    const sd_gguf_entry *e = type == SD_GGUF_STRING ? NULL : array(g, key, type);
    *n = e ? e->count : 0;
    return e ? e->data : NULL;
}

int sd_gguf_key_count(const sd_gguf *g) {
    return g->n_entries;
}

const char *sd_gguf_key_at(const sd_gguf *g, int i, sd_gguf_type *type) {
    if (i < 0 || i >= g->n_entries) return NULL;
    if (type) *type = g->entry[i].type;
    return g->entry[i].key;
}

const void *sd_gguf_value_raw(const sd_gguf *g, int i, size_t *bytes) {
    if (i < 0 || i >= g->n_entries) return NULL;
    *bytes = g->entry[i].raw_bytes;
    return g->entry[i].raw;
}

static bool describe_string(const char *s, size_t len, sd_buf *out) {
    enum { SHOWN = 120 };
    bool ok = sd_buf_addc(out, '"');
    for (size_t i = 0; ok && i < len && i < SHOWN; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '\n')
            ok = sd_buf_adds(out, "\\n");
        else if (c < 0x20 || c == 0x7f)
            ok = sd_buf_printf(out, "\\x%02x", c);
        else
            ok = sd_buf_addc(out, (char)c);
    }
    return ok && sd_buf_adds(out, len > SHOWN ? "...\"" : "\"");
}

static bool describe_scalar(sd_gguf_type type, const uint8_t *p, sd_buf *out) {
    int64_t i;
    double f;
    if (type == SD_GGUF_BOOL) return sd_buf_adds(out, p[0] ? "true" : "false");
    if (read_integer(type, p, &i)) return sd_buf_printf(out, "%lld", (long long)i);
    if (read_float(type, p, &f)) return sd_buf_printf(out, "%.9g", f);
    return sd_buf_adds(out, "more than 2^63");
}

bool sd_gguf_describe(const sd_gguf *g, int i, sd_buf *out) {
    enum { SHOWN = 4 };
    if (i < 0 || i >= g->n_entries) return false;
    const sd_gguf_entry *e = &g->entry[i];
    if (e->type == SD_GGUF_STRING) return describe_string((const char *)e->data, e->count, out);
    if (e->type != SD_GGUF_ARRAY) return describe_scalar(e->type, e->data, out);
    bool ok = sd_buf_addc(out, '[');
    for (size_t k = 0; ok && k < e->count && k < SHOWN; k++) {
        if (k) ok = sd_buf_adds(out, ", ");
        if (ok && e->elem == SD_GGUF_STRING)
            ok = describe_string(e->strings[k].data, e->strings[k].len, out);
        else if (ok)
            ok = describe_scalar(e->elem, e->data + k * sd_gguf_scalar_bytes(e->elem), out);
    }
    if (ok && e->count > SHOWN) ok = sd_buf_printf(out, ", ... (%zu)", e->count);
    return ok && sd_buf_addc(out, ']');
}
