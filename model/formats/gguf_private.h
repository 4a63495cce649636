// The opened file as the getters (gguf_access.c) and the reader above them (gguf.c) see it.
#pragma once

#include "base/memory.h"
#include "model/formats/gguf.h"

typedef struct {
    const char *key;
    sd_gguf_type type;
    sd_gguf_type elem;             // of an array
    const uint8_t *raw;            // the value as it stands in the file
    size_t raw_bytes;              // its length
    const uint8_t *data;           // a scalar, a string's characters, an array's first element
    size_t count;                  // a string's length, an array's elements
    const sd_gguf_string *strings; // [count] of an array of strings
} sd_gguf_entry;

struct sd_gguf {
    char *path;
    sd_map map; // zero when the bytes are the caller's
    const uint8_t *bytes;
    size_t size;
    sd_arena arena;
    int n_entries, n_tensors;
    sd_gguf_entry *entry;         // in the file's order
    sd_gguf_tensor *tensor;       // in the file's order
    const sd_gguf_entry **by_key; // sorted
    const sd_gguf_tensor **by_name;
    sd_gguf **part; // [n_parts] of a split model, this one first; NULL: a file by itself
    int n_parts;
};

/// For qsort of by_name.
int sd_gguf_compare_names(const void *a, const void *b);

const sd_gguf_entry *sd_gguf_entry_find(const sd_gguf *g, const char *key);
/// Bytes of one scalar; 0 for strings, arrays and unknown numbers.
size_t sd_gguf_scalar_bytes(uint32_t type);
