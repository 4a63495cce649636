// The safetensors reader and writer.
//
//   1. u64 header length, little-endian
//   2. the header: JSON, {"name": {"dtype": "F32", "shape": [...], "data_offsets": [a, b]}, ...,
//      "__metadata__": {string: string}}
//   3. the data; offsets count from its first byte
//
// A folder's shards are opened as one set of tensors, so callers never see the split.
#include "model/formats/safetensors.h"

#include "base/files/json_file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/list.h"
#include "base/memory.h"
#include "model/formats/foreign_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100 << 20, MAX_INDEX = 100 << 20, MAX_TENSORS = 1 << 20, MAX_FILES = 4096 };

typedef struct {
    char *path;
    sd_map map; // zero when the bytes are the caller's
} source;

struct sd_safetensors {
    sd_arena arena;
    source *file;
    int n_files;
    sd_st_tensor *tensor; // sorted by name
    int n, cap;
    json_t *metadata; // of the first file that has any
};

typedef struct {
    const char *name;
    size_t bytes;
    sd_dtype dtype;
} element_type;

static const element_type types[] = {
    {"F32", 4, SD_F32},       {"F16", 2, SD_F16},          {"BF16", 2, SD_BF16},
    {"F64", 8, SD_ST_OTHER},  {"I64", 8, SD_ST_OTHER},     {"U64", 8, SD_ST_OTHER},
    {"I32", 4, SD_ST_OTHER},  {"U32", 4, SD_ST_OTHER},     {"I16", 2, SD_ST_OTHER},
    {"U16", 2, SD_ST_OTHER},  {"I8", 1, SD_ST_OTHER},      {"U8", 1, SD_ST_OTHER},
    {"BOOL", 1, SD_ST_OTHER}, {"F8_E4M3", 1, SD_ST_OTHER}, {"F8_E5M2", 1, SD_ST_OTHER}};

static int compare_names(const void *a, const void *b) {
    return strcmp(((const sd_st_tensor *)a)->name, ((const sd_st_tensor *)b)->name);
}
static int compare_places(const void *a, const void *b) {
    uintptr_t p = (uintptr_t)((const sd_st_tensor *)a)->data,
              q = (uintptr_t)((const sd_st_tensor *)b)->data;
    if (p != q) return p < q ? -1 : 1;
    size_t m = ((const sd_st_tensor *)a)->bytes, n = ((const sd_st_tensor *)b)->bytes;
    return m < n ? -1 : m > n; // one without bytes stands before what begins where it does
}

static sd_st_tensor *push(sd_safetensors *s) {
    if (s->n >= MAX_TENSORS || !SD_GROW(s->tensor, s->n + 1, s->cap)) return NULL;
    return &s->tensor[s->n++];
}

