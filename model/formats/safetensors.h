// safetensors (huggingface/safetensors, format of the README): 8 bytes little-endian header length,
// JSON header, data.
//
// Reading validates the header against the file: types known, shapes times element size equal to
// the extent, and every byte of the data in exactly one tensor. A folder is read as transformers
// does: model.safetensors, else the shards of model.safetensors.index.json.
#pragma once

#include "base/files/map.h"
#include "kernels/tensor.h"

#include <jansson.h>

typedef struct sd_safetensors sd_safetensors;

#define SD_ST_OTHER ((sd_dtype)255)

typedef struct {
    const char *name;
    sd_dtype dtype; // F32, F16, BF16, or SD_ST_OTHER: the bytes can be had, but are no weights
    const char *dtype_name; // as in the file
    int n_dims;
    int64_t shape[4]; // row-major
    const void *data;
    size_t bytes;
} sd_st_tensor;

sd_status sd_safetensors_open(sd_safetensors **out, const char *path, sd_error *err); // one file
sd_status sd_safetensors_open_folder(sd_safetensors **out, const char *folder, sd_error *err);
sd_status sd_safetensors_from_memory(sd_safetensors **out, const void *data, size_t size,
                                     const char *name, sd_error *err);
void sd_safetensors_close(sd_safetensors *s);
void sd_safetensors_forget(const sd_safetensors *s); // sd_map_forget
/// The mapping of file i, which knows the file's state when it was opened and now.
sd_map *sd_safetensors_source(sd_safetensors *s, int i);
/// The map that holds these bytes; NULL when they are the caller's.
const sd_map *sd_safetensors_map(const sd_safetensors *s, const void *p, size_t bytes);
int sd_safetensors_count(const sd_safetensors *s);
const sd_st_tensor *sd_safetensors_at(const sd_safetensors *s, int i);
const sd_st_tensor *sd_safetensors_find(const sd_safetensors *s, const char *name);

/// The files behind it, in name order (one, or the shards of a folder): for hashing and `inspect`.
int sd_safetensors_file_count(const sd_safetensors *s);
const char *sd_safetensors_file_at(const sd_safetensors *s, int i);
/// A value of the header's __metadata__ of the first file that has the key; NULL when absent.
const char *sd_safetensors_metadata(const sd_safetensors *s, const char *key);

/// Writes one file atomically. data[i] belongs to t[i]; metadata: object of strings or NULL. Names
/// are written in the given order.
sd_status sd_safetensors_write(const char *path, const sd_st_tensor *t, int n,
                               const json_t *metadata, sd_error *err);
