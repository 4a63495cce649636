// The GGUF writer: metadata is gathered in memory (a few MB of vocabulary at most), tensors are
// declared, then stream through in order, so a merged model never needs a second copy of itself.
// Version 3, alignment 32.
#include "model/formats/gguf_write.h"
#include "base/files/replace.h"
#include "base/list.h"

#include <string.h>

enum { ALIGNMENT = 32, MAX_HEADER = 1 << 30 };

typedef struct {
    size_t bytes, offset;
} place;

struct sd_gguf_writer {
    sd_replace file;
    sd_buf entries, tensors;
    uint64_t n_entries, n_tensors;
    place *place;
    size_t cap;
    size_t data_bytes;  // of all declared tensors, each padded to the alignment
    uint64_t n_written; // tensors
    bool header_done;
};

sd_status sd_gguf_writer_open(sd_gguf_writer **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_gguf_writer *w = sd_alloc(1, sizeof *w);
    SD_CHECK_ALLOC(w, err);
    w->entries = sd_buf_make(MAX_HEADER);
    w->tensors = sd_buf_make(MAX_HEADER);
    SD_TRY(sd_replace_open(&w->file, path, err));
    *out = w;
    w = NULL;
out:
    sd_gguf_writer_abort(w);
    return st;
}

void sd_gguf_writer_abort(sd_gguf_writer *w) {
    if (!w) return;
    sd_replace_abort(&w->file);
    sd_buf_free(&w->entries);
    sd_buf_free(&w->tensors);
    free(w->place);
    free(w);
}

static bool add_string(sd_buf *b, const char *s, size_t n) {
    uint64_t len = n;
    return sd_buf_add(b, &len, 8) && sd_buf_add(b, s, n);
}

sd_status sd_gguf_put_raw(sd_gguf_writer *w, const char *key, sd_gguf_type type, const void *value,
                          size_t bytes, sd_error *err) {
    SD_ASSERT(!w->header_done);
    uint32_t t = (uint32_t)type;
    if (!add_string(&w->entries, key, strlen(key)) || !sd_buf_add(&w->entries, &t, 4) ||
        !sd_buf_add(&w->entries, value, bytes))
        return sd_fail(err, SD_ELIMIT, "%s: metadata of more than %d bytes, or out of memory",
                       w->file.path, MAX_HEADER);
    w->n_entries++;
    return SD_OK;
}

sd_status sd_gguf_put_str(sd_gguf_writer *w, const char *key, const char *value, sd_error *err) {
    sd_buf b = sd_buf_make(MAX_HEADER);
    sd_status st = add_string(&b, value, strlen(value))
                       ? sd_gguf_put_raw(w, key, SD_GGUF_STRING, b.data, b.len, err)
                       : sd_fail(err, SD_ENOMEM, "%s: out of memory", w->file.path);
    sd_buf_free(&b);
    return st;
}

sd_status sd_gguf_put_u32(sd_gguf_writer *w, const char *key, uint32_t value, sd_error *err) {
    return sd_gguf_put_raw(w, key, SD_GGUF_U32, &value, 4, err);
}
sd_status sd_gguf_put_f32(sd_gguf_writer *w, const char *key, float value, sd_error *err) {
    return sd_gguf_put_raw(w, key, SD_GGUF_F32, &value, 4, err);
}
sd_status sd_gguf_put_bool(sd_gguf_writer *w, const char *key, bool value, sd_error *err) {
    uint8_t v = value;
    return sd_gguf_put_raw(w, key, SD_GGUF_BOOL, &v, 1, err);
}

static bool push_place(sd_gguf_writer *w, size_t bytes) {
    if (!SD_GROW(w->place, w->n_tensors + 1, w->cap)) return false;
    w->place[w->n_tensors++] = (place){bytes, w->data_bytes};
    w->data_bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return true;
}

sd_status sd_gguf_declare(sd_gguf_writer *w, const char *name, sd_dtype dtype, int n_dims,
                          const int64_t *ne, sd_error *err) {
    SD_ASSERT(!w->header_done && n_dims >= 1 && n_dims <= 4);
    size_t bytes = ne[0] > 0 && ne[0] <= INT32_MAX && ne[0] % sd_dtype_block(dtype) == 0
                       ? sd_row_bytes(dtype, (int)ne[0])
                       : 0;
    for (int d = 1; d < n_dims; d++)
        if (ne[d] < 1 || !sd_mul_size(&bytes, bytes, (size_t)ne[d])) bytes = 0;
    if (bytes == 0)
        return sd_fail(err, SD_EINVAL, "%s: tensor %s: %s cannot hold rows of %lld", w->file.path,
                       name, sd_dtype_name(dtype), (long long)ne[0]);
    uint32_t dims = (uint32_t)n_dims, type = (uint32_t)dtype;
    uint64_t offset = w->data_bytes;
    bool ok = add_string(&w->tensors, name, strlen(name)) && sd_buf_add(&w->tensors, &dims, 4);
    ok = ok && sd_buf_add(&w->tensors, ne, (size_t)n_dims * 8) &&
         sd_buf_add(&w->tensors, &type, 4) && sd_buf_add(&w->tensors, &offset, 8);
    if (!ok || !push_place(w, bytes))
        return sd_fail(err, SD_ENOMEM, "%s: out of memory", w->file.path);
    return SD_OK;
}

static void put(sd_gguf_writer *w, const void *data, size_t n) {
    if (n) fwrite(data, 1, n, w->file.f); // errors are found by sd_replace_commit
}
static void pad(sd_gguf_writer *w, size_t written) {
    static const char zero[ALIGNMENT];
    put(w, zero, (ALIGNMENT - written % ALIGNMENT) % ALIGNMENT);
}

static void write_header(sd_gguf_writer *w) {
    uint32_t version = 3;
    put(w, "GGUF", 4);
    put(w, &version, 4);
    put(w, &w->n_tensors, 8);
    put(w, &w->n_entries, 8);
    put(w, w->entries.data, w->entries.len);
    put(w, w->tensors.data, w->tensors.len);
    pad(w, 24 + w->entries.len + w->tensors.len);
    w->header_done = true;
}

sd_status sd_gguf_write_tensor(sd_gguf_writer *w, const void *data, size_t bytes, sd_error *err) {
    if (!w->header_done) write_header(w);
    if (w->n_written >= w->n_tensors || bytes != w->place[w->n_written].bytes)
        return sd_fail(err, SD_EINVAL,
                       "%s: tensor %llu has %zu bytes, which is not what was declared",
                       w->file.path, (unsigned long long)w->n_written, bytes);
    put(w, data, bytes);
    pad(w, bytes);
    w->n_written++;
    return SD_OK;
}

sd_status sd_gguf_writer_commit(sd_gguf_writer *w, sd_error *err) {
    sd_status st = SD_OK;
    if (!w->header_done) write_header(w);
    SD_CHECK(w->n_written == w->n_tensors, err, SD_EINVAL,
             "%s: %llu tensors were declared, %llu written", w->file.path,
             (unsigned long long)w->n_tensors, (unsigned long long)w->n_written);
    SD_TRY(sd_replace_commit(&w->file, err));
out:
    sd_gguf_writer_abort(w);
    return st;
}