// One header entry; data [room] is the file's data section, which begins at byte `base`.
static sd_status read_entry(sd_safetensors *s, const char *path, const char *name,
                            const json_t *entry, const uint8_t *data, size_t base, size_t room,
                            sd_error *err) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_t *shape = json_object_get(entry, "shape"),
           *extent = json_object_get(entry, "data_offsets");
    if (!dtype || !json_is_array(shape) || !json_is_array(extent) || json_array_size(extent) != 2)
        return sd_fail(err, SD_EFORMAT, "%s: byte 8: tensor %s lacks dtype, shape or data_offsets",
                       path, name);
    size_t k = 0, n_types = sizeof types / sizeof types[0];
    while (k < n_types && strcmp(types[k].name, dtype) != 0) k++;
    if (k == n_types)
        return sd_fail(err, SD_EFORMAT, "%s: byte 8: tensor %s has the unknown dtype %s", path,
                       name, dtype);
    sd_st_tensor t = {.dtype = types[k].dtype, .dtype_name = types[k].name};
    size_t n_dims = json_array_size(shape), bytes = types[k].bytes;
    if (n_dims > 4)
        return sd_fail(err, SD_EFORMAT,
                       "%s: byte 8: tensor %s has %zu dimensions, at most 4 are supported", path,
                       name, n_dims);
    t.n_dims = (int)n_dims;
    for (size_t d = 0; d < n_dims; d++) {
        json_t *v = json_array_get(shape, d);
        json_int_t ne = json_integer_value(v);
        if (!json_is_integer(v) || ne < 0 || ne > INT32_MAX ||
            !sd_mul_size(&bytes, bytes, (size_t)ne))
            return sd_fail(err, SD_EFORMAT,
                           "%s: byte 8: tensor %s: dimension %zu is %lld, which no supported model "
                           "has",
                           path, name, d, (long long)ne);
        t.shape[d] = ne;
    }
    json_int_t a = json_integer_value(json_array_get(extent, 0)),
               b = json_integer_value(json_array_get(extent, 1));
    if (!json_is_integer(json_array_get(extent, 0)) ||
        !json_is_integer(json_array_get(extent, 1)) || a < 0 || b < a || (size_t)b > room ||
        (size_t)(b - a) != bytes)
        return sd_fail(err, SD_EFORMAT,
                       "%s: byte %zu: tensor %s: data_offsets [%lld, %lld] are not the %zu bytes "
                       "of its shape inside the %zu that the file has; copy or download it again",
                       path, base, name, (long long)a, (long long)b, bytes, room);
    t.data = data + a;
    t.bytes = bytes;
    t.name = sd_arena_strndup(&s->arena, name, strlen(name));
    sd_st_tensor *place = t.name ? push(s) : NULL;
    if (!place) return sd_fail(err, SD_ENOMEM, "%s: out of memory", path);
    *place = t;
    return SD_OK;
}

// The format wants every byte of the data in one tensor. Tensors that overlap are one too many.
// Bytes in no tensor hide something, or are left from a header that lost entries.
static sd_status check_cover(sd_st_tensor *t, int n, const char *path, const uint8_t *file,
                             const uint8_t *data, const uint8_t *end, sd_error *err) {
    if (n) qsort(t, (size_t)n, sizeof *t, compare_places);
    const uint8_t *at = data;
    const char *before = "the header";
    for (int i = 0; i <= n; i++) {
        const uint8_t *next = i < n ? t[i].data : end;
        if (next < at)
            return sd_fail(err, SD_EFORMAT,
                           "%s: byte %zu: tensors %s and %s overlap; the file is damaged", path,
                           (size_t)(next - file), before, t[i].name);
        if (next > at)
            return sd_fail(err, SD_EFORMAT,
                           "%s: byte %zu: %zu bytes after %s belong to no tensor; copy or download "
                           "the file again",
                           path, (size_t)(at - file), (size_t)(next - at), before);
        if (i == n) break;
        before = t[i].name;
        at = next + t[i].bytes;
    }
    return SD_OK;
}

// Checks that the metadata is an object of strings; the first file's is kept.
static sd_status read_metadata(sd_safetensors *s, json_t *entry, const char *path, sd_error *err) {
    const char *key;
    json_t *value;
    bool good = json_is_object(entry);
    json_object_foreach(entry, key, value) {
        good = good && json_is_string(value);
    }
    if (!good)
        return sd_fail(err, SD_EFORMAT, "%s: byte 8: __metadata__ is no object of strings", path);
    if (!s->metadata) s->metadata = json_incref(entry);
    return SD_OK;
}

static sd_status read_file(sd_safetensors *s, const uint8_t *file, size_t size, const char *path,
                           sd_error *err) {
    sd_status st = SD_OK;
    json_t *root = NULL;
    uint64_t len = 0;
    int first = s->n;
    if (size >= 8) memcpy(&len, file, 8);
    const char *is = size < 8 || len > size - 8 ? sd_foreign_file(file, size) : NULL;
    SD_CHECK(!is, err, SD_EFORMAT, "%s: byte 0: %s", path, is);
    SD_CHECK(size >= 8, err, SD_EFORMAT, "%s: byte 0: the file ends inside the header", path);
    SD_CHECK(len <= size - 8 && len <= MAX_HEADER, err, SD_EFORMAT,
             "%s: byte 0: a header of %llu bytes does not fit in the file, or is over %d; copy or "
             "download it again",
             path, (unsigned long long)len, MAX_HEADER);
    json_error_t je;
    SD_TRY(
        sd_json_load(&root, (const char *)file + 8, (size_t)len, JSON_REJECT_DUPLICATES, &je, err));
    SD_CHECK(root, err, SD_EFORMAT, "%s: byte %lld: the header is not JSON: %s", path,
             8 + (long long)je.position, je.text);
    SD_CHECK(json_is_object(root), err, SD_EFORMAT, "%s: byte 8: the header is not a JSON object",
             path);
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") != 0)
            SD_TRY(read_entry(s, path, name, entry, file + 8 + len, 8 + (size_t)len,
                              size - 8 - (size_t)len, err));
        else
            SD_TRY(read_metadata(s, entry, path, err));
    }
    SD_TRY(check_cover(s->tensor ? s->tensor + first : NULL, s->n - first, path, file,
                       file + 8 + len, file + size, err));
