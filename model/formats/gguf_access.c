// Typed access to what gguf.c has validated. Lookup is a binary search: a model has a few dozen
// keys and a few hundred tensors, each asked for once.
#include "model/formats/gguf.h"
#include "model/formats/gguf_private.h"

#include <math.h>
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

size_t sd_gguf_scalar_bytes(uint32_t type) {
#define TYPE_BYTES(name, size, word) size,
    static const uint8_t bytes[] = {SD_GGUF_TYPE_LIST(TYPE_BYTES)};
#undef TYPE_BYTES
    return type < sizeof bytes ? bytes[type] : 0;
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

static sd_status unreadable(const sd_gguf *g, const sd_gguf_entry *e, const char *want,
                            sd_error *err) {
#define TYPE_WORD(name, bytes, word) word,
    static const char *const names[] = {SD_GGUF_TYPE_LIST(TYPE_WORD)};
#undef TYPE_WORD
    sd_buf value = sd_buf_make(4096);
    (void)sd_gguf_describe(g, (int)(e - g->entry), &value);
    sd_status st = sd_fail(err, SD_EFORMAT,
                           "%s: the key %s is %s (%.200s), where %s is needed; convert the model "
                           "again",
                           g->path, e->key, names[e->type], value.data ? value.data : "", want);
    sd_buf_free(&value);
    return st;
}

// A whole number that a double holds exactly.
static bool whole(double v, int64_t *out) {
    if (!(v >= -0x1p53 && v <= 0x1p53) || v != floor(v)) return false;
    *out = (int64_t)v;
    return true;
}

static bool entry_integer(const sd_gguf_entry *e, int64_t *out) {
    double f;
    return read_integer(e->type, e->data, out) ||
           (read_float(e->type, e->data, &f) && whole(f, out));
}

static const sd_gguf_entry *find(const sd_gguf *g, const char *key, bool *has) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    if (has) *has = e != NULL;
    return e;
}

sd_status sd_gguf_u32(const sd_gguf *g, const char *key, uint32_t *out, bool *has, sd_error *err) {
    const sd_gguf_entry *e = find(g, key, has);
    int64_t v;
    if (!e) return SD_OK;
    if (!entry_integer(e, &v) || v < 0 || v > UINT32_MAX)
        return unreadable(g, e, "a whole number from 0 to 2^32 - 1", err);
    *out = (uint32_t)v;
    return SD_OK;
}

// "No token" is -1, which files also write as an unsigned number of 4 or 8 bytes.
static bool is_minus_one(const sd_gguf_entry *e) {
    static const uint8_t ones[8] = {255, 255, 255, 255, 255, 255, 255, 255};
    size_t n = sd_gguf_scalar_bytes(e->type);
    bool narrow = e->type == SD_GGUF_U8 || e->type == SD_GGUF_U16 || e->type == SD_GGUF_BOOL;
    return n > 0 && !narrow && e->type != SD_GGUF_F32 && e->type != SD_GGUF_F64 &&
           memcmp(e->data, ones, n) == 0;
}

sd_status sd_gguf_token(const sd_gguf *g, const char *key, int32_t *out, sd_error *err) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    int64_t v;
    *out = -1;
    if (!e || is_minus_one(e)) return SD_OK;
    if (!entry_integer(e, &v) || v < 0 || v > INT32_MAX)
        return unreadable(g, e, "a token's id", err);
    *out = (int32_t)v;
    return SD_OK;
}

sd_status sd_gguf_f32(const sd_gguf *g, const char *key, float *out, bool *has, sd_error *err) {
    const sd_gguf_entry *e = find(g, key, has);
    double f;
    int64_t i;
    if (!e) return SD_OK;
    if (read_integer(e->type, e->data, &i)) {
        f = (double)(float)i;
        if (!(fabs(f) < 0x1p62) || (int64_t)f != i)
            return unreadable(g, e, "a number that fp32 holds", err);
    } else if (!read_float(e->type, e->data, &f) || !isfinite((float)f)) {
        return unreadable(g, e, "a finite number", err);
    }
    *out = (float)f;
    return SD_OK;
}

sd_status sd_gguf_bool(const sd_gguf *g, const char *key, bool *out, bool *has, sd_error *err) {
    const sd_gguf_entry *e = find(g, key, has);
    int64_t i;
    if (!e) return SD_OK;
    if (e->type == SD_GGUF_BOOL)
        i = e->data[0];
    else if (!read_integer(e->type, e->data, &i))
        i = -1;
    if (i != 0 && i != 1) return unreadable(g, e, "true or false", err);
    *out = i == 1;
    return SD_OK;
}

