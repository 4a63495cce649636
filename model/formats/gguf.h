// GGUF v2/v3 (ggml-org/ggml, docs/gguf.md): metadata and tensors of a mapped file, every byte
// distrusted.
//
// Opening validates everything before anything is believed: counts and lengths against the file's
// size, types, products of dimensions by checked arithmetic, offsets aligned, inside the file and
// not overlapping. Getters check the type of what they return.
//
// A split model (llama.cpp's llama-gguf-split) is several files NAME-00001-of-00003.gguf: the first
// has the metadata, each has tensors of its own. sd_gguf_open_whole makes one sd_gguf of them.
#pragma once

#include "base/files/map.h"
#include "base/memory.h"
#include "kernels/tensor.h"

#include <stdint.h>

typedef struct sd_gguf sd_gguf;

// One row per type of a value, by the number it has in the file: name, bytes of a scalar, the word
// for it.
#define SD_GGUF_TYPE_LIST(X)                                                                       \
    X(SD_GGUF_U8, 1, "u8")                                                                         \
    X(SD_GGUF_I8, 1, "i8")                                                                         \
    X(SD_GGUF_U16, 2, "u16")                                                                       \
    X(SD_GGUF_I16, 2, "i16")                                                                       \
    X(SD_GGUF_U32, 4, "u32")                                                                       \
    X(SD_GGUF_I32, 4, "i32")                                                                       \
    X(SD_GGUF_F32, 4, "f32")                                                                       \
    X(SD_GGUF_BOOL, 1, "a bool")                                                                   \
    X(SD_GGUF_STRING, 0, "a string")                                                               \
    X(SD_GGUF_ARRAY, 0, "an array")                                                                \
    X(SD_GGUF_U64, 8, "u64")                                                                       \
    X(SD_GGUF_I64, 8, "i64")                                                                       \
    X(SD_GGUF_F64, 8, "f64")

typedef enum {
#define SD_GGUF_TYPE_ENUM(name, bytes, word) name,
    SD_GGUF_TYPE_LIST(SD_GGUF_TYPE_ENUM)
#undef SD_GGUF_TYPE_ENUM
} sd_gguf_type;

typedef struct {
    const char *data; // not 0-terminated
    size_t len;
} sd_gguf_string;

typedef struct {
    const char *name;
    sd_dtype dtype;
    int n_dims;
    int64_t ne[4];    // ne[0] is the contiguous dimension: a matrix [M, K] has ne = {K, M}
    const void *data; // inside the mapping
    size_t bytes;
} sd_gguf_tensor;

/// One file by itself, whether or not it is a part.
sd_status sd_gguf_open(sd_gguf **out, const char *path, sd_error *err);
/// A file, or all parts of a split model by any of them: metadata of the first, tensors of all, in
/// their order. Parts that are missing, or that are not what the others say, are refused by name.
sd_status sd_gguf_open_whole(sd_gguf **out, const char *path, sd_error *err);
/// From bytes that the caller keeps alive (tests, fuzzing). name stands in error messages.
sd_status sd_gguf_from_memory(sd_gguf **out, const void *data, size_t size, const char *name,
                              sd_error *err);
void sd_gguf_close(sd_gguf *g);
void sd_gguf_forget(const sd_gguf *g); // sd_map_forget
/// Its files, one as a rule: the parts of a split model in order; none for bytes in memory.
int sd_gguf_file_count(const sd_gguf *g);
const char *sd_gguf_file_path(const sd_gguf *g, int i);
/// The mapping, which knows the file's state when it was opened and now.
sd_map *sd_gguf_file_map(sd_gguf *g, int i);
/// The map that holds these bytes; NULL when they are the caller's.
const sd_map *sd_gguf_map(const sd_gguf *g, const void *p, size_t bytes);
const char *sd_gguf_path(const sd_gguf *g); // of the first file

// Typed access. An absent key is SD_OK, leaves *out as it is and *has (may be NULL) false. A key
// that is there but holds no such value is SD_EFORMAT, with its type and value: a default in its
// place would be another model. Integers and floats of every width serve where they are exact; a
// 64-bit float is rounded to the nearest fp32.
sd_status sd_gguf_u32(const sd_gguf *g, const char *key, uint32_t *out, bool *has, sd_error *err);
sd_status sd_gguf_f32(const sd_gguf *g, const char *key, float *out, bool *has, sd_error *err);
sd_status sd_gguf_bool(const sd_gguf *g, const char *key, bool *out, bool *has, sd_error *err);
sd_status sd_gguf_str(const sd_gguf *g, const char *key, sd_gguf_string *out, bool *has,
                      sd_error *err);
/// A token's id; -1, in whatever width it is written, and an absent key give -1.
sd_status sd_gguf_token(const sd_gguf *g, const char *key, int32_t *out, sd_error *err);
bool sd_gguf_str_is(const sd_gguf *g, const char *key, const char *text);
bool sd_gguf_has_key(const sd_gguf *g, const char *key);
bool sd_gguf_is_array(const sd_gguf *g, const char *key);
/// Arrays: *n 0 when absent, SD_EFORMAT when it is something else. Elements are O(log keys).
sd_status sd_gguf_strings(const sd_gguf *g, const char *key, size_t *n, sd_error *err);
sd_status sd_gguf_integers(const sd_gguf *g, const char *key, size_t *n, sd_error *err);
sd_status sd_gguf_floats(const sd_gguf *g, const char *key, size_t *n, sd_error *err);
bool sd_gguf_array_str(const sd_gguf *g, const char *key, size_t i, sd_gguf_string *out);
bool sd_gguf_array_int(const sd_gguf *g, const char *key, size_t i, int64_t *out);
/// Floats of every width and whole numbers, rounded to fp32; NaN and infinities are given as they are.
bool sd_gguf_array_f32(const sd_gguf *g, const char *key, size_t i, float *out);
/// False when element i is neither true nor false.
bool sd_gguf_array_bool(const sd_gguf *g, const char *key, size_t i, bool *out);
size_t sd_gguf_array_size(const sd_gguf *g, const char *key); // 0: no array
/// A part of a split file is refused, with the way to join it: alone it is never whole.
sd_status sd_gguf_refuse_split(const sd_gguf *g, sd_error *err);
/// Is the key one that only says how a model is split?
bool sd_gguf_key_is_of_split(const char *key);

int sd_gguf_tensor_count(const sd_gguf *g);
const sd_gguf_tensor *sd_gguf_tensor_at(const sd_gguf *g, int i);
const sd_gguf_tensor *sd_gguf_tensor_find(const sd_gguf *g, const char *name); // NULL when absent

/// Metadata by position, for `inspect` and for copying: the key, its type and a printable value
/// (long arrays abbreviated).
int sd_gguf_key_count(const sd_gguf *g);
const char *sd_gguf_key_at(const sd_gguf *g, int i, sd_gguf_type *type);
bool sd_gguf_describe(const sd_gguf *g, int i, sd_buf *out);
/// The raw bytes of entry i's value as they stand in the file (for writing it again unchanged).
const void *sd_gguf_value_raw(const sd_gguf *g, int i, size_t *bytes);