out:
    json_decref(root);
    return st;
}

static sd_status sort_names(sd_safetensors *s, const char *path, sd_error *err) {
    if (s->n) qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, compare_names);
    for (int i = 1; i < s->n; i++)
        if (strcmp(s->tensor[i - 1].name, s->tensor[i].name) == 0)
            return sd_fail(err, SD_EFORMAT, "%s: the tensor %s stands in two files", path,
                           s->tensor[i].name);
    return SD_OK;
}

static sd_status make(sd_safetensors **out, int n_files, sd_error *err) {
    sd_safetensors *s = sd_alloc(1, sizeof *s);
    source *f = sd_alloc((size_t)n_files, sizeof *f);
    if (!s || !f) {
        free(s);
        free(f);
        return sd_fail(err, SD_ENOMEM, "out of memory");
    }
    s->file = f;
    *out = s;
    return SD_OK;
}

static sd_status add_file(sd_safetensors *s, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    source *f = &s->file[s->n_files];
    f->path = sd_strdup(path);
    SD_CHECK_ALLOC(f->path, err);
    s->n_files++;
    SD_TRY(sd_map_open(&f->map, path, err));
    st = read_file(s, f->map.data, f->map.size, path, err);
    // Zeros that stand for what could not be read are no header; the reason goes before the
    // symptom.
    if (st != SD_OK && sd_map_look(&f->map) == SD_MAP_LOST) st = sd_map_check(&f->map, path, err);
out:
    return st;
}

sd_status sd_safetensors_open(sd_safetensors **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_safetensors *s = NULL;
    *out = NULL;
    SD_TRY(make(&s, 1, err));
    SD_TRY(add_file(s, path, err));
    SD_TRY(sort_names(s, path, err));
    *out = s;
    s = NULL;
out:
    sd_safetensors_close(s);
    return st;
}

sd_status sd_safetensors_from_memory(sd_safetensors **out, const void *data, size_t size,
                                     const char *name, sd_error *err) {
    sd_status st = SD_OK;
    sd_safetensors *s = NULL;
    *out = NULL;
    SD_TRY(make(&s, 1, err));
    s->file[0].path = sd_strdup(name);
    SD_CHECK_ALLOC(s->file[0].path, err);
    s->n_files = 1;
    SD_TRY(read_file(s, data, size, name, err));
    SD_TRY(sort_names(s, name, err));
    *out = s;
    s = NULL;
out:
    sd_safetensors_close(s);
    return st;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The distinct file names of weight_map, in name order. A name is a plain file of the folder.
static sd_status index_files(const char **file, int *n_files, const json_t *map, const char *path,
                             sd_error *err) {
    const char *name;
    json_t *value;
    *n_files = 0;
    json_object_foreach((json_t *)(uintptr_t)map, name, value) {
        const char *f = json_string_value(value);
        if (!f || !*f || strchr(f, '/') || f[0] == '.')
            return sd_fail(err, SD_EFORMAT, "%s: the file of %s is not a plain file name", path,
                           name);
        int i = 0;
        while (i < *n_files && strcmp(file[i], f) != 0) i++;
        if (i < *n_files) continue;
        if (*n_files == MAX_FILES)
            return sd_fail(err, SD_EFORMAT, "%s: more than %d files", path, MAX_FILES);
        file[(*n_files)++] = f;
    }
    if (*n_files) qsort(file, (size_t)*n_files, sizeof *file, compare_strings);
    return SD_OK;
}

static sd_status check_index(const sd_safetensors *s, const json_t *map, const char *path,
                             sd_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value) {
        if (!sd_safetensors_find(s, name))
            return sd_fail(err, SD_EFORMAT, "%s: names the tensor %s, which %s does not hold", path,
                           name, json_string_value(value));
    }
    return SD_OK;
}

