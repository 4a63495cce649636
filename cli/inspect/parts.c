#include "cli/inspect/parts.h"

#include "base/memory.h"
#include "model/tokenizer/tokenizer.h"

#include <string.h>

json_t *sd_json_text(const char *bytes, size_t len) {
    sd_buf b = sd_buf_make(SIZE_MAX / 4);
    sd_utf8_stream s = {0};
    json_t *v = NULL;
    if (sd_utf8_stream_add(&s, bytes, len, &b) && sd_utf8_stream_add(&s, NULL, 0, &b) &&
        sd_buf_adds(&b, ""))
        v = json_stringn(b.data, b.len);
    sd_buf_free(&b);
    return v ? v : json_null();
}

json_t *sd_inspect_text(const char *s) {
    return sd_json_text(s, strlen(s));
}

// ---- tensors: how many of each type, and their bytes

typedef struct {
    const char *name;
    int64_t tensors, bytes;
} type_row;

static void count_type(type_row *rows, int *n, int cap, const char *name, size_t bytes) {
    int i = 0;
    while (i < *n && strcmp(rows[i].name, name) != 0) i++;
    if (i == *n) {
        if (*n == cap) return;
        rows[(*n)++] = (type_row){.name = name};
    }
    rows[i].tensors++;
    rows[i].bytes += (int64_t)bytes;
}

static json_t *shape_json(const int64_t *ne, int n, bool reversed) {
    json_t *a = json_array();
    for (int d = 0; d < n; d++)
        json_array_append_new(a, json_integer(ne[reversed ? n - 1 - d : d]));
    return a;
}

void sd_inspect_add_tensors(json_t *o, const sd_gguf *g, const sd_safetensors *s, bool list) {
    enum { CAP = 32 };
    type_row rows[CAP];
    int n_rows = 0, n = g ? sd_gguf_tensor_count(g) : sd_safetensors_count(s);
    json_t *tensors = json_array(), *types = json_array();
    for (int i = 0; i < n; i++) {
        const sd_gguf_tensor *t = g ? sd_gguf_tensor_at(g, i) : NULL;
        const sd_st_tensor *u = g ? NULL : sd_safetensors_at(s, i);
        const char *type = t ? sd_dtype_name(t->dtype) : u->dtype_name;
        size_t bytes = t ? t->bytes : u->bytes;
        count_type(rows, &n_rows, CAP, type, bytes);
        if (!list) continue;
        json_array_append_new(tensors, json_pack("{s:o, s:s, s:o, s:I}", "name",
                                                 sd_inspect_text(t ? t->name : u->name), "type",
                                                 type, "shape",
                                                 t ? shape_json(t->ne, t->n_dims, true)
                                                   : shape_json(u->shape, u->n_dims, false),
                                                 "bytes", (json_int_t)bytes));
    }
    for (int i = 0; i < n_rows; i++)
        json_array_append_new(types, json_pack("{s:s, s:I, s:I}", "type", rows[i].name, "tensors",
                                               (json_int_t)rows[i].tensors, "bytes",
                                               (json_int_t)rows[i].bytes));
    json_object_set_new(o, "types", types);
    if (list) json_object_set(o, "tensors", tensors);
    json_decref(tensors);
}

void sd_inspect_add_metadata(json_t *o, const sd_gguf *g) {
    json_t *m = json_object();
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_buf b = sd_buf_make(1 << 20);
        if (sd_gguf_describe(g, i, &b))
            json_object_set_new(m, sd_gguf_key_at(g, i, NULL), sd_json_text(b.data, b.len));
        sd_buf_free(&b);
    }
    json_object_set_new(o, "metadata", m);
}