sd_status sd_gguf_str(const sd_gguf *g, const char *key, sd_gguf_string *out, bool *has,
                      sd_error *err) {
    const sd_gguf_entry *e = find(g, key, has);
    if (!e) return SD_OK;
    if (e->type != SD_GGUF_STRING) return unreadable(g, e, "a string", err);
    *out = (sd_gguf_string){(const char *)e->data, e->count};
    return SD_OK;
}

bool sd_gguf_str_is(const sd_gguf *g, const char *key, const char *text) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    return e && e->type == SD_GGUF_STRING && e->count == strlen(text) &&
           memcmp(e->data, text, e->count) == 0;
}

bool sd_gguf_has_key(const sd_gguf *g, const char *key) {
    return sd_gguf_entry_find(g, key) != NULL;
}

bool sd_gguf_is_array(const sd_gguf *g, const char *key) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    return e && e->type == SD_GGUF_ARRAY;
}

sd_status sd_gguf_strings(const sd_gguf *g, const char *key, size_t *n, sd_error *err) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    *n = e && e->type == SD_GGUF_ARRAY ? e->count : 0;
    if (e && (e->type != SD_GGUF_ARRAY || (e->elem != SD_GGUF_STRING && e->count > 0)))
        return unreadable(g, e, "an array of strings", err);
    return SD_OK;
}

sd_status sd_gguf_integers(const sd_gguf *g, const char *key, size_t *n, sd_error *err) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    *n = e && e->type == SD_GGUF_ARRAY ? e->count : 0;
    int64_t v;
    for (size_t i = 0; e && (i == 0 || i < *n); i++)
        if (e->type != SD_GGUF_ARRAY || (*n > 0 && !sd_gguf_array_int(g, key, i, &v)))
            return unreadable(g, e, "an array of whole numbers", err);
    return SD_OK;
}

sd_status sd_gguf_floats(const sd_gguf *g, const char *key, size_t *n, sd_error *err) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    *n = e && e->type == SD_GGUF_ARRAY ? e->count : 0;
    float v;
    if (e && (e->type != SD_GGUF_ARRAY || (*n > 0 && !sd_gguf_array_f32(g, key, 0, &v))))
        return unreadable(g, e, "an array of numbers", err);
    return SD_OK;
}

bool sd_gguf_array_str(const sd_gguf *g, const char *key, size_t i, sd_gguf_string *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    if (!e || e->type != SD_GGUF_ARRAY || e->elem != SD_GGUF_STRING || i >= e->count) return false;
    *out = e->strings[i];
    return true;
}

bool sd_gguf_array_int(const sd_gguf *g, const char *key, size_t i, int64_t *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    double f;
    if (!e || e->type != SD_GGUF_ARRAY || i >= e->count) return false;
    const uint8_t *p = e->data + i * sd_gguf_scalar_bytes(e->elem);
    return read_integer(e->elem, p, out) || (read_float(e->elem, p, &f) && whole(f, out));
}

bool sd_gguf_array_f32(const sd_gguf *g, const char *key, size_t i, float *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    double f;
    int64_t v;
    if (!e || e->type != SD_GGUF_ARRAY || i >= e->count) return false;
    const uint8_t *p = e->data + i * sd_gguf_scalar_bytes(e->elem);
    if (read_float(e->elem, p, &f))
        *out = (float)f;
    else if (read_integer(e->elem, p, &v))
        *out = (float)v;
    else
        return false;
    return true;
}

size_t sd_gguf_array_size(const sd_gguf *g, const char *key) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    return e && e->type == SD_GGUF_ARRAY ? e->count : 0;
}

bool sd_gguf_array_bool(const sd_gguf *g, const char *key, size_t i, bool *out) {
    const sd_gguf_entry *e = sd_gguf_entry_find(g, key);
    int64_t v;
    if (!e || e->type != SD_GGUF_ARRAY || i >= e->count) return false;
    const uint8_t *p = e->data + i * sd_gguf_scalar_bytes(e->elem);
    if (e->elem == SD_GGUF_BOOL)
        v = *p;
    else if (!read_integer(e->elem, p, &v))
        return false;
    *out = v == 1;
    return v == 0 || v == 1;
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