static sd_status open_shards(sd_safetensors **out, const char *folder, const char *index,
                             sd_error *err) {
    sd_status st = SD_OK;
    json_t *root = NULL;
    sd_safetensors *s = NULL;
    int n = 0;
    const char **file = sd_alloc(MAX_FILES, sizeof *file);
    SD_CHECK_ALLOC(file, err);
    SD_TRY(sd_json_read(&root, index, MAX_INDEX, JSON_REJECT_DUPLICATES, NULL, err));
    json_t *map = json_object_get(root, "weight_map");
    SD_CHECK(json_is_object(map) && json_object_size(map) > 0, err, SD_EFORMAT,
             "%s: has no weight_map", index);
    SD_TRY(index_files(file, &n, map, index, err));
    SD_TRY(make(&s, n, err));
    for (int i = 0; i < n; i++) {
        char *path = sd_path_join(folder, file[i]);
        SD_CHECK_ALLOC(path, err);
        st = add_file(s, path, err);
        free(path);
        if (st != SD_OK) goto out;
    }
    SD_TRY(sort_names(s, folder, err));
    SD_TRY(check_index(s, map, index, err));
    *out = s;
    s = NULL;
out:
    sd_safetensors_close(s);
    json_decref(root);
    free(file);
    return st;
}

// A folder without safetensors most often has the weights in another form.
static sd_status refuse_other_forms(const char *folder, sd_error *err) {
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "consolidated.00.pth"};
    sd_status st = SD_OK;
    sd_path_kind kind;
    for (size_t i = 0; i < sizeof pickles / sizeof pickles[0]; i++) {
        SD_TRY(sd_path_look_in(&kind, folder, pickles[i], err));
        SD_CHECK(
            kind == SD_PATH_NONE, err, SD_EFORMAT,
            "%s/%s: pickled weights are not read because a pickle may run code; save the model "
            "as safetensors (transformers: save_pretrained(..., safe_serialization=True))",
            folder, pickles[i]);
    }
    st = sd_fail(err, SD_ENOTFOUND,
                 "%s: holds neither model.safetensors nor model.safetensors.index.json; download "
                 "the model's safetensors",
                 folder);
out:
    return st;
}

// model.safetensors goes before an index, as in transformers: the index beside it is a leftover of
// an earlier, sharded save.
sd_status sd_safetensors_open_folder(sd_safetensors **out, const char *folder, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    char *index = sd_path_join(folder, "model.safetensors.index.json"),
         *one = sd_path_join(folder, "model.safetensors");
    SD_CHECK_ALLOC(index, err);
    SD_CHECK_ALLOC(one, err);
    sd_path_kind single, shards;
    SD_TRY(sd_path_look(&single, one, err));
    SD_TRY(sd_path_look(&shards, index, err));
    if (single != SD_PATH_NONE)
        SD_TRY(sd_safetensors_open(out, one, err));
    else if (shards != SD_PATH_NONE)
        SD_TRY(open_shards(out, folder, index, err));
    else
        SD_TRY(refuse_other_forms(folder, err));
out:
    free(index);
    free(one);
    return st;
}

void sd_safetensors_forget(const sd_safetensors *s) {
    for (int i = 0; s && i < s->n_files; i++) sd_map_forget(&s->file[i].map);
}

sd_map *sd_safetensors_source(sd_safetensors *s, int i) {
    return i >= 0 && i < s->n_files ? &s->file[i].map : NULL;
}
const sd_map *sd_safetensors_map(const sd_safetensors *s, const void *p, size_t bytes) {
    for (int i = 0; s && i < s->n_files; i++)
        if (sd_map_holds(&s->file[i].map, p, bytes)) return &s->file[i].map;
    return NULL;
}

void sd_safetensors_close(sd_safetensors *s) {
    if (!s) return;
    for (int i = 0; i < s->n_files; i++) {
        sd_map_close(&s->file[i].map);
        free(s->file[i].path);
    }
    free(s->file);
    free(s->tensor);
    json_decref(s->metadata);
    sd_arena_free(&s->arena);
    free(s);
}

int sd_safetensors_count(const sd_safetensors *s) {
    return s->n;
}
const sd_st_tensor *sd_safetensors_at(const sd_safetensors *s, int i) {
    return i >= 0 && i < s->n ? &s->tensor[i] : NULL;
}
const sd_st_tensor *sd_safetensors_find(const sd_safetensors *s, const char *name) {
    sd_st_tensor key = {.name = name};
    return s->n ? bsearch(&key, s->tensor, (size_t)s->n, sizeof key, compare_names) : NULL;
}
int sd_safetensors_file_count(const sd_safetensors *s) {
    return s->n_files;
}
const char *sd_safetensors_file_at(const sd_safetensors *s, int i) {
    return i >= 0 && i < s->n_files ? s->file[i].path : NULL;
}
const char *sd_safetensors_metadata(const sd_safetensors *s, const char *key) {
    return json_string_value(json_object_get(s->metadata, key));
}

// ---- writing

// The type by which weights of a dtype are written; NULL: none.
static const element_type *type_of(sd_dtype dtype) {
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++)
        if (types[k].dtype == dtype && dtype != SD_ST_OTHER) return &types[k];
    return NULL;
}

static json_t *header_entry(const sd_st_tensor *t, const char *dtype, size_t offset) {
    json_t *shape = json_array();
    for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer(t->shape[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                     (json_int_t)offset, (json_int_t)(offset + t->bytes));
}

static sd_status make_header(char **text, const char *path, const sd_st_tensor *t, int n,
                             const json_t *metadata, sd_error *err) {
    sd_status st = SD_OK;
    size_t offset = 0;
    json_t *root = json_object();
    SD_CHECK_ALLOC(root, err);
    if (metadata && json_object_set(root, "__metadata__", (json_t *)(uintptr_t)metadata) != 0)
        SD_CHECK_ALLOC(NULL, err);
    for (int i = 0; i < n; i++) {
        const element_type *type = type_of(t[i].dtype);
        SD_CHECK(type, err, SD_EINVAL, "%s: tensor %s: only F32, F16 and BF16 can be written", path,
                 t[i].name);
        size_t want = type->bytes;
        for (int d = 0; d < t[i].n_dims; d++) want *= (size_t)t[i].shape[d];
        SD_CHECK(want == t[i].bytes, err, SD_EINVAL,
                 "%s: tensor %s: %zu bytes are not what its shape needs (%zu)", path, t[i].name,
                 t[i].bytes, want);
        SD_CHECK(json_object_set_new(root, t[i].name, header_entry(&t[i], type->name, offset)) == 0,
                 err, SD_ENOMEM, "%s: out of memory", path);
        offset += t[i].bytes;
    }
    SD_TRY(sd_json_dump(text, root, JSON_COMPACT, err));
out:
    json_decref(root);
    return st;
}

sd_status sd_safetensors_write(const char *path, const sd_st_tensor *t, int n,
                               const json_t *metadata, sd_error *err) {
    sd_status st = SD_OK;
    sd_replace r = {0};
    char *header = NULL;
    SD_TRY(make_header(&header, path, t, n, metadata, err));
    SD_TRY(sd_replace_open(&r, path, err));
    // Spaces bring the data to a multiple of 8, as readers that map it expect.
    uint64_t used = strlen(header), len = (used + 7) / 8 * 8;
    fwrite(&len, 8, 1, r.f);
    fwrite(header, 1, used, r.f);
    fwrite("       ", 1, len - used, r.f);
    for (int i = 0; i < n; i++)
        if (t[i].bytes) fwrite(t[i].data, 1, t[i].bytes, r.f);
    SD_TRY(sd_replace_commit(&r, err));
out:
    sd_replace_abort(&r);
    free(header);
    return st;
}
